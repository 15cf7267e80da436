"""`Job`: the life of one training job, from Starting to its end, with every interruption between.

    Starting -> Downloading -> Training -> Uploading -> Completed | Failed | Stopped
       ^                          |
       +------ Interrupted <------+       (spot; Restarting after a fault of the service, by RetryStrategy)

Source: DescribeTrainingJob, https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeTrainingJob.html
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from pathlib import Path
from typing import Any

from policylab.errors import PolicylabError
from policylab.files import write_atomic
from policylab.launchers.sagemaker.emulator.attempt import Attempt
from policylab.launchers.sagemaker.emulator.cluster import Cluster, ClusterLostError, decide
from policylab.launchers.sagemaker.emulator.record import now
from policylab.launchers.sagemaker.emulator.settings import unchecked
from policylab.launchers.sagemaker.emulator.work import Outcome, Work, commands

logger = logging.getLogger(__name__)

_POLL_S = 0.05
_ENDS = {
    "completed": ("Completed", "Completed", "Training job completed"),
    "failed": ("Failed", "Failed", "Training job failed"),
    "stop": ("Stopped", "Stopped", "Training job stopped"),
    "max_runtime": ("Stopped", "MaxRuntimeExceeded", "Training job runtime exceeded MaxRuntimeInSeconds"),
    "max_wait": ("Stopped", "MaxWaitTimeExceeded", "Training job exceeded MaxWaitTimeInSeconds"),
}


class Job:
    """Executes one request.

    Args:
        work: the request and what belongs to it.
        hidden: the emulator's root, which the hosts must not see.
    """

    def __init__(self, work: Work, *, hidden: Path) -> None:
        self._work = work
        self._hidden = hidden
        self._created = time.monotonic()
        self._spent_s = 0.0
        self._facts: dict[str, Any] = {"Attempts": [], "Notes": work.notes}

    def run(self) -> None:
        """Execute the job to its end; never raises for what the job does."""
        try:
            isolated, why = decide(self._work.settings.isolation)
            self._facts |= {
                "Isolation": "namespaces" if isolated else "processes",
                "IsolationReason": why,
                "NotChecked": unchecked(self._work.request, isolated=isolated, disk_mb=self._work.settings.disk_mb),
            }
            self._save_facts()
            outcome = self._attempts(isolated=isolated)
        except Exception as error:
            if not isinstance(error, PolicylabError | OSError):
                logger.exception("the emulator failed in job %s", self._work.folder.name)
            outcome = Outcome("failed", f"InternalServerError: {error}")
        self._finish(outcome)

    def _attempts(self, *, isolated: bool) -> Outcome:
        """Run until something other than an interruption ends the job."""
        record = self._work.record
        retries = self._work.request.get("RetryStrategy", {}).get("MaximumRetryAttempts", 0)
        while True:
            if (waited := self._ended_while_waiting()) is not None:
                return waited
            outcome = self._attempt(isolated=isolated)
            if outcome.kind == "interrupt":
                record.move("Interrupted", "Spot instances were interrupted; waiting for others")
            elif outcome.kind == "fault" and retries:
                retries -= 1
                record.move("Restarting", f"Starting again after a fault; {retries} retries left")
            elif outcome.kind == "fault":
                return Outcome("failed", f"InternalServerError: {outcome.reason}")
            else:
                return outcome
            until = time.monotonic() + self._work.settings.respawn_s
            while time.monotonic() < until:
                if (waited := self._ended_while_waiting()) is not None:
                    return waited
                time.sleep(_POLL_S)
            record.move("Starting", "Preparing the instances for training")

    def _ended_while_waiting(self) -> Outcome | None:
        if self._work.orders.stopped():
            return Outcome("stop")
        return Outcome("max_wait") if self._limit(0.0) == "max_wait" else None

    def _limit(self, attempt_s: float) -> str | None:
        """Return which time limit is reached, ``attempt_s`` seconds into an attempt."""
        condition = self._work.request["StoppingCondition"]
        if self._spent_s + attempt_s > condition.get("MaxRuntimeInSeconds", 86_400):
            return "max_runtime"
        wait = condition.get("MaxWaitTimeInSeconds")
        return "max_wait" if wait is not None and time.monotonic() - self._created > wait else None

    def _attempt(self, *, isolated: bool) -> Outcome:
        """Start every host anew, run, and bring home what belongs to the outcome."""
        work, begun = self._work, time.monotonic()
        folder = work.folder / "hosts"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        facts: dict[str, Any] = {}
        self._facts["Attempts"].append(facts)
        try:
            cluster = Cluster(
                folder, commands(work), isolated=isolated, hidden=self._hidden, disk_mb=work.settings.disk_mb
            )
            try:
                attempt = Attempt(work, cluster, limit=lambda: self._limit(time.monotonic() - begun))
                outcome = attempt.run()
                facts |= {"Ended": outcome.kind, "Hosts": attempt.facts()}
                return outcome
            finally:
                cluster.close()
        except ClusterLostError as error:
            facts |= {"Ended": "fault", "Reason": str(error)}
            return Outcome("fault", str(error))
        finally:
            facts["Seconds"] = round(time.monotonic() - begun, 3)
            self._spent_s += time.monotonic() - begun
            if not work.settings.keep:
                shutil.rmtree(folder, ignore_errors=True)
            self._save_facts()

    def _save_facts(self) -> None:
        write_atomic(self._work.folder / "emulation.json", json.dumps(self._facts, indent=1) + "\n")

    def _finish(self, outcome: Outcome) -> None:
        """Write the last state of the record."""
        status, secondary, message = _ENDS[outcome.kind]
        metrics = self._work.metrics
        for name in metrics.not_finite():
            self._work.note(f"the last value of {name} is not finite; FinalMetricDataList leaves it out")
        self._save_facts()
        seconds = math.ceil(self._spent_s)
        changes: dict[str, Any] = {
            "TrainingEndTime": now(),
            "TrainingTimeInSeconds": seconds,
            "BillableTimeInSeconds": seconds,
            "FinalMetricDataList": metrics.final(),
        }
        if outcome.reason and status == "Failed":
            changes["FailureReason"] = outcome.reason[:1024]
        self._work.record.move(secondary, outcome.reason or message, status=status, **changes)
