"""`GridEnv`: one agent on a `GridMap`, whose state is the agent's cell."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from policylab.envs.drawing import draw_grid
from policylab.envs.grids.grid_map import MOVE_NAMES, Cell, GridMap, Move
from policylab.envs.table import Outcome
from policylab.envs.table_env import TableEnv, merged

CellOutcome = tuple[float, Cell, float, bool]
"""(probability, next cell, reward, terminated)."""

Dynamics = Callable[[Cell, Move], Iterable[CellOutcome]]
"""What can follow when an action asks for a move in a cell that is not terminal."""

_KINDS: Mapping[str, str] = {"#": "wall", "S": "start", "G": "goal", "P": "pit"}
_FIGURES: Mapping[str, str] = {"G": "flag", "P": "pit"}


def grid_table(
    cells: Sequence[Cell], moves: Sequence[Move], *, dynamics: Dynamics, terminal: Collection[Cell]
) -> dict[int, dict[int, list[Outcome]]]:
    """Return ``P`` over ``cells`` (state i is ``cells[i]``) and ``moves`` (action a is ``moves[a]``).

    Terminal cells loop onto themselves with reward 0 and ``terminated``, as in Gymnasium's toy text.
    """
    index = {cell: state for state, cell in enumerate(cells)}

    def outcomes(cell: Cell, move: Move) -> list[Outcome]:
        if cell in terminal:
            return [(1.0, index[cell], 0.0, True)]
        return merged((p, index[target], reward, ended) for p, target, reward, ended in dynamics(cell, move))

    return {
        state: {action: outcomes(cell, move) for action, move in enumerate(moves)} for state, cell in enumerate(cells)
    }


class GridEnv(TableEnv):
    """State i is the i-th cell of ``cells``; episodes start uniformly in the cells marked ``S``.

    Implements `policylab.envs.drawing.GridLike`.

    Attributes:
        grid: the map.
        cells: the cell of each state.
        grid_shape: (rows, columns).
        moves: the (row change, column change) of each action.
    """

    map_note = ""

    def __init__(
        self,
        grid: GridMap,
        moves: Sequence[Move],
        *,
        dynamics: Dynamics,
        cells: Sequence[Cell] | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.grid = grid
        self.grid_shape = grid.shape
        self.moves = tuple(moves)
        self.cells = tuple(cells or grid.free_cells)
        terminal = {cell for cell in self.cells if grid[cell] in "GP"}
        starts = np.array([grid[cell] == "S" for cell in self.cells], dtype=float)
        P = grid_table(self.cells, self.moves, dynamics=dynamics, terminal=terminal)
        super().__init__(P, starts / starts.sum(), render_mode=render_mode)

    def cell_of(self, state: int) -> Cell | None:
        """The cell of ``state``."""
        return self.cells[state]

    def cell_kinds(self) -> list[list[str]]:
        """The kind of each cell, shape (rows, columns)."""
        return [[_KINDS.get(letter, "free") for letter in row] for row in self.grid.rows]

    def wind_arrows(self) -> dict[Cell, list[Move]]:
        """Arrows of the background, none here."""
        return {}

    def render_ansi(self) -> str:
        """Return the map as text, the agent as ``@``, below it the last move."""
        lines = [list(row) for row in self.grid.rows]
        row, column = self.cells[self.s]
        lines[row][column] = "@"
        move = "" if self.last_action is None else f"({MOVE_NAMES[self.moves[self.last_action]]})\n"
        return "\n".join("".join(line) for line in lines) + "\n" + move

    def render_rgb(self) -> NDArray[np.uint8]:
        """Return the map and the agent as an image, shape (height, width, 3)."""
        marks = [(_FIGURES[letter], cell) for letter in _FIGURES for cell in self.grid.find(letter)]
        return draw_grid(
            self.cell_kinds(),
            figures=[*marks, ("agent", self.cells[self.s])],
            arrows={cell: moves for cell, moves in self.wind_arrows().items() if self.grid[cell] not in _FIGURES},
            faint=True,
        )
