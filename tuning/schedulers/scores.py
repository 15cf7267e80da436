"""Statistics of the race, on plain arrays: robust scores, the agreement of two rungs, beliefs about finalists.

| symbol | meaning |
|---|---|
| z | normal score of a result among all that it is compared with |
| τ² | variance of true scores between configurations |
| σ² | variance of a score over the seeds of one configuration |
| m, v | posterior mean and variance of a configuration's true score |
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Vector = NDArray[np.float64]

SEED_SHARE = 0.3
"""Prior share of the seed in the variance of a final score.

On 27 reinforcement-learning tasks of ARLBench (Becktepe et al. 2024) its mean is .28, its median .24.
"""

SEED_SHARE_WEIGHT = 2
"""The observations that `SEED_SHARE` is worth: little, so that a few doubled seeds decide."""

CLIMBING = 3.0
"""Standard errors by which the last report of a run exceeds the mean before the run counts as climbing still."""

CONFIDENCE = 1.645
"""Normal quantile of a one-sided 95 % interval."""


def standing(curve: Mapping[int, float], *, until: int, window: float) -> float:
    """Return where a run stood at ``until``: the mean of the reports in the last ``window`` share of the way there.

    One evaluation of a learner is noisy and so is the learner from step to step; its last reports together say more
    than the last one. But a run that still climbs has left them behind: while the last report exceeds their mean by
    more than `CLIMBING` standard errors, the first of them does not count. The noise is what the curve shows in its
    falls: the mean square of ``min(0, change)`` over white noise is its variance; a curve that only climbs has none.

    At least the last report counts; one in the window that is not finite makes the whole the worst.

    >>> standing({2: 0.0, 4: 3.0, 8: 2.0, 10: 4.0}, until=10, window=0.3)
    3.0
    >>> standing({2: 0.0, 4: 1.0, 8: 2.0, 10: 4.0}, until=10, window=0.3)
    4.0
    """
    reports = [(at, value) for at, value in curve.items() if at <= until] or [next(iter(curve.items()))]
    tail = [value for at, value in reports if at > until * (1 - window)] or [reports[-1][1]]
    if not all(map(math.isfinite, tail)):
        return -math.inf
    values = [value for _, value in reports if math.isfinite(value)]
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
    array = np.asarray(values, dtype=np.float64)
    ordered = np.sort(array)
    middle = (np.searchsorted(ordered, array, "left") + np.searchsorted(ordered, array, "right")) / 2
    return np.asarray(ndtri(middle / max(1, len(array))))


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


@dataclasses.dataclass(frozen=True, slots=True)
class Belief:
    """What is believed of the finalists' true scores, each array of shape (n,).

    Attributes:
        mean: m.
        variance: v.
        noise: σ².
    """

    mean: Vector
    variance: Vector
    noise: float

    def chance_to_beat(self, rival: int) -> Vector:
        """Return, for each finalist, the probability that its true score exceeds that of number ``rival``."""
        spread = np.sqrt(self.variance + self.variance[rival])
        return np.asarray(ndtr((self.mean - self.mean[rival]) / spread))

    def knowledge_gradient(self, pending: Vector) -> Vector:
        """Return how much one more seed of each finalist is expected to raise the best posterior mean.

        Source: Frazier, Powell and Dayanik 2008, SIAM J. Control Optim. 47, equations 2.10 to 2.13.

        Args:
            pending: seeds of each that are under way; they count as if they came out as expected.
        """
        now = 1 / (1 / self.variance + pending / self.noise)
        change = np.sqrt(np.maximum(now - 1 / (1 / now + 1 / self.noise), 1e-12))
        first, second = np.sort(self.mean)[::-1][:2]
        rival = np.where(self.mean == first, second, first)
        gap = -np.abs(self.mean - rival) / change
        density = np.exp(-gap * gap / 2) / math.sqrt(2 * math.pi)
        return np.asarray(change * (gap * ndtr(gap) + density))


def believe(results: Sequence[Sequence[float]]) -> Belief:
    """Return the belief about finalists of whom ``results[i]`` are the values on seeds 0, 1, ...; none is empty.

    All values become normal scores together; a configuration's scores are normal around its true score, with one σ²
    for all, and the true scores normal around a common mean (one-way random effects, empirical Bayes). Shrinking
    towards the common mean is what keeps one lucky seed from winning.
    """
    counts = np.array([len(values) for values in results])
    starts = np.cumsum(counts) - counts
    scores = normal_scores([value for values in results for value in values])
    means = np.add.reduceat(scores, starts) / counts
    first = scores[starts]
    total = max(float(first.var(ddof=1)), 1e-3) if len(first) > 1 else 1.0
    squares = float(((scores - np.repeat(means, counts)) ** 2).sum())
    freedom = int((counts - 1).sum())
    noise = (squares + SEED_SHARE_WEIGHT * SEED_SHARE * total) / (freedom + SEED_SHARE_WEIGHT)
    between = max(total - noise, 0.1 * total)
    variance = 1 / (1 / between + counts / noise)
    return Belief(variance * (first.mean() / between + counts * means / noise), variance, noise)
