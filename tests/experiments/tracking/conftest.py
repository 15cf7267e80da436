"""Run directories made by hand, and a fresh MLflow store that needs no migration."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml

from policylab.agents.bundle import Lineage, write_bundle
from policylab.agents.features import AutoFeatures, make_encoder
from policylab.agents.value_policies import TabularPolicy

ENVIRONMENT = {"id": "FrozenLake-v1", "kwargs": {"map_name": "4x4"}, "max_episode_steps": 100}
GREEDY = [0, 3, 3, 3, 0, 0, 0, 0, 3, 1, 0, 0, 0, 2, 1, 0]


class Run:
    """A run directory that a test writes as the runner would."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        config = {
            "name": "lake",
            "env": {"id": "FrozenLake-v1"},
            "agent": {"kind": "q_learning", "learning_rate": 0.1},
            "tracking": {"kind": "mlflow", "uri": uri, "timeout_s": 60},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        self.status("running")

    def status(self, status: str) -> None:
        document = {
            "schema_version": 1,
            "name": "lake",
            "run_id": self.folder.name,
            "status": status,
            "config_hash": "c0ffee",
            "git_commit": "abc123",
            "host": "here",
            "created_utc": "2026-01-02T03:04:05+00:00",
            "environment": ENVIRONMENT,
            "versions": {"python": "3.11.9"},
        }
        (self.folder / "run.json").write_text(json.dumps(document))

    def trial(self, name: str, **spec: Any) -> Path:
        folder = self.folder / "trials" / name
        folder.mkdir(parents=True)
        index = int(name.rpartition("-")[2])
        default = {"trial": int(name[:4]), "index": index, "seed": 100 + index, "agent": {"kind": "q_learning"}}
        (folder / "spec.json").write_text(json.dumps({**default, **spec}))
        return folder

    def search(self, *, mode: str = "max") -> None:
        """Give the experiment a search; before anything of it is written."""
        config = yaml.safe_load((self.folder / "config.yaml").read_text())
        parameters = {"agent.learning_rate": {"kind": "continuous", "low": 0.01, "high": 1.0}}
        config["search"] = {"space": {"parameters": parameters}, "metric": "eval/return_mean", "mode": mode}
        config["budget"] = {"steps": 300}
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config))

    def event(self, kind: str, **fields: Any) -> None:
        path = self.folder / "study" / "events.jsonl"
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps({"event": kind, **fields}) + "\n")

    def piece(self, trial: int, seed: int, *, until: int, values: dict[int, float], error: str | None = None) -> None:
        """Train a run that was started in the log: its reports, its result if it did not fail, its events."""
        name = f"{trial:04d}/tune-{seed:03d}"
        if not (self.folder / "trials" / name).exists():
            self.trial(name)
        for step, value in values.items():
            metrics = {"eval/return_mean": value, "train/loss": 9.0}
            with (self.folder / "trials" / name / "reports.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, "episodes": 1, "metrics": metrics}) + "\n")
            self.event("report", trial=trial, seed=seed, resource=step, value=value)
        if error is None:
            document = {"schema_version": 1, "status": "finished", "steps": until, "value": value}
            (self.folder / "trials" / name / "result.json").write_text(json.dumps(document))
        self.event("end", trial=trial, seed=seed, error=error)

    def report(self, name: str, lines: int, *, metrics: dict[str, float] | None = None) -> None:
        path = self.folder / "trials" / name / "reports.jsonl"
        first = len(path.read_text().splitlines()) if path.exists() else 0
        with path.open("a") as file:
            for i in range(first, first + lines):
                values = {"train/return_mean": i / 10} if metrics is None else metrics
                file.write(json.dumps({"step": 100 * (i + 1), "episodes": i, "metrics": values}) + "\n")

    def result(self, name: str, value: float = 0.5) -> None:
        document = {"schema_version": 1, "status": "finished", "steps": 300, "value": value, "episode_returns": [0, 1]}
        (self.folder / "trials" / name / "result.json").write_text(json.dumps(document))

    def finish(self, *, bundle: bool = True) -> None:
        outcome = {
            "selected": {"value": 0.7, "ci": [0.6, 0.8], "n_seeds": 2},
            "confirmed": {"value": 0.65, "ci": [0.5, 0.75], "n_seeds": 1},
            "exact": {"optimal_return": 0.744, "policy_return": 0.74, "optimality_gap": 0.004},
            "baselines": [{"name": "always_down", "value": 0.05, "ci": None, "n_episodes": 0, "measure": "return"}],
            "cost": {"env_steps": 900, "wall_s": 1.5},
            "report": "report.html",
        }
        (self.folder / "result.json").write_text(json.dumps(outcome))
        (self.folder / "report.html").write_text("<p>report</p>")
        (self.folder / "figures").mkdir(exist_ok=True)
        (self.folder / "figures" / "curve.png").write_bytes(b"png")
        if bundle:
            write_bundle(self.folder / "bundle", policy(), env=gym.make("FrozenLake-v1"), lineage=Lineage(), metrics={})
        self.status("finished")


def policy() -> TabularPolicy:
    return TabularPolicy(np.eye(4)[GREEDY], make_encoder(AutoFeatures(), gym.spaces.Discrete(16)))


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with MLflow's tables: migrating a fresh one takes seconds."""
    store = tmp_path_factory.mktemp("store") / "mlflow.db"
    code = "import sys, mlflow; mlflow.MlflowClient(sys.argv[1]).search_experiments()"
    command = [sys.executable, "-W", "ignore", "-c", code, f"sqlite:///{store}"]
    subprocess.run(command, check=True, capture_output=True, cwd=store.parent)
    return store


@pytest.fixture
def store(migrated: Path, tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return Path(shutil.copy(migrated, tmp_path / "store" / "mlflow.db"))


@pytest.fixture
def make_run(store: Path, tmp_path: Path) -> Callable[..., Run]:
    def make(name: str = "lake-1", *, uri: str | None = None) -> Run:
        return Run(tmp_path / "runs" / name, uri or f"sqlite:///{store}")

    return make
