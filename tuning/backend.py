"""Where a study's runs execute, seen from the study: jobs go in, reports and ends come out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from policylab.attempts import Attempts, Failure
from policylab.errors import UserError
from policylab.files import copy_folder
from policylab.tuning.decisions import Configuration

Event: TypeAlias = Mapping[str, Any]
"""A line of the log: see `policylab.tuning.log`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Parent:
    """The trial that a fork goes on from, and the resource its checkpoint was taken at."""

    trial: int
    resource: int


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """A piece of one run: continue ``trial`` on ``seed`` from ``resource`` (0 is the start) to ``until``.

    A run with a ``parent`` that stands where the parent stood begins with a copy of the parent's checkpoint.
    ``n_failed`` attempts at the piece have failed before, in a session that was cut off since.
    """

    trial: int
    configuration: Configuration
    seed: int
    resource: int
    until: int
    parent: Parent | None = None
    n_failed: int = 0

    @property
    def begins_as_copy(self) -> bool:
        """Whether nothing of its own has been reported yet, so that it goes on from the parent's checkpoint."""
        return self.parent is not None and self.resource == self.parent.resource


class Backend(Protocol):
    """Executes jobs. Events are the log's ``report``, ``retry`` and ``end`` lines, without a decision among them."""

    capacity: int
    """How many jobs may be under way."""

    def submit(self, job: Job) -> None:
        """Begin a job; it goes on from the run's checkpoint where there is one.

        A parent's checkpoint is copied before any job that is submitted later begins: it may be the parent's own.
        """
        ...

    def stop(self, trial: int, seed: int) -> None:
        """Ask a job to end early; its ``end`` still comes."""
        ...

    def wait(self) -> Sequence[Event]:
        """Return the next events, waiting for at least one while a job is under way."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """What an objective is asked to do.

    Attributes:
        configuration: dotted parameter path -> value.
        seed: index of the tuning seed; equal indices mean equal randomness for every configuration.
        resource: resource already used; 0 on the first call.
        until: resource to reach.
        checkpoint: folder that belongs to this (configuration, seed): restore from it when ``resource`` > 0,
            save into it before returning. A call that was killed may have saved a later state than ``resource`` there,
            so put the resource into the name of what is saved. It may have been saved with another configuration (a
            fork of the `population` scheduler): the values to train with are those of ``configuration``.
    """

    configuration: Configuration
    seed: int
    resource: int
    until: int
    checkpoint: Path


Objective: TypeAlias = Callable[[Task], float | Iterable[tuple[int, float]]]
"""Trains from ``task.resource`` to ``task.until``; returns the final value, or yields (resource, value) reports."""


class Caller:
    """What calls an objective: its checkpoints, and the events that its answers are.

    Args:
        objective: called; what it raises ends a job, and no more than that.
        folder: holds the checkpoints, one folder per (trial, seed).
    """

    def __init__(self, objective: Objective, *, folder: Path) -> None:
        self._objective = objective
        self._folder = folder

    def inherit(self, job: Job) -> None:
        """Give a job that begins as a copy its parent's checkpoint."""
        if job.parent is not None and job.begins_as_copy:
            source = self._checkpoint(job.parent.trial, job.seed)
            if source.is_dir():
                copy_folder(source, self._checkpoint(job.trial, job.seed))

    def call(self, job: Job) -> Iterator[Event | Failure]:
        """Yield the job's reports as they come, then, unless it succeeded, why it failed."""
        checkpoint = self._checkpoint(job.trial, job.seed)
        task = Task(job.configuration, job.seed, job.resource, job.until, checkpoint)
        value = 0.0
        try:
            for resource, value in reports(self._objective(task), until=job.until):
                at = {"trial": job.trial, "seed": job.seed}
                yield {"event": "report", **at, "resource": resource, "value": value}
        except UserError as error:
            yield Failure(str(error))
        except Exception as error:  # the objective is foreign code
            yield Failure.of(error)
        else:
            if not math.isfinite(value):
                yield Failure(f"its last value is {'NaN' if math.isnan(value) else 'infinite'}")

    def _checkpoint(self, trial: int, seed: int) -> Path:
        return self._folder / f"{trial:06d}-{seed}"


class InlineBackend:
    """Calls an objective in this process, one job at a time: exact, and fast for small objectives.

    Args:
        objective: called.
        folder: holds the checkpoints.
        attempts: how often a job that raised is tried again.
    """

    capacity = 1

    def __init__(self, objective: Objective, *, folder: Path, attempts: Attempts | None = None) -> None:
        self._caller = Caller(objective, folder=folder)
        self._attempts = attempts or Attempts()
        self._job: Job | None = None
        self._stopping = False

    def submit(self, job: Job) -> None:
        """Keep the job for the next `wait`."""
        self._caller.inherit(job)
        self._stopping = False
        self._job = job

    def stop(self, trial: int, seed: int) -> None:
        """Try a job no more; one whose events were seen has ended, or waits for its next attempt."""
        self._stopping = True

    def wait(self) -> Sequence[Event]:
        """Execute the job once and return its events."""
        job, self._job = self._job, None
        if job is None:
            return []
        found: list[Event] = []
        failed = None
        for answer in () if self._stopping else self._caller.call(job):
            if isinstance(answer, Failure):
                failed = answer
            else:
                found.append(answer)
        if failed is not None and self._attempts.again(job.n_failed + 1, lost=False):
            self._job = dataclasses.replace(job, n_failed=job.n_failed + 1)
            return [retry_event(job, failed)]
        return [*found, end_event(job, failed)]


def end_event(job: Job, failed: Failure | None) -> Event:
    """Return the log's line about the end of a job."""
    return {"event": "end", "trial": job.trial, "seed": job.seed, **_reason(failed)}


def retry_event(job: Job, failed: Failure) -> Event:
    """Return the log's line about an attempt that failed and is followed by another."""
    return {"event": "retry", "trial": job.trial, "seed": job.seed, **_reason(failed)}


def _reason(failed: Failure | None) -> dict[str, str | None]:
    if failed is None or failed.traceback is None:
        return {"error": None if failed is None else failed.error}
    return dataclasses.asdict(failed)


def reports(answer: Any, *, until: int) -> Iterator[tuple[int, float]]:
    """Yield what an objective answered.

    Raises:
        UserError: it is neither a number nor (resource, value) reports.
    """
    if (value := _number(answer)) is not None:
        yield until, value
        return
    rule = "an objective returns its value, a number, or yields (resource, value)"
    if isinstance(answer, str) or not isinstance(answer, Iterable):
        raise UserError(f"{rule}, got {answer!r:.80}")
    for report in answer:
        pair = [_number(one) for one in report] if isinstance(report, Sequence) else []
        if len(pair) != 2 or pair[0] is None or pair[1] is None:
            raise UserError(f"{rule}, got {report!r:.80}")
        yield int(pair[0]), pair[1]


def _number(value: Any) -> float | None:
    """Return a number, an array or tensor of one, as a float; None for anything else."""
    if isinstance(value, str | bytes):
        return None
    try:
        return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, RuntimeError):  # the last from tensors of several
        return None
