"""A study's event log in Optuna's own storage: read back, analysed and drawn by Optuna itself."""

from __future__ import annotations

import json
import sqlite3
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from policylab.config import parse, validate
from policylab.errors import RunDirectoryError
from policylab.experiments import optuna_view
from policylab.experiments.optuna_live import LiveView
from policylab.experiments.optuna_view import LOCK, OptunaView, distributions, project
from policylab.experiments.rundir import RunDirectory, create_run
from policylab.experiments.schema import ExperimentConfig
from policylab.files import append_line, locked, write_atomic
from policylab.tuning.space import Space

STEPS = 90
EXPERIMENT = """
name: lake
env: {id: FrozenLake-v1}
agent:
  kind: q_learning
  learning_rate: 0.1
  discount: 0.99
  exploration: {kind: epsilon_greedy, epsilon: 0.1}
budget: {steps: 90}
seeds: {tune: 3, confirm: 2}
tracking: {kind: none}
search:
  space:
    parameters:
      agent.learning_rate: {kind: continuous, low: 0.001, high: 1.0}
      agent.kind: {kind: categorical, values: [q_learning, sarsa]}
      agent.exploration.epsilon: {kind: continuous, low: 0.0, high: 0.5, when: {agent.kind: q_learning}}
  searcher: {kind: random}
  scheduler: {kind: fixed}
  limits: {trials: 20}
"""


def make_run(folder: Path, *, text: str = EXPERIMENT, **search: Any) -> RunDirectory:
    document = parse(text, "lake.yaml")
    document.data["search"].update(search)
    run = create_run(validate(ExperimentConfig, document), parent=folder)
    (run.path / "study").mkdir()
    return run


def start(trial: int, *, until: int = STEPS, rate: float = 0.1, epsilon: float | None = None) -> dict[str, Any]:
    configuration: dict[str, Any] = {"agent.learning_rate": rate, "agent.kind": "sarsa"}
    if epsilon is not None:
        configuration |= {"agent.kind": "q_learning", "agent.exploration.epsilon": epsilon}
    return {"event": "start", "trial": trial, "configuration": configuration, "seed": 0, "until": until, "reason": ""}


def more(kind: str, trial: int, seed: int, *, until: int = STEPS) -> dict[str, Any]:
    return {"event": kind, "trial": trial, "seed": seed, "until": until, "reason": ""}


def report(trial: int, seed: int, resource: int, value: float) -> dict[str, Any]:
    return {"event": "report", "trial": trial, "seed": seed, "resource": resource, "value": value}


def end(trial: int, seed: int, error: str | None = None) -> dict[str, Any]:
    return {"event": "end", "trial": trial, "seed": seed, "error": error}


