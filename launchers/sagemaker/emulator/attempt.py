"""`Attempt`: one start of a job's hosts, from the download of its inputs to the upload of what they leave."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from policylab.errors import StorageError
from policylab.launchers.sagemaker.emulator.artefacts import MAX_REASON, failure_reason, failure_text
from policylab.launchers.sagemaker.emulator.channels import DownloadError
from policylab.launchers.sagemaker.emulator.checkpoints import CheckpointSync
from policylab.launchers.sagemaker.emulator.cluster import Cluster
from policylab.launchers.sagemaker.emulator.inputs import Inputs
from policylab.launchers.sagemaker.emulator.record import now
from policylab.launchers.sagemaker.emulator.results import store_results
from policylab.launchers.sagemaker.emulator.work import Outcome, Work

_POLL_S = 0.05


class Attempt:
    """One start of all hosts.

    Args:
        work: the job's.
        cluster: new hosts, whose commands have not begun.
        limit: returns ``max_runtime`` or ``max_wait`` once that is reached.
    """

    def __init__(self, work: Work, cluster: Cluster, *, limit: Callable[[], str | None]) -> None:
        self._work = work
        self._cluster = cluster
        self._limit = limit
        self._trees = {host.name: cluster.ml(host.name) for host in work.hosts}
        self._checkpoints: CheckpointSync | None = None
        self._waiting: dict[str, float] = {}
        self._live: set[str] = set()
        self._lost: set[str] = set()
        self._codes: dict[str, int] = {}
        self._seconds: dict[str, float] = {}
        self._failed: tuple[str, float] | None = None
        self._reason: str | None = None
        self._kill_at: float | None = None
        self._next_sync = 0.0

    def run(self) -> Outcome:
        """Download, train, upload."""
        inputs = Inputs(self._work, self._trees)
        try:
            self._work.record.move("Downloading", "Downloading input data")
            inputs.bring(interface=self._cluster.interface)
            self._checkpoints = inputs.restore_checkpoints()
            outcome = self._train()
            self._look(lost=outcome.kind == "fault", ended=True)
        except (DownloadError, StorageError) as error:
            return Outcome("failed", f"ClientError: {error}")
        finally:
            inputs.close()
        if outcome.kind in ("interrupt", "fault"):
            return outcome
        return store_results(self._work, self._trees, outcome=outcome)

    def facts(self) -> dict[str, Any]:
        """Return what befell each host."""
        return {
            host: {
                "ExitCode": self._codes.get(host),
                "Seconds": self._seconds.get(host),
                "Killed": host in self._lost,
                "Failure": failure_text(self._trees[host])[:MAX_REASON] or None,
            }
            for host in sorted(self._trees)
        }

    def _train(self) -> Outcome:
        work = self._work
        work.record.data.setdefault("TrainingStartTime", now())
        work.record.move("Training", "Training image is running")
        work.orders.training_began()
        self._began = time.monotonic()
        for host in self._trees:
            delay = work.orders.delay_s(host)
            if delay is not None:
                self._waiting[host] = self._began + delay
        while self._live or self._waiting:
            self._start_due()
            for one in self._cluster.exits(timeout_s=_POLL_S):
                self._ended(one.host, code=one.code)
            self._trouble_hosts()
            self._follow()
            self._end_if_due()
        return self._outcome()

    def _start_due(self) -> None:
        for host in [host for host, at in self._waiting.items() if at <= time.monotonic()]:
            del self._waiting[host]
            self._cluster.start(host)
            self._live.add(host)

    def _ended(self, host: str, *, code: int) -> None:
        self._live.discard(host)
        self._codes[host] = code
        self._seconds[host] = round(time.monotonic() - self._began, 3)
        if code and self._failed is None and self._reason is None:
            self._failed = (host, time.monotonic())
            self._waiting.clear()

    def _trouble_hosts(self) -> None:
        for host in self._work.orders.hosts("unplug"):
            self._cluster.unplug(host)
        for host in self._work.orders.hosts("kill"):
            self._kill(host)

    def _kill(self, host: str) -> None:
        if host in self._live:
            self._lost.add(host)
            self._cluster.kill(host)

    def _end_if_due(self) -> None:
        """Begin to end the hosts when there is a reason, and kill those that outlive the grace."""
        if self._reason is None:
            self._reason = self._why_end()
            if self._reason is not None:
                self._begin_to_end(self._reason)
        if self._kill_at is not None and (time.monotonic() >= self._kill_at or self._work.orders.hurried()):
            self._kill_at = None
            for host in tuple(self._live):
                self._kill(host)

    def _why_end(self) -> str | None:
        orders = self._work.orders
        if self._failed is not None:
            over = time.monotonic() > self._failed[1] + self._work.settings.linger_s
            return "failed" if over or orders.stopped() else None
        if orders.stopped():
            return "stop"
        return next((kind for kind in ("fault", "interrupt") if orders.befalls(kind)), None) or self._limit()

    def _begin_to_end(self, reason: str) -> None:
        self._waiting.clear()
        if reason in ("stop", "max_runtime", "max_wait"):
            self._work.record.move("Stopping", "Stopping the training job", status="Stopping")
        if reason == "fault":
            self._kill_at = time.monotonic()
            return
        self._kill_at = time.monotonic() + self._work.settings.grace_s
        for host in self._live:
            self._cluster.term(host)

    def _follow(self) -> None:
        """Look at metrics and checkpoints, not too often; what cannot be uploaded now is tried again."""
        if time.monotonic() < self._next_sync:
            return
        try:
            self._look()
        except StorageError as error:
            self._work.note(f"checkpoints were uploaded late: {error}")
        self._next_sync = time.monotonic() + self._work.settings.sync_s

    def _look(self, *, lost: bool = False, ended: bool = False) -> None:
        """Read the logs, and upload the checkpoints of the hosts that are not lost."""
        self._work.metrics.scan(self._work.logs, ended=ended)
        if self._checkpoints is not None and not lost:
            self._checkpoints.upload(without=self._lost)
            for name in self._checkpoints.contested():
                self._work.note(f"checkpoint {name} was written by several hosts; only the last writer's is kept")

    def _outcome(self) -> Outcome:
        if self._failed is None and self._reason is not None:
            return Outcome(self._reason, "the emulator was told to let the service fail")
        if self._failed is not None:
            host, _ = self._failed
            texts = {name: failure_text(self._trees[name]) for name in (host, *sorted(self._trees))}
            text = next(filter(None, texts.values()), "")
            return Outcome("failed", failure_reason(text, code=self._codes[host]))
        return Outcome("completed") if self._codes else Outcome("fault", "no host ever started")
