"""Runs as training jobs of SageMaker, one job for each piece of a run.

The name of a job follows from what it does, so a run that is submitted again, from whichever machine, finds its job. A
run that goes on from a checkpoint, by a promotion or after a stop, is a new job with the same checkpoint prefix.
Everything happens in the calling thread, while it waits.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import time
from pathlib import Path
from typing import Protocol, Self

from policylab.errors import PolicylabError, RunError
from policylab.files import read_lines
from policylab.launchers.launcher import Handle, Progress, State, tell_interrupt
from policylab.launchers.sagemaker.connection import Connection, connect
from policylab.launchers.sagemaker.dispatcher import Dispatcher, Placement, QuotaUsedUpError
from policylab.launchers.sagemaker.job_record import JobRecord
from policylab.launchers.sagemaker.ledger import Ledger
from policylab.launchers.sagemaker.outgoing import Outgoing, source_bundle
from policylab.launchers.sagemaker.prices import price_table
from policylab.launchers.sagemaker.run_files import REPORTS, RunFiles
from policylab.launchers.sagemaker.sender import sender_environment
from policylab.launchers.sagemaker.settings import SageMakerSettings
from policylab.launchers.sagemaker.source_bundle import SourceBundle
from policylab.runspec import ReportRow, RunSpec, read_model

logger = logging.getLogger(__name__)

CLOSE_S = 30.0
LOOKS_PER_S = 4.0
"""Most looks at jobs; when there are many, each is looked at less often."""

SLOWER = 1.5
"""How much longer the pause before the next look becomes when nothing has changed."""

FULL_PAUSE_S = 60.0
"""Pause after one more job was refused because a quota or the budget is used up."""

MAX_TROUBLES = 10
"""Attempts in a row for one run that may fail; each has repeated its calls for minutes."""

MISSING_LOOKS = 20
"""Looks at a job that the service does not know before it counts as lost."""


class Clock(Protocol):
    """The part of `time` that is used."""

    def monotonic(self) -> float:
        """Return seconds."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Wait."""
        ...


@dataclasses.dataclass(slots=True)
class _Job:
    """A run and the job that carries it on.

    Attributes:
        folder: of the run.
        outgoing: what is sent for it.
        files: its folder here and there.
        progress: where it stands.
        name: of the job that carries it.
        look_at: when it is looked at next.
        pause_s: how long between two looks.
        stopping: it is to stop.
        asked: it was asked to.
        leftover: its job will not do all of the work; another one goes on when it has ended.
        n_missing: looks in a row that did not find it.
        n_troubles: looks in a row that failed.
    """

    folder: Path
    outgoing: Outgoing
    files: RunFiles
    progress: Progress
    name: str = ""
    look_at: float = 0.0
    pause_s: float = 0.0
    stopping: bool = False
    asked: bool = False
    leftover: bool = False
    n_missing: int = 0
    n_troubles: int = 0


