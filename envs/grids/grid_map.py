"""`GridMap`: a rectangular map given as text, and the walking rules all grid environments share.

Cells are ``(row, column)`` from the top left. ``#`` is a wall; what lies outside the map is wall too. The
moves come in one order everywhere: up, down, left, right, then the diagonals, then staying.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from policylab.errors import EnvironmentRuleError

Cell = tuple[int, int]
"""(row, column), both from 0, from the top left."""

Move = tuple[int, int]
"""(row change, column change) that an action asks for."""

WALL = "#"
STAY: Move = (0, 0)
FOUR_MOVES: tuple[Move, ...] = ((-1, 0), (1, 0), (0, -1), (0, 1))
KINGS_MOVES: tuple[Move, ...] = (*FOUR_MOVES, (-1, -1), (-1, 1), (1, -1), (1, 1))
MOVE_NAMES: Mapping[Move, str] = {
    (-1, 0): "up",
    (1, 0): "down",
    (0, -1): "left",
    (0, 1): "right",
    (-1, -1): "up-left",
    (-1, 1): "up-right",
    (1, -1): "down-left",
    (1, 1): "down-right",
    STAY: "stay",
}


@dataclasses.dataclass(frozen=True, slots=True)
class GridMap:
    """A checked text map.

    Attributes:
        rows: the lines, all of one length >= 1.

    >>> maze = GridMap.parse(["S.#", "..G"], letters="SG.")
    >>> maze.shape, maze.find("S"), maze.free_cells
    ((2, 3), [(0, 0)], [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)])
    >>> maze.neighbour((0, 1), (0, 1)), maze.neighbour((0, 1), (1, 0))
    ((0, 1), (1, 1))
    """

    rows: tuple[str, ...]

    @classmethod
    def parse(cls, rows: Sequence[str], *, letters: str) -> GridMap:
        """Return the map in ``rows``, whose letters must be ``#`` or among ``letters``.

        Raises:
            EnvironmentRuleError: no rows, rows of unequal length, or an unknown letter.
        """
        if isinstance(rows, str) or not isinstance(rows, Sequence) or not all(isinstance(row, str) for row in rows):
            raise EnvironmentRuleError(f"a map must be a list of strings, one per row, got {rows!r}")
        if not rows or not rows[0]:
            raise EnvironmentRuleError(f"a map must have at least one row and one column, got {list(rows)!r}")
        for index, row in enumerate(rows):
            if len(row) != len(rows[0]):
                raise EnvironmentRuleError(
                    f"all rows of a map must have one length, got {len(row)} in row {index} and {len(rows[0])} in "
                    f"row 0; pad the shorter with '{WALL}'"
                )
            for column, letter in enumerate(row):
                if letter != WALL and letter not in letters:
                    known = " ".join(repr(known) for known in WALL + letters)
                    raise EnvironmentRuleError(
                        f"unknown letter {letter!r} in row {index}, column {column} of the map; use {known}"
                    )
        return cls(tuple(rows))

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return len(self.rows), len(self.rows[0])

    @property
    def free_cells(self) -> list[Cell]:
        """The cells that are no wall, in reading order."""
        return [(r, c) for r, row in enumerate(self.rows) for c, letter in enumerate(row) if letter != WALL]

    def __getitem__(self, cell: Cell) -> str:
        return self.rows[cell[0]][cell[1]]

    def find(self, letter: str) -> list[Cell]:
        """The cells that carry ``letter``, in reading order."""
        return [cell for cell in self.free_cells if self[cell] == letter]

    def is_free(self, cell: Cell) -> bool:
        """Whether ``cell`` is on the map and no wall."""
        return 0 <= cell[0] < self.shape[0] and 0 <= cell[1] < self.shape[1] and self[cell] != WALL

    def neighbour(self, cell: Cell, move: Move) -> Cell:
        """Where ``move`` leads from ``cell``: a move into a wall stays."""
        target = cell[0] + move[0], cell[1] + move[1]
        return target if self.is_free(target) else cell

    def distances(self, goals: Iterable[Cell]) -> dict[Cell, int]:
        """Fewest moves (up, down, left, right) from each cell to the nearest of ``goals``.

        Cells that cannot reach a goal are absent.
        """
        found = dict.fromkeys(goals, 0)
        queue = deque(found)
        while queue:
            cell = queue.popleft()
            for move in FOUR_MOVES:
                neighbour = self.neighbour(cell, move)
                if neighbour not in found:
                    found[neighbour] = found[cell] + 1
                    queue.append(neighbour)
        return found
