"""`Interval`: an estimate with its bounds, and the checks every statistic makes of its input."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

from policylab.errors import UserError

N_RESAMPLES = 10_000  # the bounds' own Monte-Carlo error is then about 1 % of the interval's width
ADEQUATE_RUNS = 10  # Agarwal et al. 2021: bootstrap intervals are adequate from about ten runs
TOO_FEW_RUNS = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """A point estimate and its confidence interval.

    Attributes:
        value: the point estimate, always within the bounds.
        low: lower bound; None where one run says nothing about the scatter.
        high: upper bound; None as ``low``.
        level: confidence level, in (0, 1).
        n: number of runs (or episodes) behind it; of the smaller sample in a comparison.
        method: how the bounds were made, in words.

    >>> print(Interval(0.74, 0.71, 0.76, level=0.95, n=10, method="bootstrap"))
    0.74 [0.71, 0.76]
    >>> print(Interval(0.74, None, None, level=0.95, n=1, method="bootstrap"))
    0.74 (a single seed has no interval)
    """

    value: float
    low: float | None
    high: float | None
    level: float
    n: int
    method: str

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.4g} (a single seed has no interval)"
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def seed_warning(n: int) -> str | None:
    """Return what a reader must know about an interval over ``n`` seeds, or None from ten seeds on.

    >>> seed_warning(3)
    'only 3 seeds: the interval under-covers, use at least 10'
    >>> seed_warning(10) is None
    True
    """
    if n >= ADEQUATE_RUNS:
        return None
    if n <= 1:
        return f"a single seed has no interval, use at least {ADEQUATE_RUNS}"
    if n < TOO_FEW_RUNS:
        return f"only {n} seeds: the interval under-covers, use at least {ADEQUATE_RUNS}"
    return f"{n} seeds: the interval is somewhat too narrow, {ADEQUATE_RUNS} or more are adequate"


def percentile_interval(estimate: float, resampled: NDArray[np.float64], *, level: float, n: int) -> Interval:
    """Return the bootstrap interval of ``estimate`` from its resampled values, shape (n_resamples,).

    The bounds are widened to hold the estimate where the percentiles miss it (few runs, rounding).
    """
    low, high = percentile_bounds(np.asarray(estimate), resampled, level=level)
    return Interval(estimate, float(low), float(high), level=level, n=n, method="stratified bootstrap")


def percentile_bounds(
    estimate: NDArray[np.float64], resampled: NDArray[np.float64], *, level: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the bounds of each estimate, shape (...), from resampled values, shape (n_resamples, ...)."""
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.minimum(low, estimate), np.maximum(high, estimate)


def no_interval(estimate: float, *, level: float) -> Interval:
    """Return the estimate from a single run, which has no bounds."""
    return Interval(estimate, None, None, level=level, n=1, method="single seed")


def finite(
    values: ArrayLike, *, name: str, n_dims: tuple[int, ...] = (1,), or_nan: bool = False
) -> NDArray[np.float64]:
    """Return ``values`` as a non-empty array of finite floats (or NaN) with one of ``n_dims`` dimensions.

    Raises:
        UserError: it is not one.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} must be numbers of one shape: {error}; give every task the same runs") from error
    if array.ndim not in n_dims:
        allowed = " or ".join(str(n) for n in n_dims)
        raise UserError(f"{name} must have {allowed} dimension(s), got shape {array.shape}")
    if array.size == 0:
        raise UserError(f"{name} must not be empty, got shape {array.shape}; give at least one run")
    good = np.isfinite(array) | (or_nan & np.isnan(array))
    if not good.all():
        place = tuple(int(i) for i in np.argwhere(~good)[0])
        raise UserError(f"{name} must be finite, got {array[place]} at index {place}; leave failed runs out and say so")
    return array


def checked_level(level: float, *, name: str = "level") -> float:
    """Return ``level`` if it lies strictly between 0 and 1.

    Raises:
        UserError: it does not.
    """
    if not 0.0 < level < 1.0:
        raise UserError(f"{name} must be between 0 and 1 (0.95 is usual), got {level}")
    return level


def run_weights(n_runs: int, *, n_tasks: int, n_resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return how much each run counts in each resample, shape (n_tasks, n_resamples, n_runs); rows add up to 1.

    Drawing n runs with replacement and averaging is weighting the runs by multinomial counts.
    """
    if n_resamples < 1:
        raise UserError(f"n_resamples must be >= 1, got {n_resamples}")
    counts = rng.multinomial(n_runs, np.full(n_runs, 1.0 / n_runs), size=(n_tasks, n_resamples))
    weights: NDArray[np.float64] = counts / n_runs
    return weights
