"""The maximization-bias example: one bad choice that looks good because of noise."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from policylab.envs.drawing import draw_grid
from policylab.envs.table import Outcome
from policylab.envs.table_env import TableEnv
from policylab.errors import EnvironmentRuleError

A, B, END = 0, 1, 2
LEFT, RIGHT = 0, 1
PICTURE = (("B", B), ("A", A), ("end", END))


class MaximizationBiasEnv(TableEnv):
    """Go right for nothing, or left to a state whose noisy actions lose on average.

    - States: A (0, the first), B (1) and the terminal 2.
    - Actions: 0 to ``n_actions - 1``. In A there are two, 0 left and 1 right; a higher number does what its
      remainder by 2 does, so with an even ``n_actions`` a uniform choice goes left half of the time, as in the book.
      ``info["action_mask"]`` allows only 0 and 1 in A: an agent that respects it has the book's problem exactly.
      In B all actions are alike.
    - Rewards: in A none. From B drawn from N(``reward_mean``, ``reward_std``).
    - Dynamics: from A left to B, right to the end; from B to the end.

    Left is worth ``reward_mean`` = -0.1, right 0. An ε-greedy agent with ε = 0.1 that has learned so goes left on
    5 % of the episodes.

    ``P`` holds the mean reward of B's transitions in place of their distribution (``P_rewards_are_means``). Planning
    over it is exact; sampling from it is not what `step` does, which draws the noise after the outcome.

    Args:
        n_actions: number of actions in B, >= 2 (the book says "many").
        reward_mean: mean reward of leaving B.
        reward_std: its standard deviation, >= 0.
        render_mode: None, ``"ansi"`` or ``"rgb_array"``.

    Raises:
        EnvironmentRuleError: an argument is out of its range.

    Source: Sutton & Barto, 2nd edition, Example 6.7 and Figure 6.5.

    >>> env = MaximizationBiasEnv()
    >>> env.P[A][LEFT], env.P[A][RIGHT], env.P[B][7]
    ([(1.0, 1, 0.0, False)], [(1.0, 2, 0.0, True)], [(1.0, 2, -0.1, True)])
    """

    P_rewards_are_means: ClassVar[bool] = True

    def __init__(
        self,
        *,
        n_actions: int = 10,
        reward_mean: float = -0.1,
        reward_std: float = 1.0,
        render_mode: str | None = None,
    ) -> None:
        if n_actions < 2:
            raise EnvironmentRuleError(f"n_actions must be >= 2, got {n_actions} (MaximizationBiasEnv)")
        if not reward_std >= 0.0:
            raise EnvironmentRuleError(f"reward_std must be >= 0, got {reward_std} (MaximizationBiasEnv)")
        self.reward_std = reward_std
        from_a: list[Outcome] = [(1.0, B, 0.0, False), (1.0, END, 0.0, True)]
        table: dict[int, dict[int, list[Outcome]]] = {
            A: {action: [from_a[action % 2]] for action in range(n_actions)},
            B: {action: [(1.0, END, reward_mean, True)] for action in range(n_actions)},
            END: {action: [(1.0, END, 0.0, True)] for action in range(n_actions)},
        }
        super().__init__(table, np.array([1.0, 0.0, 0.0]), render_mode=render_mode)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Start in A."""
        state, info = super().reset(seed=seed, options=options)
        return state, {**info, "action_mask": self.action_mask(state)}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Move; leaving B adds the noise of its reward."""
        left_b = self.s == B
        state, reward, terminated, truncated, info = super().step(action)
        if left_b:
            reward += self.reward_std * float(self.np_random.standard_normal())
        return state, reward, terminated, truncated, {**info, "action_mask": self.action_mask(state)}

    def action_mask(self, state: int) -> NDArray[np.int8]:
        """Return 1 for each action the book has in ``state``, shape (n_actions,)."""
        mask = np.ones(len(self.P[state]), dtype=np.int8)
        if state == A:
            mask[2:] = 0
        return mask

    def render_ansi(self) -> str:
        """Return the states as one line, the current one in brackets."""
        return " ".join(f"[{name}]" if self.s == state else f" {name} " for name, state in PICTURE) + "\n"

    def render_rgb(self) -> NDArray[np.uint8]:
        """Return the states as one row of cells above their names, shape (97, 145, 3)."""
        labels = {(1, column): name for column, (name, _) in enumerate(PICTURE)}
        column = [state for _, state in PICTURE].index(self.s)
        return draw_grid([["pit", "start", "goal"], ["free"] * 3], figures=[("agent", (0, column))], labels=labels)
