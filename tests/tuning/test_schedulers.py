"""What every scheduler promises, whatever its rule, and what each rule does on curves made by hand."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from policylab.errors import ConfigError
from policylab.tuning.backend import Task
from policylab.tuning.history import History, RunState
from policylab.tuning.landscape import ROW, LandscapeBackend, RowSearcher, landscape_study
from policylab.tuning.log import EventLog
from policylab.tuning.scheduler import SCHEDULERS, Horizon, Scheduler
from policylab.tuning.schedulers.hyperband import Hyperband
from policylab.tuning.schedulers.rungs import Bracket
from policylab.tuning.space import Space
from policylab.tuning.tune import tune

FULL = 10
EVERY: dict[str, Mapping[str, Any]] = {
    "fixed": {"kind": "fixed", "seeds": 1},
    "fixed on three seeds": {"kind": "fixed", "seeds": 3},
    "median (amt)": {"kind": "median", "min_trials": 1},
    "median (vizier)": {"kind": "median", "variant": "vizier"},
    "median (azure)": {"kind": "median", "variant": "azure", "grace": 0},
    "median (optuna)": {"kind": "median", "variant": "optuna", "every": 0.3},
    "hyperband": {"kind": "hyperband"},
    "hyperband (table, 2)": {"kind": "hyperband", "bracket_rule": "table", "eta": 2},
    "asha": {"kind": "asha"},
    "asha (3 brackets)": {"kind": "asha", "brackets_used": 3, "eta": 2},
    "race": {"kind": "race"},
    "population": {"kind": "population"},
    "population (2 seeds)": {"kind": "population", "seeds": 2, "every": 0.3, "quantile": 0.5},
}


def make(chosen: Mapping[str, Any], horizon: Horizon, *, n: int = 40) -> Scheduler:
    """Return a scheduler of a study over a table of ``n`` rows."""
    kind = SCHEDULERS.load(chosen["kind"])
    rows = Space.model_validate({"parameters": {ROW: {"kind": "categorical", "values": list(range(n))}}})
    scheduler: Scheduler = kind.make(kind.Settings(**chosen), dataclasses.replace(horizon, space=rows))
    return scheduler


def curves(seed: int, *, n: int = 40, n_seeds: int = 5, holes: float = 0.0) -> np.ndarray:
    """Return learning curves that approach a level of each configuration's own; ``holes`` of the runs fail."""
    rng = np.random.default_rng(seed)
    level = rng.standard_normal((n, 1, 1))
    growth = 1 - np.exp(-np.arange(1, FULL + 1) * rng.uniform(0.1, 1.0, (n, 1, 1)))
    values = level * growth + 0.3 * rng.standard_normal((n, n_seeds, 1)) + 0.1 * rng.standard_normal((n, n_seeds, FULL))
    failed = rng.random((n, n_seeds)) < holes
    values[failed, rng.integers(0, FULL, failed.sum())] = np.nan
    return values


each = pytest.mark.parametrize("chosen", EVERY.values(), ids=list(EVERY))


@pytest.mark.parametrize("kind", SCHEDULERS.names())
def test_every_scheduler_is_tested(kind: str) -> None:
    assert kind in {chosen["kind"] for chosen in EVERY.values()}


@each
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 60),
    trainings=st.integers(3, 40),
    rest=st.integers(0, FULL - 1),
    capacity=st.integers(1, 7),
    holes=st.sampled_from([0.0, 0.2, 1.0]),
)
def test_a_study_ends_within_its_budget(
    chosen: Mapping[str, Any], *, seed: int, n: int, trainings: int, rest: int, capacity: int, holes: float
) -> None:
    horizon = Horizon(max_resource=FULL, budget=trainings * FULL + rest, n_seeds=5)
    scheduler = make(chosen, horizon, n=n)
    pace = np.random.default_rng(seed).uniform(0.5, 5.0, n)
    backend = LandscapeBackend(curves(seed, n=n, holes=holes), capacity=capacity, pace=pace)
    study = landscape_study(backend, scheduler, seed=seed)
    study.run()
    history = study.history
    assert history.spent <= trainings * FULL + rest
    assert all(run.until <= FULL and run.seed < 5 for _, run in history.runs())
    best = scheduler.best(history)
    healthy = [trial.id for trial in history.trials.values() if not trial.failed]
    assert best in healthy if healthy else best is None
    if best is not None and not holes:
        assert history.trials[best].values_at(FULL), "the winner was trained in full"


