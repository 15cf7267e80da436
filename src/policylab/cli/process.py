"""``policylab process``: prepare a data set or evaluate a policy, here or as a SageMaker processing job."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policylab.cli.output import columns, emit

if TYPE_CHECKING:
    from policylab.launchers.sagemaker.processing_request import OutgoingProcess
    from policylab.launchers.sagemaker.settings import SageMakerSettings

LOOK_S = 15.0


def process(arguments: argparse.Namespace) -> int:
    """Carry out a description; with ``--launcher sagemaker`` as a processing job."""
    from policylab.experiments.processing.description import read_description

    own = tuple(one for one in arguments.overrides if not one.startswith("launcher."))
    task = read_description(Path(arguments.description), overrides=own)
    if "launcher.kind=sagemaker" not in arguments.overrides:
        from policylab.experiments.processing.execute import execute

        document = execute(task)
        emit(arguments, document, text=lambda: _text(document))
        return 0
    settings = _settings(arguments)
    outgoing = _outgoing(settings, task.model_dump(mode="json"))
    if arguments.dry_run:
        return _dry_run(arguments, outgoing)
    return _send(arguments, outgoing, settings=settings, output=Path(task.output))


def _text(document: dict[str, Any]) -> str:
    return columns([[name, str(value)] for name, value in document.items() if not isinstance(value, dict)])


def _settings(arguments: argparse.Namespace) -> SageMakerSettings:
    from policylab.config import Document, validate
    from policylab.experiments.project import with_project
    from policylab.launchers.sagemaker.settings import SageMakerSettings

    own = [one for one in arguments.overrides if one.startswith("launcher.")]
    empty = Document(data={}, places={}, source="launcher")
    found = with_project(empty, own)
    return validate(SageMakerSettings, Document(data=found.data["launcher"], places={}, source="launcher"))


def _outgoing(settings: SageMakerSettings, task: dict[str, Any]) -> OutgoingProcess:
    from policylab.launchers.sagemaker.processing_request import outgoing_process
    from policylab.launchers.sagemaker.source_bundle import build

    extras = settings.extras if settings.extras is not None else ("offline",)
    return outgoing_process(settings, task, bundle=build(extras=extras, include=list(map(Path, settings.include))))


def _dry_run(arguments: argparse.Namespace, outgoing: OutgoingProcess) -> int:
    from policylab.aws.service_model import structure_findings

    errors = [str(finding) for finding in structure_findings("CreateProcessingJob", outgoing.request)]
    document = {"request": outgoing.request, "errors": errors}
    emit(arguments, document, text=lambda: json.dumps(outgoing.request, indent=1))
    sys.stderr.write("".join(f"error: {error}\n" for error in errors))
    return 2 if errors else 0


def _send(
    arguments: argparse.Namespace, outgoing: OutgoingProcess, *, settings: SageMakerSettings, output: Path
) -> int:
    """Send the job, wait for its end and bring its output."""
    from policylab.aws.service_model import structure_findings
    from policylab.errors import RunError
    from policylab.findings import raise_errors
    from policylab.launchers.sagemaker.object_store import S3Store
    from policylab.launchers.sagemaker.service import ServiceRefusalError, client, patiently

    raise_errors(structure_findings("CreateProcessingJob", outgoing.request), about="CreateProcessingJob")
    service, store = client("sagemaker", region=settings.region), S3Store(client("s3", region=settings.region))
    outgoing.upload(store)
    try:
        patiently(service.create_processing_job, **outgoing.request)
    except ServiceRefusalError as refused:
        if refused.code != "ResourceInUse":  # the same job, sent before
            raise
    sys.stderr.write(f"processing job: {outgoing.name}\n")
    while True:
        record = patiently(service.describe_processing_job, ProcessingJobName=outgoing.name)
        status = record["ProcessingJobStatus"]
        if status in ("Completed", "Failed", "Stopped"):
            break
        time.sleep(LOOK_S)
    if status != "Completed":
        raise RunError(f"processing job {outgoing.name} {status.lower()}: {record.get('FailureReason') or 'no reason'}")
    if not store.list(f"{outgoing.output}/"):
        raise RunError(f"processing job {outgoing.name} completed, but left nothing in {outgoing.output}")
    store.download_folder(outgoing.output, output)
    document = {"job": outgoing.name, "output": str(output)}
    emit(arguments, document, text=lambda: _text(document))
    return 0
