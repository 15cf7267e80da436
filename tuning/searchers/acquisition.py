"""Where to look next: the logarithm of the expected improvement, and its maximum over a mixed space."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import special

from policylab.tuning.space import Space

N_UNIFORM = 512
N_LOCAL = 48
N_STEPS = 16
N_LEADERS = 4
N_ROUNDS = 6
JUMP_SHARE = 0.2


def log_expected_improvement(mean: np.ndarray, sd: np.ndarray, *, incumbent: float) -> np.ndarray:
    """Return log E[max(f - incumbent, 0)] for f ~ N(mean, sd²), any shape; it stays finite far below the incumbent.

    Source: Ament et al. (2023), "Unexpected improvements to expected improvement", equation 9.

    >>> far = log_expected_improvement(np.array([0.0, -50.0]), np.array([1.0, 1.0]), incumbent=0.0)
    >>> far.round(3).tolist()
    [-0.919, -1258.744]
    """
    z = (mean - incumbent) / sd
    below = np.minimum(z, 0.0)
    # φ(z) + z Φ(z) = φ(z) (1 + z √(π/2) erfcx(-z / √2)) for z < 0, free of underflow; 1 / z² is its limit.
    tail = 1.0 + below * math.sqrt(math.pi / 2) * special.erfcx(-below / math.sqrt(2))
    tail = np.where(below > -1e3, tail, 1.0 / np.maximum(below**2, 1.0))
    log_density = -0.5 * z**2 - 0.5 * math.log(2 * math.pi)
    gain = np.exp(log_density) + np.maximum(z, 0.0) * special.ndtr(z)
    return np.asarray(np.where(z > 0, np.log(np.maximum(gain, 1e-300)), log_density + np.log(tail)) + np.log(sd))


def best_point(
    score: Callable[[np.ndarray], np.ndarray], space: Space, *, near: np.ndarray, rng: np.random.Generator
) -> np.ndarray | None:
    """Return the point (d,) with the largest score found, or None when every score is -inf.

    Uniform points and neighbours of good ones compete; then the leaders improve by ever smaller steps along some of
    the axes. Points are snapped before they are scored, so a discrete parameter is judged at its values.

    Args:
        score: of snapped points (n, d), larger is better; -inf excludes.
        space: searched; constraints are kept.
        near: points worth a neighbourhood, shape (k, d).
        rng: stream.
    """
    candidates = np.vstack([space.sample_points(N_UNIFORM, rng), _neighbours(near, n=N_LOCAL, width=0.1, rng=rng)])
    leaders = _leaders(score, space, points=candidates)
    for number in range(N_ROUNDS):
        if not len(leaders):
            return None
        steps = _neighbours(leaders, n=N_STEPS, width=0.1 * 0.5**number, rng=rng)
        leaders = _leaders(score, space, points=np.vstack([leaders, steps]))
    return np.asarray(leaders[0])


def _leaders(score: Callable[[np.ndarray], np.ndarray], space: Space, *, points: np.ndarray) -> np.ndarray:
    """Return the best few of ``points``, snapped, best first."""
    snapped = space.snap(points)
    snapped = snapped[space.feasible(snapped)]
    scores = score(snapped) if len(snapped) else np.empty(0)
    order = np.argsort(-scores, kind="stable")[:N_LEADERS]
    return np.asarray(snapped[order][scores[order] > -math.inf])


def _neighbours(points: np.ndarray, *, n: int, width: float, rng: np.random.Generator) -> np.ndarray:
    """Return ``n`` neighbours of each point, moved along each axis with probability 1/2; some jump on one axis."""
    d = points.shape[1]
    around = np.repeat(points, n, axis=0)
    moved = rng.random(around.shape) < max(0.5, 1.0 / d)
    moves = np.where(moved, rng.normal(scale=width, size=around.shape), 0.0)
    jump = rng.random(len(around)) < JUMP_SHARE  # a category changes by a jump, hardly by a small step
    axis = rng.integers(d, size=len(around))
    around = np.clip(around + moves, 0.0, 1.0)
    around[jump, axis[jump]] = rng.random(int(jump.sum()))
    return np.asarray(around)
