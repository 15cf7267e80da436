"""Point estimates over runs and their intervals."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, ndtri

from policylab.errors import UserError
from policylab.experiments.statistics.interval import (
    N_RESAMPLES,
    Interval,
    checked_level,
    finite,
    no_interval,
    percentile_interval,
)

_MAX_DRAWS = 2_000_000  # scores resampled at once: bounds the memory to some 50 MB, changes no number


class Statistic(Protocol):
    """A point estimate: reduces ``axis``, or all scores pooled if it is None."""

    def __call__(self, scores: ArrayLike, *, axis: int | None = None) -> NDArray[np.float64]:
        """Return the estimate."""
        ...


def mean(scores: ArrayLike, *, axis: int | None = None) -> NDArray[np.float64]:
    """Return the mean over ``axis``, or over all scores pooled (runs x tasks)."""
    return np.asarray(np.mean(np.asarray(scores, dtype=np.float64), axis=axis))


def median(scores: ArrayLike, *, axis: int | None = None) -> NDArray[np.float64]:
    """Return the median over ``axis``, or over all scores pooled (runs x tasks)."""
    return np.asarray(np.median(np.asarray(scores, dtype=np.float64), axis=axis))


def iqm(scores: ArrayLike, *, axis: int | None = None) -> NDArray[np.float64]:
    """Return the interquartile mean: the mean without the lowest and the highest quarter (rounded down).

    On a single task it hides rare catastrophic runs, and of a success rate it says nothing (0 below 25 %, 1 above
    75 %): use it over two or more tasks of graded scores.

    Source: Agarwal et al. 2021, section 4; equals ``scipy.stats.trim_mean(scores, 0.25)``.

    >>> float(iqm([1, 2, 3, 4, 5, 6, 7, 100]))
    4.5
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64), axis=axis)
    along = 0 if axis is None else axis
    n = ordered.shape[along]
    return np.asarray(ordered.take(range(n // 4, n - n // 4), axis=along).mean(axis=along))


def optimality_gap(scores: ArrayLike, *, axis: int | None = None, threshold: float = 1.0) -> NDArray[np.float64]:
    """Return by how much the scores fall short of ``threshold`` on average; more than enough does not count.

    Source: Agarwal et al. 2021, section 4; scores are normalised so that the threshold means "solved".

    >>> round(float(optimality_gap([0.5, 1.0, 3.0, 0.7])), 6)
    0.2
    """
    return threshold - mean(np.minimum(np.asarray(scores, dtype=np.float64), threshold), axis=axis)


def bootstrap(
    scores: ArrayLike,
    statistic: Statistic = mean,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    n_resamples: int = N_RESAMPLES,
) -> Interval:
    """Return ``statistic`` over all scores with its stratified percentile bootstrap interval.

    Args:
        scores: shape (n_runs,) or (n_runs, n_tasks); runs are resampled within each task.
        statistic: `mean`, `median`, `iqm`, `optimality_gap` or any function like them.
        rng: generator of the resampling.
        level: confidence level, in (0, 1).
        n_resamples: number of resamples, >= 1.

    Raises:
        UserError: a score is not finite, there is none, or an argument is out of its range.
    """
    array = finite(scores, name="scores", n_dims=(1, 2))
    checked_level(level)
    if n_resamples < 1:
        raise UserError(f"n_resamples must be >= 1, got {n_resamples}")
    estimate = float(statistic(array))
    if len(array) == 1:
        return no_interval(estimate, level=level)
    table = array.reshape(len(array), -1)
    resampled = np.empty(n_resamples)
    at_once = max(1, _MAX_DRAWS // table.size)
    for first in range(0, n_resamples, at_once):
        size = min(at_once, n_resamples - first)
        chosen = rng.integers(0, len(table), size=(size, *table.shape))
        drawn = np.take_along_axis(table[None], chosen, axis=1).reshape(size, -1)
        resampled[first : first + size] = statistic(drawn, axis=-1)
    return percentile_interval(estimate, resampled, level=level, n=len(array))


def wilson(successes: float, n: float, *, level: float = 0.95) -> Interval:
    """Return a success rate with its Wilson score interval.

    Args:
        successes: number of successes, 0 to ``n``.
        n: number of independent trials (episodes), >= 1; a fraction where they were dependent and are worth fewer.
        level: confidence level, in (0, 1).

    Raises:
        UserError: an argument is out of its range.

    Source: Wilson 1927; recommended for n <= 40 by Brown, Cai and DasGupta, Statistical Science 16 (2001).

    >>> print(wilson(8, 10))
    0.8 [0.4902, 0.9433]
    """
    if n < 1 or not 0 <= successes <= n:
        raise UserError(f"successes must be from 0 to n and n >= 1, got {successes} of {n}")
    z = float(ndtri((1 + checked_level(level)) / 2))
    rate = successes / n
    scale = 1 + z * z / n
    centre = (rate + z * z / (2 * n)) / scale
    half_width = z / scale * np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else float(centre - half_width)
    high = 1.0 if successes == n else float(centre + half_width)
    return Interval(rate, low, high, level=level, n=int(n), method="Wilson score")


def is_binary(values: ArrayLike) -> bool:
    """Return whether every value is 0 or 1."""
    return bool(np.isin(np.asarray(values, dtype=np.float64), (0.0, 1.0)).all())


def mean_interval(
    values: ArrayLike, *, rng: np.random.Generator, level: float = 0.95, per_episode: bool = False
) -> Interval:
    """Return the mean of ``values`` with the interval that suits them.

    Args:
        values: shape (n,), one value per run, or per episode of one policy.
        rng: generator of the resampling.
        level: confidence level, in (0, 1).
        per_episode: the values are outcomes of single, independent episodes. If all of them are 0 or 1 they are
            successes, and the interval is Wilson's; anything else is bootstrapped.

    Raises:
        UserError: a value is not finite, there is none, or ``level`` is out of its range.
    """
    array = finite(values, name="values")
    if per_episode and is_binary(array):
        return wilson(int(array.sum()), array.size, level=level)
    return bootstrap(array, rng=rng, level=level)


def tolerance_interval(values: ArrayLike, *, coverage: float = 0.9, level: float = 0.95) -> Interval:
    """Return the range that holds the fraction ``coverage`` of *future* runs, around the median.

    It shows what a single run may do, rare failures included, and assumes no distribution: its bounds are runs of
    the sample, as many left out on each side as ``level`` allows. With too few runs for ``level`` (46 are needed
    for 0.9 at 0.95) they are the worst and the best run. ``level`` of the result is the confidence reached.

    Args:
        values: shape (n,), one value per run.
        coverage: fraction of runs to hold, in (0, 1).
        level: wanted confidence that it does, in (0, 1).

    Raises:
        UserError: a value is not finite, there is none, or an argument is out of its range.

    Source: Wilks, Annals of Mathematical Statistics 12 (1941); Patterson et al., JMLR 25:318 (2024).
    """
    ordered = np.sort(finite(values, name="values"))
    checked_level(coverage, name="coverage")
    checked_level(level)
    n, centre = ordered.size, float(np.median(ordered))
    if n == 1:
        return no_interval(centre, level=level)
    # With d runs left out in all, the confidence is P(Binomial(n, coverage) <= n - 2 - d).
    left_out = np.arange(0, n - 1, 2)
    confidence = bdtr((n - 2 - left_out).astype(float), n, coverage)
    reached = np.flatnonzero(confidence >= level)
    chosen = int(reached[-1]) if reached.size else 0
    return Interval(
        centre,
        float(ordered[chosen]),
        float(ordered[n - 1 - chosen]),
        level=float(confidence[chosen]),
        n=n,
        method=f"tolerance interval for {coverage:.0%} of runs",
    )
