"""What a column holds, counted: types, completeness, ranges and categories against their constraints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from policylab.monitoring.profiles.column import ColumnProfile
from policylab.monitoring.quality.constraints import FeatureConstraints, MonitoringConfig, NumberConstraints
from policylab.monitoring.quality.discoveries import completeness_p_value, discovered, not_negative_p_value

CheckType = Literal[
    "data_type_check",
    "completeness_check",
    "baseline_drift_check",
    "missing_column_check",
    "extra_column_check",
    "categorical_values_check",
    "correlation_drift_check",  # an addition to SageMaker's
]
Found = tuple[CheckType, str]


def content_violations(
    feature: FeatureConstraints,
    column: ColumnProfile,
    *,
    config: MonitoringConfig,
    rate: float,
    reference: ColumnProfile | None,
    adjusted: Mapping[CheckType, float],
) -> Iterator[Found]:
    """Yield what a column violates whose values were counted.

    Args:
        feature: what it must satisfy.
        column: of the window.
        config: its settings.
        rate: its false-alarm rate.
        reference: of the baseline; None if that has no such column.
        adjusted: false-discovery rates at which its tests are discoveries; empty without control of that rate.
    """
    other = 1.0 - column.share_of(feature.inferred_type)
    if feature.inferred_type != "Unknown" and other > config.datatype_check_threshold:
        yield (
            "data_type_check",
            f"{other:.2%} of the values are not {feature.inferred_type}, more than "
            f"{config.datatype_check_threshold:.2%}; the column is now {column.type}",
        )
    if _less_complete(feature.completeness, column, reference=reference, rate=rate, adjusted=adjusted, config=config):
        infinite = f" ({column.n_infinite:,} of them infinite or beyond ±1e150)" if column.n_infinite else ""
        yield (
            "completeness_check",
            f"Completeness {column.completeness:.6g} is below the baseline's {feature.completeness:.6g}: "
            f"{column.n_missing:,} of {column.n:,} values are missing{infinite}",
        )
    limits = feature.num_constraints or NumberConstraints()
    if limits.is_non_negative and _negative(column, reference=reference, rate=rate, adjusted=adjusted, config=config):
        many = f"{column.n_negative:,} of {column.n_numbers:,}"
        yield "data_type_check", f"The values must be non-negative, {many} are not; the smallest is {column.low:g}"
    if column.n_numbers:
        yield from _out_of_range(limits, column)
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


def _less_complete(
    wanted: float,
    column: ColumnProfile,
    *,
    reference: ColumnProfile | None,
    rate: float,
    adjusted: Mapping[CheckType, float],
    config: MonitoringConfig,
) -> bool:
    """Return whether fewer values are present than the baseline's share and chance allow."""
    if not column.n or column.completeness >= wanted:
        return False
    if (test := adjusted.get("completeness_check")) is not None:
        return discovered(test, config)
    p_value = completeness_p_value(wanted, column, reference=reference, rules=config.distribution_constraints)
    return p_value is None or p_value < rate


def _negative(
    column: ColumnProfile,
    *,
    reference: ColumnProfile | None,
    rate: float,
    adjusted: Mapping[CheckType, float],
    config: MonitoringConfig,
) -> bool:
    """Return whether more numbers are negative than a baseline without and chance allow."""
    if not column.n_negative:
        return False
    if (test := adjusted.get("data_type_check")) is not None:
        return discovered(test, config)
    p_value = not_negative_p_value(column, reference=reference, rules=config.distribution_constraints)
    return p_value is None or p_value < rate


def _out_of_range(limits: NumberConstraints, column: ColumnProfile) -> Iterator[Found]:
    if limits.minimum is not None and column.low < limits.minimum:
        yield "data_type_check", f"The values must be at least {limits.minimum:g}, the smallest is {column.low:g}"
    if limits.maximum is not None and column.high > limits.maximum:
        yield "data_type_check", f"The values must be at most {limits.maximum:g}, the largest is {column.high:g}"
