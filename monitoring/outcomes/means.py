"""`Metric`: an estimate from episodes in the order of time, with an interval that respects what they have in common.

Steps of an episode are counted as one observation, whatever they have in common. Successive episodes are worth
n / τ independent ones, τ the autocorrelation time of their numbers.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from policylab.experiments.statistics import wilson
from policylab.monitoring.profiles.autocorrelation import autocorrelation_time

Floats = NDArray[np.float64]
Worse = Literal["lower", "higher"]


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """One number of a policy's quality.

    Attributes:
        name: of the metric.
        value: the estimate.
        low: lower end of its interval.
        high: upper end.
        std_error: standard deviation of the estimate.
        n: episodes behind it.
        effective: how many independent episodes those are worth.
        worse: the direction in which the policy gets worse; None where neither is.
    """

    name: str
    value: float
    low: float
    high: float
    std_error: float
    n: int
    effective: float
    worse: Worse | None


def mean_of(name: str, values: Floats, *, level: float, worse: Worse | None) -> Metric | None:
    """Return the mean of one number per episode, shape (E,); NaN is left out; None if nothing is left."""
    return ratio_of(name, values, counts=np.ones(len(values)), level=level, worse=worse)


def ratio_of(name: str, totals: Floats, *, counts: Floats, level: float, worse: Worse | None) -> Metric | None:
    """Return Σ totals / Σ counts over episodes, both of shape (E,); None where there is nothing to divide by.

    The interval is Student's, of the linearised ratio (Cochran, Sampling Techniques, 1977, section 6.5).
    """
    usable = np.isfinite(totals) & (counts > 0)
    totals, counts = totals[usable], counts[usable]
    n = len(totals)
    if n < 1:
        return None
    value = float(totals.sum() / counts.sum())
    residual = (totals - value * counts) / counts.mean()
    effective = n / autocorrelation_time(residual)
    if n < 2 or effective <= 1.0:
        return Metric(name, value, -np.inf, np.inf, np.inf, n, effective, worse)
    error = float(residual.std(ddof=1) / np.sqrt(effective))
    half = float(stdtrit(effective - 1.0, (1.0 + level) / 2.0)) * error
    return Metric(name, value, value - half, value + half, error, n, effective, worse)


def rate_of(name: str, successes: NDArray[np.bool_], *, level: float, worse: Worse | None = "lower") -> Metric | None:
    """Return a share of episodes, shape (E,), with Wilson's interval, which is never empty; None of no episode."""
    n = len(successes)
    if not n:
        return None
    effective = n / autocorrelation_time(successes.astype(np.float64))
    found = wilson(float(successes.mean()) * effective, effective, level=level)
    low, high = (found.value if end is None else end for end in (found.low, found.high))
    error = float(np.sqrt(found.value * (1.0 - found.value) / effective))
    return Metric(name, found.value, low, high, error, n, effective, worse)
