"""Runs of experiments with deep agents: killed, interrupted, resumed, accounted for."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from policylab.errors import CheckpointError
from policylab.experiments.execute import Stopped, execute
from policylab.experiments.rundir import create_run
from policylab.experiments.schema import ExperimentConfig
from policylab.files import read_lines

SMALL = {
    "name": "small",
    "env": {"id": "CartPole-v1", "max_episode_steps": 30},
    "agent": {
        "kind": "rllib",
        "algorithm": "PPO",
        "batch_size": 128,
        "minibatch_size": 128,
        "n_epochs": 1,
        "n_envs_per_runner": 4,
        "network": {"hidden": [8]},
    },
    "budget": {"steps": 1000},
    "seeds": {"tune": 1, "confirm": 0},
    "evaluation": {"marks": 2, "episodes": 2, "final_episodes": 4},
    "tracking": {"kind": "none"},
}


def run_folder(parent, **changes):
    config = ExperimentConfig.model_validate({**SMALL, **changes})
    return create_run(config, parent=parent).folder(config.specs()[0])


@pytest.fixture
def folder(tmp_path):
    return run_folder(tmp_path)


def test_marks_are_nominal_and_costs_are_what_was_taken(folder):
    result = execute(folder)
    rows, costs = read_lines(folder / "reports.jsonl"), read_lines(folder / "cost.jsonl")
    assert [row["step"] for row in rows] == [500, 1000]
    assert all(row["step"] <= row["env_steps"] < row["step"] + 200 for row in rows)
    assert result.steps == rows[-1]["env_steps"] == sum(cost["steps"] for cost in costs)
    assert {"eval/return_mean", "eval/stochastic_return_mean"} <= set(rows[0]["metrics"])
    assert result.stochastic_value is not None
    assert len(result.episode_returns) == 4
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["000000000001000"]
    assert execute(folder) == result, "a finished run is not trained again"


def test_a_stop_between_two_marks_loses_no_iteration(tmp_path):
    stop = threading.Event()
    folder = run_folder(tmp_path, checkpoint_every_s=0)
    stop.set()
    with pytest.raises(Stopped, match=str(folder)):
        execute(folder, stop=stop)
    (checkpoint,) = (folder / "checkpoints").iterdir()
    steps = int(checkpoint.name)
    assert 128 <= steps < 300, "it stopped after the first iteration, long before the mark"
    assert not (folder / "reports.jsonl").exists() or read_lines(folder / "reports.jsonl") == []
    result = execute(folder)
    assert result.execution["resume"].endswith(f"resumed after steps {steps}")
    assert [row["step"] for row in read_lines(folder / "reports.jsonl")] == [500, 1000]
    assert sum(cost["steps"] for cost in read_lines(folder / "cost.jsonl")) == result.steps


SPY = """
import sys
from pathlib import Path
from policylab.agents.rllib.metrics import Progress
from policylab.experiments.execute import execute

done, add = Path(sys.argv[1], "iterations").open("a", buffering=1), Progress.add
def told(progress, result):
    add(progress, result)
    done.write(f"{progress.steps}\\n")
Progress.add = told
execute(Path(sys.argv[1]))
"""
"""Writes down the steps after each iteration, apart from the run's own files."""


def test_a_run_that_is_killed_loses_at_most_one_iteration(tmp_path):
    """As an experiment file can ask for: many iterations between two marks, and a kill that nothing can catch."""
    folder = run_folder(tmp_path, checkpoint_every_s=0, budget={"steps": 20_000})
    process = subprocess.Popen([sys.executable, "-c", SPY, folder], env={**os.environ, "OMP_NUM_THREADS": "1"})
    done = folder / "iterations"
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and (not done.exists() or done.read_text().count("\n") < 12):
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before, last = map(int, done.read_text().splitlines()[-2:])
    saved = max((int(path.name) for path in (folder / "checkpoints").glob("[0-9]*")), default=0)
    assert before <= saved <= last
    spec = json.loads((folder / "spec.json").read_text())
    short = {"budget_steps": saved + 1, "stop_at_steps": saved + 1, "report_every_steps": saved + 1}
    (folder / "spec.json").write_text(json.dumps({**spec, **short}))
    assert execute(folder).execution["resume"].endswith(f"resumed after steps {saved}")


def test_a_damaged_checkpoint_says_how_to_go_on(folder):
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped, match=str(folder)):
        execute(folder, stop=stop)
    (checkpoint,) = (folder / "checkpoints").iterdir()
    (checkpoint / "rllib" / "algorithm_state.pkl").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match=r"algorithm_state.pkl is damaged.*delete .*/checkpoints"):
        execute(folder)


def test_runs_with_remote_processes_leave_them_their_cores():
    def workers(**agent):
        return ExperimentConfig.model_validate({**SMALL, "agent": {**SMALL["agent"], **agent}}).n_workers

    cores = len(os.sched_getaffinity(0))
    assert workers() == cores
    assert workers(n_env_runners=cores - 1) == 1
    assert workers(n_env_runners=100) == 1
    told = ExperimentConfig.model_validate(
        {**SMALL, "launcher": {"kind": "local", "workers": 3}, "agent": {**SMALL["agent"], "n_env_runners": 4}}
    )
    assert told.n_workers == 3
