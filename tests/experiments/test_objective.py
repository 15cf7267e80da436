"""Searches by another metric than the return: everything that is selected, confirmed and packaged goes by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from policylab.experiments.optuna_view import project
from policylab.experiments.outcome import finished_runs
from policylab.experiments.rundir import create_run, open_run
from policylab.experiments.runner import drive
from policylab.experiments.schema import ExperimentConfig
from policylab.experiments.statistics import paired_improvement

EXPERIMENT: dict[str, Any] = {
    "name": "errors",
    "env": {"id": "FrozenLake-v1"},
    "agent": {"kind": "q_learning", "learning_rate": 0.1},
    "budget": {"steps": 4000},
    "seeds": {"tune": 2, "confirm": 4},
    "evaluation": {"marks": 4},
    "launcher": {"kind": "inline"},
    "tracking": {"kind": "none"},
    "search": {
        "metric": "train/td_error",
        "mode": "min",
        "space": {"parameters": {"agent.learning_rate": {"kind": "categorical", "values": [0.01, 0.1, 0.9]}}},
        "searcher": {"kind": "grid"},
        "scheduler": {"kind": "fixed"},
        "storage": "none",
    },
}


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A search for the smallest error of learning, and its result."""
    run = create_run(ExperimentConfig.model_validate(EXPERIMENT), parent=tmp_path_factory.mktemp("runs"))
    return run.path, drive(run)


def last_errors(run: Path, trial: int, role: str) -> list[float]:
    folders = sorted(run.glob(f"trials/{trial:04d}/{role}-*"))
    rows = [(folder / "reports.jsonl").read_text().splitlines()[-1] for folder in folders]
    return [json.loads(row)["metrics"]["train/td_error"] for row in rows]


def test_the_smallest_error_is_selected_and_confirmed(errors: tuple[Path, dict[str, Any]]) -> None:
    run, document = errors
    winner = document["search"]["winner"]
    means = {trial: np.mean(last_errors(run, trial, "tune")) for trial in range(3)}
    assert winner == min(means, key=lambda trial: means[trial])
    assert document["selected"]["value"] == pytest.approx(means[winner])
    assert document["confirmed"]["value"] == pytest.approx(np.mean(last_errors(run, winner, "confirm")))
    expected = "train/td_error at the end of the training, smaller is better"
    assert document["selected"]["measure"] == document["confirmed"]["measure"] == expected
    runs = [one for one in finished_runs(open_run(run)) if one.spec.role == "confirm" and one.spec.trial == winner]
    returned = document["returns"]["confirmed"]
    assert returned["value"] == pytest.approx(np.mean([one.result.value for one in runs]))
    assert document["exact"]["confirmed_gap"] == pytest.approx(document["exact"]["optimal_return"] - returned["value"])


def test_optuna_is_told_what_the_confirmation_runs_are_worth_by_the_metric(
    errors: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    run, document = errors
    winner = document["search"]["winner"]
    told = project(run, storage=f"sqlite:///{tmp_path}/view.db").trials[winner].user_attrs["confirmed"]
    assert told["values"] == last_errors(run, winner, "confirm")
    assert told["mean"] == pytest.approx(document["confirmed"]["value"])


def test_better_is_smaller_in_the_gap_and_against_the_default(errors: tuple[Path, dict[str, Any]]) -> None:
    run, document = errors
    found = document["search"]
    ours, theirs = (np.array(last_errors(run, found[name], "confirm")) for name in ("winner", "default"))
    assert found["default"] != found["winner"]
    assert found["improvement"]["value"] == pytest.approx(np.mean(theirs - ours))
    assert found["improvement"]["value"] > 0
    test = stats.ttest_rel(theirs, ours)
    assert found["improvement"]["ci"] == pytest.approx([*test.confidence_interval()])
    assert 1 - found["improvement"]["probability"] == pytest.approx(test.pvalue / 2)
    wins = np.mean([(mine < other) + (mine == other) / 2 for mine in ours for other in theirs])
    assert found["beats_default"]["value"] == pytest.approx(wins)
    gap = ours.mean() - np.mean(last_errors(run, found["winner"], "tune"))
    assert found["optimism_gap"] == pytest.approx(gap)
    assert found["optimism_gap_ci"][0] <= gap <= found["optimism_gap_ci"][1]


def test_the_packaged_policy_is_of_the_seed_with_the_smallest_error(errors: tuple[Path, dict[str, Any]]) -> None:
    run, document = errors
    tuned = last_errors(run, document["search"]["winner"], "tune")
    lineage = json.loads((run / "bundle" / "manifest.json").read_text())["lineage"]
    best = run / f"trials/{document['search']['winner']:04d}/tune-{int(np.argmin(tuned)):03d}/spec.json"
    assert lineage["seeds"] == [json.loads(best.read_text())["seed"]]


def test_the_report_tells_both_values(errors: tuple[Path, dict[str, Any]]) -> None:
    text = (errors[0] / "report.html").read_text()
    for expected in (
        "Selected by train/td_error at the end of the training, smaller is better.",
        "Return when confirmed at",
        "Better than the default by",
    ):
        assert expected in text, expected
    baselines = text[text.index("Beside the baselines") : text.index("Optimism gap")]
    assert "default, confirmed" not in baselines, "its error does not stand among returns"


def test_an_improvement_holds_its_level_where_seeds_are_shared() -> None:
    """2,000 pairs of ten runs with a common part: without a difference 5 % are called one, half a deviation is seen."""
    rng = np.random.default_rng(0)
    false, seen = 0, 0
    for _ in range(2000):
        common = rng.normal(size=10)
        ours, theirs = (common + 0.3 * rng.normal(size=10) for _ in range(2))
        false += paired_improvement(ours, theirs)[0].low * paired_improvement(ours, theirs)[0].high > 0
        seen += paired_improvement(ours + 0.5, theirs)[0].low > 0
    assert 80 <= false <= 122  # 100 +- 2.3 deviations
    assert seen >= 1700


def test_equal_runs_are_no_improvement_and_one_pair_says_nothing() -> None:
    interval, chance = paired_improvement([1.0, 2.0], [1.0, 2.0])
    assert (interval.low, interval.value, interval.high, chance) == (0.0, 0.0, 0.0, 0.5)
    assert paired_improvement([1.0, 2.0], [0.0, 1.0])[1] == 1.0
    interval, chance = paired_improvement([1.0], [0.0])
    assert interval.low is None
    assert chance is None
