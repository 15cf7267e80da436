"""Baselines and checks as a user runs them: every kind of violation, SageMaker's files, hostile data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from policylab.cli import main
from policylab.errors import ConfigError
from policylab.monitoring.profiles.cells import Cells, of_numbers, of_values
from policylab.monitoring.profiles.profile import Profile, profile_of
from policylab.monitoring.profiles.statistics_json import statistics_document
from policylab.monitoring.quality import report
from policylab.monitoring.quality.check import QualityCheck, check
from policylab.monitoring.quality.constraints import (
    Constraints,
    document,
    read_constraints,
    suggested,
    with_false_discovery_rate,
)

N = 4_000
Table = dict[str, Any]


def table(seed: int, n: int = N) -> Table:
    rng = np.random.default_rng(seed)
    return {
        "speed": rng.standard_normal(n),
        "stock": rng.poisson(5.0, n),
        "mode": rng.choice(["eco", "fast", "off"], n, p=[0.5, 0.3, 0.2]),
    }


def profile(data: Table, folder: Path, name: str = "t") -> Profile:
    path = folder / f"{name}.parquet"
    pq.write_table(pa.table(data), path)
    return profile_of([path])


def checked(data: Table, folder: Path, *, change: Callable[[dict[str, Any]], None] | None = None) -> QualityCheck:
    baseline = profile(table(0), folder, "baseline")
    constraints = document(suggested(baseline))
    if change:
        change(constraints)
    return check(profile(data, folder), baseline, constraints=Constraints.model_validate(constraints))


def found(result: QualityCheck) -> set[tuple[str, str]]:
    return {(violation.feature_name, violation.constraint_check_type) for violation in result.violations}


def test_the_same_world_passes(tmp_path: Path) -> None:
    assert checked(table(1), tmp_path).violations == ()


def broken(name: str, *, few: int = 20) -> Table:
    data = table(1)
    match name:
        case "mean":
            data["speed"] = data["speed"] + 0.5
        case "variance":
            data["speed"] = data["speed"] * 2.0
        case "missing":
            data["speed"] = np.where(np.arange(N) < few, np.nan, data["speed"])
        case "infinite":
            data["speed"] = np.where(np.arange(N) < few, np.inf, data["speed"])
        case "negative":
            data["stock"] = np.where(np.arange(N) % (N // few) == 0, -1, data["stock"])
        case "type":
            data["stock"] = data["stock"] + 0.5
        case "text":
            data["speed"] = [f"v{x:.1f}" for x in data["speed"]]
        case "domain":
            data["mode"] = np.where(np.arange(N) % 5 == 0, "turbo", data["mode"])
        case "gone":
            del data["mode"]
        case "new":
            data["extra"] = np.zeros(N)
        case "shares":
            data["mode"] = np.random.default_rng(2).choice(["eco", "fast", "off"], N, p=[0.2, 0.6, 0.2])
        case "null":
            data["speed"] = pa.nulls(N, pa.float64())
    return data


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mean", {("speed", "baseline_drift_check")}),
        ("variance", {("speed", "baseline_drift_check")}),
        ("missing", {("speed", "completeness_check")}),
        ("infinite", {("speed", "completeness_check")}),
        ("negative", {("stock", "data_type_check")}),
        ("type", {("stock", "data_type_check"), ("stock", "baseline_drift_check")}),
        ("text", {("speed", "data_type_check")}),
        ("domain", {("mode", "categorical_values_check"), ("mode", "baseline_drift_check")}),
        ("gone", {("mode", "missing_column_check")}),
        ("new", {("extra", "extra_column_check")}),
        ("shares", {("mode", "baseline_drift_check")}),
        ("null", {("speed", "completeness_check")}),
    ],
)
def test_every_violation_is_found_and_nothing_else(name: str, expected: set[Any], tmp_path: Path) -> None:
    result = checked(broken(name), tmp_path)
    assert (
        found(result) - {("stock", "baseline_drift_check")} | (expected & {("stock", "baseline_drift_check")})
        == expected
    )


@pytest.mark.parametrize("name", ["missing", "infinite", "negative"])
def test_what_a_baseline_never_had_may_be_rare_and_is_chance_unless_that_is_not_taken_off(
    name: str, tmp_path: Path
) -> None:
    data, simple = broken(name, few=3), set_drift(comparison_method="Simple", comparison_threshold=0.5)
    assert checked(data, tmp_path).violations == ()
    assert len(found(checked(data, tmp_path, change=simple))) == 1
    q = set_config(false_discovery_rate=0.01)
    assert checked(data, tmp_path, change=q).violations == ()
    assert len(found(checked(broken(name), tmp_path, change=q))) == 1


def test_what_is_demanded_though_the_baseline_lacks_it_leaves_nothing_to_chance(tmp_path: Path) -> None:
    data = {"x": np.r_[np.nan, np.arange(-1.0, N - 2)]}
    baseline = profile(data, tmp_path, "baseline")
    limits = document(suggested(baseline))
    set_feature(0, completeness=1.0, num_constraints={"is_non_negative": True})(limits)
    result = check(profile(data, tmp_path), baseline, constraints=Constraints.model_validate(limits))
    assert found(result) == {("x", "completeness_check"), ("x", "data_type_check")}
    set_feature(0, completeness=0.5, num_constraints={"is_non_negative": False, "minimum": 0.0})(limits)
    result = check(profile(data, tmp_path), baseline, constraints=Constraints.model_validate(limits))
    assert found(result) == {("x", "data_type_check")}


def set_config(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda constraints: constraints["monitoring_config"].update(changes)


def set_drift(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda constraints: constraints["monitoring_config"]["distribution_constraints"].update(changes)


def set_feature(number: int, **changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda constraints: constraints["features"][number].update(changes)


OFF = {"distribution_constraints": {"perform_comparison": "Disabled"}}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mean", set_config(evaluate_constraints="Disabled")),
        ("mean", set_drift(perform_comparison="Disabled")),
        ("mean", set_drift(comparison_threshold=0.5)),
        ("mean", set_feature(0, monitoringConfigOverrides=OFF)),
        ("shares", set_drift(categorical_comparison_threshold=0.5)),
        ("shares", set_feature(2, string_constraints={"domains": [], "monitoring_config_overrides": OFF})),
        ("missing", set_feature(0, completeness=0.9)),
        ("domain", set_config(domain_content_threshold=0.5)),
        ("negative", set_feature(1, num_constraints={"is_non_negative": False})),
        ("text", set_config(datatype_check_threshold=1.0)),
    ],
)
def test_each_setting_of_the_constraints_is_heeded(
    name: str, change: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    before, after = found(checked(broken(name), tmp_path)), found(checked(broken(name), tmp_path, change=change))
    assert before > after


@pytest.mark.parametrize("change", [{"minimum": -1.0}, {"maximum": 1.0}])
def test_ranges_are_heeded(change: dict[str, float], tmp_path: Path) -> None:
    result = checked(table(1), tmp_path, change=set_feature(0, num_constraints={"is_non_negative": False, **change}))
    assert found(result) == {("speed", "data_type_check")}


def test_simple_and_chi_squared(tmp_path: Path) -> None:
    small = table(1, 60)  # chance alone moves 60 values by more than 0.1
    assert checked(small, tmp_path).violations == ()
    simple = checked(small, tmp_path, change=set_drift(comparison_method="Simple", comparison_threshold=0.05))
    assert ("speed", "baseline_drift_check") in found(simple)
    chi = set_drift(categorical_drift_method="ChiSquared", categorical_comparison_threshold=0.001)
    assert ("mode", "baseline_drift_check") not in found(checked(table(1), tmp_path, change=chi))
    result = checked(broken("shares"), tmp_path, change=chi)
    assert found(result) == {("mode", "baseline_drift_check")}
    assert "degrees of freedom" in result.violations[0].description


def test_false_alarms_are_as_rare_as_asked(tmp_path: Path) -> None:
    # 150 checks of three columns, thresholds of 0: more than 14 would happen once in a hundred times at 5 %.
    baseline = profile(table(0), tmp_path, "baseline")
    constraints = document(suggested(baseline))
    set_drift(comparison_threshold=0.0, categorical_comparison_threshold=0.0)(constraints)
    alarms = 0
    for seed in range(150):
        window = profile(table(100 + seed, 500), tmp_path)
        alarms += bool(
            check(
                window, baseline, constraints=Constraints.model_validate(constraints), false_alarm_rate=0.05
            ).violations
        )
    assert alarms <= 14


# ------------------------------------------------------------------ false-discovery rate


def wide(seed: int, shifts: NDArray[np.float64], n: int = 400) -> Table:
    rng = np.random.default_rng(seed)
    return {f"x{i}": rng.standard_normal(n) + shift for i, shift in enumerate(shifts)}


def test_a_false_discovery_rate_finds_what_bonferronis_bound_misses(tmp_path: Path) -> None:
    baseline = profile(wide(0, np.zeros(40), 4_000), tmp_path, "baseline")
    window = profile(wide(1, np.r_[np.full(20, 0.27), np.zeros(20)]), tmp_path)
    constraints = document(suggested(baseline))
    set_drift(comparison_threshold=0.0)(constraints)
    strict = Constraints.model_validate(constraints)
    bounded = found(check(window, baseline, constraints=strict, false_alarm_rate=0.003))
    result = check(window, baseline, constraints=with_false_discovery_rate(strict, 0.05))
    shifted = {(f"x{i}", "baseline_drift_check") for i in range(20)}
    assert bounded < found(result) <= shifted
    assert len(found(result)) > len(bounded) + 3
    assert "a discovery at the false-discovery rate" in result.violations[0].description
    assert report.as_document(result)["false_discovery_rate"] == 0.05
    assert "at most 0.05 of what is called drifted" in report.html(result)


def test_the_share_of_false_discoveries_is_within_the_rate(tmp_path: Path) -> None:
    # 15 of 20 columns undrifted, thresholds of 0, 40 checks.
    baseline = profile(wide(0, np.zeros(20), 2_000), tmp_path, "baseline")
    constraints = document(suggested(baseline))
    set_drift(comparison_threshold=0.0)(constraints)
    asked = with_false_discovery_rate(Constraints.model_validate(constraints), 0.2)
    shares = []
    for seed in range(40):
        window = profile(wide(100 + seed, np.r_[np.full(5, 0.5), np.zeros(15)], 300), tmp_path)
        drifted = [int(name[1:]) for name, _ in found(check(window, baseline, constraints=asked))]
        assert {0, 1, 2, 3, 4} <= set(drifted)
        shares.append(sum(i >= 5 for i in drifted) / len(drifted))
    assert np.mean(shares) <= 0.2


def test_a_discovery_exceeds_its_threshold(tmp_path: Path) -> None:
    baseline = profile(wide(0, np.zeros(2), 4_000), tmp_path, "baseline")
    constraints = with_false_discovery_rate(suggested(baseline), 0.05)  # a distance of 0.1 is a shift of 0.25
    window = profile(wide(1, np.array([0.15, 0.8]), 4_000), tmp_path)
    assert found(check(window, baseline, constraints=constraints)) == {("x1", "baseline_drift_check")}


@pytest.mark.parametrize("part", ["baseline_drift_check", "completeness_check"])
def test_of_a_single_test_both_ways_of_control_agree(part: str, tmp_path: Path) -> None:
    # Of one p-value, Benjamini and Yekutieli's procedure at q and Bonferroni's bound at q are the same rule.
    def data(seed: int, n: int, *, shift: float, missing: float) -> Table:
        rng = np.random.default_rng(seed)
        x = rng.standard_normal(n) + shift
        return {"x": np.where(rng.random(n) < missing, np.nan, x)} if part == "completeness_check" else {"x": x}

    baseline = profile(data(0, 2_000, shift=0.0, missing=0.1), tmp_path, "baseline")
    constraints = document(suggested(baseline))
    set_drift(
        comparison_threshold=0.05, perform_comparison="Enabled" if part == "baseline_drift_check" else "Disabled"
    )(constraints)
    one = Constraints.model_validate(constraints)
    outcomes = set()
    for i in range(12):
        window = profile(data(1 + i, 500, shift=0.05 * i, missing=0.08 + 0.01 * i), tmp_path)
        expected = found(check(window, baseline, constraints=one, false_alarm_rate=0.1))
        assert found(check(window, baseline, constraints=with_false_discovery_rate(one, 0.1))) == expected
        outcomes.add(("x", part) in expected)
    assert outcomes == {True, False}


def test_the_rate_is_an_option_and_a_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, shifts in (("base", np.zeros(3)), ("now", np.array([0.0, 0.0, 0.9]))):
        pq.write_table(pa.table(wide(len(name), shifts)), tmp_path / f"{name}.parquet")
    base, now, out = str(tmp_path / "base"), str(tmp_path / "now.parquet"), str(tmp_path / "out")
    assert main(["monitor", "baseline", str(tmp_path / "base.parquet"), "--out", base]) == 0
    command = ["monitor", "check", now, "--baseline", base, "--out", out]
    assert main([*command, "--false-discovery-rate", "1"]) == 2
    assert "--false-discovery-rate must be between 0 and 1, got 1" in capsys.readouterr().err
    assert main([*command, "--false-discovery-rate", "0.05", "--json"]) == 1
    asked = json.loads(capsys.readouterr().out)
    path = tmp_path / "base/constraints.json"
    limits = json.loads(path.read_text())
    set_config(false_discovery_rate=0.05)(limits)
    path.write_text(json.dumps(limits))
    assert main([*command, "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == asked
    assert asked["columns"][2]["adjusted_p_values"]["baseline_drift_check"] < 0.05


def test_two_kinds_of_rates_are_one_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pa.table(wide(4, np.zeros(3))), tmp_path / "then.parquet")
    base, data = tmp_path / "base", str(tmp_path / "then.parquet")
    assert main(["monitor", "baseline", data, "--out", str(base)]) == 0
    command = ["monitor", "check", data, "--baseline", str(base), "--out", str(tmp_path / "out")]
    assert main([*command, "--false-alarm-rate", "0.01"]) == 0
    assert main([*command, "--false-alarm-rate", "0.01", "--false-discovery-rate", "0.05"]) == 2
    assert "got --false-alarm-rate 0.01 and --false-discovery-rate; leave one" in capsys.readouterr().err
    limits = json.loads((base / "constraints.json").read_text())
    set_config(false_discovery_rate=0.05)(limits)
    (base / "constraints.json").write_text(json.dumps(limits))
    assert main([*command, "--false-alarm-rate", "0.01"]) == 2
    assert f"and false_discovery_rate in {base}" in capsys.readouterr().err


def test_the_threshold_of_correlations_stands_in_the_file_and_has_a_range(tmp_path: Path) -> None:
    limits = document(suggested(profile(table(0), tmp_path, "baseline")))
    rules = limits["monitoring_config"]["distribution_constraints"]
    assert rules["correlation_threshold"] == 0.1
    rules["correlation_threshold"] = 3
    path = tmp_path / "constraints.json"
    path.write_text(json.dumps(limits))
    with pytest.raises(ConfigError, match=r"correlation_threshold: Input should be less than or equal to 2, got 3"):
        read_constraints(path)


def test_an_empty_window_is_a_status_of_its_own(tmp_path: Path) -> None:
    empty = profile({name: pa.array([], pa.float64()) for name in table(0)}, tmp_path)
    baseline = profile(table(0), tmp_path, "baseline")
    result = check(empty, baseline, constraints=suggested(baseline))
    assert (result.violations, result.n_window) == ((), 0)


@pytest.mark.parametrize("value", [np.zeros(50), np.full(50, np.nan), np.full(50, "a"), np.full(50, np.inf)])
def test_columns_without_variety_are_baselines_too(value: NDArray[Any], tmp_path: Path) -> None:
    baseline = profile({"x": value}, tmp_path, "baseline")
    constraints = Constraints.model_validate(document(suggested(baseline)))
    assert check(baseline, baseline, constraints=constraints).violations == ()
    json.dumps(statistics_document(baseline), allow_nan=False)


def strange(rng: np.random.Generator, n: int) -> Cells:
    """Return a column of some kind that data should not have, and sometimes has."""
    match int(rng.integers(10)):
        case 0:
            return of_numbers(np.full(n, rng.choice([0.0, -0.0, 1e150, -1e150, 5e-324, 3.0])))
        case 1:
            return of_numbers(rng.standard_normal(n) * 10.0 ** rng.integers(-320, 150))
        case 2:
            return of_numbers(rng.integers(-(2**62), 2**62, n))
        case 3:
            return of_numbers(np.where(rng.random(n) < 0.5, np.nan, rng.choice([np.inf, -np.inf, 1.0], n)))
        case 4:
            return of_values([["a", None, 1, 2.5, True, {"x": 1}, 10**400][i] for i in rng.integers(0, 7, n)])
        case 5:
            return of_values([None] * n)
        case 6:
            return of_values([str(i) for i in rng.integers(0, 3, n)])
        case 7:
            return of_numbers(np.arange(n) * 1e140)
        case 8:
            return of_numbers(rng.standard_cauchy(n) ** 5)
    return of_numbers(rng.integers(0, 2, n).astype(bool))


@pytest.mark.parametrize("seed", range(40))
def test_whatever_the_data_there_is_a_clear_result(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def table_of(names: str, like: Profile | None = None) -> Profile:
        found = Profile(like)
        for _ in range(2):
            n = int(rng.choice([1, 2, 10, 300, 20_000]))
            found.update({name: strange(rng, n) for name in names if rng.random() < 0.9})
        return found

    baseline = table_of("abcd")
    window = table_of("abcde", baseline)
    if seed % 3 == 0:
        baseline.merge(table_of("abx"))
    result = check(window, baseline, constraints=suggested(baseline))
    json.dumps(report.as_document(result), allow_nan=False)
    assert "<table>" in report.html(result)
    for one in (baseline, window):
        statistics = statistics_document(one)
        json.dumps(statistics, allow_nan=False)
        jsonschema.validate(statistics, STATISTICS)
        for feature in statistics["features"]:
            if "numerical_statistics" in feature:
                numbers = feature["numerical_statistics"]
                counts = [bucket["count"] for bucket in numbers["distribution"]["kll"]["buckets"]]
                assert sum(counts) == numbers["common"]["num_present"]
                assert min(counts) >= 0


# ------------------------------------------------------------------ SageMaker's schemas

COMMON = {
    "type": "object",
    "required": ["num_present", "num_missing"],
    "additionalProperties": False,
    "properties": {"num_present": {"type": "integer"}, "num_missing": {"type": "integer"}},
}
BUCKET = {
    "type": "object",
    "required": ["lower_bound", "upper_bound", "count"],
    "additionalProperties": False,
    "properties": {name: {"type": "number"} for name in ("lower_bound", "upper_bound", "count")},
}
SKETCH = {
    "type": "object",
    "required": ["parameters", "data"],
    "properties": {
        "parameters": {"type": "object", "required": ["c", "k"]},
        "data": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
    },
}
NUMERICAL = {
    "type": "object",
    "required": ["common", "mean", "sum", "std_dev", "min", "max", "distribution"],
    "additionalProperties": False,
    "properties": {
        "common": COMMON,
        **{name: {"type": "number"} for name in ("mean", "sum", "std_dev", "min", "max")},
        "distribution": {
            "type": "object",
            "required": ["kll"],
            "properties": {
                "kll": {
                    "type": "object",
                    "required": ["buckets", "sketch"],
                    "properties": {
                        "buckets": {"type": "array", "items": BUCKET, "minItems": 10, "maxItems": 10},
                        "sketch": SKETCH,
                    },
                }
            },
        },
    },
}
TEXTUAL = {
    "type": "object",
    "required": ["common", "distinct_count", "distribution"],
    "properties": {"common": COMMON, "distinct_count": {"type": "integer"}},
}
# Developer Guide, "Schema for Statistics (statistics.json file)", as a JSON Schema.
STATISTICS = {
    "type": "object",
    "required": ["version", "dataset", "features"],
    "properties": {
        "version": {"const": 0},
        "dataset": {"type": "object", "required": ["item_count"]},
        "features": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "inferred_type"],
                "properties": {
                    "inferred_type": {"enum": ["Fractional", "Integral", "String", "Unknown"]},
                    "numerical_statistics": NUMERICAL,
                    "string_statistics": TEXTUAL,
                },
                "oneOf": [{"required": ["numerical_statistics"]}, {"required": ["string_statistics"]}],
            },
        },
    },
}


def test_statistics_are_in_sagemakers_schema_and_add_up(tmp_path: Path) -> None:
    data = {**table(0, 60_000), "empty": pa.nulls(60_000, pa.float64())}
    found = statistics_document(profile(data, tmp_path))
    jsonschema.validate(found, STATISTICS)
    assert found["dataset"]["item_count"] == 60_000
    speed = found["features"][0]["numerical_statistics"]
    assert speed["mean"] == pytest.approx(data["speed"].mean())
    assert speed["sum"] == pytest.approx(data["speed"].sum())
    assert speed["std_dev"] == pytest.approx(data["speed"].std())
    buckets = speed["distribution"]["kll"]["buckets"]
    assert sum(bucket["count"] for bucket in buckets) == 60_000
    assert (buckets[0]["lower_bound"], buckets[-1]["upper_bound"]) == (data["speed"].min(), data["speed"].max())
    true, _ = np.histogram(data["speed"], 10)
    assert np.abs(true - [bucket["count"] for bucket in buckets]).max() <= 0.003 * 60_000
    levels = speed["distribution"]["kll"]["sketch"]["data"]
    assert sum(len(level) * 2**i for i, level in enumerate(levels)) == 60_000


def test_counts_of_half_open_buckets_are_exact_where_the_sketch_is(tmp_path: Path) -> None:
    found = statistics_document(profile({"x": np.arange(11.0)}, tmp_path))
    buckets = found["features"][0]["numerical_statistics"]["distribution"]["kll"]["buckets"]
    assert [bucket["count"] for bucket in buckets] == [1] * 9 + [2]  # the last one is closed


def test_constraints_of_sagemaker_are_read(tmp_path: Path) -> None:
    # The example of the Developer Guide, with the SDK's spelling of a feature's own settings.
    (tmp_path / "constraints.json").write_text(
        json.dumps(
            {
                "version": 0,
                "features": [
                    {"name": "Churn", "inferred_type": "Integral", "completeness": 1.0,
                     "num_constraints": {"is_non_negative": True}},
                    {"name": "State", "inferred_type": "String", "completeness": 0.9,
                     "string_constraints": {"domains": ["a", "b"],
                                            "monitoring_config_overrides": {"domain_content_threshold": 0.5}},
                     "monitoringConfigOverrides": None},
                ],
                "monitoring_config": {
                    "evaluate_constraints": "Enabled", "emit_metrics": "Enabled", "datatype_check_threshold": 1.0,
                    "domain_content_threshold": 1.0,
                    "distribution_constraints": {"perform_comparison": "Enabled", "comparison_threshold": 0.1,
                                                 "comparison_method": "Robust"},
                },
            }
        )
    )  # fmt: skip
    constraints = read_constraints(tmp_path / "constraints.json")
    first, second = constraints.features
    assert constraints.config_of(first).domain_content_threshold == 1.0
    assert constraints.config_of(second).domain_content_threshold == 0.5
    assert constraints.config_of(second).distribution_constraints.comparison_method == "Robust"


def test_a_misspelt_constraint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "constraints.json"
    path.write_text(json.dumps({"features": [], "monitoring_config": {"data_type_check_threshold": 0.1}}))
    with pytest.raises(ConfigError, match="unknown key; did you mean 'datatype_check_threshold'"):
        read_constraints(path)
    path.write_text("[]")
    with pytest.raises(ConfigError, match="expected an object with 'features', got list"):
        read_constraints(path)


# ------------------------------------------------------------------ the commands


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


def test_baseline_and_check_write_their_files(run: Callable[..., str], tmp_path: Path) -> None:
    profile(table(0), tmp_path, "good")
    profile(broken("mean"), tmp_path, "bad")
    assert "4,000 rows" in run("monitor", "baseline", "good.parquet", "--out", "base")
    assert {path.name for path in (tmp_path / "base").iterdir()} == {
        "statistics.json",
        "constraints.json",
        "profile.npz",
    }
    assert json.loads(run("monitor", "check", "good.parquet", "--baseline", "base", "--json"))["status"] == "passed"
    text = run("monitor", "check", "bad.parquet", "--baseline", "base", "--out", "found", code=1)
    assert "violation: speed: baseline_drift_check" in text
    written = json.loads((tmp_path / "found" / "constraint_violations.json").read_text())
    assert [entry["feature_name"] for entry in written["violations"]] == ["speed"]
    assert set(written["violations"][0]) == {"feature_name", "constraint_check_type", "description"}
    assert "Violations" in (tmp_path / "found" / "report.html").read_text()


def test_profiles_of_hours_make_the_profile_of_a_day(run: Callable[..., str], tmp_path: Path) -> None:
    whole = table(0)
    profile(whole, tmp_path, "day")
    for hour in range(4):
        part = {name: column[hour * 1_000 : (hour + 1) * 1_000] for name, column in whole.items()}
        profile(part, tmp_path, f"hour{hour}")
        run("monitor", "baseline", f"hour{hour}.parquet", "--out", f"base{hour}")
    hours = [f"base{hour}/profile.npz" for hour in range(4)]
    run("monitor", "baseline", *hours, "--out", "merged")
    run("monitor", "baseline", "day.parquet", "--out", "day")
    merged, day = (json.loads((tmp_path / name / "statistics.json").read_text()) for name in ("merged", "day"))
    assert merged["dataset"] == day["dataset"]
    for first, second in zip(merged["features"], day["features"], strict=True):
        if "numerical_statistics" in first:
            one, other = first["numerical_statistics"], second["numerical_statistics"]
            assert one["common"] == other["common"]
            assert one["mean"] == pytest.approx(other["mean"])
            assert one["distribution"]["kll"]["buckets"] == other["distribution"]["kll"]["buckets"]
        else:
            assert first == second
    assert "passed" in run("monitor", "check", *hours, "--baseline", "day")


def test_no_data_and_no_baseline_are_told(run: Callable[..., str], tmp_path: Path) -> None:
    profile(table(0), tmp_path, "good")
    (tmp_path / "empty.jsonl").write_text("")
    assert "no rows; a baseline needs data" in run("monitor", "baseline", "empty.jsonl", "--out", "base", code=2)
    assert "cannot be read" in run("monitor", "check", "good.parquet", "--baseline", "base", code=2)
    run("monitor", "baseline", "good.parquet", "--out", "base")
    assert "no data: 0 rows" in run("monitor", "check", "empty.jsonl", "--baseline", "base")
    assert "between 0 and 1" in run(
        "monitor", "check", "good.parquet", "--baseline", "base", "--false-alarm-rate", "2", code=2
    )


def test_hostile_names_and_values_reach_no_page_and_no_terminal(run: Callable[..., str], tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\x1b[2J"
    rows = [{evil: f"{evil}{i % 3}", "ok": i} for i in range(200)]
    (tmp_path / "evil.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "other.jsonl").write_text("".join(json.dumps({"x" + evil: 1}) + "\n" for _ in range(200)))
    out = run("monitor", "baseline", "evil.jsonl", "--out", "base")
    out += run("monitor", "check", "other.jsonl", "--baseline", "base", "--out", "found", code=1)
    page = (tmp_path / "found" / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in out


# ------------------------------------------------------------------ columns that go together


def together(seed: int, *, r: float = 0.6, n: int = N, gone: str = "") -> Table:
    """Three columns that go together, and one that does not; of those named in ``gone``, the rows are shuffled."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(n)
    part = {name: r**0.5 * common + (1 - r) ** 0.5 * rng.standard_normal(n) for name in "abc"}
    columns = {**part, "b": np.exp(part["b"]), "d": rng.poisson(3.0, n)}
    return {name: rng.permutation(values) if name in gone else values for name, values in columns.items()}


