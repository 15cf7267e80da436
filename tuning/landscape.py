"""Tabulated learning curves as a backend: a study over them takes milliseconds, so that tuners can be compared.

    values[row, seed, k] = value of configuration ``row`` on ``seed`` after k + 1 of the table's checkpoints

The resource is counted in checkpoints, and going on from one costs the difference only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policylab.tuning.backend import Job
from policylab.tuning.decisions import Configuration
from policylab.tuning.history import History
from policylab.tuning.limits import Limits
from policylab.tuning.log import EventLog
from policylab.tuning.scheduler import Scheduler
from policylab.tuning.searcher import Searcher
from policylab.tuning.study import Study

ROW = "row"
"""The parameter of a tabulated configuration: its place in the table."""


class RowSearcher:
    """Proposes the rows of a table in the order given: random search over a pool, when the order is random."""

    def __init__(self, order: Sequence[int]) -> None:
        self._order = order

    def suggest(self, history: History, *, rng: np.random.Generator) -> Configuration | None:
        """Return the next row, or None after the last."""
        n_started = history.proposed
        return {ROW: int(self._order[n_started])} if n_started < len(self._order) else None


@dataclasses.dataclass(frozen=True, slots=True)
class Landscape:
    """Tabulated curves of one task, and where their configurations lie.

    Attributes:
        values: returns, larger is better, shape (n_configurations, n_seeds, n_checkpoints), all finite.
        points: the configurations on the unit cube, shape (n_configurations, d).
    """

    values: NDArray[np.float64]
    points: NDArray[np.float64]

    def regret(self, row: int, seeds: Sequence[int]) -> float:
        """Return how far configuration ``row`` is from the best one, at the end, on ``seeds``.

        0 is the best configuration's mean over all seeds, 1 the median configuration's.
        """
        finals = self.values[:, :, -1].mean(axis=1)
        best, median = float(finals.max()), float(np.median(finals))
        return (best - float(self.values[row, list(seeds), -1].mean())) / (best - median)


def quantiles(parameters: Mapping[str, NDArray[np.floating]]) -> NDArray[np.float64]:
    """Return configurations on the unit cube, each parameter by its mid-rank among them, shape (n, d).

    A NaN, where a parameter does not apply, lies in the middle; a parameter that never varies has no column.

    >>> quantiles({"rate": np.array([1e-4, 1e-2, np.nan]), "layers": np.array([2.0, 2.0, 2.0])}).tolist()
    [[0.25], [0.75], [0.5]]
    """
    columns = []
    for values in parameters.values():
        known = ~np.isnan(values)
        ordered = np.sort(values[known])
        if len(np.unique(ordered)) < 2 and known.all():
            continue
        column = np.full(len(values), 0.5)
        sides = [np.searchsorted(ordered, values[known], side) for side in ("left", "right")]
        column[known] = (sides[0] + sides[1]) / 2 / len(ordered)
        columns.append(column)
    return np.stack(columns, axis=1)


@dataclasses.dataclass(slots=True)
class _Work:
    """A job under way: its next report comes at virtual time ``due``."""

    job: Job
    resource: int
    due: float


class LandscapeBackend:
    """Plays recorded curves back in virtual time.

    Args:
        values: shape (n_configurations, n_seeds, n_checkpoints); NaN fails the run there.
        capacity: jobs under way at once. With one, the events of a job come together, as from `InlineBackend`.
        pace: virtual time of one checkpoint, per configuration; default 1. With unequal paces and some capacity,
            results come out of order.

    Attributes:
        now: the virtual time.
    """

    def __init__(
        self, values: NDArray[np.floating], *, capacity: int = 1, pace: NDArray[np.floating] | None = None
    ) -> None:
        self.capacity = capacity
        self.n_rows, _, self.max_resource = values.shape
        self._values = values
        self._pace = np.ones(len(values)) if pace is None else pace
        self._work: dict[tuple[int, int], _Work] = {}
        self.now = 0.0

    def submit(self, job: Job) -> None:
        """Begin a job at the present virtual time."""
        row = job.configuration[ROW]
        self._work[job.trial, job.seed] = _Work(job, job.resource, self.now + float(self._pace[row]))

    def stop(self, trial: int, seed: int) -> None:
        """End a job at the present virtual time; it reports nothing more."""
        work = self._work.get((trial, seed))
        if work is not None:
            work.due = -math.inf

    def wait(self) -> Sequence[Mapping[str, Any]]:
        """Return the events of the job whose next report is due first."""
        if not self._work:
            return []
        place = min(self._work, key=lambda key: (self._work[key].due, key))
        events = self._advance(self._work[place])
        while self.capacity == 1 and events[-1]["event"] != "end":
            events += self._advance(self._work[place])
        if events[-1]["event"] == "end":
            del self._work[place]
        return events

    def _advance(self, work: _Work) -> list[dict[str, Any]]:
        """Let one checkpoint pass, or end a job that was stopped or has nothing left to do."""
        job = work.job
        at = {"trial": job.trial, "seed": job.seed}
        if work.due == -math.inf or work.resource >= job.until:
            return [{"event": "end", **at, "error": None}]
        self.now = max(self.now, work.due)
        value = float(self._values[job.configuration[ROW], job.seed, work.resource])
        if math.isnan(value):
            return [{"event": "end", **at, "error": f"no value at checkpoint {work.resource + 1}"}]
        work.resource += 1
        work.due += float(self._pace[job.configuration[ROW]])
        report = {"event": "report", **at, "resource": work.resource, "value": value}
        return [report, {"event": "end", **at, "error": None}] if work.resource >= job.until else [report]


def landscape_study(
    backend: LandscapeBackend,
    scheduler: Scheduler,
    *,
    searcher: Searcher | None = None,
    log: EventLog | None = None,
    limits: Limits | None = None,
    seed: int = 0,
) -> Study:
    """Return a study over a table; its budget is the scheduler's.

    Args:
        backend: holds the table.
        scheduler: made for a `Horizon` in checkpoints.
        searcher: proposes rows; default: one after the other.
        log: default: one in memory.
        limits: further ones.
        seed: of the study.

    >>> from policylab.tuning.scheduler import Horizon
    >>> from policylab.tuning.schedulers.fixed import Fixed
    >>> values = np.arange(12.0).reshape(3, 2, 2)
    >>> scheduler = Fixed(Horizon(max_resource=2, budget=8, n_seeds=2), n_seeds=2)
    >>> study = landscape_study(LandscapeBackend(values), scheduler)
    >>> study.run(), study.history.spent, scheduler.best(study.history)
    ('nothing left to try', 8, 1)
    """
    return Study(
        searcher=searcher or RowSearcher(range(backend.n_rows)),
        scheduler=scheduler,
        backend=backend,
        log=log or EventLog(None),
        limits=limits or Limits(),
        max_resource=backend.max_resource,
        seed=seed,
    )
