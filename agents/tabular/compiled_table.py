"""`SampledTable`: a `TabularMDP` ready to be sampled by compiled loops, as Gymnasium samples it."""
# ruff: noqa: PLR0917 - compiled functions take positional arguments

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numba.extending import register_jitable
from numpy.typing import NDArray

from policylab.agents.rule import draw
from policylab.agents.schedules import FOREVER
from policylab.agents.tabular.compiled_rules import INLINE, at
from policylab.envs.table import TabularMDP

GUIDE = 1024
"""Entries of the guide table; a power of two, so that scaling by it does not round."""


class SampledTable(NamedTuple):
    """A `TabularMDP` ready for sampling.

    | field | shape | meaning |
    |---|---|---|
    | cumulative | (S·A·K,) | cumulative outcome probabilities |
    | next_state, reward, terminated | (S·A·K,) | as in the model |
    | initial | (S,) | cumulative initial distribution |
    | guide | (GUIDE,) | first state whose cumulative probability exceeds i / GUIDE |
    | n_actions, n_outcomes | | A and K |
    | limit | | steps after which an episode is truncated |

    Outcome k of action a in state s is at ``(s A + a) K + k``: one place for all four arrays.

    Source of the guide table: Chen & Asau (1974), "On generating random variates from an empirical
    distribution"; it finds the state a linear search would find.
    """

    cumulative: NDArray[np.float64]
    next_state: NDArray[np.int32]
    reward: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    initial: NDArray[np.float64]
    guide: NDArray[np.int64]
    n_actions: int
    n_outcomes: int
    limit: int


@functools.lru_cache(maxsize=8)
def sampled_table(mdp: TabularMDP) -> SampledTable:
    """Return ``mdp`` ready for sampling; made once for the agents of one table, who only read it."""
    initial = np.cumsum(mdp.initial_distribution)
    return SampledTable(
        cumulative=np.cumsum(mdp.probability, axis=2).ravel(),
        next_state=mdp.next_state.flatten(),
        reward=mdp.reward.flatten(),
        terminated=mdp.terminated.flatten(),
        initial=initial,
        guide=np.searchsorted(initial, np.arange(GUIDE) / GUIDE, side="right"),
        n_actions=mdp.n_actions,
        n_outcomes=mdp.probability.shape[2],
        limit=mdp.max_episode_steps or FOREVER,
    )


@register_jitable(**INLINE)
def first_state(table: SampledTable, rng: Any) -> int:
    """Return the first state of an episode, by one draw."""
    u = draw(rng)
    state = table.guide[int(u * GUIDE)]
    while state < len(table.initial) and table.initial[state] <= u:
        state += 1
    return state if state < len(table.initial) else 0


@register_jitable
def search(cumulative: NDArray[np.float64], first: int, n_outcomes: int, u: float) -> int:
    """Return the first outcome whose cumulative probability exceeds ``u``, or 0; counting spares a branch."""
    last = n_outcomes - 1
    outcome = 0
    for earlier in range(last):
        outcome += cumulative[at(first + earlier)] <= u
    return outcome if cumulative[at(first + last)] > u else 0


@register_jitable(**INLINE)
def sample_outcome(table: SampledTable, state: int, action: int, rng: Any) -> int:
    """Return the place of the outcome that an action has, by one draw."""
    u = draw(rng)
    first = (state * table.n_actions + action) * table.n_outcomes
    return first if table.n_outcomes == 1 else first + search(table.cumulative, first, table.n_outcomes, u)