def compared(window: Table, folder: Path, **rules: Any) -> QualityCheck:
    baseline = profile(together(0), folder, "baseline")
    limits = document(suggested(baseline))
    limits["monitoring_config"]["distribution_constraints"] |= rules.pop("distribution_constraints", {})
    limits["monitoring_config"] |= rules
    pq.write_table(pa.table(window), folder / "window.parquet")
    now = profile_of([folder / "window.parquet"], like=baseline)
    return check(now, baseline, constraints=Constraints.model_validate(limits))


@pytest.mark.parametrize("rate", [None, 0.05])
def test_columns_that_no_longer_go_together_are_found_and_named(tmp_path: Path, rate: float | None) -> None:
    rules = {} if rate is None else {"false_discovery_rate": rate}
    assert found(compared(together(1), tmp_path, **rules)) == set()
    result = compared(together(1, gone="b"), tmp_path, **rules)
    assert found(result) == {("b", "correlation_drift_check")}, (
        "the margins are as they were; a and c still go together"
    )
    (violation,) = result.violations
    assert "The correlation has changed, with " in violation.description
    assert found(compared(together(1, gone="abc"), tmp_path, **rules)) <= {
        (k, "correlation_drift_check") for k in "abc"
    }


def test_a_change_of_correlation_has_a_threshold_of_its_own(tmp_path: Path) -> None:
    slight = together(1, r=0.42, n=20_000)
    assert {kind for _, kind in found(compared(slight, tmp_path))} == {"correlation_drift_check"}
    rules = {"distribution_constraints": {"correlation_threshold": 0.3}}
    assert found(compared(slight, tmp_path, **rules)) == set()
    off = {"distribution_constraints": {"perform_comparison": "Disabled"}}
    assert found(compared(together(1, gone="b"), tmp_path, **off)) == set()


