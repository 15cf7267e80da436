"""The part of a report that only a search has: what it says, what it draws, and that it says nothing false."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policylab.config import Document, validate
from policylab.experiments.importances import importances
from policylab.experiments.report import (
    Cost,
    EnvironmentFacts,
    Estimate,
    Exact,
    Lineage,
    ReportData,
    write_report,
)
from policylab.experiments.report.data import ObjectiveValues
from policylab.experiments.report.figures import draw_figures
from policylab.experiments.report.page import page as html
from policylab.experiments.report.parameter_figures import ticks, unit
from policylab.experiments.report.study_data import Axis, Importances, Improvement, StudyData
from policylab.experiments.report.study_style import abbreviated, value_limits
from policylab.experiments.report.style import RAMP
from policylab.experiments.report.text import verdict
from policylab.experiments.schema import ExperimentConfig
from policylab.experiments.search import with_default
from policylab.experiments.standing import saved_by_stopping, standings
from policylab.experiments.study_outcome import Outcome
from policylab.experiments.study_reporting import course
from policylab.seeding import generator
from policylab.tuning.backend import InlineBackend, Task
from policylab.tuning.history import History
from policylab.tuning.log import EventLog
from policylab.tuning.scheduler import SCHEDULERS
from policylab.tuning.searcher import SEARCHERS
from policylab.tuning.study import Study

HOSTILE = "<script>alert(1)</script>"
RATE: dict[str, Any] = {"kind": "continuous", "low": 0.005, "high": 1.0, "scaling": "logarithmic"}
KINDS = ["q_learning", "sarsa", "expected_sarsa", "double_q_learning"]
MANY: dict[str, Any] = {
    "agent.learning_rate": RATE,
    "agent.discount": {"kind": "continuous", "low": 0.5, "high": 0.999, "scaling": "reverse_logarithmic"},
    "agent.initial_value": {"kind": "continuous", "low": -1.0, "high": 1.0},
    "agent.kind": {"kind": "categorical", "values": KINDS},
    "agent.exploration.epsilon.kind": {"kind": "categorical", "values": ["linear", "exponential"]},
    "agent.exploration.epsilon.start": {"kind": "continuous", "low": 0.3, "high": 1.0},
    "agent.exploration.epsilon.end": {"kind": "continuous", "low": 0.001, "high": 0.3},
    "agent.exploration.epsilon.fraction": {
        "kind": "continuous", "low": 0.1, "high": 0.9, "when": {"agent.exploration.epsilon.kind": "linear"}
    },
    "agent.n": {"kind": "integer", "low": 1, "high": 64, "scaling": "logarithmic"},
    "agent.flag": {"kind": "categorical", "values": [True, False]},
}  # fmt: skip


RATE_PATH = "agent.learning_rate"


def experiment(parameters: dict[str, Any], **search: Any) -> ExperimentConfig:
    """Return an experiment with a search; parameters that its agent does not have are let through."""
    data = {
        "name": "lake",
        "env": {"id": "FrozenLake-v1"},
        "agent": {"kind": "q_learning", "learning_rate": 0.1},
        "budget": {"steps": 900},
        "seeds": {"tune": 4, "confirm": 5},
        "tracking": {"kind": "none"},
        "search": {
            "space": {"parameters": parameters},
            "searcher": {"kind": "random"},
            "scheduler": {"kind": "hyperband"},
            "limits": {"trials": 12},
            **search,
        },
    }
    return validate(ExperimentConfig, Document(data=data, places={}, source="lake"))


def landscape(task: Task) -> Any:
    """An objective with a best learning rate, noise per seed, and failures where the discount is high."""
    rate = float(task.configuration.get("agent.learning_rate", 0.1))
    if float(task.configuration.get("agent.discount", 0.0)) > 0.995:
        raise ValueError("the values diverged")
    noise = generator(task.seed, "noise", repr(sorted(task.configuration.items()))).normal(scale=0.05)
    end = 0.8 - 0.15 * abs(math.log10(rate) + 1.0)
    for step in [*range(task.resource + 100, task.until, 100), task.until]:
        yield step, (1.0 - math.exp(-step / 300)) * end + noise


def searched(config: ExperimentConfig, folder: Path, *, objective: Any = landscape) -> tuple[EventLog, Outcome]:
    """Carry out the search of ``config`` on ``objective``; return its log and what it decided."""
    settings = config.search
    assert settings is not None
    space = with_default(config)
    horizon = settings.horizon(budget_steps=config.budget.steps, n_seeds=config.seeds.tune)
    scheduler = SCHEDULERS.load(settings.scheduler.kind).make(settings.scheduler, horizon)
    log = EventLog(None)
    study = Study(
        searcher=SEARCHERS.load(settings.searcher.kind).make(settings.searcher, space),
        scheduler=scheduler,
        backend=InlineBackend(objective, folder=folder),
        log=log,
        limits=settings.limits,
        max_resource=config.budget.steps,
        seed=0,
    )
    reason = study.run()
    history = study.history
    winner = scheduler.best(history)
    assert winner is not None
    outcome = Outcome(
        reason=reason,
        winner=winner,
        default=0 if space.default else len(history.trials),
        n_trials=len(history.trials),
        n_runs=len(list(history.runs())),
        n_failed=sum(run.error is not None for _, run in history.runs()),
        spent_steps=history.spent,
        saved_by_resuming_steps=history.saved,
        saved_by_stopping_steps=saved_by_stopping(history),
    )
    return log, outcome


def study_data(folder: Path, parameters: dict[str, Any] | None = None, **search: Any) -> StudyData:
    """Return what a report shows of a search over ``parameters``, confirmation included."""
    config = experiment(parameters or {"agent.learning_rate": RATE}, **search)
    log, outcome = searched(config, folder)
    return dataclasses.replace(
        course(config, log.events, outcome=outcome),
        optimism_gap=Estimate(0.031, -0.02, 0.08, 5),
        default_confirmed=Estimate(0.612, 0.55, 0.68, 5),
        improvement=Improvement(0.25, 0.11, 0.39, 0.996),
        beats_default=Estimate(0.92, 0.76, 1.0, 5),
    )


def report(study: StudyData | None) -> ReportData:
    return ReportData(
        name="lake",
        status="finished",
        metric="undiscounted return per episode",
        cost=Cost(env_steps=4_000, wall_s=2.0, trials=12),
        lineage=Lineage("0" * 64, "abc123", "host-1", "2026-01-02T03:04:05+00:00", 7, {"numpy": "2.4"}),
        environment=EnvironmentFacts("FrozenLake-v1", 100, 16, 4),
        config={"agent": {"kind": "q_learning"}},
        selected=Estimate(0.74428, 0.7391, 0.7494, 3),
        confirmed=Estimate(0.7312, 0.7203, 0.7421, 3),
        exact=Exact(optimal_return=0.7442, policy_return=0.7402, optimality_gap=0.004),
        study=study,
    )


def tags(text: str) -> set[str]:
    return set(re.findall(r"<([a-z0-9]+)", text))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> StudyData:
    return study_data(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> StudyData:
    return study_data(tmp_path_factory.mktemp("large"), MANY, scheduler={"kind": "race"}, limits={"trials": 60})


@pytest.fixture(scope="module")
def large_text(large: StudyData, tmp_path_factory: pytest.TempPathFactory) -> str:
    return page(large, tmp_path_factory.mktemp("page"))


def page(study: StudyData | None, folder: Path) -> str:
    return write_report(report(study), folder).read_text()


def test_a_search_shows_what_was_selected_confirmed_spent_and_saved(small: StudyData, tmp_path: Path) -> None:
    text = page(small, tmp_path)
    saved = round(
        100
        * (small.saved_by_resuming + small.saved_by_stopping)
        / (small.spent + small.saved_by_resuming + small.saved_by_stopping)
    )
    for expected in (
        "Optimism gap",
        "[−0.02, 0.08] · by how much selected is better than confirmed",
        "[0.11, 0.39] seed by seed · better than the default, probability 99.6 %",
        "92 % run against run",
        "Default confirmed at",
        f"{small.spent:,}",
        f"{saved} % saved",
        "limits.trials: 12 configurations tried",
        "Best configuration",
        "0.005 to 1, logarithmic",
    ):
        assert expected in text, expected
    names = {path.name for path in (tmp_path / "figures").glob("search_*.png")}
    assert names == {"search_history.png", "search_rungs.png", "search_slices.png"}  # one parameter, 12 trials


def test_every_figure_of_a_search_with_many_parameters(large: StudyData) -> None:
    drawn = draw_figures(report(large))
    assert [name for name in drawn if name.startswith("search_")] == [
        "search_history", "search_rungs", "search_parallel", "search_importances", "search_slices",
    ]  # fmt: skip
    shown = [panel for panel in drawn["search_slices"].axes if panel.get_visible()]
    assert len(shown) == len(MANY)


def test_without_a_search_nothing_speaks_of_one() -> None:
    text = html(report(None), {})
    for absent in ("Optimism", "Beats the default", "Best configuration", "Leaders", "search_"):
        assert absent not in text, absent


def test_the_leaders_table_holds_every_seeds_value(large: StudyData, large_text: str) -> None:
    text = large_text
    best = large.best
    assert len(best.values) > 1
    cells = [f"{float(f'{value:.3g}'):.4g}" for value in best.values.values()]
    assert f"<td>{large.winner} selected</td><td>" + "</td><td>".join(cells) in text
    failed = [trial for trial in large.trials if trial.ending == "failed"]
    assert failed
    assert "failed: ValueError: the values diverged" in text
    n_runs = sum(run.ending == "failed" for trial in large.trials for run in trial.runs)
    assert f"{n_runs} of them failed. End" in text
    assert f"Runs that failed, by their reasons: ValueError: the values diverged ({n_runs})." in text


def test_the_data_agree_with_the_log(tmp_path: Path) -> None:
    config = experiment(MANY, scheduler={"kind": "race"}, limits={"trials": 40})
    log, outcome = searched(config, tmp_path)
    study = course(config, log.events, outcome=outcome)
    reports = [event for event in log.events if event["event"] == "report"]
    for trial in study.trials:
        for run in trial.runs:
            own = [e for e in reports if (e["trial"], e["seed"]) == (trial.id, run.seed)]
            if own:
                assert (run.resource, run.value) == (own[-1]["resource"], own[-1]["value"])
        if trial.values:
            assert trial.estimate.value == pytest.approx(np.mean(list(trial.values.values())))
            assert not trial.estimate.low > trial.estimate.value > trial.estimate.high
    assert sum(run.resource for trial in study.trials for run in trial.runs) == study.spent == outcome.spent_steps
    assert [moment.spent for moment in study.moments] == sorted(moment.spent for moment in study.moments)
    assert study.moments[-1].leader == pytest.approx(study.best.estimate.value)
    assert sorted(study.ranking) == [trial.id for trial in study.trials]
    assert study.ranking[0] == outcome.winner


def test_a_metric_to_be_minimised_keeps_its_own_direction(tmp_path: Path) -> None:
    config = experiment({"agent.learning_rate": RATE}, mode="min", scheduler={"kind": "fixed", "seeds": 1})
    log, outcome = searched(config, tmp_path, objective=lambda task: -landscape_end(task))
    study = course(config, log.events, outcome=outcome)
    values = [trial.estimate.value for trial in study.trials]
    assert min(values) > 0
    assert study.best.estimate.value == min(values)
    drawn = draw_figures(report(study))
    assert drawn["search_history"].axes[0].lines[-1].get_ydata()[-1] == pytest.approx(min(values))


def landscape_end(task: Any) -> float:
    return 1.0 + abs(math.log10(task.configuration["agent.learning_rate"]) + 1.0)


def test_a_run_that_was_stopped_promoted_or_failed_ends_where_the_log_says(tmp_path: Path) -> None:
    config = experiment({key: MANY[key] for key in ("agent.learning_rate", "agent.discount")}, limits={"trials": 18})
    log, outcome = searched(config, tmp_path)
    study = course(config, log.events, outcome=outcome)
    resumed = {event["trial"] for event in log.events if event["event"] == "resume"}
    assert {trial.id for trial in study.trials if len(trial.runs[0].levels) > 1} == resumed
    assert {trial.ending for trial in study.trials} == {"full", "stopped", "failed"}
    assert study.levels == [100, 300, 900]
    assert {trial.entered for trial in study.trials} <= {100, 300, 900}


def test_importances_find_the_parameter_that_matters(tmp_path: Path) -> None:
    parameters = {key: MANY[key] for key in ("agent.learning_rate", "agent.initial_value", "agent.flag")}
    config = experiment(parameters, scheduler={"kind": "fixed", "seeds": 2}, limits={"trials": 40})
    log, _ = searched(config, tmp_path)
    history = History(max_resource=900)
    assert list(log.replay(history))
    found = importances(history, with_default(config))
    assert isinstance(found, Importances)
    assert (found.n_trials, found.resource) == (40, 900)
    assert next(iter(found.shares)) == "agent.learning_rate"
    assert sum(found.shares.values()) == pytest.approx(1.0)
    assert importances(history, with_default(config)) == found


def test_of_very_many_configurations_some_are_compared(tmp_path: Path) -> None:
    parameters = {key: MANY[key] for key in ("agent.learning_rate", "agent.flag")}
    config = experiment(parameters, scheduler={"kind": "fixed", "seeds": 1}, limits={"trials": 500})
    log, _ = searched(config, tmp_path, objective=lambda task: -abs(math.log10(task.configuration[RATE_PATH]) + 1.0))
    history = History(max_resource=900)
    assert list(log.replay(history))
    found = importances(history, with_default(config))
    assert isinstance(found, Importances)
    assert (found.n_trials, next(iter(found.shares))) == (400, RATE_PATH)
    assert found.warnings[-1].startswith("400 of 500 configurations were drawn")


def test_what_importances_do_not_tell_stands_below_them(large: StudyData, large_text: str) -> None:
    found = large.importances
    assert found is not None
    missing = {axis.path for axis in large.axes} - set(found.shares)
    assert missing == {"agent.exploration.epsilon.fraction"}
    assert all(path in found.warnings[-1] for path in missing)
    assert "Not rated, because they do not vary or exist in some configurations only: agent." in large_text
    assert f"{found.n_trials} configurations for {len(found.shares)} parameters: the shares are a hint" in large_text


def test_a_search_by_another_metric_shows_what_was_confirmed_of_it(small: StudyData) -> None:
    measured = ObjectiveValues("train/td_error", Estimate(0.2, 0.1, 0.3, 3), Estimate(0.5, 0.4, 0.6, 3))
    other = dataclasses.replace(small, metric="train/td_error", maximise=False)
    drawn = draw_figures(dataclasses.replace(report(other), objective=measured))["search_history"]
    (panel, *_), (legend,) = drawn.axes, drawn.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert "confirmed" in texts
    assert "optimum" not in texts, "which is one of the return"
    assert [0.5] in [list(line.get_ydata()) for line in panel.lines]


def test_a_legend_of_many_entries_stays_in_its_figure(small: StudyData) -> None:
    moments = [dataclasses.replace(moment, resource=900 + 10 * i) for i, moment in enumerate(small.moments)]
    figure = draw_figures(report(dataclasses.replace(small, moments=moments)))["search_history"]
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 9
    assert legend.get_window_extent().x1 <= figure.bbox.x1


def test_categories_that_begin_alike_have_labels_that_differ() -> None:
    alike = [f'{{"kind": "epsilon_greedy", "epsilon": {epsilon}, "seed": 12345678}}' for epsilon in (0.1, 0.3)]
    for most in (6, 9, 13):
        labels = abbreviated([*alike, "softmax"], most=most)
        assert len(set(labels)) == 3
        assert max(map(len, labels)) <= most


def test_too_few_configurations_have_no_importances(tmp_path: Path) -> None:
    parameters = {key: MANY[key] for key in ("agent.learning_rate", "agent.initial_value")}
    study = study_data(tmp_path / "study", parameters, limits={"trials": 8})
    assert study.importances is None
    assert re.match(r"Importances need 10 configurations with a value .* has 8 at 100", study.no_importances)
    assert study.no_importances in html(report(study), {})


def test_equal_values_have_no_importances(tmp_path: Path) -> None:
    config = experiment({"agent.learning_rate": RATE}, scheduler={"kind": "fixed", "seeds": 1})
    log, _ = searched(config, tmp_path, objective=lambda task: 1.0)
    history = History(max_resource=900)
    assert list(log.replay(history))
    assert importances(history, with_default(config)) == (
        "All 12 configurations have the same value at 900 steps: no parameter mattered."
    )


def test_no_text_of_a_search_becomes_markup(tmp_path: Path) -> None:
    study = study_data(tmp_path, {key: MANY[key] for key in ("agent.learning_rate", "agent.kind")})
    axes = [
        dataclasses.replace(axis, path=HOSTILE, name=HOSTILE, categories=[HOSTILE for _ in axis.categories])
        for axis in study.axes
    ]
    trials = [dataclasses.replace(trial, reason=HOSTILE, configuration={HOSTILE: HOSTILE}) for trial in study.trials]
    shares = Importances({HOSTILE: 1.0}, resource=100, n_trials=12)
    words = dict.fromkeys(("metric", "method", "reason"), HOSTILE)
    hostile = dataclasses.replace(study, axes=axes, trials=trials, importances=shares, **words)
    text = page(hostile, tmp_path / "page")
    assert "<script" not in text
    assert "alert(1)" in text


def test_drawings_of_a_search_follow_the_colours_of_the_page(large_text: str) -> None:
    text = large_text
    drawings = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert not re.findall("|".join(RAMP), drawings)
    assert "var(--best)" in drawings
    assert "var(--failed)" in drawings
    assert len({step for step in range(1, 8) if f"var(--ramp-{step})" in drawings}) >= 4
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))


def test_the_same_search_gives_the_same_bytes(small: StudyData, tmp_path: Path) -> None:
    assert page(small, tmp_path / "a") == page(small, tmp_path / "b")


@pytest.mark.parametrize(
    "odd",
    [
        {"optimism_gap": None, "default_confirmed": None, "improvement": None, "beats_default": None},
        {
            "improvement": Improvement(0.1, math.nan, math.nan, None),
            "beats_default": Estimate(0.5, math.nan, math.nan, 1),
        },
        {"moments": ()},
        {"default": 0, "winner": 0},
        {"saved_by_resuming": 0, "saved_by_stopping": 0, "spent": 0},
    ],
    ids=["unconfirmed", "one seed", "no value", "default selected", "nothing spent"],
)
def test_odd_searches_are_shown_too(small: StudyData, odd: dict[str, Any]) -> None:
    data = report(dataclasses.replace(small, **odd))
    assert "search_slices" in draw_figures(data)
    text = re.sub(r"<style>.*?</style>", "", html(data, {}), flags=re.DOTALL)
    for absent in ("nan", "None"):
        assert absent not in text, absent


def test_every_configuration_failing_but_one_is_drawn(tmp_path: Path) -> None:
    study = study_data(tmp_path)
    trials = [
        trial if trial.id == study.winner else dataclasses.replace(
            trial, ending="failed", resource=0, estimate=Estimate(math.nan, math.nan, math.nan, 0),
            runs=[dataclasses.replace(run, levels=[], value=math.nan, ending="failed") for run in trial.runs],
        )
        for trial in study.trials
    ]  # fmt: skip
    assert "search_rungs" in draw_figures(report(dataclasses.replace(study, trials=trials)))


def test_one_bad_value_does_not_flatten_the_others(small: StudyData) -> None:
    ruined = dataclasses.replace(small.trials[0], estimate=Estimate(-1e6, math.nan, math.nan, 1))
    low, high = value_limits(dataclasses.replace(small, trials=[ruined, *small.trials[1:]]))
    assert -10 < low < high < 2


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.1, 0.4, "better than"),
        (0.0, 0.4, "indistinguishable from"),
        (-0.4, -0.1, "worse than"),
        (None, None, "too few"),
    ],
)
def test_the_verdict_follows_from_the_interval(low: float | None, high: float | None, words: str) -> None:
    assert verdict(low, high).startswith(words)


@given(
    low=st.floats(1e-6, 10.0),
    width=st.floats(1e-3, 1e6),
    scale=st.sampled_from(["linear", "logarithmic"]),
)
def test_ticks_lie_on_their_axis(low: float, width: float, scale: Any) -> None:
    places, labels = ticks(Axis("a", "a", scale, low, low * (1 + width)))
    assert len(places) == len(labels) >= 2
    assert all(-1e-6 <= place <= 1 + 1e-6 for place in places)
    assert places == sorted(places)


@given(st.floats(0.0, 0.98), st.floats(0.001, 0.0199))
def test_ticks_of_a_reverse_logarithmic_axis_lie_on_it(low: float, width: float) -> None:
    places, labels = ticks(Axis("a", "a", "reverse_logarithmic", low, low + width))
    assert len(places) == len(labels) >= 2
    assert all(-1e-6 <= place <= 1 + 1e-6 for place in places)


def test_a_place_on_an_axis_is_that_of_its_scale() -> None:
    assert unit(Axis("a", "a", "reverse_logarithmic", 0.0, 0.99), 0.9) == pytest.approx(0.5)
    assert unit(Axis("a", "a", "categorical", 0.0, 2.0, ("x", "y", "z")), 1.0) == 0.5
    assert math.isnan(unit(Axis("a", "a", "linear", 0.0, 2.0), None))


def test_standings_put_training_before_value(tmp_path: Path) -> None:
    log, _ = searched(experiment({"agent.learning_rate": RATE}, limits={"trials": 12}), tmp_path)
    history = History(max_resource=900)
    assert list(log.replay(history))
    ranked = standings(history)
    assert [one.resource for one in ranked] == sorted((one.resource for one in ranked), reverse=True)
    for above, below in itertools.pairwise(ranked):
        if above.resource == below.resource:
            assert above.mean >= below.mean
