"""A run that raises, dies or hangs is recorded, goes on from its last checkpoint if it may, and ends no study."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from policylab.agents.agent import Report
from policylab.cli.main import main
from policylab.errors import RunError, UserError
from policylab.experiments.execute import RunExecution
from policylab.experiments.rundir import RunDirectory, create_run
from policylab.experiments.runner import Observer, drive
from policylab.experiments.schema import ExperimentConfig
from policylab.launchers import Progress, State, open_launcher

MODULE = '''
import os, pathlib, time
import gymnasium as gym

class Faulty(gym.Env):
    """Two states. Each file in `folder` is a fault (or none: pass), met by the first run to take 600 unsaved steps."""

    observation_space, action_space, steps = gym.spaces.Discrete(2), gym.spaces.Discrete(2), 0

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = 0
        return 0, {}

    def step(self, action):
        self.steps += 1
        if self.steps == 600:
            for fault in sorted(self.folder.iterdir(), key=lambda file: file.name.rpartition("-")[2]):
                try:
                    fault.unlink()
                except FileNotFoundError:
                    continue
                if fault.name.startswith("pass"):
                    break
                if fault.name.startswith("raise"):
                    raise ZeroDivisionError("the environment broke")
                if fault.name.startswith("die"):
                    os._exit(3)
                if fault.name.startswith("nan"):
                    return 0, float("nan"), False, False, {}
                time.sleep(600)
        self.state = int(self.np_random.random() < 0.3 + 0.4 * (action == self.state))
        return self.state, float(self.state), False, False, {}

gym.register("Faulty-v0", Faulty, max_episode_steps=20)
'''
SEARCH = {
    "space": {"parameters": {"agent.learning_rate": {"kind": "continuous", "low": 0.05, "high": 0.5}}},
    "searcher": {"kind": "random"},
    "scheduler": {"kind": "fixed"},
    "limits": {"trials": 5},
    "storage": "none",
}


@pytest.fixture(autouse=True)
def faulty_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment, where this process and workers find it."""
    (tmp_path / "faulty_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))


def experiment(tmp_path: Path, launcher: Mapping[str, Any], *faults: str, **changes: Any) -> RunDirectory:
    """Return a fresh study of plain runs, which will meet ``faults``."""
    folder = tmp_path / launcher["kind"] / str(len(faults))
    (folder / "faults").mkdir(parents=True)
    for number, fault in enumerate(faults):
        (folder / "faults" / f"{fault}-{number}").touch()
    settings = {
        "name": "faults",
        "env": {"id": "faulty_module:Faulty-v0", "kwargs": {"folder": str(folder / "faults")}},
        "agent": {"kind": "q_learning", "learning_rate": 0.1, "discount": 0.9},
        "budget": {"steps": 1_000},
        "seeds": {"tune": 1, "confirm": 0},
        "evaluation": {"kind": "rollout", "marks": 4, "episodes": 1, "final_episodes": 1},
        "launcher": launcher,
        "tracking": {"kind": "none"},
        "search": SEARCH,
        **changes,
    }
    return create_run(ExperimentConfig.model_validate(settings), parent=folder)


def events(run: RunDirectory, kind: str) -> list[dict[str, Any]]:
    lines = (run.path / "study" / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def content(run: RunDirectory) -> dict[str, bytes]:
    """Return what the runs left, by their folders."""
    found = [path for name in ("reports.jsonl", "result.json") for path in run.path.glob(f"trials/*/*/{name}")]
    return {str(path.relative_to(run.path)): path.read_bytes() for path in found}


DIVERGED = "an action value is no longer finite"
RETRIED: list[Any] = [
    (
        {"kind": "inline", "retries": 3, "retry_errors": True},
        ("nan", "raise", "raise"),
        {"ZeroDivisionError", DIVERGED},
    ),
    pytest.param(
        {"kind": "local", "workers": 2, "retries": 3, "retry_errors": True, "max_runtime_s": 10.0},
        ("die", "hang", "raise"),
        {"its worker process died (exit 3)", "ran longer than 10 s", "ZeroDivisionError"},
        marks=pytest.mark.slow,
    ),
]
EXHAUSTED: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"kind": "inline"}, ("nan", "raise")),
    ({"kind": "local", "workers": 1}, ("die", "raise")),
]


