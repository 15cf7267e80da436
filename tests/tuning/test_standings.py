"""Standings that follow a history are those one would make anew, whatever has happened in between."""

from __future__ import annotations

import math

import numpy as np
import pytest

from policylab.tuning.history import History, RunState
from policylab.tuning.landscape import LandscapeBackend, landscape_study
from policylab.tuning.log import EventLog
from policylab.tuning.scheduler import Horizon
from policylab.tuning.schedulers.race import Race, RaceSettings
from policylab.tuning.schedulers.scores import standing
from policylab.tuning.schedulers.standings import GUARD_PAIRS, Standings

LEVELS, FULL, N_SEEDS, WINDOW = (2, 5, 10), 10, 3, 0.3
HORIZON = Horizon(FULL, 50 * FULL, n_seeds=N_SEEDS)


@pytest.fixture(scope="module")
def log() -> EventLog:
    """Return the log of a race in which runs fail and trials are dropped."""
    rng, log = np.random.default_rng(0), EventLog(None)
    values = rng.standard_normal((80, 1, 1)) + 0.3 * rng.standard_normal((80, N_SEEDS, FULL))
    values[rng.random(values.shape) < 0.01] = np.nan
    backend = LandscapeBackend(values, capacity=4, pace=rng.uniform(0.5, 5.0, 80))
    scheduler = Race.make(RaceSettings(drop=0.1), HORIZON)
    landscape_study(backend, scheduler, log=log).run()
    assert {"add_seed", "stop"} <= {event["event"] for event in log.events}
    assert any(event.get("error") for event in log.events)
    return log


def applied(log: EventLog, n_events: int) -> History:
    history = History(max_resource=FULL)
    for event in log.events[:n_events]:
        history.apply(event)
    return history


def made() -> Standings:
    return Standings(LEVELS, seed=0, n_seeds=N_SEEDS, window=WINDOW)


def check(standings: Standings, history: History) -> None:
    """Compare with what the whole history says."""
    runs = {trial.id: trial.runs[0] for trial in history.trials.values()}
    result = {
        (number, level): standing(run.curve, until=level, window=WINDOW)
        for number, run in runs.items()
        for level in LEVELS
        if run.resource >= level
    }
    for level in LEVELS:
        here = {number: run for number, run in runs.items() if run.until == level}
        paused = [number for number, run in here.items() if run.state is RunState.PAUSED]
        assert standings.sent[level] == sum(run.until >= level for run in runs.values())
        assert standings.running[level] == sum(run.state is RunState.RUNNING for run in here.values())
        expected = sorted(paused, key=lambda number: result[number, level], reverse=True)
        assert [number for _, number in standings.waiting[level]] == expected
    for trial in history.trials.values():
        came = not trial.failed and (trial.id, FULL) in result
        for seed in range(N_SEEDS):
            trained = came and seed in trial.runs and trial.runs[seed].resource >= FULL
            assert math.isfinite(standings.finals[trial.id, seed]) == trained


def test_they_are_as_one_would_make_them_anew(log: EventLog) -> None:
    history, followed = History(max_resource=FULL), made()
    judged = 0
    for place, event in enumerate(log.events, start=1):
        history.apply(event)
        if place % 3:  # several events between two looks
            continue
        followed.follow(history)
        check(followed, history)
        fresh = made()
        fresh.follow(applied(log, place))
        for rung in range(len(LEVELS) - 1):
            assert followed.agreement(rung) == fresh.agreement(rung)
            judged += fresh.agreement(rung) < 1
        n_trials = len(history.trials)
        np.testing.assert_array_equal(followed.finals[:n_trials], fresh.finals[:n_trials])
    assert judged > GUARD_PAIRS


def test_results_are_not_worked_out_anew_for_each_decision(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(curve: dict[int, float], *, until: int, window: float) -> float:
        asked.append(until)
        return standing(curve, until=until, window=window)

    monkeypatch.setattr("policylab.tuning.schedulers.standings.standing", counted)
    history, scheduler = History(max_resource=FULL), Race.make(RaceSettings(drop=0.1), HORIZON)
    for event in log.events:
        history.apply(event)
        scheduler.best(history)
    n_runs = sum(1 for _ in history.runs())
    assert 0 < len(asked) <= (len(LEVELS) + 1) * n_runs, "once for each level, and once more at the end"
