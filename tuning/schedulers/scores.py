"""Statistics of single runs and of rungs: where a run stands, robust scores, the agreement of two rungs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Vector = NDArray[np.float64]

CLIMBING = 3.0
"""Standard errors by which the last report of a run exceeds the mean before the run counts as climbing still."""

MIN_CHANGES = 5
"""Changes from report to report that tell the noise of a run, if it has as many; of fewer none may happen to fall."""

OUTLIER = 3.0
"""Spreads from the median of its seed beyond which a result says no more."""

CONFIDENCE = 1.645
"""Normal quantile of a one-sided 95 % interval."""


def standing(curve: Mapping[int, float], *, until: int, window: float) -> float:
    """Return where a run stood at ``until``: the mean of the reports in the last ``window`` share of the way there.

    One evaluation of a learner is noisy and so is the learner from step to step; its last reports together say more
    than the last one. But a run that still climbs has left them behind: while the last report exceeds their mean by
    more than `CLIMBING` standard errors, the first of them does not count. The noise is what the curve's second half,
    or its last `MIN_CHANGES` changes, show in their falls (a learner is noisiest while it explores): the mean square of
    ``min(0, change)`` over white noise is its variance; a curve that only climbs has none.

    At least the last report counts; one in the window that is not finite makes the whole the worst.

    >>> standing({2: 0.0, 6: 3.0, 8: 2.0, 10: 4.0}, until=10, window=0.3)
    3.0
    >>> standing({2: 0.0, 4: 1.0, 8: 2.0, 10: 4.0}, until=10, window=0.3)
    4.0
    """
    reports = [(at, value) for at, value in curve.items() if at <= until] or [next(iter(curve.items()))]
    tail = [value for at, value in reports if at > until * (1 - window)] or [reports[-1][1]]
    if not all(map(math.isfinite, tail)):
        return -math.inf
    n_late = max(MIN_CHANGES + 1, sum(at >= until / 2 for at, _ in reports))
    values = [value for _, value in reports[-n_late:] if math.isfinite(value)]
    falls = [min(0.0, after - before) ** 2 for before, after in itertools.pairwise(values)]
    noise = sum(falls) / max(1, len(falls))
    means = (sum(tail[first:]) / (len(tail) - first) for first in range(len(tail)))
    errors = (CLIMBING * math.sqrt(noise * (1 - 1 / n)) for n in range(len(tail), 0, -1))
    return next(mean for mean, error in zip(means, errors, strict=True) if tail[-1] - mean <= error)


def normal_scores(values: Sequence[float] | Vector) -> Vector:
    """Return the normal quantile of each value's mid-rank (van der Waerden 1952).

    Returns of reinforcement learning have floors, cliffs and heavy tails; scores keep the order and nothing else, so no
    outlier decides and no scale needs to be known. Shape (n,) to (n,).

    >>> normal_scores([-1e9, 3.0, 3.0, 5.0]).round(2).tolist()
    [-1.15, 0.0, 0.0, 1.15]
    """
    _, which, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    return np.asarray(ndtri(middle / max(1, len(values))))[which]


def value_scores(results: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return results in units of their spread, outliers drawn in: what finalists are compared by.

    Means are what is asked for in the end, so that values count and not ranks: first against second place is as little
    as it is. But returns have floors, cliffs and heavy tails, so that within each seed nothing lies farther than
    `OUTLIER` spreads from the median. The spread is the distance between the lowest and the highest tenth, of which a
    normal sample has its standard deviation; what lies beyond them does not move it.

    Shape (n, seeds) to (n, seeds); NaN is what was not seen, and minus infinity counts as far below.

    >>> value_scores(np.array([[-1e9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]]).T).round(1).ravel().tolist()
    [-3.0, -1.3, -1.0, -0.6, -0.3, 0.0, 0.3, 0.6, 1.0, 1.3, 1.6]
    """
    finite = np.isfinite(results)
    if not finite.any():
        return np.where(np.isnan(results), np.nan, 0.0)
    middle = np.median(results[finite])
    # Two more at the common median: what one finalist alone has met is not the seed's doing.
    medians = [np.median([*seed[ok], middle, middle]) for seed, ok in zip(results.T, finite.T, strict=True)]
    away = results - medians
    low, high = np.quantile(away[finite], (0.1, 0.9))
    spread = (high - low) / (ndtri(0.9) - ndtri(0.1)) or np.std(away[finite]) or 1.0
    return np.asarray(np.clip(away / spread, -OUTLIER, OUTLIER) + (np.array(medians) - middle) / spread)


def best_agreement(low: Vector, high: Vector, *, spread: float) -> float:
    """Return the upper 95 % bound of the correlation between the scores at two rungs.

    The pairs are those that were promoted, hence alike at the low rung: the correlation among them understates that
    among all (range restriction). It is corrected by the ratio of standard deviations (Thorndike 1949, case 2).

    Args:
        low: normal scores at the low rung, among all there, of those that were promoted, shape (n,), n >= 4.
        high: their normal scores at the high rung.
        spread: standard deviation of the scores of all at the low rung.
    """
    if low.std() == 0 or high.std() == 0:
        return 1.0
    r = float(np.mean((low - low.mean()) * (high - high.mean())) / (low.std() * high.std()))
    ratio = spread / float(low.std())
    r = r * ratio / math.sqrt(1 + r * r * (ratio * ratio - 1))
    fisher = math.atanh(max(-0.999, min(0.999, r))) + CONFIDENCE / math.sqrt(len(low) - 3)
    return math.tanh(fisher)
