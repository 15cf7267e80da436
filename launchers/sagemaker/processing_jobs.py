"""Processing jobs: checked and priced before they are sent, sent once, followed to their end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from policylab.aws.request_view import View
from policylab.aws.service_model import structure_findings
from policylab.errors import RunError, UserError
from policylab.findings import Finding
from policylab.launchers.sagemaker.object_store import ObjectStore
from policylab.launchers.sagemaker.preflight import price_findings
from policylab.launchers.sagemaker.prices import Estimate, PriceTable, estimate
from policylab.launchers.sagemaker.processing_request import OutgoingProcess
from policylab.launchers.sagemaker.service import ServiceRefusalError, patiently
from policylab.launchers.sagemaker.settings import SageMakerSettings
from policylab.launchers.sagemaker.training_rules import environment_findings

OPERATION = "CreateProcessingJob"
LOOK_S = 15.0
MAX_ATTEMPTS = 20
"""Jobs of the same work that may have failed before one is refused."""

UNUSED = ("instance_count", "instance_groups", "head_group", "spot", "keep_alive_s", "attempts", "channels")
"""Settings of training jobs that a processing job of ours has no use for."""


def process_cost(outgoing: OutgoingProcess, prices: PriceTable | None = None) -> Estimate:
    """Return what the job costs at most; machines cost the same for processing as for training."""
    request = outgoing.request
    cluster = request["ProcessingResources"]["ClusterConfig"]
    return estimate({"ResourceConfig": cluster, "StoppingCondition": request["StoppingCondition"]}, prices)


def process_findings(
    outgoing: OutgoingProcess, settings: SageMakerSettings, *, prices: PriceTable | None = None
) -> list[Finding]:
    """Return everything that is wrong with a processing job, and what of the settings it does not use.

    Raises:
        MissingExtraError: botocore is not installed.
        UserError: it is to be emulated.
    """
    if settings.emulate:
        raise UserError("processing jobs are not emulated; leave --launcher out, and the same description runs here")
    findings = [*environment_findings(View(outgoing.request)), *_unused(settings)]
    findings += price_findings(process_cost(outgoing, prices), cap=settings.max_cost_usd)
    explained = {finding.path for finding in findings if finding.severity == "error"}
    structure = structure_findings(OPERATION, outgoing.request)
    return findings + [finding for finding in structure if finding.path not in explained]


def _unused(settings: SageMakerSettings) -> Iterator[Finding]:
    for name in UNUSED:
        if name in settings.model_fields_set:
            rule = "a processing job of policylab has one machine, on demand, and no use for it"
            yield Finding(f"launcher.{name}", rule, getattr(settings, name), "it is left out", "warning")


def send(service: Any, store: ObjectStore, *, outgoing: Callable[[int], OutgoingProcess]) -> OutgoingProcess:
    """Upload and send a job, unless the same one is under way or completed; after a failed one, the next attempt.

    Args:
        service: ``boto3.client("sagemaker")``.
        store: of objects.
        outgoing: returns the job of an attempt, counted from 0.

    Raises:
        UserError, RunError, StorageError: AWS refuses or fails, or too many attempts have failed.
    """
    for attempt in range(MAX_ATTEMPTS):
        job = outgoing(attempt)
        job.upload(store)
        try:
            patiently(service.create_processing_job, **job.request)
        except ServiceRefusalError as refused:
            if refused.code != "ResourceInUse":
                raise
            if _described(service, job.name)["ProcessingJobStatus"] in ("Failed", "Stopped"):
                continue
        return job
    raise RunError(f"{MAX_ATTEMPTS} jobs of the same work have failed, the last one {job.name}; change the description")


def follow(service: Any, store: ObjectStore, *, outgoing: OutgoingProcess) -> None:
    """Wait until a job has ended and has left its output.

    Raises:
        RunError: it has not.
        UserError: AWS refuses.
    """
    name = outgoing.name
    while (record := _described(service, name))["ProcessingJobStatus"] not in ("Completed", "Failed", "Stopped"):
        time.sleep(LOOK_S)
    status = record["ProcessingJobStatus"]
    if status != "Completed":
        reason = record.get("FailureReason") or record.get("ExitMessage") or "no reason was given"
        raise RunError(f"processing job {name} {status.lower()}: {reason}; sent again, it is a new job")
    if not store.list(f"{outgoing.output}/"):
        raise RunError(f"processing job {name} completed, but left nothing in {outgoing.output}")


def _described(service: Any, name: str) -> dict[str, Any]:
    return patiently(service.describe_processing_job, ProcessingJobName=name)
