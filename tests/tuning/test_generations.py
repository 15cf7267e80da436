"""Generations: who is replaced, and that what is remembered of them is what their history says."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from policylab.tuning.decisions import Decision
from policylab.tuning.history import History, Run, RunState, Trial
from policylab.tuning.landscape import ROW, LandscapeBackend, landscape_study
from policylab.tuning.log import EventLog
from policylab.tuning.scheduler import Horizon, Propose, Scheduler
from policylab.tuning.schedulers.generations import rank
from policylab.tuning.schedulers.population import Population, PopulationSettings
from policylab.tuning.schedulers.race import Race, RaceSettings
from policylab.tuning.space import Space

FULL, N = 10, 40


def member(number: int, value: float | None) -> Trial:
    """Return a member with a value at the end of its generation, or one that failed before."""
    if value is None:
        return Trial(number, {}, {0: Run(0, FULL, state=RunState.FAILED)})
    return Trial(number, {}, {0: Run(0, FULL, state=RunState.PAUSED, curve={FULL: value})})


@pytest.mark.parametrize(
    ("values", "quantile", "winners", "worst"),
    [
        ([1, 2, 3, 4, 5, 6], 0.5, [5, 4, 3], [2, 1, 0]),
        ([1, 2, 3, 4, 5, None], 0.5, [4, 3, 2], [1, 0]),  # as many as there are below the winners
        ([1, 2, 3, 4, 5, 6, 7, None, None, None], 0.4, [6, 5, 4, 3], [2, 1, 0]),
        ([1, 2, None, None], 0.5, [1, 0], []),
        ([1, 2, 3, 4, 5, None], 0.2, [4], [0]),
    ],
)
def test_failures_do_not_spare_the_worst(
    values: Sequence[float | None], quantile: float, winners: list[int], worst: list[int]
) -> None:
    ranking = rank([member(number, value) for number, value in enumerate(values)], FULL, quantile=quantile)
    failed = [number for number, value in enumerate(values) if value is None]
    assert [trial.id for trial in ranking.winners] == winners
    assert [trial.id for trial in ranking.losers] == [*worst, *failed]
    assert {trial.id for trial in ranking.survivors} == set(range(len(values))) - {*worst, *failed}


class Doubted:
    """A scheduler of which every answer is compared with that of a new one, which has only the log to go by."""

    def __init__(self, make: Callable[[], Scheduler], log: EventLog) -> None:
        self._make, self._log, self._one = make, log, make()
        self.n_answers = 0

    def next(self, history: History, *, propose: Propose, rng: np.random.Generator) -> Sequence[Decision]:
        replayed, same = History(max_resource=FULL), copy.deepcopy(rng)
        for event in self._log.events:
            replayed.apply(event)
        answer = self._one.next(history, propose=propose, rng=rng)
        assert list(self._make().next(replayed, propose=propose, rng=same)) == list(answer)
        self.n_answers += 1
        return answer

    def best(self, history: History) -> int | None:
        return self._one.best(history)


def population() -> Population:
    space = Space.model_validate({"parameters": {ROW: {"kind": "integer", "low": 0, "high": N - 1}}})
    return Population.make(
        PopulationSettings(members=9, seeds=2, quantile=0.3, every=0.25), Horizon(FULL, None, 2, space=space)
    )


def race() -> Race:
    return Race.make(RaceSettings(drop=0.1), Horizon(FULL, 25 * FULL, 2))


@pytest.mark.parametrize("capacity", [1, 4])
@pytest.mark.parametrize("make", [population, race])
def test_what_is_remembered_decides_as_what_is_told(make: Callable[[], Any], capacity: int) -> None:
    rng, log = np.random.default_rng(2), EventLog(None)
    values = np.cumsum(rng.random((N, 2, FULL)) * rng.random((N, 1, 1)), axis=2)
    values[rng.random(values.shape) < 0.01] = np.nan
    scheduler = Doubted(make, log)
    backend = LandscapeBackend(values, capacity=capacity, pace=rng.uniform(0.5, 5.0, N))
    landscape_study(backend, scheduler, log=log).run()
    assert scheduler.n_answers > 50
    assert any(event.get("error") for event in log.events)
