"""Runs in this process, advanced together: for runs so short that to hand out one by one takes longer than the work.

A thread hands the runs that wait to an executor and takes what it tells of them. What a run does is the business of the
executor, which is named, not imported.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from pydantic import Field, model_validator

from policylab.attempts import Attempts
from policylab.launchers.launcher import SAVE_S, Handle, Progress, State, tell_interrupt, tell_unsaved

LOG = "workers.log"
EXECUTOR = "policylab.experiments.batch:Batch"

Event = tuple[Path, dict[str, Any]]
"""A run and what happened to it: an object of the table in `policylab.launchers.local`."""


class Executor(Protocol):
    """Advances runs together; one thread calls it."""

    def add(self, folders: Iterable[Path]) -> None:
        """Let runs join."""
        ...

    def advance(self, stopping: Callable[[], Collection[Path]]) -> Iterable[Event]:
        """Take every run a piece further; those that ``stopping`` names then save and stop."""
        ...


class InlineSettings(Attempts):
    """Run in this process: tabular runs, trained together by compiled code; others one after the other.

    What hangs or dies here takes the process with it, so only exceptions can be retried.
    """

    kind: Literal["inline"] = "inline"
    workers: int | None = Field(default=None, ge=1, le=1024, description="threads that train; default: one per core")
    batch: int = Field(
        default=256, ge=1, le=10_000,
        description="most runs that are trained together; a search that need not wait for results submits as many",
    )  # fmt: skip

    @model_validator(mode="after")
    def _fits_one_process(self) -> Self:
        if self.max_runtime_s is not None:
            raise ValueError("max_runtime_s needs processes that can be killed: use kind 'local'")
        if self.retries and not self.retry_errors:
            raise ValueError(
                "in one process nothing but exceptions can be retried: set retry_errors, or use kind 'local'"
            )
        return self

    @property
    def n_workers(self) -> int:
        """Threads that train: as set, else the cores this process may use."""
        return self.workers or len(os.sched_getaffinity(0))


class InlineLauncher:
    """Runs that are advanced together in this process; a context manager that lets them save and stop.

    Args:
        executor: opened by the thread that advances the runs.
        batch: how many runs are advanced together.
        attempts: how often a run that raised is tried again.
    """

    Settings = InlineSettings

    def __init__(
        self, executor: Callable[[], AbstractContextManager[Executor]], *, batch: int, attempts: Attempts | None = None
    ) -> None:
        self._executor = executor
        self._batch = batch
        self._attempts = attempts or Attempts()
        self._progress: dict[Path, Progress] = {}
        self._n_failed: dict[Path, int] = {}
        self._waiting: dict[Path, None] = {}
        self._stopping: set[Path] = set()
        self._lock = threading.Condition()
        self._changed = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    @classmethod
    def make(cls, settings: InlineSettings, *, n_workers: int, folder: Path) -> InlineLauncher:
        """Return the launcher that ``settings`` describe."""
        module, _, name = EXECUTOR.partition(":")
        executor = getattr(importlib.import_module(module), name)
        return cls(lambda: executor(n_threads=n_workers, log=folder / LOG), batch=settings.batch, attempts=settings)

    def submit(self, folder: Path, *, n_failed: int = 0) -> Handle:
        """Queue the run in ``folder``."""
        with self._lock:
            self._progress[folder] = Progress(State.WAITING)
            self._n_failed[folder] = n_failed
            self._waiting[folder] = None
            self._stopping.discard(folder)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, daemon=True)
                self._thread.start()
            self._lock.notify()
        return Handle(folder)

    def poll(self, handle: Handle) -> Progress:
        """Return where the run stands."""
        return self._progress[handle.folder]

    def stop(self, handle: Handle) -> None:
        """Ask a running run to save and stop; a waiting one is not started."""
        with self._lock:
            if handle.folder in self._waiting:
                self._end_waiting([handle.folder])
            else:
                self._stopping.add(handle.folder)

    def attach(self, folder: Path) -> Handle | None:
        """Return the handle of a run submitted to this launcher; its runs never outlive it."""
        return Handle(folder) if folder in self._progress else None

    def wait(self, *, timeout_s: float) -> None:
        """Return when a run's progress has changed since the last call, or after ``timeout_s`` seconds."""
        self._changed.wait(timeout_s)
        self._changed.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, left_by: type[BaseException] | None, *_: object) -> None:
        tell_interrupt(left_by, n_runs=len(self._under_way()), within_s=SAVE_S)
        self.close(timeout_s=SAVE_S)

    def close(self, *, timeout_s: float) -> None:
        """Let every run save and stop; give up waiting for that after ``timeout_s``: what hangs ends with the process.

        Raises:
            KeyboardInterrupt: it came while they saved.
        """
        with self._lock:
            self._closing = True
            self._end_waiting(list(self._waiting))
            self._lock.notify()
        if self._thread is not None:
            try:
                self._thread.join(timeout_s)
            finally:
                tell_unsaved(self._under_way())

    def _under_way(self) -> list[Path]:
        return [folder for folder, one in list(self._progress.items()) if one.state is State.RUNNING]

    def _end_waiting(self, folders: Iterable[Path]) -> None:
        for folder in folders:
            del self._waiting[folder]
            self._progress[folder] = Progress(State.STOPPED)
        self._changed.set()

    def _serve(self) -> None:
        active: set[Path] = set()
        try:
            with self._executor() as executor:
                while (fresh := self._take(active)) or active:
                    active.update(fresh)
                    executor.add(fresh)
                    self._tell(executor.advance(lambda: self._to_stop(active)), active)
        except Exception as error:  # a defect of the executor's must not leave runs under way for ever
            self._fail(f"{type(error).__name__}: {error}", active)

    def _take(self, active: Collection[Path]) -> list[Path]:
        """Return the runs that join now, waiting for one when none is active; none when the launcher closes."""
        with self._lock:
            while not (active or self._waiting or self._closing):
                self._lock.wait()
            fresh = list(self._waiting)[: self._batch - len(active)]
            for folder in fresh:
                del self._waiting[folder]
                self._progress[folder] = dataclasses.replace(self._progress[folder], state=State.RUNNING)
            return fresh

    def _to_stop(self, active: Collection[Path]) -> Collection[Path]:
        return active if self._closing else self._stopping

    def _tell(self, events: Iterable[Event], active: set[Path]) -> None:
        """Record what happened."""
        told = False
        for folder, event in events:
            last, told = self._progress[folder], True
            name = event["event"]
            if name == "progress":
                self._progress[folder] = dataclasses.replace(last, steps=event["steps"], value=event["value"])
                continue
            active.discard(folder)
            ended = dataclasses.replace(last, state=State(name), **_reason(event))
            if ended.state is not State.FAILED or not self._again(folder, ended):
                self._progress[folder] = ended
        if told:
            self._changed.set()

    def _again(self, folder: Path, failed: Progress) -> bool:
        """Queue a run that raised again, ahead of the others, if it may be; return whether."""
        assert failed.failure is not None
        with self._lock:
            self._n_failed[folder] += 1
            stopping = self._closing or folder in self._stopping
            if stopping or failed.user_error or not self._attempts.again(self._n_failed[folder], lost=False):
                return False
            self._waiting = {folder: None, **self._waiting}
            failures = (*failed.failures, failed.failure)
            self._progress[folder] = Progress(State.WAITING, steps=failed.steps, failures=failures)
            return True

    def _fail(self, reason: str, active: Collection[Path]) -> None:
        with self._lock:
            for folder in [*active, *self._waiting]:
                self._progress[folder] = Progress(State.FAILED, error=reason)
            self._waiting.clear()
            self._thread = None
        self._changed.set()


def _reason(event: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key != "event"}
