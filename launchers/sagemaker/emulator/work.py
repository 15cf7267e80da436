"""`Work`: what the attempts of one job share, and the commands its hosts execute."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from policylab.launchers.sagemaker.emulator.cluster import Command
from policylab.launchers.sagemaker.emulator.hosts import Host, channels_of, input_mode
from policylab.launchers.sagemaker.emulator.metric_log import MetricLog
from policylab.launchers.sagemaker.emulator.orders import Orders
from policylab.launchers.sagemaker.emulator.record import JobRecord
from policylab.launchers.sagemaker.emulator.settings import EmulatorSettings
from policylab.launchers.sagemaker.object_store import ObjectStore


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt or a job ended: completed, failed, stop, max_runtime, max_wait, interrupt or fault."""

    kind: str
    reason: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the attempts of one job share.

    Attributes:
        folder: the job's.
        request: the CreateTrainingJob request.
        hosts: in the order of its lists.
        store: what stands for S3.
        settings: how jobs are executed.
        record: the job's.
        metrics: captured so far.
        orders: what it is told.
        notes: sentences for the person who reads the record.
    """

    folder: Path
    request: Mapping[str, Any]
    hosts: Sequence[Host]
    store: ObjectStore
    settings: EmulatorSettings
    record: JobRecord
    metrics: MetricLog
    orders: Orders
    notes: list[str]

    @property
    def logs(self) -> dict[str, Path]:
        """Host -> file with all it printed."""
        return {host.name: self.folder / "logs" / f"{host.name}.log" for host in self.hosts}

    def note(self, text: str) -> None:
        """Add a sentence, once."""
        if text not in self.notes:
            self.notes.append(text)


def commands(work: Work) -> dict[Host, Command]:
    """Return what each host executes."""
    request, algorithm = work.request, work.request["AlgorithmSpecification"]
    environment = {
        "AWS_REGION": work.settings.region,
        "TRAINING_JOB_NAME": request["TrainingJobName"],
        "TRAINING_JOB_ARN": work.record.data["TrainingJobArn"],
        **request.get("Environment", {}),
    }
    if request["ResourceConfig"].get("KeepAlivePeriodInSeconds"):
        environment["SAGEMAKER_MANAGED_WARMPOOL_CACHE_DIRECTORY"] = "/opt/ml/sagemaker/warmpoolcache"
    return {
        host: Command(
            argv=[*algorithm["ContainerEntrypoint"], *algorithm.get("ContainerArguments", [])],
            environment=environment,
            log=work.logs[host.name],
            read_only=[
                f"input/data/{channel['ChannelName']}"
                for channel in channels_of(request, host)
                if input_mode(request, channel) == "FastFile"
            ],
        )
        for host in work.hosts
    }
