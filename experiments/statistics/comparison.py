"""Comparing two sets of runs: differences of means and the probability of improvement.

Overlapping intervals of two means are no test; the interval of the difference is.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

from policylab.errors import UserError
from policylab.experiments.statistics.estimates import bootstrap
from policylab.experiments.statistics.interval import (
    N_RESAMPLES,
    Interval,
    checked_level,
    finite,
    no_interval,
    percentile_interval,
    run_weights,
)


def paired_difference(
    a: ArrayLike, b: ArrayLike, *, rng: np.random.Generator, level: float = 0.95, n_resamples: int = N_RESAMPLES
) -> Interval:
    """Return the mean of ``a - b`` over runs that share their seeds, with its bootstrap interval.

    Args:
        a: scores of one agent, shape (n_runs,) or (n_runs, n_tasks).
        b: scores of the other with the same seeds in the same order, same shape.
        rng: generator of the resampling.
        level: confidence level, in (0, 1).
        n_resamples: number of resamples, >= 1.

    Raises:
        UserError: the shapes differ, a score is not finite, or an argument is out of its range.
    """
    first, second = _both(a, b)
    if first.shape != second.shape:
        raise UserError(
            f"paired scores must have one shape, got {first.shape} and {second.shape}; "
            "give the runs of the same seeds, or compare them as independent"
        )
    interval = bootstrap(first - second, rng=rng, level=level, n_resamples=n_resamples)
    return interval if interval.low is None else dataclasses.replace(interval, method="paired bootstrap")


def paired_improvement(a: ArrayLike, b: ArrayLike, *, level: float = 0.95) -> tuple[Interval, float | None]:
    """Return the mean of ``a - b`` over runs that share their seeds with its t interval, and the chance that it is > 0.

    With the few seeds of a confirmation the t interval holds its level where the bootstrap's is too narrow. The chance
    is the posterior probability under a flat prior: 97.5 % where the 95 % interval begins at 0. None of one run.

    Args:
        a: scores of one agent, shape (n_runs,).
        b: scores of the other with the same seeds in the same order, shape (n_runs,).
        level: confidence level, in (0, 1).

    Raises:
        UserError: the shapes differ, a score is not finite, or an argument is out of its range.

    Source: Student 1908, Biometrika 6.

    >>> interval, chance = paired_improvement([0.9, 0.7, 0.8], [0.6, 0.5, 0.7])
    >>> print(interval, round(chance, 3))
    0.2 [-0.04841, 0.4484] 0.963
    """
    first = finite(a, name="the first scores", n_dims=(1,))
    second = finite(b, name="the second scores", n_dims=(1,))
    if first.shape != second.shape:
        raise UserError(f"paired scores must have one shape, got {first.shape} and {second.shape}")
    checked_level(level)
    differences, n = first - second, len(first)
    value = float(differences.mean())
    if n == 1:
        return no_interval(value, level=level), None
    error = float(differences.std(ddof=1)) / math.sqrt(n)
    half = error * float(stdtrit(n - 1, (1 + level) / 2))
    chance = float(stdtr(n - 1, value / error)) if error > 0 else (1 + float(np.sign(value))) / 2
    return Interval(value, value - half, value + half, level=level, n=n, method="paired t"), chance


def independent_difference(
    a: ArrayLike, b: ArrayLike, *, rng: np.random.Generator, level: float = 0.95, n_resamples: int = N_RESAMPLES
) -> Interval:
    """Return the mean of ``a`` minus the mean of ``b`` over unrelated runs, with its bootstrap interval.

    Args:
        a: scores of one agent, shape (n_runs,) or (n_runs, n_tasks).
        b: scores of the other, shape (m_runs,) or (m_runs, n_tasks).
        rng: generator of the resampling.
        level: confidence level, in (0, 1).
        n_resamples: number of resamples, >= 1.

    Raises:
        UserError: the tasks differ, a score is not finite, or an argument is out of its range.
    """
    first, second = _same_tasks(a, b)
    checked_level(level)
    estimate = float(first.mean() - second.mean())
    n = min(len(first), len(second))
    if n == 1:
        return no_interval(estimate, level=level)
    resampled = [
        np.einsum("tbi,it->b", _weights(table, n_resamples=n_resamples, rng=rng), table) / table.shape[1]
        for table in (first, second)
    ]
    return percentile_interval(estimate, resampled[0] - resampled[1], level=level, n=n)


def probability_of_improvement(
    a: ArrayLike, b: ArrayLike, *, rng: np.random.Generator, level: float = 0.95, n_resamples: int = N_RESAMPLES
) -> Interval:
    """Return how likely a run of ``a`` beats a run of ``b`` on a task drawn at random; ties count one half.

    Per task this is the Mann-Whitney statistic U / (n m); 0.5 means neither is better.

    Args:
        a: scores of one agent, shape (n_runs,) or (n_runs, n_tasks); higher is better.
        b: scores of the other, shape (m_runs,) or (m_runs, n_tasks).
        rng: generator of the resampling.
        level: confidence level, in (0, 1).
        n_resamples: number of resamples, >= 1.

    Raises:
        UserError: the tasks differ, a score is not finite, or an argument is out of its range.

    Source: Agarwal et al. 2021, section 4.3; Mann and Whitney 1947.
    """
    first, second = _same_tasks(a, b)
    checked_level(level)
    wins = (np.sign(first[:, None, :] - second[None, :, :]) + 1.0) / 2.0
    estimate = float(wins.mean())
    n = min(len(first), len(second))
    if n == 1:
        return no_interval(estimate, level=level)
    of_a, of_b = (_weights(table, n_resamples=n_resamples, rng=rng) for table in (first, second))
    per_task = [((of_a[task] @ wins[:, :, task]) * of_b[task]).sum(axis=1) for task in range(wins.shape[2])]
    return percentile_interval(estimate, np.mean(per_task, axis=0), level=level, n=n)


def _weights(table: NDArray[np.float64], *, n_resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    return run_weights(len(table), n_tasks=table.shape[1], n_resamples=n_resamples, rng=rng)


def _both(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return finite(a, name="the first scores", n_dims=(1, 2)), finite(b, name="the second scores", n_dims=(1, 2))


def _same_tasks(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both samples with shape (n_runs, n_tasks)."""
    first, second = _both(a, b)
    if first.shape[1:] != second.shape[1:]:
        raise UserError(
            f"both samples must have the same tasks, got shapes {first.shape} and {second.shape}; "
            "leave out tasks that only one of them ran"
        )
    return first.reshape(len(first), -1), second.reshape(len(second), -1)