@each
@pytest.mark.parametrize("capacity", [1, 4])
def test_replaying_the_log_gives_the_same_decisions(chosen: Mapping[str, Any], capacity: int) -> None:
    """Cut the log after any line, in the middle of an answer too: a new controller goes on as the first did."""
    horizon = Horizon(max_resource=FULL, budget=8 * FULL, n_seeds=5)
    values = curves(1, holes=0.05)
    pace = np.random.default_rng(1).uniform(0.5, 5.0, len(values))
    log = EventLog(None)
    landscape_study(LandscapeBackend(values, capacity=capacity, pace=pace), make(chosen, horizon), log=log).run()

    if capacity == 1:
        for cut in range(len(log.events)):
            continued = EventLog(None)
            continued.events = log.events[:cut]
            landscape_study(LandscapeBackend(values, pace=pace), make(chosen, horizon), log=continued).run()
            assert continued.events == log.events
    history, scheduler = History(max_resource=FULL), make(chosen, horizon)
    for _ in log.replay(history):
        pass
    again = EventLog(None)
    study = landscape_study(LandscapeBackend(values, capacity=capacity, pace=pace), scheduler, log=again)
    study.run()
    assert again.events == log.events
    assert scheduler.best(history) == scheduler.best(study.history)


@each
def test_nothing_trained_is_trained_again(chosen: Mapping[str, Any]) -> None:
    values = curves(2)
    scheduler = make(chosen, Horizon(max_resource=FULL, budget=50 * FULL, n_seeds=5))
    study = landscape_study(LandscapeBackend(values), scheduler)
    study.run()
    for trial, run in study.history.runs():
        row = trial.configuration["row"]
        assert list(run.curve) == list(range(1, run.resource + 1))
        own = [value for at, value in run.curve.items() if at > run.origin]
        assert own == values[row, run.seed, run.origin : run.resource].tolist()
    assert study.history.spent == sum(run.resource - run.origin for _, run in study.history.runs())


@each
def test_an_exhausted_searcher_ends_the_study(chosen: Mapping[str, Any]) -> None:
    for n in (0, 1, 2, 5):
        scheduler = make(chosen, Horizon(max_resource=FULL, budget=None, n_seeds=5, n_trials=max(1, n)))
        searcher = RowSearcher(range(n))
        study = landscape_study(LandscapeBackend(curves(3), capacity=3), scheduler, searcher=searcher)
        assert study.run() == "nothing left to try"
        assert study.history.proposed == n
        best = scheduler.best(study.history)
        assert (best is None) == (n == 0)
        if best is not None:
            assert study.history.trials[best].values_at(FULL), "the winner was trained in full"


@each
def test_a_clearly_best_configuration_wins(chosen: Mapping[str, Any]) -> None:
    values = curves(4)
    values[17] = 50.0 + np.arange(FULL)
    scheduler = make(chosen, Horizon(max_resource=FULL, budget=150 * FULL, n_seeds=5))
    study = landscape_study(LandscapeBackend(values, capacity=4), scheduler)
    study.run()
    best = scheduler.best(study.history)
    assert best is not None
    assert study.history.trials[best].configuration["row"] == 17


@each
def test_a_budget_below_one_training_is_refused(chosen: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"the budget must pay for at least .* got 7; raise limits.steps"):
        make(chosen, Horizon(max_resource=FULL, budget=7, n_seeds=5))


def test_more_seeds_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match="at most the number of tuning seeds, 2, got 3"):
        make(EVERY["fixed on three seeds"], Horizon(max_resource=FULL, budget=None, n_seeds=2))


# --- fixed


def test_fixed_pairs_every_configuration_on_the_same_seeds() -> None:
    scheduler = make({"kind": "fixed"}, Horizon(max_resource=FULL, budget=17 * FULL, n_seeds=3))
    study = landscape_study(LandscapeBackend(curves(5), capacity=4), scheduler)
    study.run()
    assert [sorted(trial.runs) for trial in study.history.trials.values()] == [[0, 1, 2]] * 5


# --- hyperband


