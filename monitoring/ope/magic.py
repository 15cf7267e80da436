"""MAGIC: the blend of importance sampling and a model whose estimated mean squared error is least.

The j-step return g^(j) trusts the weighted doubly robust corrections of the first j + 1 steps and the model from there
on: g^(-1) is the direct method, g^(T-1) is WDR. MAGIC is x'g with x in the simplex minimising x'(Ω + b b')x: Ω is the
covariance of the returns, b how far each lies outside the bootstrap interval of WDR.

Source: Thomas and Brunskill, "Data-efficient off-policy policy evaluation for reinforcement learning", ICML 2016,
section 5 and algorithm 1 (interval of 90 %).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from policylab.monitoring.ope.estimators import weighted_doubly_robust
from policylab.monitoring.ope.trajectories import Trajectories

Floats = NDArray[np.float64]
MAX_BLENDED = 32
"""Returns that are blended: evenly spaced steps and both ends; the least squares stay small then."""


def j_step_returns(of: Trajectories, *, steps: NDArray[np.int64]) -> Floats:
    """Return g_i^(j), shape (E, J): the terms of each episode, with weights normalised over all of them.

    Args:
        of: trajectories with a model's guesses.
        steps: j, each from -1 to T - 1, shape (J,).
    """
    n = of.n_episodes
    normal = of.weight / of.weight.sum(axis=0)
    before = np.concatenate([np.full((n, 1), 1.0 / n), normal[:, :-1]], axis=1)
    corrected = (normal * (of.reward - of.action_value) + before * of.value).cumsum(axis=1)
    beyond = np.concatenate([before[:, 1:] * of.value[:, 1:], np.zeros((n, 1))], axis=1)
    table = np.concatenate([(of.value[:, 0] / n)[:, None], corrected + beyond], axis=1)
    found: Floats = table[:, steps + 1]
    return found


def magic(of: Trajectories, *, resampled: Floats) -> tuple[float, Floats, Floats]:
    """Return the estimate, each episode's term of the blend (their sum is the estimate), and the blend x.

    Args:
        of: trajectories with a model's guesses, E >= 2.
        resampled: how much each episode counts in each bootstrap, shape (R, E).
    """
    horizon, n = of.weight.shape[1], of.n_episodes
    steps = np.unique(np.linspace(-1, horizon - 1, min(horizon + 1, MAX_BLENDED)).round().astype(np.int64))
    terms = j_step_returns(of, steps=steps)
    returns = terms.sum(axis=0)
    centred = terms - terms.mean(axis=0)
    covariance = n / (n - 1) * centred.T @ centred
    low, high = np.nanquantile(weighted_doubly_robust(of, resampled), [0.05, 0.95])
    low, high = min(low, returns[-1]), max(high, returns[-1])
    bias = np.where(returns > high, returns - high, np.where(returns < low, returns - low, 0.0))
    blend = least_in_simplex(covariance + np.outer(bias, bias))
    return float(returns @ blend), terms @ blend, blend


def least_in_simplex(matrix: Floats) -> Floats:
    """Return the x >= 0 with sum 1 that minimises x'Ax for a positive semidefinite A.

    The minimum of |Lx|² over the simplex, with A = L'L, is the direction of the y >= 0 that minimises
    |Ly|² + (1'y - 1)²: for y = s x the best s leaves x'Ax / (1 + x'Ax), which grows with x'Ax.

    >>> least_in_simplex(np.diag([1.0, 3.0])).round(6).tolist()
    [0.75, 0.25]
    """
    values, vectors = np.linalg.eigh(matrix / max(np.abs(matrix).max(), np.finfo(float).tiny))
    root = np.sqrt(values.clip(min=0.0))[:, None] * vectors.T
    y, _ = nnls(np.vstack([root, np.ones(len(matrix))]), np.r_[np.zeros(len(matrix)), 1.0])
    found: Floats = y / y.sum()
    return found
