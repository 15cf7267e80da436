"""The gambler's problem: betting on coin flips until the goal or ruin."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policylab.envs.drawing import draw_grid
from policylab.envs.table import Outcome
from policylab.envs.table_env import TableEnv
from policylab.errors import EnvironmentRuleError


class GamblerEnv(TableEnv):
    """Bet on a coin until the capital is 0 or ``goal``.

    - States: the capital, 0 to ``goal``; 0 and ``goal`` are terminal.
    - Actions: the stake, 0 to ``goal // 2``. A stake above ``min(capital, goal - capital)`` is cut down to
      it; stake 0 leaves the capital unchanged.
    - Rewards: +1 for reaching ``goal``, else 0. Undiscounted, the value of a state is the probability of winning.
    - Dynamics: heads (probability ``p_heads``) wins the stake, tails loses it.
    - First state: uniform over the capitals 1 to ``goal - 1`` (the book fixes none).

    A gambler who always stakes 0 never ends: give the environment a time limit.

    Args:
        p_heads: probability of heads, in [0, 1].
        goal: capital that wins, >= 2.
        render_mode: None, ``"ansi"`` or ``"rgb_array"``.

    Raises:
        EnvironmentRuleError: an argument is out of its range.

    Source: Sutton & Barto, 2nd edition, Example 4.3 and Figure 4.3 (``p_heads`` 0.4, ``goal`` 100, without stake 0).

    >>> GamblerEnv().P[60][50]
    [(0.4, 100, 1.0, True), (0.6, 20, 0.0, False)]
    """

    def __init__(self, *, p_heads: float = 0.4, goal: int = 100, render_mode: str | None = None) -> None:
        if not 0.0 <= p_heads <= 1.0:
            raise EnvironmentRuleError(f"p_heads must be in [0, 1], got {p_heads} (GamblerEnv)")
        if goal < 2:
            raise EnvironmentRuleError(f"goal must be >= 2, got {goal} (GamblerEnv)")
        self.p_heads = p_heads
        self.goal = goal
        table = {
            capital: {stake: self._outcomes(capital, stake) for stake in range(goal // 2 + 1)}
            for capital in range(goal + 1)
        }
        start = np.zeros(goal + 1)
        start[1:goal] = 1.0 / (goal - 1)
        super().__init__(table, start, render_mode=render_mode)

    def _outcomes(self, capital: int, action: int) -> list[Outcome]:
        if capital in (0, self.goal):
            return [(1.0, capital, 0.0, True)]
        stake = min(action, capital, self.goal - capital)
        if stake == 0:
            return [(1.0, capital, 0.0, False)]
        won, lost = capital + stake, capital - stake
        return [
            (self.p_heads, won, float(won == self.goal), won == self.goal),
            (round(1.0 - self.p_heads, 15), lost, 0.0, lost == 0),
        ]

    def render_ansi(self) -> str:
        """Return the capital as a bar of twenty cells."""
        filled = round(20 * self.s / self.goal)
        return f"capital {self.s} of {self.goal} [{'#' * filled}{'.' * (20 - filled)}]\n"

    def render_rgb(self) -> NDArray[np.uint8]:
        """Return the capital as a bar of ten cells, labelled with the dollars, shape (49, 481, 3)."""
        filled = round(10 * self.s / self.goal)
        bar = ["goal"] * filled + ["free"] * (10 - filled)
        return draw_grid([bar], labels={(0, max(filled - 1, 0)): str(self.s)})
