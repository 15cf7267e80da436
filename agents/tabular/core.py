"""What every tabular agent has, as one tuple of numbers and arrays that both executions use.

| symbol | field | shape | meaning |
|---|---|---|---|
| Q | q | (n_features, n_actions) | action values |
| γ | discount | | in [0, 1] |
| α | learning_rate | | schedule |
| | updates | (n_features, n_actions) or (0, 0) | N(s, a) of an inverse-visits learning rate |
| | exploration | | kind and schedule |
| N(s, a) | choices | (n_features, n_actions) or (0, 0) | choices, counted when the exploration needs them |
| | rng | | the agent's random stream |

An algorithm is a tuple too: its `core`, its own arrays, and a method `update` that learns from one `Step`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from policylab.agents.exploration import Exploration, counts_choices, make_exploration
from policylab.agents.schedules import InverseVisits, Schedule, resolve
from policylab.agents.settings import TabularSettings
from policylab.agents.tabular.values import State, Values


class Step(NamedTuple):
    """One environment step: (S_t, A_t, R_t+1, S_t+1, A_t+1) and how it ended.

    `next_action` is the action already chosen for the next step by algorithms that look ahead, -1 for others
    and after termination. An episode ends when `terminated` or `truncated`; only termination makes the
    value of the next state 0.
    """

    time: int
    state: State
    action: int
    reward: float
    next_state: State
    next_action: int
    terminated: bool
    truncated: bool


class Core(NamedTuple):
    """See the module's symbol table."""

    q: Values
    n_actions: int
    discount: float
    learning_rate: Schedule
    updates: NDArray[np.int64]
    exploration: Exploration
    choices: NDArray[np.int64]
    rng: np.random.Generator


class Size(NamedTuple):
    """How large an algorithm's arrays must be."""

    n_features: int
    n_actions: int
    n_active: int
    max_episode_steps: int

    def buffer(self, length: int) -> NDArray[np.int64]:
        """Return an empty buffer of ``length`` states, for `recall`."""
        return np.zeros((length,) if self.n_active == 1 else (length, self.n_active), dtype=np.int64)

    def table(self, number: float, dtype: Any = np.float64) -> NDArray[Any]:
        """Return a table of (n_features, n_actions) equal numbers."""
        return np.full((self.n_features, self.n_actions), number, dtype=dtype)


class Algorithm(Protocol):
    """A tuple of a `core` and own arrays, with the update of one algorithm."""

    @property
    def core(self) -> Core:
        """What every algorithm has."""
        ...

    def looks_ahead(self) -> bool:
        """Return whether the next action is to be chosen before learning from a step."""
        ...

    def update(self, step: Step) -> float:
        """Learn from one step; return the sum of |δ| over the updates of action values it made."""
        ...


def make_core(settings: TabularSettings, size: Size, *, budget_steps: int, rng: np.random.Generator) -> Core:
    """Return the core of a fresh agent whose schedules stretch over ``budget_steps``."""
    counted, uncounted = size.table(0, np.int64), np.zeros((0, 0), dtype=np.int64)
    return Core(
        q=size.table(settings.initial_value / size.n_active),
        n_actions=size.n_actions,
        discount=settings.discount,
        learning_rate=resolve(settings.learning_rate, budget_steps),
        updates=counted.copy() if isinstance(settings.learning_rate, InverseVisits) else uncounted,
        exploration=make_exploration(settings.exploration, budget_steps),
        choices=counted if counts_choices(settings.exploration) else uncounted,
        rng=rng,
    )


def update(algorithm: Algorithm, step: Step) -> float:
    """Let ``algorithm`` learn from ``step``; return the sum of |δ|."""
    return algorithm.update(step)


def looks_ahead(algorithm: Algorithm) -> bool:
    """Return whether ``algorithm`` needs the next action chosen before it learns."""
    return algorithm.looks_ahead()