@pytest.mark.parametrize(("rungs", "counts"), [((1, 3, 10), (9, 3, 1)), ((1, 2, 4, 8, 10), (16, 8, 4, 2, 1))])
def test_resuming_saves_exactly_what_arithmetic_says(rungs: tuple[int, ...], counts: tuple[int, ...]) -> None:
    bracket = Bracket(rungs, counts)
    eta = counts[0] // counts[1]
    scheduler = Hyperband(Horizon(max_resource=FULL, budget=bracket.cost, n_seeds=1), brackets=[bracket], eta=eta)
    study = landscape_study(LandscapeBackend(curves(6)), scheduler)
    study.run()
    assert study.history.spent == bracket.cost
    assert study.history.spent + study.history.saved == bracket.cost_of_retraining


def test_a_rung_is_ranked_only_when_all_of_it_has_ended() -> None:
    """One straggler holds the rung; meanwhile free places start the next bracket."""
    values = np.tile(np.arange(1.0, FULL + 1), (30, 1, 1)) * np.linspace(1, 2, 30)[:, None, None]
    pace = np.ones(30)
    pace[0] = 100.0
    log = EventLog(None)
    scheduler = Hyperband(
        Horizon(max_resource=FULL, budget=400, n_seeds=1), brackets=[Bracket((1, 3, FULL), (9, 3, 1))], eta=3
    )
    landscape_study(LandscapeBackend(values, capacity=3, pace=pace), scheduler, log=log).run()
    first_resume = next(i for i, event in enumerate(log.events) if event["event"] == "resume" and event["trial"] < 9)
    straggler_ends = next(i for i, event in enumerate(log.events) if event["event"] == "end" and event["trial"] == 0)
    assert straggler_ends < first_resume
    assert any(event["event"] == "start" and event["trial"] >= 9 for event in log.events[:straggler_ends])
    promoted = [event["trial"] for event in log.events if event["event"] == "resume" and event["trial"] < 9]
    assert promoted[:3] == [8, 7, 6]


def test_hyperband_says_why_a_configuration_stays_behind() -> None:
    bracket = Bracket((1, 3, FULL), (9, 3, 1))
    scheduler = Hyperband(Horizon(max_resource=FULL, budget=bracket.cost, n_seeds=1), brackets=[bracket], eta=3)
    study = landscape_study(LandscapeBackend(curves(7)), scheduler)
    study.run()
    reasons = [trial.stopped for trial in study.history.trials.values() if trial.stopped]
    assert sorted(reasons) == [*(f"rank {k} of 3 at 3" for k in (2, 3)), *(f"rank {k} of 9 at 1" for k in range(4, 10))]


def failing(n: int, *, at: int) -> np.ndarray:
    """Return curves of configurations that are the better the later they come; the last ``n`` of nine fail ``at``."""
    values = np.linspace(1, 2, 9)[:, None, None] * np.ones((9, 1, FULL))
    values[9 - n :, :, at:] = np.nan
    return values


@pytest.mark.parametrize("n_failing", range(9))
@pytest.mark.parametrize("capacity", [1, 3])
def test_who_fails_after_a_promotion_is_replaced_by_the_next_of_its_rung(n_failing: int, capacity: int) -> None:
    scheduler = Hyperband(
        Horizon(max_resource=FULL, budget=None, n_seeds=1, n_trials=9),
        brackets=[Bracket((1, 3, FULL), (9, 3, 1))],
        eta=3,
    )
    backend = LandscapeBackend(failing(n_failing, at=3), capacity=capacity)
    study = landscape_study(backend, scheduler, searcher=RowSearcher(range(9)))
    study.run()
    reached = [trial.runs[0].resource for trial in study.history.trials.values()]
    best = 8 - n_failing
    assert scheduler.best(study.history) == best
    assert reached[best] == FULL
    assert reached.count(3) == n_failing + min(2, best)
    assert all(trial.stopped or trial.failed for trial in study.history.trials.values() if trial.id != best)


@pytest.mark.parametrize("kind", ["hyperband", "asha"])
def test_who_fails_when_it_has_reported_takes_no_ones_place(kind: str) -> None:
    def objective(task: Task) -> Iterator[tuple[int, float]]:
        for step in range(task.resource + 1, task.until + 1):
            yield step, -task.configuration["x"]
        if task.configuration["x"] <= 3:
            raise OSError("cannot save")

    space = {"parameters": {"x": {"kind": "integer", "low": 1, "high": 9, "step": 1}}}
    result = tune(objective, space, searcher="grid", scheduler=kind, limits={}, max_resource=FULL)
    assert result.best.configuration == {"x": 4}
    promoted = [trial.configuration["x"] for trial in result.trials if trial.resource > 1]
    assert promoted == ([4, 5, 6] if kind == "hyperband" else [4, 5]), "one in three of nine, or of those that are left"


