"""Studies by a metric that some reports lack: a mean return where no episode has ended since the last one.

Ray Tune raises where a stopping rule names a metric that a result lacks. An episode here is a year of twelve steps: of
the reports after 5, 10, 15 and 20 steps, the third alone has a mean return.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from policylab.errors import UserError
from policylab.experiments.rundir import RunDirectory, create_run
from policylab.experiments.schema import ExperimentConfig
from policylab.experiments.study import read_history, search

METRIC = "train/return_mean"
RARE: dict[str, Any] = {
    "name": "rare",
    "env": {"id": "policylab/InventoryYear-v0"},
    "agent": {"kind": "q_learning"},
    "budget": {"steps": 20},
    "seeds": {"tune": 1, "confirm": 0},
    "evaluation": {"marks": 4},
    "launcher": {"kind": "inline"},
    "tracking": {"kind": "none"},
}


def study(tmp_path: Any, **changes: Any) -> RunDirectory:
    rate = {"kind": "continuous", "low": 0.01, "high": 1.0, "scaling": "logarithmic"}
    settings = {
        "metric": METRIC,
        "space": {"parameters": {"agent.learning_rate": rate}},
        "searcher": {"kind": "random"},
        "scheduler": {"kind": "fixed"},
        "limits": {"trials": 2},
        "storage": "none",
        **changes,
    }
    return create_run(ExperimentConfig.model_validate({**RARE, "search": settings}), parent=tmp_path)


def test_reports_without_the_metric_are_passed_over_and_its_target_is_met(tmp_path: Any) -> None:
    run = study(tmp_path, limits={"trials": 2, "target": -1e6})
    outcome = search(run)
    rows = (run.path / "trials/0000/tune-000/reports.jsonl").read_text().splitlines()
    reported = {row["step"]: row["metrics"].get(METRIC) for row in map(json.loads, rows)}
    assert [step for step, value in reported.items() if value is not None] == [15], "the trap is there"
    assert set(reported) >= {5, 10, 15}
    curve = read_history(run).trials[0].runs[0].curve
    assert curve[15] == reported[15]
    assert set(curve.values()) == {reported[15]}, "where the metric is absent, its last value stands"
    assert outcome.reason.startswith("limits.target: ")


def test_a_run_that_never_reported_the_metric_says_which_and_what_to_do(tmp_path: Any) -> None:
    """Compared after 5 steps, before any episode has ended."""
    run = study(tmp_path, scheduler={"kind": "race"})
    with pytest.raises(UserError, match=r"reports.jsonl: no report holds search.metric 'train/return_mean'.*eval/ret"):
        search(run)
