"""A population over real runs: copies go on from checkpoints, the winner's schedule is trained anew."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from policylab.errors import CheckpointError, ConfigError, RunDirectoryError
from policylab.experiments.checkpoints import inherit, newest_checkpoint
from policylab.experiments.execute import execute
from policylab.experiments.optuna_view import project
from policylab.experiments.outcome import finished_runs
from policylab.experiments.rundir import RunDirectory, create_run
from policylab.experiments.runner import drive
from policylab.experiments.schema import ExperimentConfig, load_experiment
from policylab.experiments.study import RunBackend, read_history, trial_experiment
from policylab.experiments.study_documents import best_document, export_rows, show_document
from policylab.experiments.study_outcome import read_outcome
from policylab.experiments.study_view import read_study
from policylab.experiments.tracking.run_view import read_run
from policylab.experiments.tracking.study_rows import read_configurations
from policylab.launchers import Handle, Progress, State
from policylab.runspec import ParentRun
from policylab.tuning.backend import Job, Parent

EXPERIMENT: dict[str, Any] = {
    "name": "grown",
    "env": {"id": "FrozenLake-v1", "kwargs": {"is_slippery": False}},
    "agent": {
        "kind": "sarsa_lambda",
        "learning_rate": 0.1,
        "discount": 0.95,
        "trace_decay": 0.5,
        "exploration": {"kind": "epsilon_greedy", "epsilon": {"kind": "linear", "start": 1.0, "end": 0.1}},
    },
    "budget": {"steps": 5000},
    "seeds": {"tune": 2, "confirm": 2},
    "evaluation": {"marks": 7},
    "tracking": {"kind": "none"},
    "search": {
        "space": {
            "parameters": {
                "agent.learning_rate": {"kind": "continuous", "low": 0.01, "high": 1.0},
                "agent.trace_decay": {"kind": "continuous", "low": 0.0, "high": 0.95},
                "agent.exploration.epsilon.end": {"kind": "continuous", "low": 0.0, "high": 0.3},
            }
        },
        "searcher": {"kind": "random"},
        "scheduler": {"kind": "population", "members": 5, "every": 0.2, "quantile": 0.4, "seeds": 2},
        "limits": {"steps": 50_000},
        "metric": "train/return_mean",
        "storage": "none",
    },
}


def experiment(**changes: Any) -> ExperimentConfig:
    return ExperimentConfig.model_validate({**EXPERIMENT, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, dict[str, Any]]:
    """A study whose winner is a schedule, and its result document."""
    run = create_run(experiment(), parent=tmp_path_factory.mktemp("population"))
    document = drive(run)
    assert document["search"]["schedule"], "no fork won"
    return run, document


def arrays(folder: Path) -> dict[str, bytes]:
    newest = newest_checkpoint(folder)
    assert newest is not None
    with np.load(newest / "state.npz", allow_pickle=False) as stored:
        return {name: stored[name].tobytes() for name in stored.files}


def test_the_schedule_trained_anew_on_a_tuning_seed_is_the_winner_to_the_last_bit(
    finished: tuple[RunDirectory, dict[str, Any]], tmp_path: Path
) -> None:
    """What confirmation replays is what the population did: forks are copies, and settings change where they forked."""
    run, document = finished
    winner, history = document["search"]["winner"], read_history(run)
    spec = trial_experiment(run.config, history, trial=winner).spec("tune", 1)
    assert [stage.until_steps for stage in spec.earlier] == [
        stage["until_steps"] for stage in document["search"]["schedule"][:-1]
    ]
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    execute(tmp_path)
    forked = run.path / f"trials/{winner:04d}/tune-001"
    assert arrays(tmp_path) == arrays(forked)
    rows, others = (
        {row["step"]: row["metrics"] for row in map(json.loads, (folder / "reports.jsonl").read_text().splitlines())}
        for folder in (tmp_path, forked)
    )
    assert rows[5000]["eval/return_mean"] == others[5000]["eval/return_mean"]
    assert sorted(others) == sorted({*others, *range(715, 5000, 715), 5000}), "a fork's reports begin with its parent's"


def test_confirmation_trains_through_the_schedule(finished: tuple[RunDirectory, dict[str, Any]]) -> None:
    run, document = finished
    winner = document["search"]["winner"]
    confirmed = [one for one in finished_runs(run) if one.spec.role == "confirm" and one.spec.trial == winner]
    assert len(confirmed) == 2
    assert all(len(one.spec.earlier) == len(document["search"]["schedule"]) - 1 for one in confirmed)
    assert all(one.result.steps == 5000 for one in confirmed)
    assert document["confirmed"]["n_seeds"] == 2


def test_the_steps_trained_are_the_steps_paid_for(finished: tuple[RunDirectory, dict[str, Any]]) -> None:
    run, document = finished
    search, trained = document["search"], document["cost"]["env_steps"]
    assert search["spent_steps"] == 50_000 == 5 * 2 * 5000
    confirmations = len({search["winner"], search["default"]}) * 2 * 5000
    assert trained == search["spent_steps"] + confirmations
    history = read_history(run)
    assert search["saved_by_stopping_steps"] == 0, "what a loser leaves, its successor uses"
    assert history.proposed == 5 < len(history.trials)


def test_the_best_experiment_file_trains_the_schedule(
    finished: tuple[RunDirectory, dict[str, Any]], tmp_path: Path
) -> None:
    run, document = finished
    best = best_document(run)
    assert best["schedule"] == document["search"]["schedule"]
    path = tmp_path / "best.yaml"
    path.write_text(best["yaml"])
    again = load_experiment(str(path))
    assert again == load_experiment(str(run.path / "config.yaml"), overrides=[*best["set"], "search=null"])
    values = [one.result.value for one in finished_runs(run) if one.spec.trial == best["trial"]]
    result = drive(create_run(again, parent=tmp_path))
    assert result["confirmed"]["value"] == pytest.approx(document["returns"]["confirmed"]["value"], abs=0)
    assert values


def test_every_view_tells_where_a_fork_comes_from(finished: tuple[RunDirectory, dict[str, Any]]) -> None:
    run, document = finished
    history = read_history(run)
    forks = {trial.id: trial for trial in history.trials.values() if trial.parent is not None}
    shown = show_document(run)
    assert shown["schedule"] == document["search"]["schedule"]
    for row in shown["leaders"]:
        fork = forks.get(row["trial"])
        assert row["parent"] == (None if fork is None else {"trial": fork.parent, "steps": fork.origin})
    study = project(run.path, storage=f"sqlite:///{run.path}/view.db")
    assert len(study.trials) == len(history.trials)
    for trial in study.trials:
        fork = forks.get(trial.number)
        expected = None if fork is None else {"trial": fork.parent, "resource": fork.origin}
        assert trial.user_attrs.get("parent") == expected
        assert set(trial.params) == set(EXPERIMENT["search"]["space"]["parameters"])
    views = read_configurations(read_run(run.path))
    assert views is not None
    assert len(views) == len(history.trials)
    for view in views.values():
        fork = forks.get(view.number)
        assert view.parent == ("" if fork is None else f"trial {fork.parent:04d} at {fork.origin}")
    rows = list(export_rows(read_study(run.path)))
    steps: dict[tuple[int, int], int] = {}
    for row in rows:
        steps[row["trial"], row["seed"]] = row["resource"] - (row["parent_resource"] or 0)
    assert sum(steps.values()) == history.spent, "what was inherited is exported once"
    page = (run.path / "report.html").read_text()
    assert "Best schedule" in page
    assert "an upright line leads from a run to the copy" in page.lower()


# --- a run in stages


def test_a_run_in_stages_is_the_same_wherever_it_is_cut_off(tmp_path: Path) -> None:
    config = experiment(
        search=None,
        stages=[
            {"until_steps": 1000, "settings": {"agent.learning_rate": 0.9}},
            {"until_steps": 2001, "settings": {"agent.learning_rate": 0.3, "agent.trace_decay": 0.1}},
        ],
    )
    spec = config.spec("confirm", 0)
    for name, stops in {"whole": (), "cut": (700, 1000, 1500, 2001, 4999)}.items():
        folder = tmp_path / name
        folder.mkdir()
        for stop in (*stops, 5000):
            (folder / "result.json").unlink(missing_ok=True)
            (folder / "spec.json").write_text(spec.model_copy(update={"stop_at_steps": stop}).model_dump_json())
            execute(folder)
    assert arrays(tmp_path / "whole") == arrays(tmp_path / "cut")


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"until_steps": 5000, "settings": {"agent.discount": 0.9}}], r"rising steps below budget.steps, 5000"),
        (
            [{"until_steps": at, "settings": {"agent.discount": 0.9}} for at in (300, 200)],
            r"rising steps below budget.steps, 5000, got \[300, 200\]",
        ),
        (
            [{"until_steps": 10, "settings": {"agent.learning_rat": 0.1}}],
            r"grown.yaml:\d+:\d+: agent.learning_rat: it cannot change while `sarsa_lambda` trains \(what can: disc",
        ),
        (
            [{"until_steps": 10, "settings": {"agent.learning_rate": -1}}],
            r"grown.yaml:\d+:\d+: agent.learning_rate.*greater than 0",
        ),
        (
            [{"until_steps": 10, "settings": {"agent.traces": "dutch"}}],
            r"agent.traces: it cannot change while `sarsa_lambda` trains",
        ),
    ],
)
def test_stages_that_cannot_be_are_refused(stages: list[Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "grown.yaml"
    path.write_text(yaml.safe_dump({**EXPERIMENT, "search": None, "stages": stages}))
    with pytest.raises(ConfigError, match=message):
        load_experiment(str(path))


def test_a_population_changes_only_what_can_change_while_an_agent_trains(tmp_path: Path) -> None:
    search = {**EXPERIMENT["search"]}
    search["space"] = {
        "parameters": {
            **search["space"]["parameters"],
            "agent.traces": {"kind": "categorical", "values": ["replacing", "dutch"]},
        }
    }
    path = tmp_path / "grown.yaml"
    path.write_text(yaml.safe_dump({**EXPERIMENT, "search": search}))
    with pytest.raises(ConfigError, match=r"grown.yaml:\d+:\d+: agent.traces: it cannot change .* scheduler.explore"):
        load_experiment(str(path))
    search["scheduler"] = {**search["scheduler"], "explore": ["agent.learning_rate"]}
    path.write_text(yaml.safe_dump({**EXPERIMENT, "search": search}))
    assert load_experiment(str(path)).search is not None, "what is only inherited may be of any kind"


def test_the_hash_of_an_experiment_without_stages_is_what_it_was() -> None:
    config = experiment()
    assert config.config_hash == config.model_copy(update={"stages": ()}).config_hash
    assert "stages" not in json.dumps(config.model_dump(mode="json", exclude={"stages"}))


# --- forks and kills


def parent_and_child(tmp_path: Path) -> tuple[Path, Path]:
    """Return the folder of a run after 1000 steps, and that of a fork that has nothing yet."""
    run = create_run(experiment(), parent=tmp_path)
    spec = run.config.trial({}).spec("tune", 0, stop_at_steps=1000)
    spec = spec.model_copy(update={"config_hash": run.config.config_hash})
    execute(run.folder(spec))
    return run.path / spec.path, run.path / "trials/0005/tune-000"


def test_a_copy_cut_off_anywhere_is_made_whole(tmp_path: Path) -> None:
    """The study is killed after its decision: while nothing, the reports, or half a checkpoint is copied."""
    parent, child = parent_and_child(tmp_path)
    inherit(child, parent, steps=1000)
    whole = arrays(child), (child / "reports.jsonl").read_bytes()
    (child / "checkpoints" / f"{1000:015d}").rename(child / "checkpoints" / f".{1000:015d}.copy-torn")
    (child / "checkpoints" / f".{1000:015d}.copy-torn" / "state.npz").write_bytes(b"torn")
    inherit(child, parent, steps=1000)
    assert (arrays(child), (child / "reports.jsonl").read_bytes()) == whole
    assert [path.name for path in (child / "checkpoints").iterdir()] == [f"{1000:015d}"]
    assert arrays(child) == arrays(parent)


def test_a_copy_that_went_on_is_left_alone(tmp_path: Path) -> None:
    parent, child = parent_and_child(tmp_path)
    inherit(child, parent, steps=1000)
    (child / "checkpoints" / f"{1000:015d}").rename(child / "checkpoints" / f"{1200:015d}")
    inherit(child, parent, steps=1000)
    assert [path.name for path in (child / "checkpoints").iterdir()] == [f"{1200:015d}"]


def test_a_fork_from_where_the_parent_no_longer_stands_is_refused(tmp_path: Path) -> None:
    parent, child = parent_and_child(tmp_path)
    with pytest.raises(RunDirectoryError, match=r"there is no checkpoint after 800 steps, which .* is to go on from"):
        inherit(child, parent, steps=800)


def test_a_fork_without_its_checkpoint_does_not_start_over(tmp_path: Path) -> None:
    run = create_run(experiment(), parent=tmp_path)
    spec = run.config.trial({}).spec("tune", 0, trial=5, stop_at_steps=2000)
    folder = run.folder(spec.model_copy(update={"parent": ParentRun(trial=0, steps=1000)}))
    with pytest.raises(RunDirectoryError, match="its parent's checkpoint, of trial 0 after 1000 steps, is missing"):
        execute(folder)


def test_settings_that_differ_without_a_fork_are_still_refused(tmp_path: Path) -> None:
    parent, _ = parent_and_child(tmp_path)
    spec = json.loads((parent / "spec.json").read_text())
    spec["agent"]["discount"] = 0.5
    spec["stop_at_steps"] = 2000
    (parent / "spec.json").write_text(json.dumps(spec))
    (parent / "result.json").unlink()
    with pytest.raises(CheckpointError, match=r"agent\.discount 0\.95 instead of 0\.5"):
        execute(parent)


class Begun:
    """A launcher that lets a run go on the moment it is submitted."""

    def __init__(self) -> None:
        self.order: list[Path] = []

    def submit(self, folder: Path, *, n_failed: int = 0) -> Handle:
        self.order.append(folder)
        execute(folder)
        return Handle(folder)

    def poll(self, handle: Handle) -> Progress:
        return Progress(State.FINISHED)

    def wait(self, *, timeout_s: float) -> None:
        raise AssertionError("everything has ended")


@pytest.mark.parametrize("parent_first", [False, True])
def test_a_copy_is_made_before_the_parent_goes_on(tmp_path: Path, parent_first: bool) -> None:
    """Also when a killed study submits all its jobs again, in the order of their trials."""
    parent, child = parent_and_child(tmp_path)
    before = arrays(parent)
    run, launcher = RunDirectory(parent.parents[2]), Begun()
    backend = RunBackend(run, run.config, launcher=launcher, capacity=2)  # type: ignore[arg-type]
    jobs = [Job(5, {"agent.learning_rate": 0.7}, 0, 1000, 2000, Parent(0, 1000)), Job(0, {}, 0, 1000, 2000)]
    for job in reversed(jobs) if parent_first else jobs:
        backend.submit(job)
    ends = [event for event in backend.wait() if event["event"] == "end"]
    assert len(ends) == 2
    assert launcher.order == ([parent, child] if parent_first else [child, parent])
    assert json.loads((child / "spec.json").read_text())["parent"] == {"trial": 0, "steps": 1000}
    ours, theirs = ((folder / "reports.jsonl").read_text().splitlines() for folder in (child, parent))
    assert [json.loads(line)["step"] for line in ours] == [715, 1000, 1430, 2000]
    assert ours[:2] == theirs[:2], "what was inherited"
    assert arrays(child) != arrays(parent) != before


def results(run: Path) -> dict[str, Any]:
    """Everything a study found: decisions, values and final states."""
    events = [json.loads(line) for line in (run / "study/events.jsonl").read_text().splitlines()]
    found: dict[str, Any] = {"decided": [e for e in events if e["event"] not in ("report", "end", "complete")]}
    found["reports"] = sorted(json.dumps(e, sort_keys=True) for e in events if e["event"] == "report")
    for path in sorted(run.glob("trials/*/*/checkpoints/*/state.npz")):
        found[str(path.relative_to(run))] = arrays(path.parents[2])
    outcome = json.loads((run / "study/outcome.json").read_text())
    return {**found, "outcome": outcome, "result": json.loads((run / "result.json").read_text())["confirmed"]}


def test_members_trained_together_in_one_process_decide_the_same(
    finished: tuple[RunDirectory, dict[str, Any]], tmp_path: Path
) -> None:
    run = create_run(experiment(launcher={"kind": "inline"}), parent=tmp_path)
    drive(run)
    assert results(run.path) == results(finished[0].path)


@pytest.mark.parametrize("attempt", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 5))])
def test_kill_9_at_random_moments_then_resume_ends_the_same(
    finished: tuple[RunDirectory, dict[str, Any]], tmp_path: Path, attempt: int
) -> None:
    whole, _ = finished
    run = create_run(whole.config, parent=tmp_path)
    chance, kills = random.Random(attempt), 0
    command = [sys.executable, "-m", "policylab", "resume", str(run.path)]
    for n_events in sorted(chance.sample(range(2, 150), 3)):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        log = run.path / "study/events.jsonl"
        while process.poll() is None and (not log.exists() or log.read_bytes().count(b"\n") < n_events):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert results(run.path) == results(whole.path)
    assert read_outcome(run) == read_outcome(whole)