def test_hyperband_spends_what_failures_left_on_further_brackets() -> None:
    def objective(task: Task) -> Iterator[tuple[int, float]]:
        if task.configuration["x"] > 0.3:
            raise ValueError("refused at once")
        yield from ((step, task.configuration["x"]) for step in range(task.resource + 1, task.until + 1))

    space = {"parameters": {"x": {"kind": "continuous", "low": 0.0, "high": 1.0}}}
    settings = {"limits": {"steps": 300, "failures": 100}, "max_resource": FULL, "scheduler": "hyperband"}
    result = tune(objective, space, searcher="random", **settings)
    assert result.spent > 300 - FULL
    assert tune(objective, space, searcher="random", **settings, execution={"workers": 3}).spent > 300 - FULL


@pytest.mark.parametrize("kind", ["hyperband", "asha"])
def test_a_stopping_rule_is_refused_together_with_rungs(kind: str) -> None:
    with pytest.raises(ValidationError, match="early stopping must be off with hyperband and asha"):
        SCHEDULERS.load(kind).Settings(kind=kind, early_stopping="auto")


# --- asha


def test_asha_never_leaves_a_place_free() -> None:
    scheduler = make(EVERY["asha"], Horizon(max_resource=FULL, budget=None, n_seeds=1))
    pace = np.random.default_rng(8).uniform(1.0, 9.0, 60)
    backend = LandscapeBackend(curves(8, n=60), capacity=5, pace=pace)
    study = landscape_study(backend, scheduler)
    busy: list[int] = []
    study.run(observe=lambda history: busy.append(len(history.trials) if history.running < 4 else 0))
    assert not [n for n in busy if 5 < n < 55]


def test_asha_promotes_one_in_eta_of_each_rung() -> None:
    scheduler = make(EVERY["asha"], Horizon(max_resource=9, budget=None, n_seeds=1))
    values = np.linspace(1, 2, 27)[:, None, None] * np.ones((27, 1, 9))  # later rows are better: the hardest order
    study = landscape_study(LandscapeBackend(values), scheduler)
    study.run()
    reached = [run.resource for _, run in study.history.runs()]
    assert reached.count(1) + reached.count(3) + reached.count(9) == 27
    for rung, above in itertools.pairwise((1, 3, 9)):
        n_here, n_above = (sum(resource >= level for resource in reached) for level in (rung, above))
        assert n_here // 3 <= n_above
    assert reached[-1] == 9


def test_asha_deals_configurations_to_brackets_in_proportion() -> None:
    chosen = {"kind": "asha", "min_resource": 1 / 9, "brackets_used": 3}
    scheduler = make(chosen, Horizon(max_resource=9, budget=None, n_seeds=1))
    log = EventLog(None)
    searcher = RowSearcher(range(17))
    landscape_study(LandscapeBackend(curves(9)[:, :, :9]), scheduler, log=log, searcher=searcher).run()
    starts = [event["until"] for event in log.events if event["event"] == "start"]
    # Hyperband for R = 9, eta = 3 by the formula: widths 9, 5, 3 from rungs 1, 3, 9.
    assert starts == [1] * 9 + [3] * 5 + [9] * 3


def test_asha_has_no_more_brackets_than_there_are() -> None:
    chosen = {"kind": "asha", "min_resource": 1 / 9, "brackets_used": 4}
    with pytest.raises(ConfigError, match=r"brackets_used must be at most 3, the brackets .* got 4"):
        make(chosen, Horizon(max_resource=9, budget=None, n_seeds=1))


# --- failures


@each
def test_a_failed_run_is_neither_promoted_nor_chosen(chosen: Mapping[str, Any]) -> None:
    values = curves(10)
    values[7, :, 1:] = np.nan
    values[7, :, 0] = 1000.0
    scheduler = make(chosen, Horizon(max_resource=FULL, budget=60 * FULL, n_seeds=5))
    study = landscape_study(LandscapeBackend(values), scheduler)
    study.run()
    trial = study.history.trials[7]
    assert trial.runs[0].state in (RunState.FAILED, RunState.PAUSED, RunState.STOPPED)
    assert scheduler.best(study.history) != 7
    assert all(run.resource <= 1 for run in trial.runs.values())
