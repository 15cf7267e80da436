"""``policylab process``: prepare a data set or evaluate a policy, here or as a SageMaker processing job."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policylab.cli.output import columns, emit
from policylab.errors import UserError

if TYPE_CHECKING:
    from policylab.findings import Finding
    from policylab.launchers.sagemaker.prices import Estimate
    from policylab.launchers.sagemaker.processing_request import OutgoingProcess
    from policylab.launchers.sagemaker.settings import SageMakerSettings


def process(arguments: argparse.Namespace) -> int:
    """Carry out a description; with ``--launcher sagemaker`` as a processing job."""
    from policylab.experiments.processing.description import read_description

    of_launcher = [one for one in arguments.overrides if one.startswith("launcher.")]
    own = tuple(one for one in arguments.overrides if one not in of_launcher)
    task = read_description(Path(arguments.description), overrides=own)
    if "launcher.kind=sagemaker" not in of_launcher:
        from policylab.experiments.processing.execute import execute

        if arguments.dry_run or of_launcher:
            given = "--dry-run" if arguments.dry_run else of_launcher[0]
            raise UserError(f"{given} is for a processing job; add --launcher sagemaker, or leave it out to work here")
        document = execute(task)
        emit(arguments, document, text=lambda: _text(document))
        return 0
    return _as_job(arguments, task.model_dump(mode="json"), output=Path(task.output))


def _text(document: dict[str, Any]) -> str:
    return columns([[name, str(value)] for name, value in document.items() if not isinstance(value, dict)])


def _settings(arguments: argparse.Namespace) -> SageMakerSettings:
    from policylab.config import Document, validate
    from policylab.experiments.project import with_project
    from policylab.launchers.sagemaker.settings import SageMakerSettings

    own = [one for one in arguments.overrides if one.startswith("launcher.")]
    empty = Document(data={}, places={}, source="launcher")
    found = with_project(empty, own)
    places = {path[1:]: place for path, place in found.places.items() if path[:1] == ("launcher",)}
    return validate(SageMakerSettings, Document(data=found.data["launcher"], places=places, source="launcher"))


def _as_job(arguments: argparse.Namespace, task: dict[str, Any], *, output: Path) -> int:
    """Print the request, or send it, wait for its end and bring its output."""
    from policylab.findings import raise_errors
    from policylab.launchers.sagemaker.prices import price_table
    from policylab.launchers.sagemaker.processing_jobs import OPERATION, process_cost, process_findings
    from policylab.launchers.sagemaker.processing_request import outgoing_process
    from policylab.launchers.sagemaker.source_bundle import build

    settings = _settings(arguments)
    extras = settings.extras if settings.extras is not None else ("offline",)
    bundle = build(extras=extras, include=list(map(Path, settings.include)))
    prices = price_table(Path(settings.price_table)) if settings.price_table else price_table()
    first = outgoing_process(settings, task, bundle=bundle)
    findings = process_findings(first, settings, prices=prices)
    cost = process_cost(first, prices)
    if arguments.dry_run:
        return _dry_run(arguments, first, findings=findings, cost=cost)
    _tell(raise_errors(findings, about=OPERATION))
    sys.stderr.write(_price(cost))
    job = _sent(
        settings, lambda attempt: outgoing_process(settings, task, bundle=bundle, attempt=attempt), output=output
    )
    document = {"job": job, "output": str(output)}
    emit(arguments, document, text=lambda: _text(document))
    return 0


def _dry_run(
    arguments: argparse.Namespace, outgoing: OutgoingProcess, *, findings: Sequence[Finding], cost: Estimate
) -> int:
    texts = {kind: [str(one) for one in findings if one.severity == kind] for kind in ("error", "warning")}
    price = {"per_hour": cost.per_hour, "most": cost.most, "basis": cost.basis}
    document = {
        "request": outgoing.request, "errors": texts["error"], "warnings": texts["warning"], "price": price,
    }  # fmt: skip
    emit(arguments, document, text=lambda: json.dumps(outgoing.request, indent=1))
    _tell(findings)
    sys.stderr.write(_price(cost))
    return 2 if texts["error"] else 0


def _tell(findings: Iterable[Finding]) -> None:
    sys.stderr.write("".join(f"{finding.severity}: {finding}\n" for finding in findings))


def _price(cost: Estimate) -> str:
    return f"price: at most {cost.most:.2f}; {cost.basis}\n"


def _sent(settings: SageMakerSettings, outgoing: Callable[[int], OutgoingProcess], *, output: Path) -> str:
    """Send a job and follow it; return its name when its output is here."""
    from policylab.launchers.sagemaker.object_store import S3Store
    from policylab.launchers.sagemaker.processing_jobs import follow, send
    from policylab.launchers.sagemaker.service import client

    service, store = client("sagemaker", region=settings.region), S3Store(client("s3", region=settings.region))
    job = send(service, store, outgoing=outgoing)
    sys.stderr.write(f"processing job: {job.name}\n")
    try:
        follow(service, store, outgoing=job)
    except KeyboardInterrupt:
        sys.stderr.write(f"processing job {job.name} goes on; the same command follows it again\n")
        raise
    store.download_folder(job.output, output)
    return job.name
