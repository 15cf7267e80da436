"""The tests of a whole check together: which of them are discoveries at a false-discovery rate.

Bonferroni's bound (`false_alarm_rate`) keeps a check of a thousand columns from a single false alarm, and misses much
for that. A false-discovery rate q allows false alarms, on average at most the share q of all; by Benjamini and
Yekutieli's procedure however the columns depend on each other.

| test | null hypothesis | p-value |
|---|---|---|
| drift, `Robust` | the L-infinity distance is at most its threshold | Massart's bound of what exceeds it and error |
| drift of categories, `ChiSquared` | the shares are the baseline's | of the chi-square test |
| completeness | the share of values present is the baseline's | binomial, of the cells missing on either side |

Rules that leave nothing to chance are no tests: types, ranges, domains, columns, `Simple` distances, completeness of 1.
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


def completeness_p_value(wanted: float, column: ColumnProfile, *, reference: ColumnProfile | None) -> float | None:
    """Return the p-value of a column being less complete than its baseline; None where it is no test.

    Of all cells that are missing on either side, each falls into the window with the window's share of the rows, if
    nothing has changed: a binomial tail, which holds for few missing cells too. Missing cells that follow each other
    are counted for what they are worth.

    Args:
        wanted: the baseline's share of values present, in [0, 1].
        column: of the window.
        reference: of the baseline; None if there is none, which is then taken to be as long as the window.
    """
    if wanted == 1.0 or not column.n:
        return None
    time = max(column.missing_time.time, 1.0 if reference is None else reference.missing_time.time)
    n, m = (column.n if reference is None else reference.n) / time, column.n / time
    missing = column.n_missing / time
    return float(betainc(missing, (1.0 - wanted) * n + 1.0, m / (n + m))) if missing > 0.0 else 1.0


def adjusted(p_values: Mapping[Key, float | None]) -> dict[Key, float]:
    """Return for each test the least false-discovery rate at which it is a discovery; those that are none are left out.

    >>> adjusted({"a": 0.001, "b": 0.4, "c": None})
    {'a': 0.003, 'b': 0.6000000000000001}
    """
    tests = {key: p for key, p in p_values.items() if p is not None}
    return dict(zip(tests, adjusted_p_values(list(tests.values()), dependent=True).tolist(), strict=True))
