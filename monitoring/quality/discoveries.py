"""The tests of a whole check together: which of them are discoveries at a false-discovery rate.

Bonferroni's bound (`false_alarm_rate`) keeps a check of a thousand columns from a single false alarm, and misses much
for that. A false-discovery rate q allows false alarms, on average at most the share q of all; by Benjamini and
Yekutieli's procedure however the columns depend on each other.

| test | null hypothesis | p-value |
|---|---|---|
| drift, `Robust` | the L-infinity distance is at most its threshold | Massart's bound of what exceeds it and error |
| drift of categories, `ChiSquared` | the shares are the baseline's | of the chi-square test |
| completeness | the share of values present is the baseline's | binomial, of the cells missing on either side |
| not negative | the share of negative numbers is the baseline's | the same of negative numbers |

A baseline in which nothing was missing or negative says that it is rare, not that it is impossible. Rules that leave
nothing to chance are no tests: types, stated ranges, domains, columns, all of `Simple`, and what the constraints ask
for though the baseline does not have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from scipy.special import betainc

from policylab.monitoring.false_discovery import adjusted_p_values
from policylab.monitoring.profiles.column import ColumnProfile
from policylab.monitoring.profiles.distances import ChiSquare, Distance, linf_p_value, linf_spread
from policylab.monitoring.quality.constraints import DistributionConstraints, MonitoringConfig

Key = TypeVar("Key")


def discovered(adjusted_rate: float, config: MonitoringConfig) -> bool:
    """Return whether a test is a discovery at the false-discovery rate that was asked for."""
    return config.false_discovery_rate is not None and adjusted_rate <= config.false_discovery_rate


def drift_p_value(
    simple: Distance, test: ChiSquare | None, *, rules: DistributionConstraints, false_alarm_rate: float
) -> float | None:
    """Return the p-value of a column's drift; None where it is no test.

    Args:
        simple: the L-infinity distance, whose noise is of ``false_alarm_rate``.
        test: of categories; None for numbers.
        rules: how distributions are compared.
        false_alarm_rate: of the column.
    """
    if test is not None and rules.categorical_drift_method == "ChiSquared":
        return None if np.isnan(test.p_value) else test.p_value
    if rules.comparison_method == "Simple":
        return None
    threshold = rules.comparison_threshold if test is None else rules.categorical_comparison_threshold
    spread = linf_spread(simple, false_alarm_rate=false_alarm_rate)
    return linf_p_value(simple.value, spread=spread, error=simple.error + threshold)


def completeness_p_value(
    wanted: float, column: ColumnProfile, *, reference: ColumnProfile | None, rules: DistributionConstraints
) -> float | None:
    """Return the p-value of a column being less complete than its baseline; None where it is no test.

    Of all cells that are missing on either side, each falls into the window with the window's share of the rows, if
    nothing has changed: a binomial tail, which holds for few missing cells too. Missing cells that follow each other
    are counted for what they are worth.

    Args:
        wanted: the baseline's share of values present, in [0, 1].
        column: of the window.
        reference: of the baseline; None if there is none, which is then taken to be as long as the window.
        rules: whether chance is taken off.
    """
    demanded = wanted == 1.0 and (reference is None or reference.n_missing > 0)
    if demanded or not column.n or rules.comparison_method == "Simple":
        return None
    n = column.n if reference is None else reference.n
    # A baseline without any says nothing of how they follow each other; the window's own would call an outage one cell.
    times = [side.missing_time.time for side in (column, reference) if side is not None and wanted < 1.0]
    time = max(times, default=1.0)
    return _more_by_chance(column.n_missing, of=column.n, before=(1.0 - wanted) * n, of_before=n, time=time)


def not_negative_p_value(
    column: ColumnProfile, *, reference: ColumnProfile | None, rules: DistributionConstraints
) -> float | None:
    """Return the p-value of a column having negative numbers, beside a baseline without; None where it is no test.

    Args:
        column: of the window.
        reference: of the baseline; None if there is none.
        rules: whether chance is taken off.
    """
    demanded = reference is None or reference.n_negative > 0 or not reference.n_numbers
    if demanded or reference is None or not column.n_numbers or rules.comparison_method == "Simple":
        return None
    time, n = reference.number_time.time, reference.n_numbers
    return _more_by_chance(column.n_negative, of=column.n_numbers, before=0.0, of_before=n, time=time)


def _more_by_chance(found: int, *, of: int, before: float, of_before: float, time: float) -> float | None:
    """Return how often as many of some rows fall into the window by chance, rows counted for what they are worth.

    None of no rows at all: given how many there are, that test can find nothing (Tarone, Biometrics 46, 1990).
    """
    if not found:
        return 1.0 if before else None
    n, m = of_before / time, of / time
    return float(betainc(found / time, before / time + 1.0, m / (n + m)))


def adjusted(p_values: Mapping[Key, float | None]) -> dict[Key, float]:
    """Return for each test the least false-discovery rate at which it is a discovery; those that are none are left out.

    >>> adjusted({"a": 0.001, "b": 0.4, "c": None})
    {'a': 0.003, 'b': 0.6000000000000001}
    """
    tests = {key: p for key, p in p_values.items() if p is not None}
    return dict(zip(tests, adjusted_p_values(list(tests.values()), dependent=True).tolist(), strict=True))
