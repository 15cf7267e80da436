"""Curves with bands: learning curves, performance profiles, and how soon a run is good enough."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

from policylab.errors import UserError
from policylab.experiments.statistics.interval import N_RESAMPLES, checked_level, finite, percentile_bounds, run_weights


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Band:
    """A curve of point estimates with a pointwise confidence band.

    Attributes:
        x: where the curve is known (steps, thresholds), shape (n_points,).
        value: the estimates, shape (n_points,), within the bounds; NaN where a run has no value.
        low: lower bounds, shape (n_points,); NaN as ``value``, and throughout if there is a single run.
        high: upper bounds, as ``low``.
        level: confidence level at each single point, in (0, 1).
        n: number of runs.
    """

    x: NDArray[np.float64]
    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    level: float
    n: int


def learning_curve(
    steps: ArrayLike,
    curves: ArrayLike,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    n_resamples: int = N_RESAMPLES,
) -> Band:
    """Return the mean curve over runs with its bootstrap band.

    Whole runs are resampled, so the ups and downs of one run stay together.

    Args:
        steps: environment steps of each evaluation, increasing, shape (n_points,).
        curves: the evaluations, shape (n_runs, n_points); NaN where a run was not evaluated.
        rng: generator of the resampling.
        level: confidence level, in (0, 1).
        n_resamples: number of resamples, >= 1.

    Raises:
        UserError: the shapes do not fit, a value is infinite, or an argument is out of its range.
    """
    x, table = _steps_and_curves(steps, curves, or_nan=True)
    return _mean_band(x, table[:, None, :], rng=rng, level=level, n_resamples=n_resamples)


def performance_profile(
    scores: ArrayLike,
    thresholds: ArrayLike,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    n_resamples: int = N_RESAMPLES,
) -> Band:
    """Return the fraction of runs that score above each threshold, with its stratified bootstrap band.

    Args:
        scores: shape (n_runs,) or (n_runs, n_tasks).
        thresholds: shape (n_points,); "above" is strict.
        rng: generator of the resampling.
        level: confidence level, in (0, 1).
        n_resamples: number of resamples, >= 1.

    Raises:
        UserError: a number is not finite, or an argument is out of its range.

    Source: Agarwal et al. 2021, section 4.2 (score distributions over runs x tasks).
    """
    array = finite(scores, name="scores", n_dims=(1, 2))
    x = finite(thresholds, name="thresholds")
    above = array.reshape(len(array), -1, 1) > x
    return _mean_band(x, above.astype(np.float64), rng=rng, level=level, n_resamples=n_resamples)


def steps_to_threshold(steps: ArrayLike, curves: ArrayLike, *, threshold: float) -> NDArray[np.float64]:
    """Return the first step at which each run's curve is at ``threshold`` or above, shape (n_runs,).

    ``inf`` stands for a run that never gets there. Compare such samples with `probability_of_improvement` or
    medians after replacing it by the budget, never with means.

    Raises:
        UserError: the shapes do not fit or a number is not finite.

    >>> steps_to_threshold([100, 200, 300], [[0.1, 0.6, 0.5], [0.0, 0.2, 0.4]], threshold=0.5).tolist()
    [200.0, inf]
    """
    x, table = _steps_and_curves(steps, curves)
    reached = table >= threshold
    return np.where(reached.any(axis=1), x[reached.argmax(axis=1)], np.inf)


def area_under_curve(steps: ArrayLike, curves: ArrayLike) -> NDArray[np.float64]:
    """Return the mean height of each run's curve, shape (n_runs,): trapezoids over the range of ``steps``.

    Raises:
        UserError: the shapes do not fit, a number is not finite, or there are fewer than two points.

    >>> area_under_curve([0, 100, 300], [[0.0, 1.0, 1.0]]).round(6).tolist()
    [0.833333]
    """
    x, table = _steps_and_curves(steps, curves)
    if x.size < 2:
        raise UserError(f"a curve needs at least two points for its area, got {x.size}; evaluate more often")
    return np.asarray(np.trapezoid(table, x, axis=1) / (x[-1] - x[0]))


def _steps_and_curves(
    steps: ArrayLike, curves: ArrayLike, *, or_nan: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x = finite(steps, name="steps")
    table = finite(curves, name="curves", n_dims=(2,), or_nan=or_nan)
    if table.shape[1] != x.size:
        raise UserError(f"curves must have one column per step, got shape {table.shape} for {x.size} steps")
    if (np.diff(x) <= 0).any():
        raise UserError("steps must increase from each evaluation to the next; sort them and drop repeated ones")
    return x, table


def _mean_band(
    x: NDArray[np.float64], values: NDArray[np.float64], *, rng: np.random.Generator, level: float, n_resamples: int
) -> Band:
    """Return the mean over runs and tasks of ``values``, shape (n_runs, n_tasks, n_points), with its band."""
    checked_level(level)
    n_runs, n_tasks, n_points = values.shape
    estimate: NDArray[np.float64] = values.mean(axis=(0, 1))
    low, high = np.full((2, n_points), np.nan)
    if n_runs > 1:
        known = np.isfinite(estimate)
        weights = run_weights(n_runs, n_tasks=n_tasks, n_resamples=n_resamples, rng=rng)
        resampled = np.mean([weights[task] @ values[:, task, known] for task in range(n_tasks)], axis=0)
        low[known], high[known] = percentile_bounds(estimate[known], resampled, level=level)
    return Band(x, estimate, low, high, level=level, n=n_runs)
