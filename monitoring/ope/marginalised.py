"""Marginalised importance sampling: the ratios of single steps instead of their products.

Forwards over the steps: d_t(s) is the target policy's distribution over states, moved on by the logged transitions
weighted by ρ_t = π_e / π_b, and r_t(s) the weighted mean reward there; the value is Σ_t γ^t Σ_s d_t(s) r_t(s). Its
variance grows with a power of the horizon where that of IS and PDIS grows exponentially. It needs states that repeat.

Source: Xie, Ma and Wang, "Towards optimal off-policy evaluation for reinforcement learning with marginalized importance
sampling", NeurIPS 2019, equations 3.2 to 3.4.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from policylab.monitoring.ope.log import Log
from policylab.monitoring.ope.states import States

Floats = NDArray[np.float64]


def marginalised(log: Log, log_ratio: Floats, *, states: States, discount: float, share: Floats) -> Floats:
    """Return the estimate for each row of ``share``, shape (R,); not finite where ratios overflow.

    Args:
        log: N steps in E episodes.
        log_ratio: ln ρ of every step, shape (N,).
        states: of the log.
        discount: γ, in [0, 1].
        share: how much each episode counts, rows adding up to 1, shape (R, E).
    """
    order = np.argsort(log.step, kind="stable")
    bounds = np.searchsorted(log.step[order], np.arange(int(log.lengths.max()) + 1))
    by_step = [order[first:last] for first, last in itertools.pairwise(bounds)]
    moves = (states.here, np.where(log.terminated, states.n, states.after), states.n)
    with np.errstate(over="ignore", invalid="ignore"):
        ratio = np.exp(log_ratio)
        values = [
            _value(row[log.episode], by_step, ratio=ratio, reward=log.reward, moves=moves, discount=discount)
            for row in share
        ]
    return np.array(values)


def _value(
    weight: Floats,
    by_step: list[NDArray[np.int64]],
    *,
    ratio: Floats,
    reward: Floats,
    moves: tuple[NDArray[np.int64], NDArray[np.int64], int],
    discount: float,
) -> float:
    here, after, n_states = moves
    occupied = np.bincount(here[by_step[0]], weights=weight[by_step[0]], minlength=n_states)
    total = 0.0
    for t, rows in enumerate(by_step):
        visits = np.bincount(here[rows], weights=weight[rows], minlength=n_states)
        per_visit = np.divide(occupied, visits, out=np.zeros(n_states), where=visits > 0)
        flow = weight[rows] * ratio[rows] * per_visit[here[rows]]
        total += discount**t * float(flow @ reward[rows])
        # State n_states is where terminated episodes rest.
        occupied = np.bincount(after[rows], weights=flow, minlength=n_states + 1)[:n_states]
    return total
