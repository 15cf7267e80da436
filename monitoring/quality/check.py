"""Checking a window of data against a baseline: violations, and every distance with its error and noise.

| `constraint_check_type` | violated if |
|---|---|
| data_type_check | more values than `datatype_check_threshold` are of another type; or outside the stated range |
| completeness_check | a smaller share of rows holds a value than in the baseline |
| missing_column_check | a column of the baseline is not there |
| extra_column_check | a column is there that the baseline does not have |
| categorical_values_check | more values than `domain_content_threshold` are none of the domain |
| baseline_drift_check | a distance exceeds its threshold, see below |

Drift. Numbers: the L-infinity distance; `Robust` takes off what chance explains at `false_alarm_rate` (all columns of a
check together, by Bonferroni's bound; successive values are counted for what they are worth), `Simple` nothing. Either
takes off what the sketches may be wrong by, so that no alarm is theirs. Categories: the same by exact counts, or the
p-value of the chi-square test. Columns whose texts are too many to count are compared by nothing but type and
completeness, which the result says.

Completeness is compared after what chance explains of it, too: a baseline with one empty cell in a thousand is not
violated by two in the next thousand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
from scipy.special import ndtri

from policylab.monitoring.profiles.column import ColumnProfile
from policylab.monitoring.profiles.distances import (
    ChiSquare,
    Distance,
    between_categories,
    between_numbers,
    chi_square,
)
from policylab.monitoring.profiles.profile import Profile
from policylab.monitoring.quality.constraints import Constraints, FeatureConstraints, MonitoringConfig

CheckType = Literal[
    "data_type_check",
    "completeness_check",
    "baseline_drift_check",
    "missing_column_check",
    "extra_column_check",
    "categorical_values_check",
]
FALSE_ALARM_RATE = 0.003
"""Of a whole check on data that has not drifted; Deequ's rate for one column."""


@dataclasses.dataclass(frozen=True, slots=True)
class Violation:
    """One broken constraint, as in ``constraint_violations.json``."""

    feature_name: str
    constraint_check_type: CheckType
    description: str


@dataclasses.dataclass(frozen=True, slots=True)
class ColumnCheck:
    """What was measured of one column.

    Attributes:
        name: of the column.
        n_baseline: values present in the baseline.
        n_window: values present in the window.
        effective: how many independent values the window's are worth.
        distances: by name; empty where nothing could be compared.
        chi_square: of categories; None for numbers.
        notes: why something could not be compared.
    """

    name: str
    n_baseline: int
    n_window: int
    effective: float
    distances: Mapping[str, Distance]
    chi_square: ChiSquare | None = None
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class QualityCheck:
    """The result of a check.

    Attributes:
        violations: in the order of the baseline's columns.
        columns: what was measured, by column.
        n_baseline: rows of the baseline.
        n_window: rows of the window.
        n_constrained: columns that have constraints, among which the false-alarm rate is divided.
    """

    violations: tuple[Violation, ...]
    columns: tuple[ColumnCheck, ...]
    n_baseline: int
    n_window: int
    n_constrained: int = 0


def check(
    window: Profile, baseline: Profile, *, constraints: Constraints, false_alarm_rate: float = FALSE_ALARM_RATE
) -> QualityCheck:
    """Return what a window of data violates, and how far it is from the baseline.

    Args:
        window: profile of the data to check.
        baseline: profile of the data it should be like.
        constraints: what it must satisfy.
        false_alarm_rate: of the whole check, in (0, 1).
    """
    if not window.n_rows:
        return QualityCheck((), (), baseline.n_rows, 0)  # no data is a status of its own, not missing columns
    known = {feature.name for feature in constraints.features}
    rate = false_alarm_rate / max(1, len(known))
    violations: list[Violation] = []
    columns: list[ColumnCheck] = []
    for feature in constraints.features:
        config = constraints.config_of(feature)
        if config.evaluate_constraints == "Disabled":
            continue
        if feature.name not in window.columns:
            description = f"The baseline's column '{feature.name}' is not among the {len(window.columns)} columns"
            violations.append(Violation(feature.name, "missing_column_check", description))
            continue
        column, reference = window.columns[feature.name], baseline.columns.get(feature.name)
        measured = _measured(feature, column, reference=reference, rate=rate)
        columns.append(measured)
        found = [*_content(feature, column, config=config, rate=rate, reference=reference)]
        found += _drift(measured, config)
        violations += [Violation(feature.name, kind, description) for kind, description in found]
    if constraints.monitoring_config.evaluate_constraints == "Enabled":
        for name in window.columns:
            if name not in known:
                description = f"The column '{name}' is not in the baseline's {len(known)} columns"
                violations.append(Violation(name, "extra_column_check", description))
    return QualityCheck(tuple(violations), tuple(columns), baseline.n_rows, window.n_rows, len(known))


Found = tuple[CheckType, str]


