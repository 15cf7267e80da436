"""Studies of RLlib agents: promotion from their checkpoints, steps that overshoot, workers, a killed controller."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from policylab.experiments.rundir import RunDirectory, create_run
from policylab.experiments.schema import ExperimentConfig
from policylab.experiments.study import read_history
from policylab.experiments.study_outcome import read_outcome

pytest.importorskip("ray")

BATCH = 128
EXPERIMENT: dict[str, Any] = {
    "name": "deep",
    "env": {"id": "CartPole-v1"},
    "agent": {
        "kind": "rllib",
        "algorithm": "PPO",
        "learning_rate": 1e-3,
        "batch_size": BATCH,
        "minibatch_size": 64,
        "n_epochs": 2,
        "n_envs_per_runner": 4,
        "network": {"hidden": [16]},
    },
    "budget": {"steps": 1000},
    "seeds": {"tune": 2, "confirm": 1},
    "evaluation": {"marks": 3, "episodes": 2, "final_episodes": 2},
    "launcher": {"workers": 2},
    "tracking": {"kind": "none"},
    "search": {
        "space": {
            "parameters": {
                "agent.learning_rate": {"kind": "continuous", "low": 1e-5, "high": 1e-1, "scaling": "logarithmic"},
                "agent.overrides.lambda": {"kind": "continuous", "low": 0.8, "high": 0.99},
            }
        },
        "storage": "none",
    },
}
SEARCHES = {
    "hyperband": {"searcher": {"kind": "bayesian"}, "scheduler": {"kind": "hyperband", "min_resource": 0.3}},
    "race": {"searcher": {"kind": "random"}, "scheduler": {"kind": "race"}},
    "population": {
        "searcher": {"kind": "random"},
        "scheduler": {"kind": "population", "members": 3, "every": 0.35, "quantile": 0.34},
    },
}
LIMITS = {"hyperband": 3000, "race": 4000, "population": 3000}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "reports.jsonl").read_text().splitlines()]


def killed(run: RunDirectory, *, after_events: int) -> dict[Path, bytes]:
    """Start the study, kill it with signal 9; return the results that were there."""
    command = [sys.executable, "-m", "policylab", "resume", str(run.path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = run.path / "study/events.jsonl"
    while process.poll() is None and (not log.exists() or log.read_bytes().count(b"\n") < after_events):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the study was over before it could be killed"
    return {path: path.read_bytes() for path in run.path.glob("trials/*/*/result.json")}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SEARCHES)
def test_a_killed_study_of_deep_agents_goes_on_and_repeats_nothing(kind: str, tmp_path: Path) -> None:
    search = {**EXPERIMENT["search"], **SEARCHES[kind], "limits": {"steps": LIMITS[kind]}}
    run = create_run(ExperimentConfig.model_validate({**EXPERIMENT, "search": search}), parent=tmp_path)
    before = killed(run, after_events=9)
    log = (run.path / "study/events.jsonl").read_bytes()
    log = log[: log.rfind(b"\n") + 1]
    done = subprocess.run(
        [sys.executable, "-m", "policylab", "resume", str(run.path), "--json"],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (run.path / "study/events.jsonl").read_bytes().startswith(log), "what was decided stands"
    history, outcome = read_history(run), read_outcome(run)
    assert outcome.n_failed == 0
    assert history.spent <= LIMITS[kind]
    assert document["confirmed"]["n_seeds"] == 1
    for trial, one in history.runs():
        folder = run.path / f"trials/{trial.id:04d}/tune-{one.seed:03d}"
        reported = rows(folder)
        steps = [row["step"] for row in reported]
        assert steps == sorted(set(steps)), "one row for each mark"
        assert steps[-1] == one.until == one.resource
        # An iteration takes whole batches: what was sampled passes the mark by less than one.
        assert all(row["step"] <= row.get("env_steps", row["step"]) < row["step"] + 2 * BATCH for row in reported)
        assert {"eval/return_mean", "eval/stochastic_return_mean", "train/learning_rate"} <= set(
            reported[-1]["metrics"]
        )
        held = trial.configuration["agent.learning_rate"]
        assert reported[-1]["metrics"]["train/learning_rate"] == pytest.approx(held)
    for path, content in before.items():
        if json.loads((path.parent / "spec.json").read_text())["stop_at_steps"] == json.loads(content)["steps"]:
            assert path.read_bytes() == content, "a finished run is left alone"