@pytest.mark.parametrize(("launcher", "faults", "reasons"), RETRIED, ids=["inline", "local"])
def test_runs_that_go_on_after_a_fault_leave_no_difference(
    tmp_path: Path, launcher: dict[str, Any], faults: tuple[str, ...], reasons: set[str]
) -> None:
    undisturbed = experiment(tmp_path, {"kind": "inline"})
    expected = drive(undisturbed)
    run = experiment(tmp_path, launcher, *faults)
    document = drive(run)
    assert content(run) == content(undisturbed)
    assert document["selected"] == expected["selected"]
    retried = events(run, "retry")
    assert {reason for reason in reasons if any(reason in event["error"] for event in retried)} == reasons
    assert len(retried) == len(faults)
    assert not any(event["error"] for event in events(run, "end"))


@pytest.mark.parametrize(("launcher", "faults"), EXHAUSTED)
def test_a_run_that_failed_too_often_is_shown_with_its_traceback_and_the_study_ends(
    tmp_path: Path, launcher: dict[str, Any], faults: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    run = experiment(tmp_path, launcher, *faults)
    document = drive(run)
    assert (document["search"]["n_trials"], document["search"]["n_failed"]) == (5, len(faults))
    failed = [event for event in events(run, "end") if event["error"]]
    assert len(failed) == len(faults)
    (raised,) = [event for event in failed if event["error"] == "ZeroDivisionError: the environment broke"]
    assert 'raise ZeroDivisionError("the environment broke")' in raised["traceback"]
    assert main(["study", "show", str(run.path)]) == 0
    shown = capsys.readouterr().out
    assert f"{len(faults)} failed, 0 tried again" in shown
    for event in failed:
        assert f"failed: trial {event['trial']} on seed 0: {event['error']}" in shown
    assert "in step\n" in shown


CONFIRMED = {"seeds": {"tune": 1, "confirm": 2}, "search": {**SEARCH, "limits": {"trials": 2}}}


def test_a_confirmation_that_failed_is_shown_until_it_is_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = experiment(tmp_path, {"kind": "inline"}, "pass", "pass", "raise", **CONFIRMED)
    with pytest.raises(RunError, match=r"the environment broke.*`policylab study best .*` prints its winner.*resume"):
        drive(run)
    assert main(["study", "show", str(run.path)]) == 0
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    (study,) = [line for line in lines if line.startswith("study ")]
    assert "failed: " in study
    assert "the environment broke" in study
    assert next(line for line in lines if line.startswith("search ")).endswith("2 configurations tried")
    (failed,) = [line for line in lines if line.startswith("failed: ")]
    assert re.fullmatch(
        r"failed: confirmation of trial \d on seed \d: ZeroDivisionError: the environment broke", failed
    )
    assert "in step\n" in shown, "its traceback"
    assert ", 1 failed" in next(line for line in lines if line.startswith("confirmation "))

    with (run.path / "failures.jsonl").open("a") as file:
        file.write('{"run": "trials/0000/con')  # as a kill -9 leaves it
    document = drive(run)
    assert document["search"]["failures"] == []
    (retried,) = document["search"]["retried"]
    assert (retried["role"], retried["error"]) == ("confirm", "ZeroDivisionError: the environment broke")
    assert main(["study", "show", str(run.path)]) == 0
    shown = capsys.readouterr().out
    assert "failed: " not in shown
    assert re.search(r"^tried again: confirmation of trial \d on seed \d: ZeroDivisionError: .* broke$", shown, re.M)


def test_reasons_of_attempts_that_were_repeated_are_shown_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = {"kind": "inline", "retries": 2, "retry_errors": True}
    run = experiment(tmp_path, again, "raise", "raise", "pass", "pass", "raise", **CONFIRMED)
    document = drive(run)
    assert document["search"]["failures"] == []
    assert [(one["role"], one["runs"]) for one in document["search"]["retried"]] == [("tune", 2), ("confirm", 1)]
    assert main(["study", "show", str(run.path)]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^tried again: trial 0 on seed 0 and 1 more attempt: ZeroDivisionError: .* broke$", shown, re.M)
    assert re.search(r"^tried again: confirmation of trial \d on seed \d: ZeroDivisionError: .* broke$", shown, re.M)
    assert "0 failed, 2 tried again" in shown
    report = (run.path / "report.html").read_text()
    assert "tried again, by their reasons: ZeroDivisionError: the environment broke (2)" in report


@pytest.mark.parametrize("kind", ["inline", "local"])
def test_attempts_before_a_kill_count_after_it(tmp_path: Path, kind: str) -> None:
    launcher = {"kind": kind, "workers": 1, "retries": 1, "retry_errors": True}
    run = experiment(tmp_path, launcher, "raise", "raise", search={**SEARCH, "limits": {"trials": 1}})
    with pytest.raises(UserError, match="the environment broke"):
        drive(run)
    log = run.path / "study" / "events.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    (retry,) = [place for place, line in enumerate(lines) if json.loads(line)["event"] == "retry"]
    log.write_text("".join(lines[: retry + 1]))  # as a kill before the second attempt leaves it
    (tmp_path / kind / "2" / "faults" / "raise-0").touch()
    with pytest.raises(UserError, match="the environment broke"):
        drive(run)
    assert len(events(run, "retry")) == 1


def test_a_metric_that_is_no_number_is_told_with_its_name() -> None:
    report = Report(steps=10, episodes=1, metrics={})
    with pytest.raises(RunError, match="after 10 steps eval/return_mean is nan"):
        RunExecution.row(10, report, evaluated={"eval/return_mean": math.nan})


@pytest.mark.parametrize("kind", ["inline", "local"])
def test_a_run_goes_on_from_its_last_checkpoint(tmp_path: Path, kind: str) -> None:
    run = experiment(tmp_path, {"kind": kind, "retries": 1, "retry_errors": True}, "raise")
    spec = run.config.specs()[0].model_copy(update={"checkpoint_every_s": 0.0})
    with open_launcher(run.config.launcher, n_workers=1, folder=run.path) as opened:
        handle = opened.submit(run.folder(spec))
        while not opened.poll(handle).state.ended:
            opened.wait(timeout_s=1.0)
        progress = opened.poll(handle)
    assert (progress.state, len(progress.failures)) == (State.FINISHED, 1)
    costs = map(json.loads, (handle.folder / "cost.jsonl").read_text().splitlines())
    assert sum(cost["steps"] for cost in costs) < 1_000 + 500, "what was saved after 250 steps is not trained again"


@pytest.mark.parametrize(
    ("launcher", "message"),
    [
        ({"max_runtime_s": 5}, "max_runtime_s needs processes that can be killed: use kind 'local'"),
        ({"retries": 1}, "in one process nothing but exceptions can be retried: set retry_errors, or use kind 'local'"),
    ],
)
def test_what_needs_processes_is_refused_in_one(tmp_path: Path, launcher: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        experiment(tmp_path, {"kind": "inline", **launcher})


def test_a_worker_that_hangs_ends_some_time_after_its_parent(tmp_path: Path) -> None:
    hangs = (
        "import sys, time\n"
        "from policylab.experiments import worker\n"
        "worker.LEAVE_S = 0.5\n"
        "worker.execute = lambda *_, **__: time.sleep(600)\n"  # whatever is asked of it, as a step that never returns
        "worker.serve(sys.stdin, sys.stdout)\n"
    )
    with subprocess.Popen([sys.executable, "-c", hangs], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"run": str(tmp_path)}).encode() + b"\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["event"] == "progress", "the run has begun"
        process.stdin.close()
        assert process.wait(timeout=60) == 1


def test_an_interrupt_leaves_the_reasons_of_what_was_tried_again(tmp_path: Path) -> None:
    def interrupt(progress: Sequence[Progress]) -> None:
        if any(one.failures for one in progress):
            raise KeyboardInterrupt("seen")

    again = {"kind": "inline", "retries": 2, "retry_errors": True}
    run = experiment(tmp_path, again, "pass", "pass", "raise", **CONFIRMED)
    with pytest.raises(KeyboardInterrupt, match="seen"):
        drive(run, observer=Observer(runs=interrupt))
    (retried,) = drive(run)["search"]["retried"]
    assert (retried["role"], retried["error"], retried["runs"]) == (
        "confirm",
        "ZeroDivisionError: the environment broke",
        1,
    )
