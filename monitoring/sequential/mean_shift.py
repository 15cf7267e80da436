"""Whether the mean of a stream has moved, tested after every value and yet with one false-alarm rate for ever.

s_n = Σ z_i is the sum of the standardised values since the baseline, v = n. Under no change the mixture over all shifts
M_n = sqrt(ρ / (v + ρ)) exp(s² / (2 (v + ρ))) is a martingale of mean 1, so that it reaches 1 / α with probability α at
most, at any time (Ville's inequality): |s_n| stays below the boundary sqrt((v + ρ) ln((v + ρ) / (ρ α²))). Half of α
goes to the baseline's own mean, known from m values only: |z̄_baseline| <= z_{1-α/4} / sqrt m.

ρ = V / (2 ln(1/α) + ln(1 + 2 ln(1/α))) makes the boundary narrowest at v = V.

Source: Robbins, Annals of Mathematical Statistics 41 (1970); Howard et al., "Time-uniform, nonparametric, nonasymptotic
confidence sequences", Annals of Statistics 49 (2021), proposition 5 and appendix.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from policylab.monitoring.sequential.reference import Reference

Floats = NDArray[np.float64]
TIGHTEST_AT = 100.0
"""Batches after which a shift is found soonest."""


def tuned_rho(v: float, *, alpha: float) -> float:
    """Return ρ that makes the boundary of level α narrowest at v."""
    return v / (2 * math.log(1 / alpha) + math.log(1 + 2 * math.log(1 / alpha)))


def log_mixture(s: Floats | float, v: Floats | float, *, rho: float) -> Floats:
    """Return ln M for the sum s and intrinsic time v."""
    s, v = np.asarray(s, dtype=np.float64), np.asarray(v, dtype=np.float64)
    found: Floats = 0.5 * np.log(rho / (v + rho)) + s**2 / (2 * (v + rho))
    return found


def boundary(v: Floats | float, *, alpha: float, rho: float) -> Floats:
    """Return the |s| at which M = 1 / α."""
    v = np.asarray(v, dtype=np.float64)
    found: Floats = np.sqrt((v + rho) * np.log((v + rho) / (rho * alpha**2)))
    return found


@dataclasses.dataclass(frozen=True, slots=True)
class MeanShift:
    """What the test says after the last value.

    Attributes:
        alarm: position of the first standardised value after which the mean is sure to have moved; None if it is not.
        low: lower end of the interval of the stream's mean minus the baseline's, in the stream's units.
        high: upper end.
        n: batches behind them.
    """

    alarm: int | None
    low: float
    high: float
    n: int


def mean_shift(z: Floats, reference: Reference, *, alpha: float = 0.003) -> MeanShift:
    """Return the test of standardised values, shape (n,), at the false-alarm rate ``alpha`` for ever."""
    n = np.arange(1.0, len(z) + 1)
    own = float(-ndtri(alpha / 4)) / math.sqrt(len(reference.z))
    half = boundary(n, alpha=alpha / 2, rho=tuned_rho(TIGHTEST_AT, alpha=alpha / 2)) / n + own
    means = z.cumsum() / n
    over = np.flatnonzero(np.abs(means) > half)
    if not len(z):
        return MeanShift(None, -math.inf, math.inf, 0)
    low, high = (float((means[-1] + sign * half[-1]) * reference.std) for sign in (-1, 1))
    return MeanShift(int(over[0]) if over.size else None, low, high, len(z))
