"""Every experiment is set beside the classical baselines of its environment, once."""

import json
from pathlib import Path
from typing import Any

import pytest

from policylab.cli.experiment import summary
from policylab.envs.baselines import BASELINES
from policylab.experiments.baselines import score_document
from policylab.experiments.finish import finish
from policylab.experiments.rundir import RunDirectory, create_run
from policylab.experiments.runner import drive
from policylab.experiments.schema import ExperimentConfig
from policylab.experiments.statistics import Interval

CONFIG: dict[str, Any] = {
    "name": "cards",
    "env": {"id": "Blackjack-v1", "kwargs": {"sab": True}},
    "agent": {"kind": "monte_carlo", "discount": 1.0, "execution": "plain"},
    "budget": {"steps": 2000},
    "seeds": {"tune": 2, "confirm": 2},
    "evaluation": {"marks": 2, "episodes": 2, "final_episodes": 20},
    "tracking": {"kind": "none"},
}


def trained(folder: Path, **changes: Any) -> tuple[RunDirectory, dict[str, Any]]:
    run = create_run(ExperimentConfig.model_validate({**CONFIG, **changes}), parent=folder)
    return run, drive(run)


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, dict[str, Any]]:
    return trained(tmp_path_factory.mktemp("cards"))


def test_baselines_are_valued_exactly_where_the_policy_is(cards: tuple[RunDirectory, dict[str, Any]]) -> None:
    _, document = cards
    found = {row["name"]: row for row in document["baselines"]}
    assert [row["name"] for row in document["baselines"]] == ["basic_strategy", "stick_on_18", "random"]
    assert found["basic_strategy"]["value"] == pytest.approx(-0.0431131054, abs=1e-9)
    assert all(row["ci"] is None and row["n_episodes"] == 0 for row in found.values())
    assert {row["measure"] for row in found.values()} == {document["selected"]["measure"]}
    assert document["score"] is None  # the best baseline is optimal: there is nothing left to score


def test_episodes_are_those_of_the_evaluation(tmp_path: Path) -> None:
    run, document = trained(tmp_path, evaluation={**CONFIG["evaluation"], "kind": "rollout"})
    rows = [json.loads(line) for line in (run.path / "baselines.jsonl").read_text().splitlines()]
    assert {len(row["episode_returns"]) for row in rows} == {20}
    for row in document["baselines"]:
        assert row["ci"][0] <= row["value"] <= row["ci"][1]
    assert {row["measure"] for row in document["baselines"]} == {document["selected"]["measure"]}
    assert document["exact"] is None
    assert document["score"] is None


def test_what_was_valued_is_not_valued_again_and_what_is_missing_is(
    cards: tuple[RunDirectory, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, document = cards
    path = run.path / "baselines.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]) + lines[-1][:-5])  # killed while it wrote the last line
    assert finish(run)["baselines"] == document["baselines"]
    monkeypatch.setitem(BASELINES.targets, "Blackjack-v1:stick_on_18", "nowhere:nothing")
    assert finish(run)["baselines"] == document["baselines"]


def test_a_rule_that_fails_costs_a_warning_and_not_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BASELINES.targets, "FrozenLake-v1:broken", "policylab.envs.textbook.card_rules:bold_play")
    run, document = trained(tmp_path, env={"id": "FrozenLake-v1"}, agent={"kind": "q_learning", "execution": "plain"})
    assert [row["name"] for row in document["baselines"]] == ["random"]
    assert document["baselines"][0]["value"] == pytest.approx(0.013940, abs=5e-7)
    assert any("baseline broken could not be valued: AttributeError" in text for text in document["warnings"])
    assert len((run.path / "baselines.jsonl").read_text().splitlines()) == 1


def test_the_reader_sees_them_everywhere(cards: tuple[RunDirectory, dict[str, Any]]) -> None:
    run, document = cards
    text = summary({**document, "score": {"policy": 0.75, "confirmed": 0.5, "baseline": "stick_on_18"}})
    assert "baseline basic_strategy  -0.043113  undiscounted return" in text
    assert "score                    0.750, confirmed 0.500  0 is stick_on_18, 1 the optimum" in text
    page = (run.path / "report.html").read_text()
    for row in ("baseline basic_strategy</td><td>−0.04311</td><td>exact", "baseline random</td><td>−0.3942"):
        assert row in page
    assert "basic_strategy −0.04311" in page  # the line in the learning curves


def test_the_score_runs_from_the_best_classical_baseline_to_the_optimum() -> None:
    exact = {"optimal_return": 10.0, "policy_return": 9.0}
    rows = [{"name": name, "value": value} for name, value in (("a", 2.0), ("b", 6.0), ("random", 8.0))]
    confirmed = Interval(5.0, 4.0, 6.0, level=0.95, n=3, method="")
    assert score_document(exact, rows, confirmed=confirmed) == {"policy": 0.75, "confirmed": -0.25, "baseline": "b"}
    assert score_document(exact, rows[2:], confirmed=confirmed) is None
    assert score_document(None, rows, confirmed=confirmed) is None
    assert score_document(exact, [{"name": "perfect", "value": 10.0}], confirmed=None) is None
