"""The head of a job: it executes the run, alone decides how the job ends, and alone writes checkpoints and model."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Mapping
from typing import Any

from policylab.errors import StorageError
from policylab.launchers.sagemaker.container.failure import ExitCode, JobFailure
from policylab.launchers.sagemaker.container.joining import Inbox, next_event
from policylab.launchers.sagemaker.container.processes import reap_orphans
from policylab.launchers.sagemaker.container.ray_node import RayNode
from policylab.launchers.sagemaker.container.run import JobRun
from policylab.launchers.sagemaker.container.settings import ContainerSettings

AGAIN_S = 1.0
STOP: Mapping[str, Any] = {"event": "stop"}
"""Put into the inbox by SIGTERM."""

logger = logging.getLogger(__name__)


@dataclasses.dataclass(slots=True)
class Head:
    """Watches over a run until it ends.

    Attributes:
        run: the job's run.
        settings: of the container.
        inbox: receives the run's events, losses of hosts, and `STOP`.
        node: this host's part of the job's Ray cluster, if there is one.
    """

    run: JobRun
    settings: ContainerSettings
    inbox: Inbox
    node: RayNode | None = None
    _deadline: float | None = None
    _asked_at: float = -math.inf
    _killed: bool = False
    _loss: JobFailure | None = None

    def lead(self, environment: Mapping[str, str]) -> None:
        """Carry the run to its end, or to a stop.

        Args:
            environment: of the run's process, beside this one's.

        Raises:
            JobFailure: the run failed, or a host was lost.
            StorageError: a snapshot could not be written.
        """
        self.run.start(environment)
        while True:
            event = self._next()
            if event is not None and self._ends(event):
                return
            self.run.save_if_due()
            self._insist()

    def _next(self) -> dict[str, Any] | None:
        node = () if self.node is None else (self.node.pid,)
        reap_orphans([*self.run.pids, *node])
        if self.node is not None and self._deadline is None and (ended := self.node.poll()):
            self._lose(JobFailure(f"on the head, {ended}", code=ExitCode.RAY_FAILED))
        return next_event(self.inbox)

    def _ends(self, event: Mapping[str, Any]) -> bool:
        """Act on an event; return whether the job is over."""
        kind = event["event"]
        if kind == "progress":
            self.run.report()
        elif kind == "stop":
            self._stop("stopping: the run saves")
        elif kind == "lost" and self._deadline is None and self.settings.on_worker_loss == "continue":
            logger.warning("%s; the run goes on without it", event["reason"])
        elif kind == "lost" and self._deadline is None:
            self._lose(JobFailure(event["reason"], code=ExitCode.WORKER_LOST))
        elif kind in ("finished", "stopped", "failed"):
            self.run.report()
            self._save(failed=kind == "failed")
            self._conclude(event)
            return True
        return False

    def _save(self, *, failed: bool) -> None:
        try:
            self.run.save()
        except StorageError as error:
            if not failed:
                raise
            logger.error("what the run had saved last counts: %s", error)  # the first cause is the run's

    def _stop(self, reason: str) -> None:
        if self._deadline is None:
            logger.info(reason)
            self._deadline = time.monotonic() + self.settings.grace_s

    def _insist(self) -> None:
        """Ask a run to stop again, for it forgets what it was asked before it began; kill it after the grace."""
        now = time.monotonic()
        if self._deadline is not None and now >= self._deadline:
            logger.warning("the run did not stop within %g s and is killed", self.settings.grace_s)
            self.run.kill()
            self._killed, self._deadline = True, now + AGAIN_S
        elif self._deadline is not None and now - self._asked_at >= AGAIN_S:
            self._asked_at = now
            self.run.stop()

    def _lose(self, loss: JobFailure) -> None:
        self._loss = loss
        self._stop(f"{loss}: the run saves")

    def _conclude(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "finished":
            logger.info("finished")
        elif self._loss is not None:
            raise self._loss
        elif event["event"] == "failed" and not self._killed:
            raise JobFailure(event["error"], code=ExitCode.BAD_INPUT if event.get("user_error") else ExitCode.FAILED)
        else:
            logger.info("stopped after %s steps; saved", self.run.steps or 0)