class SageMakerLauncher:
    """Training jobs; a context manager that stops them, but lets them go on when it is left by Ctrl-C.

    Args:
        settings: what the jobs have in common.
        connection: where they are sent.
        n_workers: most jobs at a time.
        folder: the run directory.
        clock: tells the time and waits.
    """

    Settings = SageMakerSettings

    def __init__(
        self, settings: SageMakerSettings, connection: Connection, *, n_workers: int, folder: Path, clock: Clock = time
    ) -> None:
        self._settings = settings.model_copy(
            update={"environment": {**sender_environment(folder), **settings.environment}}
        )
        self._connection = connection
        self._n_workers = n_workers
        self._clock = clock
        prices = price_table(Path(settings.price_table)) if settings.price_table else price_table()
        self._ledger = Ledger(folder, cap=settings.max_cost_usd)
        self._dispatcher = Dispatcher(connection, self._ledger, folder=folder, prices=prices)
        self._bundle: SourceBundle | None = None
        self._jobs: dict[Path, _Job] = {}
        self._waiting: list[_Job] = []
        self._running: list[_Job] = []
        self._full_until = 0.0
        self._draw = random.SystemRandom().random

    @classmethod
    def make(cls, settings: SageMakerSettings, *, n_workers: int, folder: Path) -> SageMakerLauncher:
        """Return the launcher that ``settings`` describe."""
        return cls(settings, connect(settings, folder=folder), n_workers=n_workers, folder=folder)

    def submit(self, folder: Path, *, n_failed: int = 0) -> Handle:
        """Check the run's request and queue it; SageMaker counts the attempts of a job by itself.

        Raises:
            ConfigError: everything that is wrong with it, one finding per line.
        """
        spec: RunSpec = read_model(RunSpec, folder / "spec.json")
        if self._bundle is None:
            self._bundle = source_bundle(self._settings, spec)
        outgoing = Outgoing.of(self._settings, spec, bundle=self._bundle)
        self._dispatcher.check(outgoing)
        files = RunFiles(self._connection.store, outgoing.prefix, folder=folder)
        self._jobs[folder] = job = _Job(folder, outgoing, files, Progress(State.WAITING))
        self._waiting.append(job)
        return Handle(folder)

    def poll(self, handle: Handle) -> Progress:
        """Return where the run stood when it was looked at last."""
        return self._jobs[handle.folder].progress

    def attach(self, folder: Path) -> Handle | None:
        """Return the handle of a run submitted to this launcher; jobs of earlier sessions are found by `submit`."""
        return Handle(folder) if folder in self._jobs else None

    def stop(self, handle: Handle) -> None:
        """Ask a run's job to save and stop; a waiting run is not sent."""
        job = self._jobs[handle.folder]
        if job in self._waiting:
            self._waiting.remove(job)
            job.progress = Progress(State.STOPPED, steps=job.progress.steps)
        elif not job.progress.state.ended and not job.stopping:
            job.stopping = True
            self._look_soon(job)
            self._ask_to_stop(job)

    def _ask_to_stop(self, job: _Job) -> None:
        try:
            self._dispatcher.stop(job.name)
            job.asked = True
        except RunError as error:  # it is asked again at the next look
            self._endure(job, error)

    def wait(self, *, timeout_s: float) -> None:
        """Send what waits and look at what runs, until something has changed or ``timeout_s`` seconds are over."""
        deadline = self._clock.monotonic() + timeout_s
        while not self._turn():
            now = self._clock.monotonic()
            if now >= deadline:
                return
            due = [job.look_at for job in self._running]
            due += [self._full_until] if self._waiting and self._full_until > now else []
            self._clock.sleep(max(0.0, min([deadline, *due]) - now))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt) and self._connection.outlives:
            self._connection.close()
        else:
            tell_interrupt(kind, n_runs=len(self._running), within_s=CLOSE_S)
            self.close(timeout_s=CLOSE_S)

    def close(self, *, timeout_s: float) -> None:
        """Ask every job to save and stop, and wait for that at most ``timeout_s``; what is left stops by itself."""
        try:
            for job in self._jobs.values():
                try:
                    self.stop(Handle(job.folder))
                except PolicylabError as error:
                    logger.warning("training job %s could not be stopped and goes on: %s", job.name, error)
            deadline = self._clock.monotonic() + timeout_s
            while self._running and self._clock.monotonic() < deadline:
                self.wait(timeout_s=deadline - self._clock.monotonic())
            for job in list(self._running):
                self._look(job)
        finally:
            self._connection.close()

    def _turn(self) -> bool:
        """Do what is due; return whether the progress of a run has changed."""
        changed = self._send_waiting()
        for job in list(self._running):
            if job.look_at <= self._clock.monotonic():
                before = job.progress
                self._look(job)
                changed = changed or job.progress != before
        return changed

    def _send_waiting(self) -> bool:
        n_before = len(self._waiting)
        while self._waiting and len(self._running) < self._n_workers and self._clock.monotonic() >= self._full_until:
            job = self._waiting[0]
            if not self._dispatcher.can_afford(job.outgoing):
                if not self._running:
                    self._dispatcher.settle(job.outgoing)
                    self._full_until = self._clock.monotonic() + FULL_PAUSE_S
                break
            placement = self._place(job)
            if placement is None:
                self._full_until = self._clock.monotonic() + FULL_PAUSE_S
                break
            job.name, job.leftover = placement.job, placement.leftover
            job.progress = Progress(State.RUNNING, steps=job.progress.steps)
            self._running.append(self._waiting.pop(0))
            self._look_soon(job)
        return len(self._waiting) < n_before

    def _place(self, job: _Job) -> Placement | None:
        """Have the run carried by a job, or return None where that has to wait."""
        try:
            placement = self._dispatcher.place(job.outgoing, job.files)
        except QuotaUsedUpError:
            return None
        except RunError as error:
            self._endure(job, error)
            return None
        job.n_troubles = 0
        return placement

    def _endure(self, job: _Job, error: RunError) -> None:
        """Wait for trouble of the service or the store that passes, but not for ever.

        Raises:
            RunError: it has not passed, or nothing has ever answered: that is a mistake in the settings.
        """
        job.n_troubles += 1
        if job.n_troubles > MAX_TROUBLES or not self._dispatcher.reached:
            raise error
        logger.warning("%s: %s; tried again", job.name or job.folder, error)

    def _look(self, job: _Job) -> None:
        """Bring a run up to date."""
        try:
            self._bring(job)
            job.n_troubles = 0
        except RunError as error:
            self._endure(job, error)
            self._look_at(job, self._connection.longest_pause_s)

    def _bring(self, job: _Job) -> None:
        if job.stopping and not job.asked:
            self._ask_to_stop(job)
        record = self._dispatcher.record(job.name)
        job.n_missing = job.n_missing + 1 if record is None else 0
        if record is not None and record.is_over:
            self._end(job, record)
        elif job.n_missing >= MISSING_LOOKS:
            reason = f"SageMaker no longer knows training job {job.name}; was it sent to another region?"
            self._running.remove(job)
            job.progress = dataclasses.replace(job.progress, state=State.FAILED, error=reason)
        elif job.files.follow():
            job.progress = _with_reports(job)
            self._look_soon(job)
        else:
            self._look_at(job, min(job.pause_s * SLOWER, self._connection.longest_pause_s))

    def _look_soon(self, job: _Job) -> None:
        self._look_at(job, self._connection.first_look_s)

    def _look_at(self, job: _Job, pause_s: float) -> None:
        """Look again after about ``pause_s``, but not so soon that all looks together are too many."""
        job.pause_s = pause_s
        spread = max(pause_s, len(self._running) / LOOKS_PER_S) * (0.75 + 0.5 * self._draw())
        job.look_at = self._clock.monotonic() + spread

    def _end(self, job: _Job, record: JobRecord) -> None:
        """Bring what the job left and say how the run stands; stopped is not success unless it was to stop."""
        is_done = job.files.pull()
        self._ledger.ended(record)
        self._running.remove(job)
        here = _with_reports(job)
        error = record.outcome
        if record.status == "Stopped" and job.stopping:
            job.progress = dataclasses.replace(here, state=State.STOPPED)
        elif job.leftover and not is_done:
            job.progress = dataclasses.replace(here, state=State.WAITING)
            self._waiting.insert(0, job)
        elif is_done and (record.status == "Completed" or job.leftover):
            job.progress = dataclasses.replace(here, state=State.FINISHED)
        else:
            if error is None:
                error = f"training job {record.name} completed, but left no result in {job.outgoing.prefix}"
            told = f"{error}; see {self._connection.logs.format(job=record.name)}"
            job.progress = dataclasses.replace(here, state=State.FAILED, error=told, user_error=_is_by_the_user(record))


def _with_reports(job: _Job) -> Progress:
    rows = read_lines(job.folder / REPORTS)
    if not rows:
        return job.progress
    last = ReportRow.model_validate(rows[-1])
    value = last.metrics.get("eval/return_mean", last.metrics.get("train/return_mean"))
    return Progress(State.RUNNING, steps=last.step, value=value)


def _is_by_the_user(record: JobRecord) -> bool:
    """Whether a job failed by what it was told: the service calls it ClientError, policylab's exit code is 2."""
    reason = record.reason or ""
    return reason.startswith("ClientError") or "exit code: 2" in reason.lower()
