"""`MiniGridEnv`: a minigrid task as deep agents can learn it: the whole grid as zeros and ones, no text."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from policylab.envs.optional import PROVIDERS, load_provider
from policylab.errors import EnvironmentRuleError, did_you_mean

Observation = NDArray[np.float32]

KINDS = ("empty", "wall", "door", "key", "ball", "box", "goal", "lava")
"""What a cell may hold, as minigrid names it."""
COLOURS = ("red", "green", "blue", "purple", "yellow", "grey")
N_STATES, N_DIRECTIONS = 3, 4
"""A door is open, closed or locked; the agent looks right, down, left or up."""
CELL = len(KINDS) + len(COLOURS) + N_STATES + N_DIRECTIONS
CARRIED = len(KINDS) + len(COLOURS)


class MiniGridEnv(gym.Env[Observation, int]):
    """A task of minigrid, seen as a whole.

    - **Observation**: float32 in {0, 1}, shape (width · height · 21 + 14,): of each cell, row by row, which of `KINDS`
      it holds and in which of `COLOURS` (a wall is grey, an empty cell has none), whether a door is open, closed or
      locked, and if the agent is there the direction in which it looks; then kind and colour of what the agent carries.
    - **Actions**: minigrid's seven: turn left, turn right, forward, pick up, drop, toggle (open a door), done.
    - **Reward**: minigrid's: 1 - 0.9 t / T at the goal, after t of at most T steps, else 0.
    - **End**: terminates at the goal (or in lava), truncates after T steps, of which the observation says nothing.

    Args:
        task: id of one of minigrid's environments whose mission is always the same.
        render_mode: None or ``"rgb_array"``.

    Raises:
        MissingExtraError: minigrid is not installed.
        EnvironmentRuleError: there is no such task, or its mission differs from episode to episode.

    Source: Chevalier-Boisvert et al., "Minigrid & Miniworld", NeurIPS 2023 Datasets and Benchmarks.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}  # type: ignore[misc]

    def __init__(self, *, task: str = "MiniGrid-DoorKey-5x5-v0", render_mode: str | None = None) -> None:
        load_provider(PROVIDERS["minigrid"])
        if not task.startswith("MiniGrid-") or task not in gym.registry:
            known = sorted(name for name in gym.registry if name.startswith("MiniGrid-"))
            raise EnvironmentRuleError(f"`task` must be one of minigrid's, got {task!r}{did_you_mean(task, known)}")
        game: Any = gym.make(task, render_mode=render_mode, disable_env_checker=True).unwrapped
        if game.observation_space["mission"].ordered_placeholders:
            raise EnvironmentRuleError(f"the mission of {task} differs from episode to episode, and is not seen here")
        self._game = game
        self.render_mode = render_mode
        self.action_space = gym.spaces.Discrete(int(game.action_space.n))
        size = game.width * game.height * CELL + CARRIED
        self.observation_space = gym.spaces.Box(0.0, 1.0, (size,), np.float32)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the grid."""
        return self._game.height, self._game.width

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Lay out a grid, with the randomness of this environment's generator."""
        super().reset(seed=seed)
        self._game.np_random = self.np_random
        self._game.reset()
        return self._observation(), {}

    def step(self, action: int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Take one of the seven actions."""
        _, reward, terminated, truncated, info = self._game.step(int(action))
        return self._observation(), float(reward), terminated, truncated, info

    def _observation(self) -> Observation:
        game = self._game
        height, width = self.shape
        seen = np.zeros((height, width, CELL), dtype=np.float32)
        for y in range(height):
            for x in range(width):
                _mark(seen[y, x], game.grid.get(x, y))
        x, y = game.agent_pos
        seen[y, x, CELL - N_DIRECTIONS + game.agent_dir] = 1.0
        carried = np.zeros(CARRIED, dtype=np.float32)
        if game.carrying is not None:
            _mark(carried, game.carrying)
        return np.concatenate([seen.ravel(), carried])

    def render(self) -> Any:
        """Return a picture of the grid, (height, width, 3) bytes, or None without a render mode."""
        return self._game.render()

    def close(self) -> None:
        """Release what drawing took."""
        self._game.close()


def _mark(cell: NDArray[np.float32], thing: Any) -> None:
    """Write what an object is into a row of `CELL` numbers, or of `CARRIED` where it has no state."""
    kind = "empty" if thing is None else thing.type
    if kind not in KINDS:
        raise EnvironmentRuleError(f"a grid holds {kind!r}, which is none of {', '.join(KINDS)}")
    cell[KINDS.index(kind)] = 1.0
    if thing is None:
        return
    cell[len(KINDS) + COLOURS.index(thing.color)] = 1.0
    if kind == "door":
        cell[CARRIED + int(thing.encode()[2])] = 1.0
