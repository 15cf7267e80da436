"""The windy gridworlds of Sutton & Barto: 4 moves, king's moves, and stochastic wind."""

from __future__ import annotations

from collections.abc import Iterator

from policylab.envs.grids.grid_env import CellOutcome, GridEnv
from policylab.envs.grids.grid_map import FOUR_MOVES, KINGS_MOVES, STAY, Cell, GridMap, Move
from policylab.envs.grids.gridworld import blown, windy_kinds
from policylab.errors import EnvironmentRuleError

WIND = (0, 0, 0, 1, 1, 1, 2, 2, 1, 0)
"""Mean strength of the upward wind in each column, cells."""

_MAP = ("..........", "..........", "..........", "S......G..", "..........", "..........", "..........")
_MOVES = {4: FOUR_MOVES, 8: KINGS_MOVES, 9: (*KINGS_MOVES, STAY)}


class WindyGridworldEnv(GridEnv):
    """Windy gridworld (Sutton & Barto, 2nd ed., Example 6.5, Exercises 6.9 and 6.10).

    - **States**: the 70 cells of a 7x10 grid, ``10 * row + column``.
    - **Actions**: 0 up, 1 down, 2 left, 3 right; with ``n_moves=8`` also 4 up-left, 5 up-right, 6 down-left,
      7 down-right; with 9 also 8 stay.
    - **Dynamics**: the move, stopped by the border; then the wind of the column the agent came from shifts it
      up by `WIND` cells, stopped by the border. ``stochastic``: in windy columns the strength is one less, the
      mean, or one more, each with probability 1/3.
    - **Rewards**: -1 each step. The goal (3, 7) ends the episode; the start is (3, 0).
    - **Optimum** (undiscounted): -15 with 4 moves, -7 with 8.

    Args:
        n_moves: 4, 8 (king's moves) or 9 (and staying).
        stochastic: whether the wind varies (Exercise 6.10).
        render_mode: ``"ansi"``, ``"rgb_array"`` or None.

    Raises:
        EnvironmentRuleError: ``n_moves`` is none of 4, 8, 9.
    """

    def __init__(self, *, n_moves: int = 4, stochastic: bool = False, render_mode: str | None = None) -> None:
        if n_moves not in list(_MOVES):
            raise EnvironmentRuleError(f"`n_moves` must be 4, 8 or 9, got {n_moves!r}")
        grid = GridMap.parse(_MAP, letters="SG.")

        def dynamics(cell: Cell, move: Move) -> Iterator[CellOutcome]:
            mean = WIND[cell[1]]
            # Exercise 6.10: the wind varies only where there is any.
            strengths = (mean - 1, mean, mean + 1) if stochastic and mean else (mean,)
            for strength in strengths:
                target = blown(grid, _to_border(cell, move), strength=strength)
                yield 1.0 / len(strengths), target, -1.0, grid[target] == "G"

        def _to_border(cell: Cell, move: Move) -> Cell:
            # Along a border a diagonal move still moves sideways; without inner walls this is clipping.
            return (
                min(max(cell[0] + move[0], 0), grid.shape[0] - 1),
                min(max(cell[1] + move[1], 0), grid.shape[1] - 1),
            )

        super().__init__(grid, _MOVES[n_moves], dynamics=dynamics, render_mode=render_mode)

    def cell_kinds(self) -> list[list[str]]:
        """The kind of each cell, shape (rows, columns)."""
        return windy_kinds(super().cell_kinds(), WIND)

    def wind_arrows(self) -> dict[Cell, list[Move]]:
        """An upward arrow in each cell of a windy column."""
        return {(row, column): [(-1, 0)] for row, column in self.cells if WIND[column]}
