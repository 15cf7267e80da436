"""Population-based training: what it decides, that steps add up, and the published example."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from policylab.errors import ConfigError
from policylab.files import write_atomic
from policylab.tuning import Horizon, Limits, Space, Study, Task, tune
from policylab.tuning.backend import InlineBackend
from policylab.tuning.decisions import Configuration
from policylab.tuning.explore import explore
from policylab.tuning.history import History, RunState
from policylab.tuning.landscape import ROW, LandscapeBackend, landscape_study
from policylab.tuning.log import EventLog
from policylab.tuning.schedulers.population import Population, PopulationSettings

FULL = 10


def population(*, n: int = 40, budget: int | None = None, n_seeds: int = 5, **chosen: Any) -> Population:
    """Return a population over the rows of a table."""
    space = Space.model_validate({"parameters": {ROW: {"kind": "integer", "low": 0, "high": n - 1}}})
    horizon = Horizon(max_resource=FULL, budget=budget, n_seeds=n_seeds, space=space)
    return Population.make(PopulationSettings(**chosen), horizon)


def curves(seed: int, *, n: int = 40, n_seeds: int = 5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.random((n, n_seeds, FULL)) * rng.random((n, 1, 1)), axis=2)


def decisions(log: EventLog) -> list[dict[str, Any]]:
    return [event for event in log.events if event["event"] not in ("report", "end")]


# --- exploit


def test_the_worst_fifth_goes_on_as_copies_of_the_best_fifth() -> None:
    values = np.tile(np.arange(1.0, FULL + 1), (10, 1, 1)) * np.arange(1, 11)[:, None, None]  # later rows are better
    log = EventLog(None)
    scheduler = population(n=10, members=10, every=0.5)
    study = landscape_study(LandscapeBackend(values), scheduler, log=log)
    study.run()
    forks = [event for event in log.events if event["event"] == "fork"]
    stops = [event for event in log.events if event["event"] == "stop"]
    assert [stop["trial"] for stop in stops] == [1, 0]
    assert stops[0]["reason"] == f"rank 9 of 10 at 5: a copy of trial {forks[0]['parent']} takes its place"
    assert {fork["parent"] for fork in forks} <= {8, 9}
    assert [(fork["origin"], fork["until"]) for fork in forks] == [(5, FULL)] * 2
    kinds = [event["event"] for event in decisions(log)]
    assert kinds == ["start"] * 10 + ["stop", "fork"] * 2 + ["resume"] * 8 + ["complete"], "copies before continuations"
    assert study.history.spent == 10 * FULL
    assert study.history.saved == 2 * 5, "copies begin with what others were trained; who goes on was only looked at"


def test_members_as_good_as_the_winners_are_left_alone() -> None:
    """Before anything is learned all values are equal: a copy would cost variety and gain nothing."""
    values = np.zeros((10, 1, FULL))
    values[3, 0, -1] = 1.0
    scheduler = population(n=10, members=10)
    study = landscape_study(LandscapeBackend(values), scheduler)
    study.run()
    assert len(study.history.trials) == 10
    assert scheduler.best(study.history) == 3


def test_a_member_that_fails_is_replaced_wherever_it_ranks() -> None:
    values = curves(0, n=10)
    values[:4, :, 2] = np.nan
    scheduler = population(n=10, members=10, resample=0.0)
    study = landscape_study(LandscapeBackend(values), scheduler)
    study.run()
    history = study.history
    assert sum(run.resource == FULL for _, run in history.runs()) >= 6
    failed = [trial.id for trial in history.trials.values() if trial.failed]
    assert failed
    assert scheduler.best(history) not in failed
    at_three = [trial for trial in history.trials.values() if trial.origin == 3]
    assert len(at_three) >= 4, "every failed member has a successor"


def test_nobody_left_ends_the_study() -> None:
    values = np.full((5, 1, FULL), np.nan)
    values[:, :, 0] = 1.0
    scheduler = population(n=5, members=5)
    study = landscape_study(LandscapeBackend(values), scheduler)
    assert study.run() == "nothing left to try"
    assert scheduler.best(study.history) is None


def test_members_are_judged_by_their_mean_over_the_seeds() -> None:
    values = np.ones((4, 2, FULL)) * np.array([[5.0, -5.0], [1.0, 1.0], [2.0, 2.0], [0.5, 0.5]])[:, :, None]
    log = EventLog(None)
    scheduler = population(n=4, members=4, seeds=2, every=0.5, quantile=0.25)
    study = landscape_study(LandscapeBackend(values), scheduler, log=log)
    study.run()
    forks = [event for event in log.events if event["event"] == "fork"]
    assert [stop["trial"] for stop in log.events if stop["event"] == "stop"] == [0], "a mean of 0 is the lowest"
    assert [(fork["trial"], fork["parent"], fork["seed"]) for fork in forks] == [(4, 2, 0), (4, 2, 1)]


# --- explore


SPACE = Space.model_validate(
    {
        "parameters": {
            "rate": {"kind": "continuous", "low": 0.001, "high": 1.0},
            "discount": {"kind": "continuous", "low": 0.9, "high": 0.999, "scaling": "reverse_logarithmic"},
            "n": {"kind": "integer", "low": 1, "high": 8},
            "size": {"kind": "continuous", "low": 0.1, "high": 0.5, "step": 0.1},
            "kind": {"kind": "categorical", "values": ["a", "b", "c"]},
            "clip": {"kind": "categorical", "values": [None, 0.5, 1.0]},
            "only_a": {"kind": "continuous", "low": 0.0, "high": 1.0, "when": {"kind": "a"}},
        },
        "constraints": [{"left": "rate", "op": "<", "right": "size"}],
    }
)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32), resample=st.sampled_from([0.0, 0.3, 1.0]), paths=st.sets(st.sampled_from(SPACE.paths))
)
def test_what_is_explored_lies_in_the_space_and_the_rest_is_inherited(
    seed: int, resample: float, paths: set[str]
) -> None:
    rng = np.random.default_rng(seed)
    before = SPACE.sample(rng)
    after = explore(SPACE, before, paths=paths, factors=(0.8, 1.2), resample=resample, rng=rng)
    assert SPACE.contains(after)
    for path in set(SPACE.paths) - paths:
        if path in before and path in after:
            assert after[path] == before[path]


def near(before: Configuration, path: str, factors: tuple[float, float] = (0.8, 1.2)) -> set[Any]:
    rng = np.random.default_rng(0)
    drawn = (explore(SPACE, before, paths=[path], factors=factors, resample=0.0, rng=rng) for _ in range(50))
    return {after[path] for after in drawn}


def test_numbers_move_by_a_factor_and_categories_stay() -> None:
    before = {"rate": 0.05, "discount": 0.99, "n": 2, "size": 0.3, "kind": "b"}
    assert near(before, "rate") == {0.05 * 0.8, 0.05 * 1.2}
    assert sorted(near(before, "discount")) == pytest.approx([0.988, 0.992]), "its distance to 1 moves"
    assert near(before, "n") == {1, 3}, "by one at least"
    assert near(before, "size") == {0.2, 0.4}, "by one step at least"
    assert near(before, "kind") == {"b"}
    assert near({**before, "n": 8}, "n") == {6, 8}, "never out of the range"


# --- the whole study


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    members=st.integers(2, 15),
    every=st.sampled_from([0.1, 0.25, 0.3, 0.7]),
    quantile=st.sampled_from([0.1, 0.2, 0.5]),
    seeds=st.integers(1, 3),
    capacity=st.integers(1, 6),
)
def test_steps_add_up(seed: int, members: int, every: float, quantile: float, seeds: int, capacity: int) -> None:
    """Forks cost only what they add: every place of the population uses exactly one full training per seed."""
    scheduler = population(members=members, every=every, quantile=quantile, seeds=seeds, budget=FULL * members * seeds)
    pace = np.random.default_rng(seed).uniform(0.5, 5.0, 40)
    study = landscape_study(LandscapeBackend(curves(seed), capacity=capacity, pace=pace), scheduler, seed=seed)
    study.run()
    history = study.history
    assert history.spent == sum(run.resource - run.origin for _, run in history.runs()) == members * seeds * FULL
    best = scheduler.best(history)
    assert best is not None
    stages = history.schedule(best)
    ends = [stage.until for stage in stages[:-1]] + [FULL]
    assert ends == sorted(set(ends)), "stages follow one another"
    assert stages[-1].until is None
    trained = 0
    for member, following in zip(history.lineage(best), [*history.lineage(best)[1:], None], strict=True):
        end = FULL if following is None else following.origin
        assert member.origin == trained
        trained = end
    assert trained == FULL


@pytest.mark.parametrize("seeds", [1, 2])
def test_decisions_are_the_same_at_any_parallelism(seeds: int) -> None:
    found = []
    for capacity in (1, 2, 5, 50):
        log = EventLog(None)
        pace = np.random.default_rng(capacity).uniform(0.5, 5.0, 40)
        backend = LandscapeBackend(curves(3), capacity=capacity, pace=pace)
        landscape_study(backend, population(members=12, seeds=seeds, quantile=0.3), log=log, seed=7).run()
        found.append(decisions(log))
    assert any(event["event"] == "fork" for event in found[0])
    assert found[1:] == found[:1] * 3


def test_a_fork_has_the_curve_it_inherited_and_costs_what_it_adds() -> None:
    history = History(max_resource=FULL)
    start = {"event": "start", "trial": 0, "configuration": {"x": 1}, "seed": 0, "until": 4, "reason": ""}
    fork = {"event": "fork", "trial": 1, "configuration": {"x": 2}, "seed": 0, "until": 8, "parent": 0, "origin": 4}
    events = [
        start,
        {"event": "report", "trial": 0, "seed": 0, "resource": 2, "value": 0.5},
        {"event": "report", "trial": 0, "seed": 0, "resource": 4, "value": 0.7},
        {"event": "end", "trial": 0, "seed": 0, "error": None},
        {**fork, "reason": ""},
        {"event": "resume", "trial": 0, "seed": 0, "until": 8, "reason": ""},
        {"event": "report", "trial": 0, "seed": 0, "resource": 8, "value": 0.8},
        {"event": "report", "trial": 1, "seed": 0, "resource": 8, "value": 0.9},
    ]
    for event in events:
        history.apply(event)
    run = history.trials[1].runs[0]
    assert run.curve == {2: 0.5, 4: 0.7, 8: 0.9}
    assert run.averages[8] == pytest.approx(0.7)
    assert history.spent == 4 + 4 + 4
    assert history.proposed == 1
    assert [(stage.until, stage.configuration) for stage in history.schedule(1)] == [(4, {"x": 1}), (None, {"x": 2})]
    assert run.state is RunState.RUNNING


def test_cut_off_at_any_of_many_points_it_decides_the_same() -> None:
    """Several members are under way when the controller is killed; afterwards they run at another pace."""
    rng = np.random.default_rng(11)
    paces = rng.uniform(0.5, 5.0, (60, 40))

    def run(pace: np.ndarray, log: EventLog) -> list[dict[str, Any]]:
        backend = LandscapeBackend(curves(3), capacity=4, pace=pace)
        landscape_study(backend, population(members=8, seeds=2, quantile=0.3), log=log, seed=7).run()
        return decisions(log)

    whole = EventLog(None)
    expected = run(paces[0], whole)
    for pace, cut in zip(paces, rng.choice(len(whole.events), size=60, replace=False), strict=True):
        log = EventLog(None)
        log.events = whole.events[:cut]
        assert run(pace, log) == expected, cut


# --- refusals


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"members": 5, "budget": 4 * FULL}, "the budget must pay for at least 5 full trainings, 50 in all, got 40"),
        ({"members": 5, "seeds": 6}, "scheduler.seeds must be at most the number of tuning seeds, 5, got 6"),
        ({"explore": ["raw"]}, "scheduler.explore: 'raw' is not in the search space; did you mean 'row'"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        population(**chosen)


def test_fewer_configurations_than_members_are_refused() -> None:
    horizon = Horizon(max_resource=FULL, budget=None, n_seeds=1, n_trials=4, space=SPACE)
    with pytest.raises(ConfigError, match=r"scheduler.members is 8, but limits.trials allows 4 configurations"):
        Population.make(PopulationSettings(members=8), horizon)


def test_factors_that_do_not_differ_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"factors must be one below 1 and one above, .* got \[1.1, 1.2\]"):
        PopulationSettings(factors=(1.1, 1.2))


# --- any callable


def quadratic(task: Task) -> Iterator[tuple[int, float]]:
    """Jaderberg et al. 2017, section 4.4, figure 2: learn θ on a surrogate whose hyperparameters are its slopes.

    Q(θ) = 1.2 - (θ0² + θ1²) is what counts, Q̂(θ) = 1.2 - (h0 θ0² + h1 θ1²) is what is followed, from θ = (0.9, 0.9).
    """
    task.checkpoint.mkdir(parents=True, exist_ok=True)
    saved = task.checkpoint / f"theta-{task.resource}.json"
    theta = np.array(json.loads(saved.read_text()) if task.resource else [0.9, 0.9])
    slopes = np.array([task.configuration["h0"], task.configuration["h1"]])
    for step in range(task.resource, task.until):
        theta = theta - 0.02 * 2 * slopes * theta
        yield step + 1, 1.2 - float(theta @ theta)
    write_atomic(task.checkpoint / f"theta-{task.until}.json", json.dumps(theta.tolist()))


SLOPES = {"parameters": {name: {"kind": "continuous", "low": 0.0, "high": 1.0} for name in ("h0", "h1")}}


class Corners:
    """Proposes the two configurations of the published example: each learns one of the two parameters only.

    One is a little slower: of two that are equally good none is copied, and whether they are would depend on rounding.
    """

    def suggest(self, history: History, *, rng: np.random.Generator) -> Configuration | None:
        points: Sequence[Configuration] = [{"h0": 1.0, "h1": 0.0}, {"h0": 0.0, "h1": 0.9}]
        return points[history.proposed] if history.proposed < 2 else None


def test_the_published_example_reaches_the_top_that_no_fixed_configuration_does(tmp_path: Path) -> None:
    from policylab.tuning.schedulers.fixed import Fixed

    horizon = Horizon(max_resource=200, budget=None, n_seeds=1, n_trials=2, space=Space.model_validate(SLOPES))
    reached = {}
    for name, scheduler in {
        "grid": Fixed(horizon, n_seeds=1),
        "population": Population.make(PopulationSettings(every=0.02, quantile=0.5), horizon),
    }.items():
        study = Study(
            searcher=Corners(),
            scheduler=scheduler,
            backend=InlineBackend(quadratic, folder=tmp_path / name),
            log=EventLog(None),
            limits=Limits(),
            max_resource=200,
            seed=0,
        )
        study.run()
        best = scheduler.best(study.history)
        assert best is not None
        reached[name] = study.history.trials[best].runs[0].curve[200]
        assert study.history.spent == 400
    assert reached["grid"] == pytest.approx(1.2 - 0.81, abs=0.01), "one parameter stays where it began"
    assert reached["population"] > 1.15


CALLED: dict[str, Any] = {"scheduler": {"kind": "population", "members": 6, "every": 0.2}, "searcher": "random"}


def test_the_schedule_of_the_winner_trained_anew_gives_its_value(tmp_path: Path) -> None:
    result = tune(quadratic, SLOPES, limits={"steps": 120}, max_resource=20, folder=tmp_path / "study", **CALLED)
    best = result.best
    assert len(best.schedule) > 1
    assert best.schedule[-1] == (20, best.configuration)
    begin = 0
    for until, configuration in best.schedule:
        (*_, (_, value)) = quadratic(Task(configuration, 0, begin, until, tmp_path / "again"))
        begin = until
    assert value == best.value


def test_cut_off_at_fifty_points_the_log_ends_the_same(tmp_path: Path) -> None:
    """As a kill leaves it: any number of lines, half a line behind them, checkpoints that are further than the log."""
    tune(quadratic, SLOPES, limits={"steps": 120}, max_resource=20, folder=tmp_path / "whole", **CALLED)
    log = (tmp_path / "whole" / "events.jsonl").read_bytes()
    lines = log.splitlines(keepends=True)
    for cut in np.random.default_rng(0).choice(np.arange(1, len(lines)), size=50, replace=False):
        while json.loads(lines[cut])["event"] in ("report", "end"):
            cut += 1  # what a job tells is logged as a whole
        folder = tmp_path / f"cut-{cut}"
        if folder.exists():
            continue
        shutil.copytree(tmp_path / "whole" / "checkpoints", folder / "checkpoints")
        (folder / "events.jsonl").write_bytes(b"".join(lines[:cut]) + b'{"event": "rep')
        tune(quadratic, SLOPES, limits={"steps": 120}, max_resource=20, folder=folder, **CALLED)
        assert (folder / "events.jsonl").read_bytes() == log, cut


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_population import CALLED, SLOPES, quadratic
from policylab.tuning import tune
calls = 0
def fragile(task):
    global calls
    calls += 1
    if calls == int(sys.argv[3]):
        (*_, ) = quadratic(task)  # it has saved, and nobody was told
        os.kill(os.getpid(), signal.SIGKILL)
    return quadratic(task)
tune(fragile, SLOPES, limits={"steps": 120}, max_resource=20, folder=Path(sys.argv[1]), **CALLED)
"""


def test_killed_again_and_again_it_ends_the_same(tmp_path: Path) -> None:
    tune(quadratic, SLOPES, limits={"steps": 120}, max_resource=20, folder=tmp_path / "whole", **CALLED)
    whole = (tmp_path / "whole" / "events.jsonl").read_bytes()
    assert b'"fork"' in whole
    folder = tmp_path / "killed"
    for after in (7, 2, 1, 9, 0):
        command = [sys.executable, "-c", KILLED, str(folder), os.path.dirname(__file__), str(after)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == (-signal.SIGKILL if after else 0), done.stderr
    assert (folder / "events.jsonl").read_bytes() == whole
