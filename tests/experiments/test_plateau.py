"""A run at its plateau ends there: with its reason, without the rest of its budget, and the same when resumed."""

import json
import threading

import pytest

from policylab.errors import ConfigError
from policylab.experiments.execute import Stopped, execute
from policylab.experiments.rundir import create_run
from policylab.experiments.runner import drive
from policylab.experiments.schema import ExperimentConfig, load_experiment
from policylab.files import read_lines

FLAT = {
    "name": "flat",
    "env": {"id": "FrozenLake-v1"},
    "agent": {"kind": "q_learning", "learning_rate": 0.1, "discount": 0.99},
    "budget": {"steps": 20_000, "early_stopping": {"patience": 3, "min_delta": 2.0}},
    "seeds": {"tune": 2, "confirm": 0},
    "evaluation": {"marks": 20},
    "tracking": {"kind": "none"},
}
"""No return of FrozenLake rises by 2, so that the first report is the best there is."""


@pytest.fixture
def run(tmp_path):
    return create_run(ExperimentConfig.model_validate(FLAT), parent=tmp_path)


def test_an_experiment_at_its_plateau_ends_with_reasons_and_true_costs(run):
    document = drive(run)
    assert [ended["unused_steps"] for ended in document["ended_early"]] == [16_000, 16_000]
    assert document["cost"]["env_steps"] == 2 * 4000
    for spec in run.config.specs():
        folder = run.path / spec.path
        result = json.loads((folder / "result.json").read_text())
        assert result["steps"] == 4000
        assert "has not risen above" in result["ended"]
        assert "(step 1,000) by more than 2 in the last 3 reports" in result["ended"]
        assert [row["step"] for row in read_lines(folder / "reports.jsonl")] == [1000, 2000, 3000, 4000]
        assert [path.name for path in (folder / "checkpoints").iterdir()] == [f"{4000:015d}"]


def test_a_run_interrupted_before_its_plateau_ends_as_if_it_had_not_been(run, tmp_path):
    first, second = (run.folder(spec) for spec in run.config.specs())
    stop = threading.Event()
    with pytest.raises(Stopped, match=first.name):
        execute(first, on_rows=lambda rows: stop.set() if rows[-1].step == 2000 else None, stop=stop)
    interrupted = execute(first)
    again = create_run(run.config, parent=tmp_path / "again")
    assert interrupted == execute(again.folder(again.config.specs()[0]))
    assert execute(second).steps == 4000


def test_a_return_that_rises_uses_the_whole_budget(tmp_path):
    given = FLAT | {"budget": {"steps": 4000, "early_stopping": {"patience": 20}}, "seeds": {"tune": 1, "confirm": 0}}
    run = create_run(ExperimentConfig.model_validate(given), parent=tmp_path)
    document = drive(run)
    assert document["ended_early"] == []
    assert document["cost"]["env_steps"] == 4000
    assert "ended" not in json.loads((run.path / "trials/0000/tune-000/result.json").read_text())


def test_it_is_part_of_what_determines_results_and_absent_from_older_hashes():
    plain = FLAT | {"budget": {"steps": 20_000}}
    hashes = {ExperimentConfig.model_validate(given).config_hash for given in (FLAT, plain)}
    assert len(hashes) == 2


def test_a_search_stops_trials_by_its_scheduler():
    with pytest.raises(ConfigError, match="early_stopping is for single runs"):
        load_experiment("taxi_tune", overrides=["budget.early_stopping={patience: 3}"])
