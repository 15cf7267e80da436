"""What a warm-started search started from is what it goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from policylab.experiments.rundir import RunDirectory, create_run
from policylab.experiments.runner import Observer, drive
from policylab.experiments.schema import ExperimentConfig
from policylab.experiments.study import read_history
from policylab.tuning.history import History

LAKE: dict[str, Any] = {
    "name": "lake",
    "env": {"id": "FrozenLake-v1"},
    "agent": {"kind": "q_learning"},
    "budget": {"steps": 1_000},
    "seeds": {"tune": 1, "confirm": 0},
    "launcher": {"kind": "inline", "workers": 1},
    "tracking": {"kind": "none"},
}
SEARCH: dict[str, Any] = {
    "space": {"parameters": {"agent.learning_rate": {"kind": "continuous", "low": 0.01, "high": 1.0}}},
    "searcher": {"kind": "random"},
    "scheduler": {"kind": "fixed"},
    "limits": {"trials": 6},
    "parallel": 1,
    "storage": "none",
}
WARM = {**SEARCH, "warm_start": {"kind": "identical_data_and_algorithm", "parents": ["lake"]}}


def lake(folder: Path, *, root: int = 0, search: dict[str, Any] = SEARCH) -> RunDirectory:
    config = {**LAKE, "seeds": {**LAKE["seeds"], "root": root}, "search": search}
    return create_run(ExperimentConfig.model_validate(config), parent=folder)


def configurations(run: RunDirectory) -> list[Any]:
    return [trial.configuration for trial in read_history(run).trials.values()]


def interrupt_after(n_trials: int) -> Observer:
    def study(history: History) -> None:
        if len(history.trials) >= n_trials:
            raise KeyboardInterrupt("seen")

    return Observer(study=study)


def test_a_later_run_of_a_parents_name_changes_nothing(tmp_path: Path) -> None:
    runs, moved = tmp_path / "runs", tmp_path / "moved"
    parent = lake(runs)
    drive(parent)
    child = lake(runs, root=1, search=WARM)  # of its parent's name, and newer: not its own parent
    with pytest.raises(KeyboardInterrupt, match="seen"):
        drive(child, observer=interrupt_after(3))
    other = lake(runs, root=2)
    drive(other)
    runs.rename(moved)
    resumed = RunDirectory(moved / child.path.name)
    found = drive(resumed)
    assert [best["study"] for best in found["search"]["bests"] if best["study"]] == [parent.path.name]
    whole = lake(
        moved / "alone",
        root=1,
        search={**WARM, "warm_start": {**WARM["warm_start"], "parents": [str(moved / parent.path.name)]}},
    )
    drive(whole)
    assert configurations(resumed) == configurations(whole)
