"""The short corridor with switched actions: where only a stochastic policy is good."""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from policylab.envs.drawing import draw_grid
from policylab.envs.table import Outcome
from policylab.envs.table_env import TableEnv

LEFT, RIGHT = 0, 1
GOAL = 3
SWITCHED_COLOUR = (236, 206, 160)


class ShortCorridorEnv(TableEnv):
    """Leave a corridor of three states that all look alike, one of which swaps left and right.

    - States: 0, 1, 2 and the terminal 3; the first is 0.
    - Observations: always 0, so a policy cannot know where it is. With ``observe_state`` the state itself.
    - Actions: 0 left, 1 right.
    - Rewards: -1 per step.
    - Dynamics: deterministic. Right leads 0 -> 1 and 2 -> 3; left leads 2 -> 1 and stays in 0. In state 1 the
      actions are switched: right leads to 0, left to 2.

    A policy that goes right with probability p in every state is worth ``(2p - 4) / (p (1 - p))``: at best
    -11.66, for p = 2 - sqrt(2) = 0.586; -44.2 for p = 0.95 and -82.1 for p = 0.05. A deterministic policy never ends.

    ``P`` and ``s`` speak of the four states in both cases: a planner over ``P`` solves the observed corridor, and
    no table of ``observation_space.n`` = 1 rows can hold its solution.

    Args:
        observe_state: return the state instead of the constant observation.
        render_mode: None, ``"ansi"`` or ``"rgb_array"``.

    Source: Sutton & Barto, 2nd edition, Example 13.1.

    >>> ShortCorridorEnv().P[1][RIGHT]
    [(1.0, 0, -1.0, False)]
    """

    def __init__(self, *, observe_state: bool = False, render_mode: str | None = None) -> None:
        self.observe_state = observe_state
        move = {0: (0, 1), 1: (2, 0), 2: (1, 3)}
        table: dict[int, dict[int, list[Outcome]]] = {
            state: {action: [(1.0, target, -1.0, target == GOAL)] for action, target in enumerate(targets)}
            for state, targets in move.items()
        }
        table[GOAL] = {action: [(1.0, GOAL, 0.0, True)] for action in (LEFT, RIGHT)}
        super().__init__(table, np.array([1.0, 0.0, 0.0, 0.0]), render_mode=render_mode)
        if not observe_state:
            self.observation_space = gym.spaces.Discrete(1)

    def observe(self, state: int) -> int:
        """Return 0, or the state with ``observe_state``."""
        return state if self.observe_state else 0

    def render_ansi(self) -> str:
        """Return the corridor as one line: ``x`` the switched state, ``G`` the goal, ``o`` the walker."""
        cells = [".", "x", ".", "G"]
        cells[self.s] = "o"
        return "".join(cells) + "\n"

    def render_rgb(self) -> NDArray[np.uint8]:
        """Return the corridor as one row of cells, the switched state coloured, shape (49, 193, 3)."""
        cells: list[str | Sequence[int]] = ["start", SWITCHED_COLOUR, "free", "goal"]
        return draw_grid([cells], figures=[("agent", (0, self.s))], labels={(0, 1): "swap"})
