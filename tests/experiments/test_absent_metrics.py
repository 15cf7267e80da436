"""Studies by a metric that some reports lack: a mean return where no episode has ended since the last one.

Ray Tune raises where a stopping rule names a metric that a result lacks. An episode here is a year of twelve steps: of
the reports after 5, 10, 15 and 20 steps, the third alone has a mean return.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from policylab.errors import ConfigError, UserError
from policylab.experiments.rundir import RunDirectory, create_run
from policylab.experiments.schema import ExperimentConfig, load_experiment
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


@pytest.mark.parametrize(
    ("metric", "changes", "message"),
    [
        (
            "train/tderror",
            {},
            r"search.metric 'train/tderror' is in no report; did you mean 'train/td_error'\?; there are",
        ),
        ("eval/return_mean", {"evaluation": {"kind": "online"}}, "not reported where runs are valued while they learn"),
        ("eval/return_mean", {"env": {"id": "policylab/Bandit-v0"}, "agent": {"kind": "bandit_ucb1"}}, "train/reward"),
    ],
)
def test_a_metric_that_no_run_can_report_is_told_before_any_is_trained(
    metric: str, changes: dict[str, Any], message: str, tmp_path: Any
) -> None:
    space = {"agent.c" if "env" in changes else "agent.learning_rate": {"kind": "continuous", "low": 0.1, "high": 1.0}}
    search_section = {"metric": metric, "space": {"parameters": space}, "limits": {"trials": 12}}
    file = tmp_path / "x.json"
    file.write_text(json.dumps({**RARE, **changes, "search": search_section}, indent=1))
    line = 1 + next(n for n, text in enumerate(file.read_text().splitlines()) if '"metric"' in text)
    with pytest.raises(ConfigError, match=f"x.json:{line}:.*{message}"):
        load_experiment(str(file))


def test_an_agent_that_does_not_tell_its_metrics_is_asked_for_any(tmp_path: Any) -> None:
    rate = {"kind": "continuous", "low": 1e-4, "high": 1e-3}
    search_section = {"metric": "train/entropy", "space": {"parameters": {"agent.learning_rate": rate}}}
    agent = {"kind": "rllib", "algorithm": "PPO"}
    file = tmp_path / "x.json"
    settings = {"agent": agent, "env": {"id": "CartPole-v1"}, "launcher": {"kind": "local"}}
    file.write_text(json.dumps({**RARE, **settings, "search": {**search_section, "limits": {"trials": 12}}}))
    config = load_experiment(str(file))
    assert config.search is not None
    assert config.search.metric == "train/entropy"
