"""The random walk: a Markov reward process for prediction."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policylab.envs.drawing import draw_grid
from policylab.envs.table import Outcome
from policylab.envs.table_env import TableEnv
from policylab.errors import EnvironmentRuleError


class RandomWalkEnv(TableEnv):
    """Walk left or right with equal probability until either end.

    - States: 0 (left end) to ``n + 1`` (right end); 1 to ``n`` are the walk's own states, the ends are terminal.
    - Actions: one, which does nothing but let the walk go on: there is nothing to control, only values to predict.
    - Rewards: ``left_reward`` on reaching the left end, ``right_reward`` on the right end, else 0.
    - Dynamics: one state left or right, probability 1/2 each.
    - First state: the middle, ``(n + 1) // 2``.

    Undiscounted, the value of state i is ``left_reward + (right_reward - left_reward) * i / (n + 1)``, so i/6
    with 5 states and the rewards 0 and 1.

    Args:
        n: number of non-terminal states, >= 1.
        left_reward: reward of the left end.
        right_reward: reward of the right end.
        render_mode: None, ``"ansi"`` or ``"rgb_array"``.

    Raises:
        EnvironmentRuleError: an argument is out of its range.

    Source: Sutton & Barto, 2nd edition, Example 7.1 (19 states, rewards -1 and +1: the defaults) and
    Example 6.2 (5 states, rewards 0 and +1).

    >>> RandomWalkEnv(n=5, left_reward=0.0).P[5][0]
    [(0.5, 4, 0.0, False), (0.5, 6, 1.0, True)]
    """

    def __init__(
        self, *, n: int = 19, left_reward: float = -1.0, right_reward: float = 1.0, render_mode: str | None = None
    ) -> None:
        if n < 1:
            raise EnvironmentRuleError(f"n must be >= 1, got {n} (RandomWalkEnv)")
        self.n = n
        end_rewards = {0: left_reward, n + 1: right_reward}

        def arrive(state: int) -> Outcome:
            return (0.5, state, end_rewards.get(state, 0.0), state in end_rewards)

        table = {i: {0: [arrive(i - 1), arrive(i + 1)]} for i in range(1, n + 1)}
        table |= {end: {0: [(1.0, end, 0.0, True)]} for end in end_rewards}
        start = np.zeros(n + 2)
        start[(n + 1) // 2] = 1.0
        super().__init__(dict(sorted(table.items())), start, render_mode=render_mode)

    def render_ansi(self) -> str:
        """Return the walk as one line: ``|`` the ends, ``o`` the walker."""
        cells = ["|", *"." * self.n, "|"]
        cells[self.s] = "o"
        return "".join(cells) + "\n"

    def render_rgb(self) -> NDArray[np.uint8]:
        """Return the walk as one row of cells, the ends coloured, shape (33, 32 * (n + 2) + 1, 3)."""
        cells = ["pit", *["free"] * self.n, "goal"]
        return draw_grid([cells], figures=[("agent", (0, self.s))], cell_px=32)
