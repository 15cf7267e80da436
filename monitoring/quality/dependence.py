"""Whether columns of numbers still go together as they did, whatever has become of each by itself.

The margins of columns may stay while what they have to do with each other changes: no comparison column by column sees
that. The correlations r of normal scores (`policylab.monitoring.profiles.co_moments`) are compared pair by pair:

    t = |artanh r_baseline - artanh r_window| / sqrt(s_baseline² + s_window²),    s = σ / (sqrt(n) (1 - r²))

beside Student's t with the fewer degrees of freedom of both sides. A pair has drifted if its correlation changed by
more than the threshold and what chance explains at the false-alarm rate, of all pairs together by Bonferroni's bound.
Chance is always taken off: nothing here is SageMaker's.

A column whose tie to all others is broken breaks as many pairs. Violations name the fewest columns that cover all
pairs that drifted: the column with most of them first.

Source: Fisher, Metron 1 (1921) (artanh).
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.special import stdtr, stdtrit

from policylab.monitoring.profiles.co_moments import CoMoments
from policylab.monitoring.profiles.distances import Distance

LARGEST = 1.0 - 1e-9
"""Of a correlation whose artanh is still a number."""
MAX_TOLD = 3
"""Partners of a column that a violation names."""


@dataclasses.dataclass(frozen=True, slots=True)
class PairCheck:
    """Two columns.

    Attributes:
        names: of the columns.
        baseline: correlation, in [-1, 1].
        window: correlation.
        change: absolute difference of both, with what chance exceeds at the pair's false-alarm rate.
        error: standard error of the change.
        degrees: of freedom of the error.
        adjusted: the least false-discovery rate at which the change is a discovery; None without control of that rate.
    """

    names: tuple[str, str]
    baseline: float
    window: float
    change: Distance
    error: float
    degrees: float
    adjusted: float | None = None

    def p_value(self, threshold: float = 0.0) -> float:
        """Return how often chance alone does as much where the true change is ``threshold``."""
        beyond = max(0.0, self.change.value - threshold)
        if self.error == 0.0:
            return float(beyond == 0.0)
        return min(1.0, 2.0 * float(stdtr(self.degrees, -beyond / self.error)))


def compared(baseline: CoMoments, window: CoMoments, *, false_alarm_rate: float) -> tuple[PairCheck, ...]:
    """Return the pairs of columns that vary on both sides, whose errors are known.

    Args:
        baseline: of the baseline.
        window: with the scores of the baseline; with others nothing can be compared.
        false_alarm_rate: of all pairs together.
    """
    values = [side.correlation() for side in (baseline, window)]
    if baseline.scores is None or baseline.scores != window.scores:
        return ()
    with np.errstate(divide="ignore", invalid="ignore"):
        of_side = [side.variance / side.worth for side in (baseline, window)]
    usable = np.isfinite(values[0]) & np.isfinite(values[1]) & np.isfinite(of_side[0]) & np.isfinite(of_side[1])
    usable &= (baseline.degrees > 0) & (window.degrees > 0)
    rows, columns = np.nonzero(np.triu(usable, 1))
    rate = false_alarm_rate / max(1, len(rows))
    found = []
    for i, j in zip(rows.tolist(), columns.tolist(), strict=True):
        r = [float(side[i, j]) for side in values]
        degrees = float(min(baseline.degrees[i, j], window.degrees[i, j]))
        error = _error(r, [float(side[i, j]) for side in of_side])
        noise = error * -float(stdtrit(degrees, rate / 2))
        names = baseline.scores.names[i], baseline.scores.names[j]
        found.append(PairCheck(names, r[0], r[1], Distance(abs(r[1] - r[0]), noise=noise), error, degrees))
    return tuple(found)


def _error(r: Sequence[float], variances: Sequence[float]) -> float:
    """Return the standard error of the difference of two correlations, by that of their artanh."""
    inside = [min(LARGEST, max(-LARGEST, one)) for one in r]
    error = math.sqrt(sum(v / (1.0 - one * one) ** 2 for v, one in zip(variances, inside, strict=True)))
    apart = abs(math.atanh(inside[1]) - math.atanh(inside[0]))
    slope = abs(inside[1] - inside[0]) / apart if apart > 1e-9 else 1.0 - inside[0] ** 2
    return slope * error


def told(drifted: Sequence[PairCheck]) -> Iterator[tuple[str, str]]:
    """Yield the fewest columns that cover all pairs that drifted, each with a description of its pairs."""
    left = list(drifted)
    while left:
        counts = Counter(name for one in left for name in one.names)
        column, _ = counts.most_common(1)[0]
        own = sorted((one for one in left if column in one.names), key=lambda one: -one.change.value)
        left = [one for one in left if column not in one.names]
        parts = [
            f"with {_other(one, column)}: {one.window:.4g} instead of {one.baseline:.4g}" for one in own[:MAX_TOLD]
        ]
        more = f", and with {len(own) - MAX_TOLD} others" if len(own) > MAX_TOLD else ""
        yield column, f"The correlation has changed, {', '.join(parts)}{more}"


def _other(pair: PairCheck, column: str) -> str:
    return pair.names[1] if pair.names[0] == column else pair.names[0]
