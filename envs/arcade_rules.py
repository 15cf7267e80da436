"""Baseline for Ms. Pac-Man: sweep the maze, and run from ghosts that come near."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from policylab.errors import EnvironmentRuleError

GHOSTS_X, GHOSTS_Y = slice(6, 10), slice(12, 16)
PLAYER_X, PLAYER_Y = 10, 16
"""Bytes of the game's memory, in pixels (Anand et al., "Unsupervised state representation learning in Atari", 2019)."""

NEAR = 30
"""A ghost within so many pixels, both ways added, is fled from."""
SWEEP_STEPS = 50
"""Steps in one diagonal direction before the next."""
DIAGONALS = ("UPRIGHT", "DOWNRIGHT", "DOWNLEFT", "UPLEFT")
"""A diagonal takes whichever of its two ways is open, so that Ms. Pac-Man never stands before a wall for long."""


def sweep_and_flee(env: gym.Env[Any, Any]) -> SweepAndFlee:
    """Run to one corner after the other; away from the nearest ghost when it is near.

    Raises:
        EnvironmentRuleError: the environment shows pictures instead of its memory.
    """
    game: Any = env.unwrapped
    if env.observation_space.shape != (128,):
        raise EnvironmentRuleError(
            f"sweep_and_flee reads the memory of the game, got observations {env.observation_space}; "
            "set env.kwargs.obs_type to ram"
        )
    meanings = game.get_action_meanings()
    return SweepAndFlee({name: meanings.index(name) for name in DIAGONALS})


class SweepAndFlee:
    """Remembers how long it has been running in which direction.

    Args:
        actions: name of a diagonal direction -> number of the action.
    """

    def __init__(self, actions: dict[str, int]) -> None:
        self._actions = actions
        self.reset()

    def reset(self) -> None:
        """Begin with the first direction."""
        self._steps = 0

    def act(self, observation: NDArray[np.uint8], *, rng: np.random.Generator | None = None) -> int:
        """Return the action for the 128 bytes of memory; no chance plays a part."""
        self._steps += 1
        ways = np.stack([_signed(observation[GHOSTS_X]) - int(observation[PLAYER_X]),
                         _signed(observation[GHOSTS_Y]) - int(observation[PLAYER_Y])], axis=1)  # fmt: skip
        distances = np.abs(ways).sum(axis=1)
        if distances.min() > NEAR:
            return self._actions[DIAGONALS[self._steps // SWEEP_STEPS % len(DIAGONALS)]]
        right, down = ways[distances.argmin()]
        return self._actions[("DOWN" if down <= 0 else "UP") + ("RIGHT" if right <= 0 else "LEFT")]


def _signed(numbers: NDArray[np.uint8]) -> NDArray[np.int64]:
    return numbers.astype(np.int64)