def test_what_has_no_scores_of_the_baseline_is_not_compared(tmp_path: Path) -> None:
    baseline = profile(together(0), tmp_path, "baseline")
    result = check(profile(together(1, gone="b"), tmp_path), baseline, constraints=suggested(baseline))
    assert (result.pairs, found(result)) == ((), set())


def test_the_command_tells_which_columns_came_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, data in (("then", together(0)), ("now", together(1, gone="b"))):
        pq.write_table(pa.table(data), tmp_path / f"{name}.parquet")
    base, out = str(tmp_path / "base"), str(tmp_path / "out")
    assert main(["monitor", "baseline", str(tmp_path / "then.parquet"), "--out", base]) == 0
    assert main(["monitor", "check", str(tmp_path / "now.parquet"), "--baseline", base, "--out", out]) == 1
    told = capsys.readouterr().out
    assert "violation: b: correlation_drift_check: The correlation has changed, with" in told
    assert "Correlations of normal scores, 6 pairs" in (tmp_path / "out" / "report.html").read_text()
    written = json.loads((tmp_path / "out" / "constraint_violations.json").read_text())["violations"]
    assert [one["feature_name"] for one in written] == ["b"]
    assert main(["monitor", "check", str(tmp_path / "now.parquet"), str(tmp_path / "out" / "profile.npz"),
                 "--baseline", base, "--out", str(tmp_path / "twice")]) == 1, "stored profiles are merged"  # fmt: skip
    assert "correlations are not compared" not in told
    capsys.readouterr()
    assert main(["monitor", "check", str(tmp_path / "now.parquet"), "--baseline", base, "--columns", "c,d",
                 "--out", str(tmp_path / "two")]) == 0, "what was left out is not missing"  # fmt: skip


def test_profiles_made_apart_say_that_correlations_are_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, data in (("one", together(0)), ("two", together(2)), ("now", together(1, gone="b"))):
        pq.write_table(pa.table(data), tmp_path / f"{name}.parquet")
    for name in ("one", "two"):
        assert main(["monitor", "baseline", str(tmp_path / f"{name}.parquet"), "--out", str(tmp_path / name)]) == 0
    parts = [str(tmp_path / name / "profile.npz") for name in ("one", "two")]
    assert main(["monitor", "baseline", *parts, "--out", str(tmp_path / "both")]) == 0
    checked = ["monitor", "check", str(tmp_path / "now.parquet"), "--baseline", str(tmp_path / "both")]
    assert main([*checked, "--out", str(tmp_path / "out")]) == 0
    assert "note: correlations are not compared" in capsys.readouterr().out
    assert "correlations are not compared" in (tmp_path / "out" / "report.html").read_text()