def _content(
    feature: FeatureConstraints,
    column: ColumnProfile,
    *,
    config: MonitoringConfig,
    rate: float,
    reference: ColumnProfile | None,
) -> Iterator[Found]:
    other = 1.0 - column.share_of(feature.inferred_type)
    if feature.inferred_type != "Unknown" and other > config.datatype_check_threshold:
        yield (
            "data_type_check",
            f"{other:.2%} of the values are not {feature.inferred_type}, more than "
            f"{config.datatype_check_threshold:.2%}; the column is now {column.type}",
        )
    if _less_complete(feature.completeness, column, rate=rate, reference=reference):
        infinite = f" ({column.n_infinite:,} of them infinite)" if column.n_infinite else ""
        yield (
            "completeness_check",
            f"Completeness {column.completeness:.6g} is below the baseline's {feature.completeness:.6g}: "
            f"{column.n_missing:,} of {column.n:,} values are missing{infinite}",
        )
    yield from _out_of_range(feature, column)
    domain = frozenset(feature.string_constraints.domains) if feature.string_constraints else frozenset()
    if domain and column.n_present:
        categories = column.categories()
        known = sum((categories if categories is not None else column.texts).get(value, 0) for value in domain)
        unknown = 1.0 - known / column.n_present
        if unknown > config.domain_content_threshold:
            yield (
                "categorical_values_check",
                f"{unknown:.2%} of the values are not in the domain of {len(domain)} values, more than "
                f"{config.domain_content_threshold:.2%}",
            )


def _less_complete(wanted: float, column: ColumnProfile, *, rate: float, reference: ColumnProfile | None) -> bool:
    """Return whether fewer values are present than the baseline's share and chance allow."""
    if not column.n or column.completeness >= wanted:
        return False
    n = reference.n if reference is not None and reference.n else column.n
    pooled = (wanted * n + column.n_present) / (n + column.n)
    chance = float(-ndtri(rate)) * float(np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / column.n)))
    # A baseline without a single empty cell allows none: one empty cell is news then.
    return wanted == 1.0 or wanted - column.completeness > chance


def _out_of_range(feature: FeatureConstraints, column: ColumnProfile) -> Iterator[Found]:
    limits = feature.num_constraints
    if limits is None or not column.n_numbers:
        return
    low = max(0.0 if limits.is_non_negative else -np.inf, -np.inf if limits.minimum is None else limits.minimum)
    if column.low < low:
        rule = "non-negative" if low == 0.0 and limits.is_non_negative else f"at least {low:g}"
        yield "data_type_check", f"The values must be {rule}, the smallest is {column.low:g}"
    if limits.maximum is not None and column.high > limits.maximum:
        yield "data_type_check", f"The values must be at most {limits.maximum:g}, the largest is {column.high:g}"


def _measured(
    feature: FeatureConstraints, column: ColumnProfile, *, reference: ColumnProfile | None, rate: float
) -> ColumnCheck:
    n_baseline = reference.n_present if reference is not None else 0
    effective = column.n_present / column.autocorrelation_time
    made = ColumnCheck(feature.name, n_baseline, column.n_present, effective, distances={})
    if reference is None or not reference.n_present or not column.n_present:
        side = "window" if not column.n_present else "baseline"
        return dataclasses.replace(made, notes=(f"no values in the {side}: nothing to compare",))
    if feature.inferred_type in ("Integral", "Fractional"):
        if not column.n_numbers or not reference.n_numbers:
            return dataclasses.replace(made, notes=("no numbers to compare",))
        return dataclasses.replace(made, distances=between_numbers(reference, column, false_alarm_rate=rate))
    first, second = reference.categories(), column.categories()
    if first is None or second is None:
        return dataclasses.replace(made, notes=("too many different values to compare",))
    distances = between_categories(first, second, false_alarm_rate=rate)
    return dataclasses.replace(made, distances=distances, chi_square=chi_square(second, first))


def _drift(measured: ColumnCheck, config: MonitoringConfig) -> Iterator[Found]:
    rules, simple = config.distribution_constraints, measured.distances.get("linf_simple")
    if rules.perform_comparison == "Disabled" or simple is None:
        return
    test = measured.chi_square
    if test is not None and rules.categorical_drift_method == "ChiSquared":
        if test.p_value < rules.categorical_comparison_threshold:
            yield (
                "baseline_drift_check",
                f"Chi-square {test.statistic:.6g} with {test.degrees} degrees of freedom has the p-value "
                f"{test.p_value:.3g}, below {rules.categorical_comparison_threshold:g}",
            )
        return
    threshold = rules.comparison_threshold if test is None else rules.categorical_comparison_threshold
    robust = rules.comparison_method == "Robust"
    distance = max(0.0, simple.value - (simple.noise if robust else 0.0))
    if distance - simple.error > threshold:
        error = f" (sketch error up to {simple.error:.2g})" if simple.error else ""
        yield (
            "baseline_drift_check",
            f"Baseline drift distance: {distance}{error} exceeds threshold: {threshold}",
        )


def violations_document(found: QualityCheck) -> dict[str, object]:
    """Return the JSON of ``constraint_violations.json``."""
    return {"violations": [dataclasses.asdict(violation) for violation in found.violations]}
