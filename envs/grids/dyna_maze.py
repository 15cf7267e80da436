"""The mazes of Sutton & Barto's chapter 8: the Dyna maze, and mazes that change under the agent's feet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from policylab.envs.arguments import checked_count, checked_name
from policylab.envs.grids.grid_env import CellOutcome, Dynamics, GridEnv, grid_table
from policylab.envs.grids.grid_map import FOUR_MOVES, Cell, GridMap, Move

DYNA_MAZE = (".......#G", "..#....#.", "S.#....#.", "..#......", ".....#...", ".........")
"""Figure 8.2."""

_ABOVE = ("........G", ".........", ".........")
_BELOW = (".........", "...S.....")
_LEFT_OPEN, _RIGHT_OPEN, _BOTH_OPEN = ".########", "########.", ".#######."

VARIANTS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "blocking": ((*_ABOVE, _RIGHT_OPEN, *_BELOW), (*_ABOVE, _LEFT_OPEN, *_BELOW)),
    "shortcut": ((*_ABOVE, _LEFT_OPEN, *_BELOW), (*_ABOVE, _BOTH_OPEN, *_BELOW)),
}
"""Name -> the maze before and after the change (Figures 8.4 and 8.5)."""


def _walk(grid: GridMap) -> Dynamics:
    def dynamics(cell: Cell, move: Move) -> Iterator[CellOutcome]:
        target = grid.neighbour(cell, move)
        at_goal = grid[target] == "G"
        yield 1.0, target, float(at_goal), at_goal

    return dynamics


class DynaMazeEnv(GridEnv):
    """The Dyna maze (Sutton & Barto, 2nd ed., Example 8.1, Figure 8.2).

    - **States**: the 47 free cells of a 6x9 maze, in reading order.
    - **Actions**: 0 up, 1 down, 2 left, 3 right.
    - **Dynamics**: deterministic; a move into a wall or the border stays.
    - **Rewards**: +1 on entering the goal (0, 8), which ends the episode, else 0; the start is (2, 0).
    - **Optimum**: 14 steps; the book's discount is 0.95.

    Args:
        render_mode: ``"ansi"``, ``"rgb_array"`` or None.
    """

    def __init__(self, *, render_mode: str | None = None) -> None:
        grid = GridMap.parse(DYNA_MAZE, letters="SG.")
        super().__init__(grid, FOUR_MOVES, dynamics=_walk(grid), render_mode=render_mode)


class ChangingMazeEnv(GridEnv):
    """A maze that changes once in its life (Sutton & Barto, 2nd ed., Examples 8.2 and 8.3).

    - **States**: the cells of a 6x9 grid that are free before or after the change, in reading order.
    - **Actions**: 0 up, 1 down, 2 left, 3 right.
    - **Dynamics**: deterministic; a move into a wall or the border stays. The change takes place after
      ``change_at`` steps, counted over all episodes since the environment was made or last reset *with a seed*.
      ``blocking``: the short way (10 steps) closes and a long one (16) opens. ``shortcut``: beside the long way
      (16) a short one (10) opens. An agent that stands where a wall appears can walk out of it.
    - **Rewards**: +1 on entering the goal (0, 8), which ends the episode, else 0; the start is (5, 3).

    The task is not stationary: ``P`` is the model of the *current* phase, and `table_of` refuses the environment.
    ``TabularMDP.from_outcomes(env.P, env.initial_state_distrib)`` gives the table of the current phase; its exact
    solution is the optimum of that phase alone, for episodes into which the change does not fall.

    Args:
        variant: ``"blocking"`` or ``"shortcut"``.
        change_at: number of steps before the change, >= 0 (the book: 1000 for blocking, 3000 for shortcut).
        render_mode: ``"ansi"``, ``"rgb_array"`` or None.

    Attributes:
        clock: steps taken so far.

    Raises:
        EnvironmentRuleError: an unknown variant or a negative number of steps.
    """

    stationary: ClassVar[bool] = False

    def __init__(self, variant: str = "blocking", *, change_at: int = 1000, render_mode: str | None = None) -> None:
        mazes = VARIANTS[checked_name("variant", variant, known=VARIANTS)]
        self.phases = tuple(GridMap.parse(rows, letters="SG.") for rows in mazes)
        self.change_at = checked_count("change_at", change_at)
        self.clock = 0
        cells = sorted({cell for grid in self.phases for cell in grid.free_cells})
        super().__init__(
            self.phases[0], FOUR_MOVES, dynamics=_walk(self.phases[0]), cells=cells, render_mode=render_mode
        )
        self._tables = tuple(self._table_of(grid) for grid in self.phases)
        self._enter_phase()

    def _table_of(self, grid: GridMap) -> dict[int, dict[int, list[tuple[float, int, float, bool]]]]:
        return grid_table(self.cells, self.moves, dynamics=_walk(grid), terminal=grid.find("G"))

    def _enter_phase(self) -> None:
        phase = int(self.clock >= self.change_at)
        self.grid, self.P = self.phases[phase], self._tables[phase]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Start an episode; a seeded reset also starts the maze's life anew."""
        if seed is not None:
            self.clock = 0
            self._enter_phase()
        return super().reset(seed=seed, options=options)

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Take ``action`` in the current maze, then let the clock tick."""
        result = super().step(action)
        self.clock += 1
        self._enter_phase()
        return result

    def snapshot(self) -> dict[str, int | None]:
        """What a checkpoint keeps besides the random stream, the clock included."""
        return {**super().snapshot(), "clock": self.clock}

    def restore(self, snapshot: Mapping[str, int | None]) -> None:
        """Continue from what `snapshot` returned, in the phase its clock says."""
        super().restore(snapshot)
        self._enter_phase()
