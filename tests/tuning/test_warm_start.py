"""Warm start: every restriction, what parents become in the child's space, and what they are worth."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policylab.errors import ConfigError, RunDirectoryError
from policylab.files import append_line, locked
from policylab.seeding import generator
from policylab.tuning.backend import InlineBackend, Task
from policylab.tuning.history import History
from policylab.tuning.limits import Limits
from policylab.tuning.log import EventLog
from policylab.tuning.parent_evidence import ParentEvidence, rank_agreement
from policylab.tuning.parent_mapping import expressed
from policylab.tuning.parents import find_parent, read_parent
from policylab.tuning.scheduler import Horizon
from policylab.tuning.schedulers.fixed import Fixed
from policylab.tuning.searcher import Searcher
from policylab.tuning.searchers.observations import Observation
from policylab.tuning.searchers.random import RandomSearcher, RandomSettings
from policylab.tuning.service_limits import ServiceLimits
from policylab.tuning.space import Space
from policylab.tuning.study import Study, study_facts
from policylab.tuning.study_facts import Parent, StudyFacts, experiment_facts
from policylab.tuning.tune import tune
from policylab.tuning.warm_start import WarmStart, WarmStartedSearcher, WarmStartSettings

RATE = {"kind": "continuous", "low": 1e-4, "high": 1.0, "scaling": "logarithmic"}
KIND = {"kind": "categorical", "values": ["sarsa", "q_learning"]}
PARAMETERS: dict[str, Any] = {
    "agent.rate": RATE,
    "agent.kind": KIND,
    "agent.tiles": {"kind": "integer", "low": 1, "high": 16},
}


def facts(parameters: Mapping[str, Any] | None = None, **changes: Any) -> StudyFacts:
    space = {"parameters": parameters or PARAMETERS}
    return StudyFacts.model_validate({"metric": "eval/return_mean", "space": space, "name": "child", **changes})


def observation(value: float, **configuration: Any) -> Observation:
    named = {f"agent.{name}": item for name, item in configuration.items()}
    return Observation({"agent.rate": 0.1, "agent.kind": "sarsa", "agent.tiles": 4, **named}, (value,))


def parent(described: StudyFacts | None = None, *, observed: tuple[Observation, ...] = (), **changes: Any) -> Parent:
    observed = observed or (observation(1.0),)
    made = Parent(described or facts(name="parent"), "completed", observed, observed, len(observed))
    return dataclasses.replace(made, **changes)


def started(
    *parents: Parent,
    child: StudyFacts | None = None,
    kind: str = "transfer_learning",
    limits: ServiceLimits | None = None,
    **settings: Any,
) -> WarmStart:
    named = WarmStartSettings.model_validate({"kind": kind, "parents": ["named elsewhere"], **settings})
    return WarmStart.make(named, child or facts(), parents=parents, limits=limits)


def without(path: str) -> dict[str, Any]:
    return {known: parameter for known, parameter in PARAMETERS.items() if known != path}


def many_static(n: int, value: int) -> dict[str, Any]:
    return {f"agent.s{i}": value for i in range(n)}


# restriction: (child and parents that keep it, ... that break it, words of the error)
RESTRICTIONS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "at most five parents": (
        {"parents": [parent(facts(name=f"p{i}")) for i in range(5)]},
        {"parents": [parent(facts(name=f"p{i}")) for i in range(6)]}, "1 to 5 parents, got 6"),
    "parents differ": (
        {"parents": [parent(facts(name="a")), parent(facts(name="b"))]},
        {"parents": [parent(facts(name="a")), parent(facts(name="a"))]}, "parents must differ, got 'a'"),
    "parents are over": (
        {"parents": [parent(status="stopped"), parent(facts(name="b"), status="failed")]},
        {"parents": [parent(status="in_progress")]},
        "a parent must be completed, stopped or failed, got 'in_progress'; wait"),
    "parents are not too old": (
        {"parents": [parent(created="2018-10-01")]}, {"parents": [parent(created="2018-09-30")]},
        "a parent must be created on 2018-10-01 or later"),
    "one objective": (
        {"parents": [parent(facts(name="parent"))]}, {"parents": [parent(facts(name="parent", metric="loss"))]},
        r"the objective must be the child's, eval/return_mean \(max\), got 'loss \(max\)'"),
    "one direction": (
        {"parents": [parent(facts(name="parent"))]}, {"parents": [parent(facts(name="parent", mode="min"))]},
        r"got 'eval/return_mean \(min\)'"),
    "no new parameter": (
        {"parents": [parent(facts(without("agent.tiles"), name="parent", static={"agent.tiles": 8}))]},
        {"parents": [parent(facts(without("agent.tiles"), name="parent"))]},
        r"together be those of the parent \(new: agent.tiles\), got .1 new, 0 missing.; say in warm_start.static"),
    "no parameter dropped": (
        {"child": facts(without("agent.tiles"), static={"agent.tiles": 8})},
        {"child": facts(without("agent.tiles"))},
        r"\(missing: agent.tiles\), got .0 new, 1 missing.; keep what is missing"),
    "kinds stay": (
        {"child": facts({**PARAMETERS, "agent.tiles": {"kind": "integer", "low": 4, "high": 64}})},
        {"child": facts({**PARAMETERS, "agent.tiles": {"kind": "continuous", "low": 1.0, "high": 16.0}})},
        "agent.tiles: its kind must stay integer, got 'continuous'"),
    "ten changes": (
        {"child": facts(static=many_static(10, 1)), "parents": [parent(facts(name="p", static=many_static(10, 0)))]},
        {"child": facts(static=many_static(11, 1)), "parents": [parent(facts(name="p", static=many_static(11, 0)))]},
        "at most 10 moves from searched to static and changed static values, got '11: agent.s0"),
    "moves count as changes": (
        {"child": facts(without("agent.kind"), static={**many_static(9, 1), "agent.kind": "sarsa"}),
         "parents": [parent(facts(name="p", static=many_static(9, 0)))]},
        {"child": facts(without("agent.kind"), static={"agent.kind": "sarsa", **many_static(10, 1)}),
         "parents": [parent(facts(name="p", static=many_static(10, 0)))]},
        "got '11: agent.kind, agent.s0"),
    "number of trials": (
        {"child": facts(n_trials=650), "parents": [parent(n_trials=100)]},
        {"child": facts(n_trials=651), "parents": [parent(n_trials=100)]},
        "count together against the limit of 750, got 751"),
    "identical means identical": (
        {"kind": "identical_data_and_algorithm", "child": facts(identity={"env.id": "a"}),
         "parents": [parent(facts(name="p", identity={"env.id": "a"}))]},
        {"kind": "identical_data_and_algorithm", "child": facts(identity={"env.id": "a", "budget.steps": 9}),
         "parents": [parent(facts(name="p", identity={"env.id": "b", "budget.steps": 9}))]},
        r"p: env.id: data and algorithm must be identical, and the child has 'a', got 'b'; .*kind: transfer_learning$"),
}  # fmt: skip


def applied(case: dict[str, Any]) -> WarmStart:
    settings = {name: value for name, value in case.items() if name not in ("child", "parents")}
    return started(*case.get("parents", [parent()]), child=case.get("child"), **settings)


@pytest.mark.parametrize("restriction", RESTRICTIONS)
def test_a_warm_start_that_keeps_the_restriction_is_made(restriction: str) -> None:
    assert applied(RESTRICTIONS[restriction][0]).sources


@pytest.mark.parametrize("restriction", RESTRICTIONS)
def test_one_clear_error_for_the_restriction_that_is_broken(restriction: str) -> None:
    _, breaking, words = RESTRICTIONS[restriction]
    with pytest.raises(ConfigError, match=words) as refused:
        applied(breaking)
    assert len(str(refused.value).splitlines()) == 1


def test_every_broken_restriction_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match="in_progress") as refused:
        started(parent(facts(name="p", metric="loss"), status="in_progress"), child=facts(without("agent.rate")))
    assert len(str(refused.value).splitlines()) == 3


def test_no_parent_is_an_error_too() -> None:
    with pytest.raises(ConfigError, match="1 to 5 parents, got 0"):
        started()


def test_limits_of_another_account() -> None:
    case = {**RESTRICTIONS["number of trials"][1], "limits": ServiceLimits(jobs=1000)}
    assert applied(case).sources


WARNINGS: dict[str, tuple[dict[str, Any], str]] = {
    "hyperband child": ({"child": facts(scheduler="hyperband")}, "Bayesian and random search only: not portable"),
    "grid parent": ({"parents": [parent(facts(name="p", searcher="grid"))]}, "got 'grid'"),
    "not recursive": ({"parents": [parent(facts(name="p", parents=("grandparent",)))]}, "not recursive.*'grandparent'"),
    "near the limit of changes": (
        {"child": facts(static=many_static(6, 1)), "parents": [parent(facts(name="p", static=many_static(6, 0)))]},
        "SageMaker counts some of them twice"),
    "between two published limits": (
        {"child": facts(n_trials=500), "parents": [parent(n_trials=1)]}, "stay within 500 to be portable"),
}  # fmt: skip


@pytest.mark.parametrize("case", WARNINGS)
def test_what_may_disappoint_is_a_warning(case: str) -> None:
    settings, words = WARNINGS[case]
    (warning,) = applied(settings).warnings
    assert warning.severity == "warning"
    assert re.search(words, str(warning))


def test_listing_the_grandparent_silences_the_warning() -> None:
    child = started(parent(facts(name="p", parents=("g",))), parent(facts(name="g")))
    assert child.warnings == []


def test_a_parent_without_results_is_a_warning_and_teaches_nothing() -> None:
    empty = dataclasses.replace(parent(), observed=(), ranked=(), n_trials=0)
    warm = started(empty)
    assert "teaches nothing" in str(warm.warnings[0])
    assert warm.prior(History(max_resource=1)) == ()
    assert warm.first == []


def test_a_mapping_the_other_study_searches_as_a_whole_is_one_parameter() -> None:
    child = facts(static={"agent.epsilon.kind": "linear", "agent.epsilon.start": 1.0})
    searched = {**PARAMETERS, "agent.epsilon": {"kind": "continuous", "low": 0.01, "high": 0.5}}
    observed = (Observation({**observation(1.0).configuration, "agent.epsilon": 0.1}, (1.0,)),)
    warm = started(parent(facts(searched, name="p"), observed=observed), child=child)
    assert warm.sources[0].n_left_out == 1  # a number has no distance to a schedule


# --- the child's space ---


def test_values_keep_their_place_when_ranges_and_scales_change() -> None:
    wider = facts({**PARAMETERS, "agent.rate": {"kind": "continuous", "low": 0.0, "high": 2.0, "scaling": "linear"}})
    found = expressed(observation(3.0, rate=0.25), parent=facts(), child=wider)
    assert found == observation(3.0, rate=0.25)


def test_out_of_range_informs_with_less_weight_but_is_never_suggested() -> None:
    narrow = facts({**PARAMETERS, "agent.rate": {**RATE, "low": 0.1, "high": 1.0}})
    outside = observation(9.0, rate=0.05)
    found = expressed(outside, parent=facts(), child=narrow)
    assert found is not None
    assert found.weight == pytest.approx(np.exp(-np.log10(2.0) / 0.2))
    warm = started(parent(observed=(outside, observation(1.0, rate=0.3))), child=narrow)
    assert len(warm.prior(History(max_resource=1))) == 2
    assert warm.first
    assert all(narrow.space.contains(configuration) for configuration in warm.first)


@pytest.mark.parametrize(
    "changed",
    [{"kind": "expected_sarsa"}, {"rate": 0.0}, {"rate": -1.0}, {"rate": "fast"}, {"rate": True}, {"rate": 1e9}],
)
def test_what_has_no_place_is_left_out_and_counted(changed: dict[str, Any]) -> None:
    warm = started(parent(observed=(observation(1.0), observation(9.0, **changed))))
    assert [source.n_left_out for source in warm.sources] == [1]
    assert warm.standings(History(max_resource=1))[0].n_used == 1


def test_a_value_that_is_not_finite_is_left_out() -> None:
    assert expressed(observation(float("nan")), parent=facts(), child=facts()) is None


def test_a_parameter_that_was_static_has_its_static_value() -> None:
    before = facts(without("agent.tiles"), name="p", static={"agent.tiles": 8})
    seen = Observation({"agent.rate": 0.1, "agent.kind": "sarsa"}, (1.0,))
    found = expressed(seen, parent=before, child=facts())
    assert found is not None
    assert found.configuration["agent.tiles"] == 8


def test_a_value_the_parent_did_not_record_is_said_in_the_settings() -> None:
    before = parent(facts(without("agent.tiles"), name="p"), observed=(Observation({"agent.rate": 0.1,
                    "agent.kind": "sarsa"}, (1.0,)),))  # fmt: skip
    warm = started(before, static={"agent.tiles": 2}, first=1)
    assert warm.first == [{"agent.rate": 0.1, "agent.kind": "sarsa", "agent.tiles": 2}]


def test_a_parameter_that_is_static_now_costs_weight_with_its_distance() -> None:
    child = facts(without("agent.rate"), static={"agent.rate": 0.01})
    weights = [
        found.weight if (found := expressed(observation(1.0, rate=rate), parent=facts(), child=child)) else 0.0
        for rate in (0.01, 0.02, 0.1, 1.0)
    ]
    assert weights[0] == 1.0
    assert weights == sorted(weights, reverse=True)
    other = facts(without("agent.kind"), static={"agent.kind": "q_learning"})
    assert expressed(observation(1.0), parent=facts(), child=other) is None


def test_a_condition_that_the_parent_did_not_have() -> None:
    conditional = {**PARAMETERS, "agent.tiles": {**PARAMETERS["agent.tiles"], "when": {"agent.kind": "q_learning"}}}
    found = expressed(observation(1.0), parent=facts(), child=facts(conditional))
    assert found is not None
    assert found.configuration == {"agent.rate": 0.1, "agent.kind": "sarsa"}
    missing = Observation({"agent.rate": 0.1, "agent.kind": "q_learning"}, (1.0,))
    assert expressed(missing, parent=facts(conditional), child=facts(conditional)) is None


# --- what a parent is worth ---


def grid_observations(sign: float = 1.0, scale: float = 1.0) -> tuple[Observation, ...]:
    return tuple(
        observation(scale * sign * -abs(np.log10(rate) + 1.0) + shift, rate=float(rate), kind=kind)
        for rate in np.geomspace(1e-3, 1.0, 10)
        for kind, shift in (("sarsa", 0.0), ("q_learning", 0.01))
    )


def history_of(observed: tuple[Observation, ...]) -> History:
    history = History(max_resource=1)
    for number, item in enumerate(observed):
        history.apply({"event": "start", "trial": number, "configuration": item.configuration, "seed": 0, "until": 1,
                       "reason": ""})  # fmt: skip
        history.apply({"event": "report", "trial": number, "seed": 0, "resource": 1, "value": item.mean})
        history.apply({"event": "end", "trial": number, "seed": 0, "error": None})
    return history


def test_identical_pools_raw_values() -> None:
    observed = grid_observations()
    warm = started(parent(observed=observed), kind="identical_data_and_algorithm")
    assert warm.prior(history_of(observed[:3])) == observed


def test_identical_values_at_a_lower_resource_are_aligned_not_pooled() -> None:
    warm = started(parent(observed=grid_observations()), kind="identical_data_and_algorithm")
    history = history_of(grid_observations(scale=0.1))
    history.max_resource = 10
    assert max(item.mean for item in warm.prior(history)) < 0.5
    assert {item.weight for item in warm.prior(history)} != {1.0}


def test_transfer_finds_the_childs_scale() -> None:
    warm = started(parent(observed=grid_observations()))
    child = tuple(dataclasses.replace(item, values=(500.0 + 40.0 * item.mean,)) for item in grid_observations()[::3])
    prior = warm.prior(history_of(child))
    assert len(prior) == 20
    actual = np.array([500.0 + 40.0 * item.mean for item in grid_observations()])
    error = np.abs(np.array([item.mean for item in prior]) - actual)
    assert error.mean() < 0.4 * actual.std()
    (standing,) = warm.standings(history_of(child))
    assert standing.agreement > 0.75


def test_a_parent_that_disagrees_is_dropped_and_one_that_agrees_outweighs_it() -> None:
    warm = started(
        parent(facts(name="same"), observed=grid_observations()),
        parent(facts(name="opposite"), observed=grid_observations(sign=-1.0)),
    )
    before = [standing.weight for standing in warm.standings(History(max_resource=1))]
    assert before == pytest.approx([0.49, 0.49])
    same, opposite = warm.standings(history_of(grid_observations()[::2]))
    assert same.weight > 0.6
    assert opposite.weight == 0.0
    assert opposite.agreement < 0.0
    assert len(warm.prior(history_of(grid_observations()[::2]))) == 20


def test_a_child_in_the_best_region_does_not_lose_its_trust() -> None:
    warm = started(parent(observed=grid_observations()))
    close = tuple(observation(value, rate=0.1) for value in (3.0, 1.0, 2.0, 1.5))
    assert warm.standings(history_of(close))[0].agreement == pytest.approx(0.7, abs=0.01)


@settings(deadline=None)
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=0, max_size=8), seed=st.integers(0, 99))
def test_agreement_is_bounded_and_turns_its_sign_with_the_values(values: list[float], seed: int) -> None:
    predicted = np.random.default_rng(seed).normal(size=len(values))
    agreement = rank_agreement(predicted, np.array(values))
    assert -1.0 <= agreement <= 1.0
    # The assumption (0.7, four strong) is all that is not symmetric: agreement + turned = 2 * 4 * 0.7 / (S + 4).
    evidence = float(((predicted - predicted.mean()) ** 2).sum()) if len(values) > 1 else 0.0
    turned = rank_agreement(predicted, -np.array(values))
    assert agreement + turned == pytest.approx(2 * 4 * 0.7 / (evidence + 4), abs=1e-9)


def test_the_best_are_tried_first_in_turn_and_apart() -> None:
    good = (observation(9.0, rate=0.1), observation(8.9, rate=0.101), observation(8.0, rate=0.9))
    other = (observation(0.5, rate=0.001), observation(0.1, rate=0.0002))
    warm = started(parent(facts(name="a"), observed=good), parent(facts(name="b"), observed=other), first=4)
    assert warm.first[:2] == [good[0].configuration, other[0].configuration]
    assert good[1].configuration not in warm.first


def test_few_seeds_are_drawn_towards_the_mean() -> None:
    lucky = observation(10.0, rate=0.9)
    rest = tuple(
        dataclasses.replace(
            observation(0.0, rate=float(rate)), values=tuple(value + spread for spread in (-4, -2, 0, 2, 4))
        )
        for rate, value in zip(np.geomspace(1e-3, 0.2, 6), (1.0, 2.0, 3.0, 4.0, 5.0, 9.5), strict=True)
    )
    warm = started(parent(observed=(lucky, *rest)), first=1)
    assert warm.first == [rest[-1].configuration]


def test_first_none() -> None:
    assert started(parent(), first=0).first == []


def test_the_overall_best_is_over_parents_and_child() -> None:
    own = observation(5.0)
    parents = [
        parent(facts(name="a"), observed=(observation(7.0),)),
        parent(facts(name="b"), observed=(observation(3.0),)),
    ]
    identical = started(*parents, kind="identical_data_and_algorithm").bests(own)
    assert [(name, found.mean) for name, found in identical] == [("a", 7.0), (None, 5.0), ("b", 3.0)]
    transferred = started(*parents).bests(own)
    assert [name for name, _ in transferred] == [None, "a", "b"]
    assert [name for name, _ in started(*parents).bests(None)] == ["a", "b"]


# --- searching ---


def studied(searcher: Searcher, *, trials: int, seed: int, folder: Path, log: EventLog | None = None) -> History:
    def objective(task: Task) -> float:
        noise = generator(seed, str(task.configuration)).normal()
        return float(-abs(np.log10(task.configuration["agent.rate"]) + 1.0) + 0.05 * noise)

    scheduler = Fixed(Horizon(max_resource=1, budget=None, n_seeds=1, n_trials=trials), n_seeds=1)
    study = Study(
        searcher=searcher,
        scheduler=scheduler,
        backend=InlineBackend(objective, folder=folder),
        log=log or EventLog(None),
        limits=Limits(trials=trials),
        max_resource=1,
        seed=seed,
    )
    study.run()
    return study.history


def random_searcher(_: tuple[Observation, ...]) -> Searcher:
    return RandomSearcher.make(RandomSettings(), facts().space)


def test_a_warm_started_search_begins_with_the_parents_best_and_beats_a_cold_one(tmp_path: Path) -> None:
    warm = started(parent(observed=grid_observations()))
    gains = []
    for seed in range(10):
        searcher = WarmStartedSearcher(warm, facts().space, build=random_searcher, box=True)
        warmed = studied(searcher, trials=4, seed=seed, folder=tmp_path)
        cold = studied(random_searcher(()), trials=4, seed=seed, folder=tmp_path)
        assert warmed.trials[0].configuration == warm.first[0]
        best = [max(trial.runs[0].value or -9.0 for trial in history.trials.values()) for history in (warmed, cold)]
        gains.append(best[0] - best[1])
    assert np.mean(gains) > 0.1


def test_the_default_comes_first_and_nothing_is_tried_twice(tmp_path: Path) -> None:
    default = {"agent.rate": 0.5, "agent.kind": "sarsa", "agent.tiles": 1}
    space = Space.model_validate({"parameters": PARAMETERS, "default": default})
    warm = started(parent(observed=grid_observations()), child=facts().model_copy(update={"space": space}))
    searcher = WarmStartedSearcher(warm, space, build=random_searcher)
    history = studied(searcher, trials=6, seed=0, folder=tmp_path)
    configurations = [dict(trial.configuration) for trial in history.trials.values()]
    assert configurations[0] == default
    assert configurations[1:4] == warm.first
    assert len({json.dumps(found, sort_keys=True) for found in configurations}) == 6


def test_the_same_seed_and_log_give_the_same_suggestions(tmp_path: Path) -> None:
    runs = [
        studied(
            WarmStartedSearcher(started(parent(observed=grid_observations())), facts().space, build=random_searcher),
            trials=8,
            seed=3,
            folder=tmp_path,
        )
        for _ in range(2)
    ]
    assert [run.trials[7].configuration for run in runs] == [runs[0].trials[7].configuration] * 2


@pytest.mark.parametrize("sobol", [False, True])
def test_a_child_with_its_parents_seed_draws_points_of_its_own(sobol: bool, tmp_path: Path) -> None:
    def build(_: tuple[Observation, ...]) -> Searcher:
        return RandomSearcher.make(RandomSettings(sobol=sobol), facts().space)

    cold = studied(build(()), trials=12, seed=3, folder=tmp_path)
    observed = tuple(Observation(trial.configuration, (float(trial.id),)) for trial in cold.trials.values())
    warm = started(parent(observed=observed), first=2)
    child = studied(WarmStartedSearcher(warm, facts().space, build=build), trials=12, seed=3, folder=tmp_path)
    mine, theirs = ([dict(trial.configuration) for trial in study.trials.values()] for study in (child, cold))
    assert not any(configuration in theirs for configuration in mine[2:])
    rates = sorted(np.log10([configuration["agent.rate"] for configuration in mine[2:]]))
    assert len(set(rates)) == 10
    if sobol:  # one scrambling for all: the points fill the range evenly
        assert np.diff(rates).max() < 1.0


def test_a_box_of_a_parent_that_disagrees_is_not_drawn_from() -> None:
    evidence = ParentEvidence(parent(observed=grid_observations()), child=facts())
    assert evidence.box is not None
    low, high = evidence.box
    assert (low <= high).all()
    few = ParentEvidence(parent(observed=grid_observations()[:2]), child=facts())
    assert few.box is None


# --- reading parents ---


def write_study(folder: Path, *, complete: bool = True, **settings: Any) -> None:
    events = EventLog(folder / "events.jsonl")
    known = {
        "space": {"parameters": PARAMETERS},
        "metric": "eval/return_mean",
        "mode": "max",
        "searcher": {"kind": "random"},
        "scheduler": {"kind": "fixed"},
        "limits": {"trials": 5},
    }
    events.open(study_facts({**known, **settings}, seed=0))
    studied(random_searcher(()), trials=5, seed=0, folder=folder, log=events)
    if not complete:
        lines = (folder / "events.jsonl").read_text().splitlines()
        (folder / "events.jsonl").write_text("\n".join(lines[:-1]) + "\n")


def test_a_study_folder_is_a_parent(tmp_path: Path) -> None:
    folder = tmp_path / "first"
    folder.mkdir()
    write_study(folder)
    read = read_parent(folder)
    assert (read.facts.name, read.facts.searcher, read.facts.n_trials) == ("first", "random", 5)
    assert (read.status, read.n_trials, len(read.observed)) == ("completed", 5, 5)
    assert started(read, kind="identical_data_and_algorithm").first


def test_a_study_that_was_cut_off_has_stopped_and_its_log_is_left_as_it_is(tmp_path: Path) -> None:
    write_study(tmp_path, complete=False)
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"event": "rep')
    before = (tmp_path / "events.jsonl").read_bytes()
    assert read_parent(tmp_path).status == "stopped"
    assert (tmp_path / "events.jsonl").read_bytes() == before


def test_a_study_in_use_is_in_progress(tmp_path: Path) -> None:
    write_study(tmp_path, complete=False)
    with locked(tmp_path / ".lock"):
        assert read_parent(tmp_path).status == "in_progress"
    assert read_parent(tmp_path).status == "stopped"


def test_a_tuned_function_is_a_parent(tmp_path: Path) -> None:
    def objective(task: Task) -> float:
        return float((task.configuration["x"] - 3) ** 2)

    space = {
        "parameters": {"y": {"kind": "categorical", "values": [1, 2]}, "x": {"kind": "continuous", "low": 0, "high": 9}}
    }
    cold = tune(objective, space, limits={"trials": 12}, searcher="random", mode="min", folder=tmp_path / "cold")
    for kind in ("identical_data_and_algorithm", "transfer_learning"):
        for searcher in ("random", "bayesian", "tpe"):
            given = {
                "limits": {"trials": 4},
                "searcher": searcher,
                "mode": "min",
                "folder": tmp_path / f"{kind}-{searcher}",
                "warm_start": {"kind": kind, "parents": ["cold"]},
            }
            warm = tune(objective, space, **given)
            assert warm.trials[0].configuration == cold.best.configuration, "the parent's best comes first"
            log = (given["folder"] / "events.jsonl").read_bytes()
            assert tune(objective, space, **given) == warm
            assert (given["folder"] / "events.jsonl").read_bytes() == log


@pytest.mark.parametrize(
    ("warm_start", "message"),
    [
        ({"parents": ["clod"]}, r"no study, run directory or record 'clod' in .*; did you mean 'cold'\?"),
        ({"parents": ["cold"], "frist": 2}, r"warm_start: frist: unknown key; did you mean 'first'\?"),
        ({"parents": ["cold"] * 6}, r"warm_start: parents: .* at most 5"),
        ({"parents": ["cold", "cold"]}, r"parents must differ"),
        ({"parents": ["child"]}, r"no study, run directory or record 'child'"),
    ],
)
def test_a_wrong_parent_of_a_callable_is_told(warm_start: dict[str, Any], message: str, tmp_path: Path) -> None:
    space = {"parameters": {"x": {"kind": "continuous", "low": 0.0, "high": 9.0}}}
    tune(lambda task: task.configuration["x"], space, limits={"trials": 3}, folder=tmp_path / "cold")
    with pytest.raises((ConfigError, RunDirectoryError), match=message):
        tune(
            lambda task: task.configuration["x"],
            space,
            limits={"trials": 3},
            folder=tmp_path / "child",
            warm_start=warm_start,
        )


def test_what_may_disappoint_about_a_parent_is_a_warning(tmp_path: Path) -> None:
    space = {"parameters": {"x": {"kind": "continuous", "low": 0.0, "high": 9.0}}}
    tune(lambda task: task.configuration["x"], space, limits={"trials": 9}, scheduler="asha", folder=tmp_path / "cold")
    with pytest.warns(UserWarning, match="parents of Bayesian and random search only: not portable"):
        tune(
            lambda task: task.configuration["x"],
            space,
            limits={"trials": 3},
            warm_start={"parents": [f"{tmp_path}/cold"]},
        )


def test_values_of_a_fraction_of_the_training_are_no_values_of_the_whole(tmp_path: Path) -> None:
    """An objective that falls while it trains; the parent ended before it had trained anything in full."""
    space = {"parameters": {"x": {"kind": "continuous", "low": 0.0, "high": 1.0}}}

    def falling(task: Task) -> Iterator[tuple[int, float]]:
        yield from ((step, task.configuration["x"] - step) for step in range(task.resource + 1, task.until + 1))

    with pytest.raises(KeyboardInterrupt, match="enough"):
        tune(
            falling,
            space,
            limits={"trials": 20},
            scheduler="hyperband",
            searcher="random",
            max_resource=10,
            folder=tmp_path / "part",
            observe=interrupt_after(7),
        )
    parent = read_parent(tmp_path / "part")
    assert parent.observed == ()
    assert len(parent.ranked) >= 6, "their order says something still"
    warm = {"kind": "identical_data_and_algorithm", "parents": [f"{tmp_path}/part"]}
    with pytest.warns(UserWarning, match="not portable"):
        found = tune(falling, space, limits={"trials": 4}, scheduler="fixed", max_resource=10, warm_start=warm)
    best = max(parent.ranked, key=lambda item: item.mean).configuration
    assert found.trials[0].configuration == best, "the first to be tried"
    assert found.best.value < 0


def interrupt_after(n_trials: int) -> Callable[[History], None]:
    def observe(history: History) -> None:
        if len(history.trials) >= n_trials:
            raise KeyboardInterrupt("enough")

    return observe


def test_a_run_directory_brings_what_was_not_searched(tmp_path: Path) -> None:
    run = tmp_path / "taxi-20261123-101010-abcd1234"
    (run / "study").mkdir(parents=True)
    write_study(run / "study")
    config = {
        "name": "taxi",
        "env": {"id": "Taxi-v3"},
        "agent": {
            "kind": "sarsa",
            "rate": {"kind": "constant", "value": 0.1},
            "tiles": 4,
            "epsilon": {"kind": "constant", "value": 0.2},
        },
    }
    (run / "config.yaml").write_text(json.dumps(config))
    read = read_parent(run)
    assert read.facts.static == {"agent.epsilon": 0.2}
    settings = {"space": {"parameters": PARAMETERS}, "metric": "eval/return_mean"}
    child = experiment_facts(config, settings, name="child")
    assert child.identity == read.facts.identity
    saving_often = experiment_facts({**config, "checkpoint_every_s": 5.0}, settings, name="child")
    assert saving_often.identity == child.identity
    other = experiment_facts({**config, "env": {"id": "CliffWalking-v0"}}, settings, name="child")
    assert started(read, child=child, kind="identical_data_and_algorithm").sources
    with pytest.raises(ConfigError, match=r"env.id: .* identical, and the child has 'CliffWalking-v0', got 'Taxi-v3'"):
        started(read, child=other, kind="identical_data_and_algorithm")
    assert started(read, child=other).sources


def test_a_parent_is_found_by_path_directory_or_study_name(tmp_path: Path) -> None:
    for name in ("taxi-20261122-101010-abcd1234", "taxi-20261123-101010-abcd1234"):
        (tmp_path / name / "study").mkdir(parents=True)
        (tmp_path / name / "study" / "events.jsonl").touch()
    newest = tmp_path / "taxi-20261123-101010-abcd1234"
    assert find_parent(str(newest), root=tmp_path / "elsewhere") == newest
    assert find_parent(newest.name, root=tmp_path) == newest
    assert find_parent("taxi", root=tmp_path) == newest
    other = tmp_path / "taxi-2x-20261124-101010-abcd1234"
    other.mkdir()
    (other / "events.jsonl").touch()
    assert find_parent("taxi", root=tmp_path) == newest, "another study, though its name begins alike"
    assert find_parent("taxi-2x", root=tmp_path) == other
    (tmp_path / "taxi").mkdir()
    assert find_parent("taxi", root=tmp_path) == newest, "a folder of that name is no study"
    (tmp_path / "plain").mkdir()
    with pytest.raises(RunDirectoryError, match="no study here"):
        read_parent(find_parent("plain", root=tmp_path))
    with pytest.raises(
        RunDirectoryError, match=r"no study, run directory or record 'taxi-20261123-101010-abcd123'.*did"
    ):
        find_parent("taxi-20261123-101010-abcd123", root=tmp_path)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "no study here"),
        ([{"event": "start"}], "begins with its settings"),
        ([{"event": "study"}], "not the log of a study"),
        ([{"event": "study", "settings": {"space": {"parameters": {}}}}], "not the log of a study"),
        (
            [{"event": "study", "settings": {"metric": "m", "space": {"parameters": {"x": {"kind": "odd"}}}}}],
            "not the log",
        ),
    ],
)
def test_what_is_no_study_is_one_sentence(tmp_path: Path, lines: list[Any], words: str) -> None:
    for line in lines:
        append_line(tmp_path / "events.jsonl", line)
    with pytest.raises(RunDirectoryError, match=words):
        read_parent(tmp_path)
