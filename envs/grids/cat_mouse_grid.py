"""`CatMouseGridEnv`: cat and mouse in a larger maze, observed as grids of numbers for deep agents."""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from policylab.envs.arguments import checked_count
from policylab.envs.grids.cat_mouse import CatMouseEnv, Positions
from policylab.errors import EnvironmentRuleError

LARGE_MAZE: tuple[str, ...] = (
    "C........",
    ".##.#.##.",
    ".#.....#.",
    "....#....",
    ".#.###.#.",
    "....#....",
    ".#.....#.",
    ".##.#.##.",
    "M.......K",
)
"""9x9 with loops everywhere, so that a clever mouse can dodge: 60 free cells."""


class CatMouseGridEnv(CatMouseEnv):
    """Cat and mouse as in `CatMouseEnv`, in a 9x9 maze (3600 states), started anywhere, observed as planes.

    - **Observation**: the mouse's cell and the cat's cell, each as a one-hot plane (row by row), float32, shape
      (2 * rows * columns,); with ``image`` shape (rows, columns, 4), the planes being mouse, cat, cheese, walls. Both
      tell the whole state.
    - **Start**: any pair of cells from which the cat needs at least ``head_start`` moves to the mouse, all equally
      likely, the mouse not at the cheese; with ``head_start`` null the cells ``M`` and ``C`` of the map.
    - Actions, dynamics and rewards are those of `CatMouseEnv`; ``P`` and ``s`` speak of its states, and `observe` says
      how each looks, so that a deep agent's policy can be held against the exact optimum.

    Args:
        map: as in `CatMouseEnv`.
        image: observe an image instead of a vector.
        head_start: least path between cat and mouse at the start, moves, >= 1, or null.
        epsilon: as in `CatMouseEnv`.
        render_mode: ``"ansi"``, ``"rgb_array"`` or None.

    Raises:
        EnvironmentRuleError: an argument breaks a rule above, or no start is that far apart.

    >>> env = CatMouseGridEnv()
    >>> env.reset(seed=0)[0].shape, len(env.P)
    ((162,), 3600)
    """

    def __init__(
        self,
        map: Sequence[str] = LARGE_MAZE,
        *,
        image: bool = False,
        head_start: int | None = 3,
        epsilon: float = 0.2,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(map, epsilon=epsilon, render_mode=render_mode)
        self._image = image
        rows, columns = self.grid_shape
        shape = (rows, columns, 4) if image else (2 * rows * columns,)
        self.observation_space = gym.spaces.Box(0.0, 1.0, shape, np.float32)
        if head_start is not None:
            self.initial_state_distrib = self._apart(checked_count("head_start", head_start))

    def _apart(self, head_start: int) -> NDArray[np.float64]:
        """Return the uniform distribution over the starts that are far enough apart, shape (S,)."""
        fair = np.array(
            [
                max(head_start, 1) <= self._to[mouse][cat] < np.inf
                and mouse != self.cheese
                and self._to_cheese[mouse] < np.inf
                for mouse, cat in self.states
            ]
        )
        if not fair.any():
            raise EnvironmentRuleError(f"`head_start` {head_start} leaves no start: no two cells are that far apart")
        uniform: NDArray[np.float64] = fair / fair.sum()
        return uniform

    def observe(self, state: int) -> NDArray[np.float32]:
        """Return how ``state`` looks."""
        planes = np.zeros((2, *self.grid_shape), dtype=np.float32)
        for plane, cell in zip(planes, self.states[state], strict=True):
            plane[cell] = 1.0
        if not self._image:
            return planes.reshape(-1)
        fixed = np.zeros_like(planes)
        fixed[0][self.cheese] = 1.0
        fixed[1] = [[letter == "#" for letter in row] for row in self.grid.rows]
        return np.concatenate([planes, fixed]).transpose(1, 2, 0).copy()

    def state_of(self, observation: NDArray[np.float32]) -> int:
        """Return the state that looks like ``observation``: the reverse of `observe`.

        >>> env = CatMouseGridEnv(image=True)
        >>> env.state_of(env.observe(1234))
        1234
        """
        rows, columns = self.grid_shape
        planes = observation.transpose(2, 0, 1)[:2] if self._image else observation.reshape(2, rows, columns)
        mouse, cat = (divmod(int(plane.argmax()), columns) for plane in planes)
        return self._index[Positions(mouse, cat)]
