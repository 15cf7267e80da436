"""Windows that went wrong on the way: a clear result or one clear error, and numbers of what is there alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from policylab.errors import UserError
from policylab.monitoring.profiles.profile import profile_of
from policylab.monitoring.quality.check import QualityCheck, check
from policylab.monitoring.quality.constraints import suggested
from policylab.monitoring.quality.report import as_document, status

N = 1_000
RNG = np.random.default_rng(0)
X, KIND = RNG.normal(size=N), RNG.choice(["a", "b", "c"], N)
NOTHING = pa.nulls(N)


def checked(folder: Path, baseline: list[dict[str, Any]], window: list[dict[str, Any]]) -> QualityCheck:
    """Return the check of tables, each written as a file of its own."""
    sides = []
    for name, tables in (("then", baseline), ("now", window)):
        files = [folder / f"{name}-{i}.parquet" for i in range(len(tables))]
        for file, table in zip(files, tables, strict=True):
            pq.write_table(pa.table(table), file)
        sides.append(profile_of(files))
    found = check(sides[1], sides[0], constraints=suggested(sides[0]))
    json.dumps(as_document(found), allow_nan=False)  # whatever was found can be written
    return found


def types(found: QualityCheck) -> set[tuple[str, str]]:
    return {(one.feature_name, one.constraint_check_type) for one in found.violations}


USUAL = {"x": X, "kind": KIND}


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        ({"x": X}, {("kind", "completeness_check")}),  # a column goes
        ({**USUAL, "z": X}, {("z", "extra_column_check")}),  # one comes
        ({"x": KIND, "kind": KIND}, {("x", "data_type_check")}),  # numbers become words
        ({"x": [str(x) for x in X], "kind": KIND}, set()),  # numbers in quotes are the same numbers
        ({"y": X, "kind": KIND}, {("x", "completeness_check"), ("y", "extra_column_check")}),  # one is renamed
    ],
)
def test_a_schema_that_changes_within_a_window_is_told(
    later: dict[str, Any], expected: set[tuple[str, str]], tmp_path: Path
) -> None:
    found = checked(tmp_path, [USUAL], [USUAL, later])
    assert types(found) == expected
    assert found.n_window == 2 * N
    for column in found.columns:  # the values that are there are the baseline's
        assert column.distances["linf_simple"].value == pytest.approx(0.0, abs=1e-12)


def test_a_column_of_nothing_is_incomplete_and_has_no_distance(tmp_path: Path) -> None:
    found = checked(tmp_path, [USUAL], [{"x": NOTHING, "kind": NOTHING}])
    assert types(found) == {("x", "completeness_check"), ("kind", "completeness_check")}
    for column in found.columns:
        assert column.distances == {}
        assert column.notes == ("no values in the window: nothing to compare",)


@pytest.mark.parametrize("window", [{"x": X}, {"x": NOTHING}])
def test_a_baseline_of_nothing_can_be_met_by_anything_and_says_so(window: dict[str, Any], tmp_path: Path) -> None:
    found = checked(tmp_path, [{"x": NOTHING}], [window])
    assert not found.violations
    assert "nothing to compare" in found.columns[0].notes[0]


def test_one_category_and_one_number_are_distributions_too(tmp_path: Path) -> None:
    one, other = {"kind": ["a"] * N, "x": np.ones(N)}, {"kind": ["b"] * N, "x": np.full(N, 2.0)}
    assert not checked(tmp_path, [one], [one]).violations
    found = checked(tmp_path, [one], [other])
    drifted = {("kind", "baseline_drift_check"), ("x", "baseline_drift_check")}
    assert types(found) == {*drifted, ("kind", "categorical_values_check")}
    assert all(column.distances["linf_simple"].value == 1.0 for column in found.columns)
    for column in found.columns:
        assert all(np.isfinite(distance.value) for distance in column.distances.values()), column.name


@pytest.mark.parametrize("strange", [np.inf, -np.inf, np.nan, 1e200])
def test_infinities_are_missing_values_and_distort_no_distance(strange: float, tmp_path: Path) -> None:
    x = X.copy()
    x[::10] = strange
    found = checked(tmp_path, [USUAL], [{"x": x, "kind": KIND}])
    assert types(found) == {("x", "completeness_check")}
    assert "100 of 1,000 values are missing" in found.violations[0].description
    alone = checked(tmp_path, [USUAL], [{"x": np.delete(x, np.s_[::10])}])
    same = [{name: distance.value for name, distance in one.columns[0].distances.items()} for one in (found, alone)]
    assert same[0] == pytest.approx(same[1])


def test_a_window_without_rows_is_a_status_and_a_folder_without_files_an_error(tmp_path: Path) -> None:
    found = checked(tmp_path, [USUAL], [{"x": X[:0], "kind": KIND[:0]}])
    assert (status(found), found.violations, found.n_window) == ("no data", (), 0)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match="holds no file of the kinds"):
        profile_of([tmp_path / "nothing"])
