"""Values on a scale a Gaussian model can use, with the noise that several seeds reveal.

Returns in reinforcement learning have heavy tails and often two humps (solved and unsolved). A power transform
(Yeo-Johnson, fitted by maximum likelihood) or normal scores of the ranks make them roughly Gaussian. Every seed's
value goes through the transform fitted to the configurations' means, so means and variances live on one scale.

| symbol | meaning |
|---|---|
| z_i | transformed value of configuration i, mean over its n_i seeds |
| s2 | variance between seeds, pooled over the configurations that have several |
| w_i | noise of z_i in units of s2: (ν s2 + Σ_seeds (z - z_i)²) / ((ν + n_i - 1) s2) / n_i, shrunk by ν = 4 |

Source: Yeo and Johnson (2000); Salinas, Shen and Perrone (2020) for normal scores; Cowen-Rivers et al. (2022), "HEBO",
for power transforms in Bayesian optimisation.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import numpy as np
from scipy import optimize, special

from policylab.tuning.searchers.observations import Observation

Transform: TypeAlias = Literal["power", "rank", "none"]

SHRINKAGE = 4.0
"""Degrees of freedom with which the pooled variance enters a configuration's own (ν)."""

FENCE = 10.0
"""Interquartile ranges below the lower quartile at which values are cut off."""


@dataclasses.dataclass(frozen=True, slots=True)
class Normalised:
    """Observations on the model's scale.

    Attributes:
        mean: z, shape (n,).
        noise: w, relative noise variance of each mean, shape (n,).
        seed_variance: s2, or None while no configuration has two seeds.
        degrees_of_freedom: behind s2.
    """

    mean: np.ndarray
    noise: np.ndarray
    seed_variance: float | None
    degrees_of_freedom: int


def normalise(observed: Sequence[Observation], transform: Transform) -> Normalised:
    """Return ``observed`` transformed, each group by itself, with mean 0 and standard deviation 1."""
    counts = np.array([len(observation.values) for observation in observed])
    owner = np.repeat(np.arange(len(observed)), counts)
    values = np.array([value for observation in observed for value in observation.values])
    means = np.bincount(owner, values) / counts
    groups = np.array([observation.group for observation in observed])
    for group in np.unique(groups):
        rows, own = groups[owner] == group, means[groups == group]
        floor = _floor(own)
        apply = _FITS[transform](np.maximum(own, floor))
        values[rows] = apply(np.maximum(values[rows], floor))
    means = np.bincount(owner, values) / counts
    squares = np.bincount(owner, (values - means[owner]) ** 2)
    freedom = int((counts - 1).sum())
    pooled = float(squares.sum() / freedom) if freedom else None
    relative = np.ones(len(observed))
    if pooled:
        relative = (SHRINKAGE * pooled + squares) / ((SHRINKAGE + counts - 1) * pooled)
    weights = np.array([observation.weight for observation in observed])
    return Normalised(means, relative / counts / weights, pooled, freedom)


def _floor(means: np.ndarray) -> float:
    """Return the value below which it no longer matters how bad: a diverged run must not squeeze all others."""
    lower, upper = np.quantile(means, [0.25, 0.75])
    return float(lower - FENCE * (upper - lower)) if upper > lower else -math.inf


def _standard(means: np.ndarray) -> tuple[float, float]:
    spread = float(means.std())
    return float(means.mean()), spread if spread > 0 else 1.0


def _fit_none(means: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    centre, spread = _standard(means)
    return lambda values: (values - centre) / spread


def _fit_power(means: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    centre, spread = _standard(means)
    scaled = (means - centre) / spread
    power = 1.0
    if len(np.unique(scaled)) > 2:
        power = float(optimize.minimize_scalar(_power_misfit, bounds=(-3.0, 5.0), args=(scaled,), method="bounded").x)
    inner_centre, inner_spread = _standard(yeo_johnson(scaled, power))
    return lambda values: (yeo_johnson((values - centre) / spread, power) - inner_centre) / inner_spread


def yeo_johnson(x: np.ndarray, power: float) -> np.ndarray:
    """Return x transformed: a power of 1 + x above 0 and, mirrored with 2 - power, of 1 - x below; 1 changes nothing.

    >>> yeo_johnson(np.array([-1.0, 0.0, 3.0]), 1.0).round(6).tolist(), yeo_johnson(np.array([3.0]), 0.5).tolist()
    ([-1.0, 0.0, 3.0], [2.0])
    """
    above, below = np.log1p(np.maximum(x, 0.0)), np.log1p(np.maximum(-x, 0.0))
    return np.where(x >= 0, _box_cox(above, power), -_box_cox(below, 2.0 - power))


def _box_cox(log_x: np.ndarray, power: float) -> np.ndarray:
    """Return (x ** power - 1) / power, from log x; log x itself in the limit."""
    return log_x if abs(power) < 1e-9 else np.asarray(np.expm1(power * log_x) / power)


def _power_misfit(power: float, x: np.ndarray) -> float:
    """Return the negative log-likelihood of ``power``, per observation (Yeo and Johnson, equation 3.1)."""
    variance = max(float(yeo_johnson(x, power).var()), 1e-300)
    return 0.5 * math.log(variance) - (power - 1.0) * float((np.sign(x) * np.log1p(np.abs(x))).mean())


def _fit_rank(means: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    points, counts = np.unique(means, return_counts=True)
    scores = special.ndtri((np.cumsum(counts) - counts / 2) / len(means))
    if len(points) < 2:
        return _fit_none(means)
    centre, spread = _standard(np.repeat(scores, counts))
    return lambda values: (np.interp(values, points, scores) - centre) / spread


_FITS: dict[Transform, Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
    "power": _fit_power,
    "rank": _fit_rank,
    "none": _fit_none,
}
