"""`Measurement`: one number that a check found, with how often chance does as much."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from scipy.special import ndtr

from policylab.monitoring.causes.analysis import Diagnosis
from policylab.monitoring.outcomes.constraints import MetricViolation
from policylab.monitoring.outcomes.means import Metric
from policylab.monitoring.outcomes.measures import Measured
from policylab.monitoring.profiles.distances import linf_p_value, linf_spread
from policylab.monitoring.quality.check import FALSE_ALARM_RATE, QualityCheck


@dataclasses.dataclass(frozen=True, slots=True)
class Measurement:
    """One number.

    Attributes:
        name: ``CHECK.WHAT``, such as ``data.obs_0`` or ``quality.return_mean``.
        value: the number.
        p_value: how often chance alone does as much; None where that is not known.
        violated: whether the check itself, by its baseline, calls it a violation.
        detail: what is behind it, in words.
    """

    name: str
    value: float
    p_value: float | None
    violated: bool
    detail: str


def of_data(found: QualityCheck, *, false_alarm_rate: float = FALSE_ALARM_RATE) -> list[Measurement]:
    """Return the drift of every column and of their correlations, and every other violation.

    Args:
        found: the check.
        false_alarm_rate: that it was made with.
    """
    rate = false_alarm_rate / max(1, found.n_tested)
    drifted = {v.feature_name: v.description for v in found.violations if v.constraint_check_type == _DRIFT}
    measured = []
    for column in found.columns:
        distance = column.distances.get("linf_simple")
        if distance is None:
            continue
        spread = linf_spread(distance, false_alarm_rate=rate)
        p_value = linf_p_value(distance.value, spread=spread, error=distance.error)
        detail = drifted.get(column.name, f"L-infinity distance {distance.value:.4g}")
        measured.append(Measurement(f"data.{column.name}", distance.value, p_value, column.name in drifted, detail))
    if found.pairs:
        measured.append(_of_pairs(found))
    others = [one for one in found.violations if one.constraint_check_type not in (_DRIFT, _CORRELATION)]
    return measured + [
        Measurement(f"data.{v.feature_name}.{v.constraint_check_type}", 1.0, None, True, v.description) for v in others
    ]


_DRIFT, _CORRELATION = "baseline_drift_check", "correlation_drift_check"


def _of_pairs(found: QualityCheck) -> Measurement:
    """Return the least likely change of a correlation, for all of them."""
    pair = min(found.pairs, key=lambda one: (one.p_value(), -one.change.value))
    told = [f"{v.feature_name}: {v.description}" for v in found.violations if v.constraint_check_type == _CORRELATION]
    detail = f"{pair.names[0]} and {pair.names[1]}: {pair.window:.4g} instead of {pair.baseline:.4g}"
    p_value = min(1.0, pair.p_value() * len(found.pairs))
    return Measurement("data.correlation", pair.change.value, p_value, bool(told), "; ".join(told) or detail)


def of_causes(found: Diagnosis) -> list[Measurement]:
    """Return the effect of every layer."""
    return [
        Measurement(f"causes.{layer.name}", layer.effect, layer.p_value, layer.drifted, layer.detail)
        for layer in found.layers
    ]


def of_quality(
    found: Measured, broken: Sequence[MetricViolation], *, baseline: Mapping[str, tuple[float, float]]
) -> list[Measurement]:
    """Return every metric; ``baseline`` holds value and standard error of the same metrics, if there is one."""
    violated = {violation.metric_name: violation.description for violation in broken}
    return [
        Measurement(
            f"quality.{name}", metric.value, _worse_by_chance(metric, baseline.get(name)), name in violated,
            violated.get(name, f"{metric.value:.4g} [{metric.low:.4g}, {metric.high:.4g}]"),
        )
        for name, metric in found.metrics.items()
    ]  # fmt: skip


def _worse_by_chance(metric: Metric, baseline: tuple[float, float] | None) -> float | None:
    """Return the one-sided p-value of a metric being worse than the baseline's; normal approximation."""
    if baseline is None or metric.worse is None:
        return None
    gap = metric.value - baseline[0] if metric.worse == "higher" else baseline[0] - metric.value
    error = math.hypot(metric.std_error, baseline[1])
    if not math.isfinite(error):
        return 1.0
    return float(ndtr(-gap / error)) if error > 0.0 else (0.0 if gap > 0.0 else 1.0)
