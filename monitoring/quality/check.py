"""Checking a window of data against a baseline: violations, and every distance with its error and noise.

| `constraint_check_type` | violated if |
|---|---|
| data_type_check | more values than `datatype_check_threshold` are of another type; or outside the stated range |
| completeness_check | a smaller share of rows holds a value than in the baseline |
| missing_column_check | a column of the baseline is not there |
| extra_column_check | a column is there that the baseline does not have |
| categorical_values_check | more values than `domain_content_threshold` are none of the domain |
| baseline_drift_check | a distance exceeds its threshold, see below |
| correlation_drift_check | columns of numbers no longer go together as they did; an addition to SageMaker's checks |

Drift. Numbers: the L-infinity distance; `Robust` takes off what chance explains at `false_alarm_rate` (all columns of a
check together, by Bonferroni's bound; successive values are counted for what they are worth), `Simple` nothing. Either
takes off what the sketches may be wrong by, so that no alarm is theirs. Categories: the same by exact counts, or the
p-value of the chi-square test. Columns whose texts are too many to count are compared by nothing but type and
completeness, which the result says. Correlations of columns of numbers share the false-alarm rate as one more column
(`policylab.monitoring.quality.dependence`); a pair has the larger of both columns' thresholds.

With `false_discovery_rate` all tests of the check are judged together instead
(`policylab.monitoring.quality.discoveries`).

Completeness, and that numbers are not negative, are compared after what chance explains of it, too: a baseline with one
empty cell in a thousand is not violated by two in the next thousand, nor one with none by one. With `Simple` it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence

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
from policylab.monitoring.quality.content import CheckType, Found, content_violations
from policylab.monitoring.quality.dependence import PairCheck, compared, told
from policylab.monitoring.quality.discoveries import adjusted as adjusted_rates
from policylab.monitoring.quality.discoveries import (
    completeness_p_value,
    discovered,
    drift_p_value,
    not_negative_p_value,
)

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
        adjusted: by kind of check, the least false-discovery rate at which its test is a discovery; empty without
            control of that rate.
    """

    name: str
    n_baseline: int
    n_window: int
    effective: float
    distances: Mapping[str, Distance]
    chi_square: ChiSquare | None = None
    notes: tuple[str, ...] = ()
    adjusted: Mapping[CheckType, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class QualityCheck:
    """The result of a check.

    Attributes:
        violations: in the order of the baseline's columns.
        columns: what was measured, by column.
        n_baseline: rows of the baseline.
        n_window: rows of the window.
        n_tested: constrained columns, and one for the pairs if there are any: they share the false-alarm rate.
        false_discovery_rate: that was asked for instead; None without.
        pairs: columns of numbers that were compared in how they go together.
        notes: what could not be compared, and why.
    """

    violations: tuple[Violation, ...]
    columns: tuple[ColumnCheck, ...]
    n_baseline: int
    n_window: int
    n_tested: int = 0
    false_discovery_rate: float | None = None
    pairs: tuple[PairCheck, ...] = ()
    notes: tuple[str, ...] = ()


APART = (
    "correlations are not compared: baseline and window have no normal scores in common, as profiles that were made "
    "apart from each other, of few rows or by an earlier version; make the profiles of parts with one baseline"
)


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
    names = {} if window.pairs.scores is None else dict.fromkeys(window.pairs.scores.names)
    scored = len(names) > 1 and window.pairs.scores == baseline.pairs.scores
    n_tested = len(known) + scored
    rate = false_alarm_rate / max(1, n_tested)
    q = constraints.monitoring_config.false_discovery_rate
    checked = [(feature, constraints.config_of(feature)) for feature in constraints.features]
    checked = [(feature, config) for feature, config in checked if config.evaluate_constraints == "Enabled"]
    columns = {
        feature.name: _measured(
            feature, window.columns[feature.name], reference=baseline.columns.get(feature.name), rate=rate
        )
        for feature, _ in checked
        if feature.name in window.columns
    }
    thresholds = _pair_thresholds(checked)
    pairs = tuple(
        one
        for one in compared(baseline.pairs, window.pairs, false_alarm_rate=rate)
        if all(name in thresholds for name in one.names)
    )
    if q is not None:
        columns, pairs = _with_adjusted(
            columns, checked, window=window, baseline=baseline, rate=rate, pairs=pairs, thresholds=thresholds
        )
    violations: list[Violation] = []
    for feature, config in checked:
        if feature.name not in columns:
            description = f"The baseline's column '{feature.name}' is not among the {len(window.columns)} columns"
            violations.append(Violation(feature.name, "missing_column_check", description))
            continue
        column, measured = window.columns[feature.name], columns[feature.name]
        reference, adjusted = baseline.columns.get(feature.name), measured.adjusted
        found = [
            *content_violations(feature, column, config=config, rate=rate, reference=reference, adjusted=adjusted),
            *_drift(measured, config),
        ]
        violations += [Violation(feature.name, kind, description) for kind, description in found]
    if constraints.monitoring_config.evaluate_constraints == "Enabled":
        violations += _extra(window, known)
    broken = [one for one in pairs if _apart(one, _pair_threshold(one, thresholds), false_discovery_rate=q)]
    violations += [Violation(name, "correlation_drift_check", description) for name, description in told(broken)]
    sizes = baseline.n_rows, window.n_rows, n_tested
    return QualityCheck(tuple(violations), tuple(columns.values()), *sizes, q, pairs, _notes(baseline, scored=scored))


def _extra(window: Profile, known: Collection[str]) -> Iterator[Violation]:
    for name in window.columns:
        if name not in known:
            description = f"The column '{name}' is not in the baseline's {len(known)} columns"
            yield Violation(name, "extra_column_check", description)


def _notes(baseline: Profile, *, scored: bool) -> tuple[str, ...]:
    n_numeric = sum(column.n_numbers > 0 for column in baseline.columns.values())
    return () if scored or n_numeric < 2 else (APART,)


def _pair_thresholds(checked: Sequence[tuple[FeatureConstraints, MonitoringConfig]]) -> dict[str, float]:
    """Return the largest change of a correlation that each column of numbers allows."""
    rules = {
        feature.name: config.distribution_constraints
        for feature, config in checked
        if feature.inferred_type in ("Integral", "Fractional")
    }
    return {name: one.correlation_threshold for name, one in rules.items() if one.perform_comparison == "Enabled"}


def _pair_threshold(pair: PairCheck, thresholds: Mapping[str, float]) -> float:
    return max(thresholds[name] for name in pair.names)


def _apart(pair: PairCheck, threshold: float, *, false_discovery_rate: float | None) -> bool:
    """Return whether a correlation changed by more than the threshold and chance."""
    if pair.adjusted is not None and false_discovery_rate is not None:
        return pair.adjusted <= false_discovery_rate
    return pair.change.value - pair.change.noise > threshold


def _with_adjusted(
    columns: Mapping[str, ColumnCheck],
    checked: Sequence[tuple[FeatureConstraints, MonitoringConfig]],
    *,
    window: Profile,
    baseline: Profile,
    rate: float,
    pairs: Sequence[PairCheck],
    thresholds: Mapping[str, float],
) -> tuple[dict[str, ColumnCheck], tuple[PairCheck, ...]]:
    """Return columns and pairs with the false-discovery rates at which their tests, all of a check together, are so."""
    p_values: dict[tuple[str, ...], float | None] = {}
    for feature, config in checked:
        measured, rules = columns.get(feature.name), config.distribution_constraints
        if measured is None:
            continue
        simple = measured.distances.get("linf_simple")
        if simple is not None and rules.perform_comparison == "Enabled":
            p_values[feature.name, "baseline_drift_check"] = drift_p_value(
                simple, measured.chi_square, rules=rules, false_alarm_rate=rate
            )
        column, reference = window.columns[feature.name], baseline.columns.get(feature.name)
        p_values[feature.name, "completeness_check"] = completeness_p_value(
            feature.completeness, column, reference=reference, rules=rules
        )
        if feature.num_constraints is not None and feature.num_constraints.is_non_negative:
            p_values[feature.name, "data_type_check"] = not_negative_p_value(column, reference=reference, rules=rules)
    p_values |= {(*one.names, "pair"): one.p_value(_pair_threshold(one, thresholds)) for one in pairs}
    rates = adjusted_rates(p_values)
    kinds: tuple[CheckType, ...] = ("baseline_drift_check", "completeness_check", "data_type_check")
    of_columns = {name: {kind: rates[name, kind] for kind in kinds if (name, kind) in rates} for name in columns}
    return (
        {name: dataclasses.replace(one, adjusted=of_columns[name]) for name, one in columns.items()},
        tuple(dataclasses.replace(one, adjusted=rates[*one.names, "pair"]) for one in pairs),
    )


def _measured(
    feature: FeatureConstraints, column: ColumnProfile, *, reference: ColumnProfile | None, rate: float
) -> ColumnCheck:
    n_baseline = reference.n_present if reference is not None else 0
    effective = column.n_present / column.time
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
    time = max(reference.time, column.time)
    distances = between_categories(first, second, false_alarm_rate=rate, time=time)
    inflation = time * (1.0 + sum(second.values()) / sum(first.values()))
    return dataclasses.replace(made, distances=distances, chi_square=chi_square(second, first, inflation=inflation))


def _drift(measured: ColumnCheck, config: MonitoringConfig) -> Iterator[Found]:
    rules, simple = config.distribution_constraints, measured.distances.get("linf_simple")
    if rules.perform_comparison == "Disabled" or simple is None:
        return
    test, adjusted = measured.chi_square, measured.adjusted.get("baseline_drift_check")
    if adjusted is not None:
        if discovered(adjusted, config):
            yield "baseline_drift_check", _discovery(measured, config, simple=simple, adjusted=adjusted)
        return
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


def _discovery(measured: ColumnCheck, config: MonitoringConfig, *, simple: Distance, adjusted: float) -> str:
    rules, test = config.distribution_constraints, measured.chi_square
    rate = f"a discovery at the false-discovery rate {adjusted:.3g}, at most {config.false_discovery_rate:g}"
    if test is not None and rules.categorical_drift_method == "ChiSquared":
        return f"Chi-square {test.statistic:.6g} with {test.degrees} degrees of freedom is {rate}"
    threshold = rules.comparison_threshold if test is None else rules.categorical_comparison_threshold
    error = f" (sketch error up to {simple.error:.2g})" if simple.error else ""
    return f"Baseline drift distance: {simple.value}{error} exceeds threshold: {threshold}, {rate}"


def violations_document(found: QualityCheck) -> dict[str, object]:
    """Return the JSON of ``constraint_violations.json``."""
    return {"violations": [dataclasses.asdict(violation) for violation in found.violations]}
