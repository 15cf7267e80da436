"""What a study decides with one run at a time and with several: the same, or a function of the order of the results.

Schedulers that wait for the results they want decide the same at any parallelism. The others use what is there when a
place is free; their decisions follow from the log, in which results stand as they came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from policylab.experiments.search import BLIND, PATIENT
from policylab.tuning.backend import Job
from policylab.tuning.history import DECISIONS
from policylab.tuning.landscape import ROW, LandscapeBackend, landscape_study
from policylab.tuning.log import EventLog
from policylab.tuning.scheduler import SCHEDULERS, Horizon, Scheduler
from policylab.tuning.searcher import SEARCHERS, Searcher
from policylab.tuning.space import Space

FULL = 10
RNG = np.random.default_rng(3)
VALUES = RNG.standard_normal((40, 1, 1)) * np.linspace(0.3, 1.0, FULL) + 0.2 * RNG.standard_normal((40, 5, FULL))
ROWS = Space.model_validate({"parameters": {ROW: {"kind": "integer", "low": 0, "high": len(VALUES) - 1, "step": 1}}})
CAPACITIES = (1, 2, 5, 50)


class Recorded(LandscapeBackend):
    """Gives back the results of a log in the order in which they stand there, whatever is submitted."""

    def __init__(self, events: Sequence[Mapping[str, Any]], *, capacity: int) -> None:
        super().__init__(VALUES, capacity=capacity)
        self._events = [event for event in events if event["event"] not in ("study", "complete")]
        self._next = 0

    def submit(self, job: Job) -> None:
        """It is in the log how the job goes on."""

    def stop(self, trial: int, seed: int) -> None:
        """The same."""

    def wait(self) -> Sequence[Mapping[str, Any]]:
        """Return what came between one decision and the next."""
        while self._events[self._next]["event"] in DECISIONS:
            self._next += 1
        first = self._next
        while self._next < len(self._events) and self._events[self._next]["event"] not in DECISIONS:
            self._next += 1
        return self._events[first : self._next]


def scheduler_of(kind: str) -> Scheduler:
    loaded = SCHEDULERS.load(kind)
    horizon = Horizon(max_resource=FULL, budget=20 * FULL, n_seeds=5, space=ROWS)
    scheduler: Scheduler = loaded.make(loaded.Settings(), horizon)
    return scheduler


def searcher_of(kind: str) -> Searcher:
    loaded = SEARCHERS.load(kind)
    searcher: Searcher = loaded.make(loaded.Settings(), ROWS)
    return searcher


def run(
    chosen: str, searcher: str = "random", *, capacity: int, replayed: EventLog | None = None
) -> tuple[EventLog, int | None]:
    """Carry out a study; return its log and its winner. Some runs take ten times as long as others."""
    log, scheduler = EventLog(None), scheduler_of(chosen)
    pace = np.random.default_rng(capacity).uniform(0.5, 5.0, len(VALUES))
    backend = LandscapeBackend(VALUES, capacity=capacity, pace=pace)
    if replayed is not None:
        backend = Recorded(replayed.events, capacity=capacity)
    study = landscape_study(backend, scheduler, searcher=searcher_of(searcher), log=log, seed=7)
    study.run()
    return log, scheduler.best(study.history)


def decisions(log: EventLog) -> list[Mapping[str, Any]]:
    return [event for event in log.events if event["event"] in DECISIONS]


@pytest.mark.parametrize("searcher", BLIND)
@pytest.mark.parametrize("scheduler", PATIENT)
def test_who_waits_decides_the_same_at_any_parallelism(scheduler: str, searcher: str) -> None:
    """`hyperband` begins the next bracket meanwhile: the same decisions, in another order."""
    alone, winner = run(scheduler, searcher, capacity=1)
    for capacity in CAPACITIES[1:]:
        log, best = run(scheduler, searcher, capacity=capacity)
        assert sorted(map(repr, decisions(log))) == sorted(map(repr, decisions(alone)))
        assert best == winner
        if scheduler != "hyperband":
            assert decisions(log) == decisions(alone)


@pytest.mark.parametrize("scheduler", SCHEDULERS.names())
def test_what_is_decided_follows_from_the_log(scheduler: str) -> None:
    for capacity in CAPACITIES:
        log, winner = run(scheduler, capacity=capacity)
        again, best = run(scheduler, capacity=capacity, replayed=log)
        assert again.events == log.events
        assert best == winner


@pytest.mark.parametrize("searcher", SEARCHERS.names())
def test_what_is_proposed_follows_from_the_log(searcher: str) -> None:
    for scheduler in ("fixed", "asha"):
        log, winner = run(scheduler, searcher, capacity=4)
        again, best = run(scheduler, searcher, capacity=4, replayed=log)
        assert again.events == log.events
        assert best == winner
