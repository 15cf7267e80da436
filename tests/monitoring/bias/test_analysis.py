"""Bias analyses as a user runs them: values, intervals, alarms, recorded episodes, wrong input."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from policylab.cli import main
from policylab.errors import UserError
from policylab.monitoring.bias.analysis import Analysis, Question, analyse, analysis_document, violations
from policylab.monitoring.bias.rows import Rows, episode_rows, read_rows
from policylab.monitoring.bias.selection import Selection

QUESTION = Question(
    Selection("sex", ("f",)), Selection("hired", ("1",)), Selection("score", threshold=0.5), group="department"
)


def people(seed: int, n: int = 3_000, *, gap: float = 0.0) -> Rows:
    rng = np.random.default_rng(seed)
    sex = rng.choice(["f", "m"], n, p=[0.3, 0.7]).astype(object)
    hired = (rng.random(n) < 0.5 - gap * (sex == "f")).astype(int)
    score = 0.4 * hired + 0.6 * rng.random(n) - gap * (sex == "f")
    department = rng.choice(["x", "y"], n).astype(object)
    return Rows({"sex": sex, "hired": hired, "score": score, "department": department, "age": rng.normal(size=n)})


def test_all_metrics_are_measured_with_intervals() -> None:
    found = analyse(people(0), QUESTION)
    names = [metric.name for metric in found.metrics]
    assert names == ["CI", "DPL", "KL", "JS", "LP", "TVD", "KS", "CDDL", "DPPL", "DI", "DCA", "DCR", "RD", "SD", "DAR",
                     "DRR", "AD", "TE", "GE", "CDDPL", "FT"]  # fmt: skip
    for metric in found.metrics:
        assert metric.low < metric.value < metric.high
    without = analyse(people(0), Question(QUESTION.facet, QUESTION.label))
    assert [metric.name for metric in without.metrics] == ["CI", "DPL", "KL", "JS", "LP", "TVD", "KS"]


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    # DPL is 0.1 by construction; of 100 intervals of 90 %, fewer than 80 happen once in a thousand times.
    held = 0
    for seed in range(100):
        dpl = next(x for x in analyse(people(seed, 500, gap=0.1), QUESTION, level=0.9).metrics if x.name == "DPL")
        held += dpl.low <= 0.1 <= dpl.high
    assert held >= 80


def drifted(found: Analysis, baseline: Analysis) -> set[str]:
    return {v.metric_name for v in violations(found, {metric.name: metric.value for metric in baseline.metrics})}


def test_drift_alarms_and_its_absence_does_not() -> None:
    baseline = analyse(people(0, 50_000, gap=0.1), QUESTION)
    assert drifted(analyse(people(1, gap=0.1), QUESTION, level=0.999), baseline) == set()
    assert drifted(analyse(people(2, gap=0.0), QUESTION, level=0.999), baseline) == set()  # fairer is no violation
    found = drifted(analyse(people(3, gap=0.3), QUESTION, level=0.999), baseline)
    assert {"DPL", "DPPL", "DI", "KL", "CDDL"} <= found


@pytest.mark.parametrize(
    ("value", "low", "high", "alarm"),
    # The guide's example: a baseline of 0.2 allows [-0.2, 0.2]: 0.1 passes, -0.3 violates.
    [(0.1, 0.09, 0.11, False), (-0.3, -0.31, -0.29, True), (-0.3, -0.45, -0.15, False), (0.3, 0.25, 0.35, True)],
)
def test_the_alarm_rule(value: float, low: float, high: float, alarm: bool) -> None:
    found = analyse(people(0), QUESTION)
    dpl = dataclasses.replace(found.metrics[1], value=value, low=low, high=high)
    broken = violations(dataclasses.replace(found, metrics=(dpl,)), {"DPL": 0.2})
    assert bool(broken) == alarm
    if alarm:
        assert broken[0].description == f"Value {value} does not meet the constraint requirement"
        assert (broken[0].facet, broken[0].facet_value) == ("sex", "f")


@pytest.mark.parametrize(("low", "high", "alarm"), [(0.7, 0.75, True), (0.85, 0.9, False), (1.3, 1.4, True)])
def test_the_neutral_value_of_disparate_impact_is_one(low: float, high: float, alarm: bool) -> None:
    found = analyse(people(0), QUESTION)
    di = dataclasses.replace(next(x for x in found.metrics if x.name == "DI"), value=low, low=low, high=high)
    assert bool(violations(dataclasses.replace(found, metrics=(di,)), {"DI": 0.8})) == alarm


def test_infinite_and_undefined_values_are_written_and_read(tmp_path: Path) -> None:
    rows = Rows({"sex": np.array(["f", "m", "m"], dtype=object), "hired": np.array([1, 1, 0])})
    document = analysis_document(analyse(rows, Question(QUESTION.facet, QUESTION.label)))
    values = {x["name"]: x["value"] for x in document["pre_training_bias_metrics"]["facets"]["sex"][0]["metrics"]}
    assert values["KL"] == "inf"
    json.dumps(document, allow_nan=False)


def test_the_facet_must_divide_the_rows() -> None:
    for value, message in (("x", "no row is of this facet"), ("f,m", "every row is of this facet")):
        question = Question(Selection("sex", tuple(value.split(","))), QUESTION.label)
        with pytest.raises(UserError, match=message):
            analyse(people(0), question)


def test_an_outcome_that_no_row_has_is_told() -> None:
    asked = Question(QUESTION.facet, Selection(QUESTION.label.column, ("misspelt",)))
    assert analyse(people(0), asked).notes == (f"no row has the positive outcome {asked.label}",)
    assert not any("outcome" in note for note in analyse(people(0), QUESTION).notes)


@pytest.mark.parametrize("text", ["sex", "=f", "sex=", "age>old", "age>nan", ""])
def test_a_selection_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--facet must be COLUMN=VALUE"):
        Selection.parse(text, option="--facet")


def test_selections_of_numbers_texts_and_booleans() -> None:
    assert Selection("x", ("1", "3")).mask(np.array([1.0, 2.0, 3.0])).tolist() == [True, False, True]
    assert Selection("x", ("true",)).mask(np.array([True, False])).tolist() == [True, False]
    assert Selection("x", ("false", "0")).mask(np.array([True, False])).tolist() == [False, True]
    assert Selection("x", threshold=2.0).mask(np.array([1, 2, 3])).tolist() == [False, False, True]
    with pytest.raises(UserError, match="holds no numbers"):
        Selection("x", threshold=2.0).mask(np.array(["a"]))


def test_rows_without_a_value_are_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("sex,hired,age\nf,1,\nm,,3\nm,0,4\n")
    rows = read_rows(tmp_path / "t.csv", columns=("sex", "hired"))
    assert (len(rows), rows.n_left_out) == (2, 1)
    with pytest.raises(UserError, match="has no column 'x'"):
        read_rows(tmp_path / "t.csv", columns=("x",))
    (tmp_path / "t.parquet").write_bytes(b"PAR1nonsense")
    with pytest.raises(UserError, match="damaged"):
        read_rows(tmp_path / "t.parquet", columns=("x",))


def test_episodes_become_rows(tmp_path: Path) -> None:
    names = {
        "episode_id": [0, 0, 1], "t": [0, 1, 0], "obs": [3, 4, 5], "action": [1, 0, 1], "reward": [0.5, 1.0, 2.0],
        "next_obs": [4, 5, 6], "terminated": [False, True, True], "truncated": [False, False, False],
    }  # fmt: skip
    pq.write_table(pa.table(names).take([2, 1, 0]), tmp_path / "log.parquet")
    rows = episode_rows(tmp_path / "log.parquet")
    assert {name: column.tolist() for name, column in rows.columns.items()} == {
        "obs": [3, 5], "action": [1, 1], "return": [1.5, 2.0], "length": [2, 1],
    }  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def call(*arguments: str, code: int = 0) -> str:
        assert main(arguments) == code
        written = capsys.readouterr()
        assert "Traceback" not in written.out + written.err
        return written.out + written.err

    return call


def test_the_command_measures_compares_and_writes(run: Callable[..., str], tmp_path: Path) -> None:
    for name, gap in (("good", 0.02), ("bad", 0.3)):
        pq.write_table(pa.table(people(0, gap=gap).columns), tmp_path / f"{name}.parquet")
    asked = ("--facet", "sex=f", "--label", "hired=1", "--prediction", "score>0.5", "--group", "department")
    assert "Disparate Impact (DI)" in run("monitor", "bias", "good.parquet", *asked, "--out", "base")
    checking = (*asked, "--baseline", "base/analysis.json")
    assert "violation" not in run("monitor", "bias", "good.parquet", *checking)
    document = json.loads(run("monitor", "bias", "bad.parquet", *checking, "--out", "found", "--json", code=1))
    assert {"DPL", "DI"} <= {violation["metric_name"] for violation in document["violations"]}
    written = json.loads((tmp_path / "found" / "constraint_violations.json").read_text())
    assert written["version"] == "1.0"
    assert set(written["violations"][0]) == {
        "facet", "facet_value", "metric_name", "constraint_check_type", "description",
    }  # fmt: skip
    other = ("--facet", "department=x", "--label", "hired=1", "--baseline", "base/analysis.json")
    assert "holds no metrics of the facet department=x" in run("monitor", "bias", "good.parquet", *other, code=2)


def test_the_baseline_s_own_error_widens_what_is_allowed() -> None:
    found = analyse(people(0, gap=0.3), QUESTION)
    dpl = next(metric for metric in found.metrics if metric.name == "DPL")
    beyond = abs(dpl.value) - 3.0 * dpl.std_error
    alone = dataclasses.replace(found, metrics=(dpl,))
    assert violations(alone, {"DPL": beyond})
    assert violations(alone, {"DPL": beyond}, errors={"DPL": 0.1 * dpl.std_error})
    assert not violations(alone, {"DPL": beyond}, errors={"DPL": 2.0 * dpl.std_error})