def full(trial: int, seed: int, *values: float) -> list[dict[str, Any]]:
    marks = [STEPS * (i + 1) // len(values) for i in range(len(values))]
    return [*(report(trial, seed, at, value) for at, value in zip(marks, values, strict=True)), end(trial, seed)]


STUDY = [
    {"event": "study", "schema_version": 1},
    start(0, rate=0.5, epsilon=0.25),
    *full(0, 0, 0.2, 0.4, 0.6),
    more("add_seed", 0, 1),
    *full(0, 1, 0.0, 0.2, 1.0),
    more("add_seed", 0, 2),
    *full(0, 2, 0.1, 0.3, 0.8),
    start(1, until=30),
    report(1, 0, 30, 0.05),
    end(1, 0),
    {"event": "stop", "trial": 1, "seed": None, "reason": "rank 2 of 2 at 30"},
    start(2),
    end(2, 0, "ValueError: it broke"),
    start(3, rate=1.0),
    report(3, 0, 30, 0.3),
]
COMPLETE = {"event": "complete", "reason": "limits.trials: 4 configurations tried"}


def log(run: RunDirectory, events: list[dict[str, Any]]) -> None:
    for event in events:
        append_line(run.path / "study" / "events.jsonl", event)


def confirm(run: RunDirectory, trial: int, *values: float) -> None:
    for index, value in enumerate(values):
        write_atomic(run.path / f"trials/{trial:04d}/confirm-{index:03d}/result.json", json.dumps({"value": value}))


def contents(study: optuna.Study) -> list[Any]:
    """Return everything of the trials but their times, with NaN equal to itself."""
    return [
        (t.number, t.state, t.params, t.distributions, repr(t.intermediate_values), repr(t.values), t.user_attrs)
        for t in study.trials
    ]


def test_each_configuration_is_a_trial_with_the_mean_over_its_seeds(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    log(run, STUDY)
    study = project(run.path)
    assert study.study_name == run.path.name
    assert study.direction is optuna.study.StudyDirection.MAXIMIZE
    whole, pruned, failed, running = study.trials
    assert whole.state is TrialState.COMPLETE
    assert whole.value == pytest.approx((0.6 + 1.0 + 0.8) / 3)
    assert whole.intermediate_values == pytest.approx({30: 0.1, 60: 0.3, 90: 0.8})
    assert whole.params == {
        "agent.learning_rate": 0.5, "agent.kind": "q_learning", "agent.exploration.epsilon": 0.25,
    }  # fmt: skip
    assert whole.user_attrs["seeds"]["1"] == {"resource": 90, "value": 1.0}
    assert whole.user_attrs["folder"] == "trials/0000"
    assert pruned.state is TrialState.PRUNED
    assert pruned.value == 0.05
    assert pruned.user_attrs["stop_reason"] == "rank 2 of 2 at 30"
    assert "agent.exploration.epsilon" not in pruned.params
    assert failed.state is TrialState.FAIL
    assert failed.user_attrs["error"] == "ValueError: it broke"
    assert running.state is TrialState.RUNNING
    assert running.intermediate_values == {30: 0.3}
    assert study.best_trial.number == 0


def test_optuna_finds_the_view_in_the_run_directory(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    log(run, STUDY)
    project(run.path)
    study = optuna.load_study(study_name=run.path.name, storage=f"sqlite:///{run.path}/study/optuna.db")
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3]
    assert study.user_attrs["metric"] == "eval/return_mean"
    assert study.user_attrs["run_dir"] == str(run.path)


def test_values_of_a_minimised_metric_keep_its_own_sign(tmp_path: Path) -> None:
    run = make_run(tmp_path, mode="min")
    log(run, STUDY)  # logs hold larger-is-better values
    study = project(run.path)
    assert study.direction is optuna.study.StudyDirection.MINIMIZE
    assert study.trials[0].value == pytest.approx(-0.8)
    assert study.trials[0].intermediate_values[30] == pytest.approx(-0.1)


def test_distributions_are_those_of_the_space() -> None:
    kinds = distributions(
        Space.model_validate(
            {
                "parameters": {
                    "rate": {"kind": "continuous", "low": 0.001, "high": 1.0, "scaling": "logarithmic"},
                    "share": {"kind": "continuous", "low": 0.0, "high": 1.0, "scaling": "linear", "step": 0.1},
                    "discount": {"kind": "continuous", "low": 0.9, "high": 0.999, "scaling": "reverse_logarithmic"},
                    "n": {"kind": "integer", "low": 1, "high": 9, "step": 2, "scaling": "linear"},
                    "width": {"kind": "integer", "low": 16, "high": 2048, "scaling": "logarithmic"},
                    "kind": {"kind": "categorical", "values": ["a", "b"]},
                    "layers": {"kind": "categorical", "values": [[64], [64, 64], 1, True]},
                }
            }
        )
    )
    assert kinds == {
        "rate": FloatDistribution(0.001, 1.0, log=True),
        "share": FloatDistribution(0.0, 1.0),
        "discount": FloatDistribution(0.9, 0.999),
        "n": IntDistribution(1, 9, step=2),
        "width": IntDistribution(16, 2048, log=True),
        "kind": CategoricalDistribution(["a", "b"]),
        "layers": CategoricalDistribution(["[64]", "[64,64]", "1", "true"]),
    }


def test_projecting_twice_changes_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    log(run, STUDY)
    first = project(run.path)
    again = project(run.path)
    assert contents(again) == contents(first)
    assert [trial._trial_id for trial in again.trials] == [trial._trial_id for trial in first.trials]
    assert [trial.datetime_start for trial in again.trials] == [trial.datetime_start for trial in first.trials]
    with sqlite3.connect(run.path / "study/optuna.db") as database:
        assert database.execute("select count(*) from trials").fetchone() == (4,)
        assert database.execute("select count(*) from trial_intermediate_values").fetchone() == (5,)


def test_a_view_updated_after_every_event_equals_one_made_at_the_end(tmp_path: Path) -> None:
    """Cutting a study off after any event and projecting again is one of the steps."""
    run = make_run(tmp_path)
    view = OptunaView(run.path)
    for number, event in enumerate([*STUDY, COMPLETE]):
        log(run, [event])
        view = OptunaView(run.path) if number % 7 == 0 else view  # another process goes on
        study = view.push()
    write_atomic(run.path / "study/outcome.json", json.dumps({"winner": 0, "default": 3}))
    confirm(run, 0, 0.5, 0.7)
    ids = [trial._trial_id for trial in study.trials]
    view.push()
    fresh = project(run.path, storage=f"sqlite:///{tmp_path}/fresh.db")
    assert contents(
        optuna.load_study(study_name=run.path.name, storage=f"sqlite:///{run.path}/study/optuna.db")
    ) == contents(fresh)
    assert fresh.trials[0].user_attrs["confirmed"] == {"mean": pytest.approx(0.6), "values": [0.5, 0.7]}
    assert [trial._trial_id for trial in project(run.path).trials] == ids


def test_a_cut_off_trial_is_pruned_for_the_reason_of_the_studys_end(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    log(run, [*STUDY, {"event": "stop", "trial": 3, "seed": 0, "reason": "limits.steps"}, end(3, 0), COMPLETE])
    trial = project(run.path).trials[3]
    assert trial.state is TrialState.PRUNED
    assert trial.user_attrs["stop_reason"] == COMPLETE["reason"]
    assert trial.value == 0.3


def test_a_log_that_lost_its_end_takes_the_view_back(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    log(run, STUDY)
    project(run.path)
    path = run.path / "study/events.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:9]) + '{"event": "rep')  # written while a process was killed
    study = project(run.path)
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]


def test_values_that_are_not_numbers_fail_the_trial_and_nothing_else(tmp_path: Path) -> None:
    run = make_run(tmp_path, scheduler={"kind": "median"})
    log(run, [start(0), *full(0, 0, 0.5, float("nan")), start(1), *full(1, 0, 0.5, float("-inf"))])
    first, second = project(run.path).trials
    assert first.state is TrialState.FAIL
    assert np.isnan(first.intermediate_values[90])
    assert first.user_attrs["seeds"]["0"]["value"] is None
    assert (second.state, second.value) == (TrialState.COMPLETE, float("-inf"))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> optuna.Study:
    """The view of 30 configurations whose value is the learning rate's logarithm."""
    run = make_run(tmp_path_factory.mktemp("searched"), scheduler={"kind": "median"})
    rng = np.random.default_rng(0)
    for trial in range(30):
        rate, epsilon = 10 ** rng.uniform(-3, 0), rng.uniform(0, 0.5)
        log(run, [start(trial, rate=rate, epsilon=epsilon), *full(trial, 0, np.log10(rate) / 2, np.log10(rate))])
    return project(run.path)


@pytest.mark.parametrize(
    "evaluator",
    [optuna.importance.FanovaImportanceEvaluator(seed=0), optuna.importance.PedAnovaImportanceEvaluator()],
)
def test_optunas_importances_find_the_parameter_that_matters(searched: optuna.Study, evaluator: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scikit-learn and Optuna about themselves
        shares = optuna.importance.get_param_importances(searched, evaluator=evaluator)
    assert max(shares, key=lambda path: shares[path]) == "agent.learning_rate"


@pytest.mark.parametrize(
    "plot", ["optimization_history", "parallel_coordinate", "intermediate_values", "slice", "param_importances"]
)
def test_optunas_plots_take_the_view(searched: optuna.Study, plot: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import optuna.visualization.matplotlib as visualization

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls its matplotlib plots experimental
        axes = getattr(visualization, f"plot_{plot}")(searched)
    assert np.asarray(axes).size
    plt.close("all")


def test_a_run_without_a_search_has_no_view(tmp_path: Path) -> None:
    run = make_run(tmp_path, text=EXPERIMENT)
    plain = create_run(run.config.trial({}), parent=tmp_path / "plain")
    with pytest.raises(RunDirectoryError, match="holds no study: its experiment has no search section"):
        project(plain.path)
    with pytest.raises(RunDirectoryError, match=r"is not a run directory: it has no run\.json"):
        project(tmp_path)


@pytest.mark.parametrize("line", ['{"event": "report"}', "[1]", '{"event": "end", "trial": 9, "seed": 0}', "garbage"])
def test_a_damaged_log_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    run = make_run(tmp_path)
    log(run, STUDY[:3])
    with (run.path / "study/events.jsonl").open("a") as file:
        file.write(line + "\n")
    log(run, STUDY[3:5])
    with pytest.raises(RunDirectoryError, match=r"events\.jsonl:4: not .*restore the file from a copy"):
        project(run.path)


def test_two_writers_of_one_view_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optuna_view, "LIVE_WAIT_S", 0.2)
    run = make_run(tmp_path)
    with locked(run.path / LOCK), pytest.raises(RunDirectoryError, match="in use by another policylab process"):
        project(run.path)


def test_the_live_view_ends_complete(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    log(run, STUDY)
    with LiveView(run.path, storage=None) as live:
        log(run, [COMPLETE])
    assert live.warnings == []
    study = optuna.load_study(study_name=run.path.name, storage=f"sqlite:///{run.path}/study/optuna.db")
    assert study.user_attrs["ended"] == COMPLETE["reason"]
    assert len(study.trials) == 4


def test_a_storage_that_fails_costs_one_warning(tmp_path: Path) -> None:
    url = "sqlite:////nowhere/at/all/optuna.db"
    run = make_run(tmp_path, storage=url)
    log(run, STUDY)
    with LiveView(run.path, storage=url) as live:
        pass
    (warning,) = live.warnings
    assert "the Optuna view of the study is incomplete" in warning
    assert "unable to open database file" in warning
    assert f"policylab study export {run.path} --format optuna" in warning


def test_no_view_is_kept_where_none_is_wanted(tmp_path: Path) -> None:
    run = make_run(tmp_path, storage="none")
    log(run, STUDY)
    with LiveView(run.path, storage="none") as live:
        pass
    assert live.warnings == []
    assert not (run.path / "study/optuna.db").exists()


def test_where_the_view_is_kept_is_no_part_of_the_experiment(tmp_path: Path) -> None:
    first, second = (make_run(tmp_path, storage=storage).config for storage in (None, "postgresql://u:p@host/db"))
    assert first.config_hash == second.config_hash
