"""GridWorld: a world drawn as text, with walls, goals, pits, wind and slippery ground."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from policylab.envs.arguments import checked_number, checked_probability
from policylab.envs.grids.grid_env import CellOutcome, GridEnv
from policylab.envs.grids.grid_map import FOUR_MOVES, Cell, GridMap, Move
from policylab.errors import EnvironmentRuleError

RUSSELL_NORVIG_4X3: tuple[str, ...] = ("...G", ".#.P", "S...")
"""The 4x3 world of Russell & Norvig, *Artificial Intelligence: A Modern Approach*, 3rd ed., Figure 17.1."""


def blown(grid: GridMap, cell: Cell, *, strength: int) -> Cell:
    """Where a wind of ``strength`` carries from ``cell``: cell by cell up (down if negative), up to a wall."""
    for _ in range(abs(strength)):
        cell = grid.neighbour(cell, (-1, 0) if strength > 0 else (1, 0))
    return cell


class GridWorldEnv(GridEnv):
    """A gridworld from a text map. Default: the 4x3 world of Russell & Norvig (Figure 17.1).

    - **States**: the free cells, in reading order.
    - **Actions**: 0 up, 1 down, 2 left, 3 right.
    - **Dynamics**: with probability 1 - ``slip`` the move asked for, else one of the two moves at right angles
      to it, equally likely. A move into a wall or off the map stays. Then the wind of the column the agent
      *came from* carries it up cell by cell, until a wall stops it (Sutton & Barto, Example 6.5).
    - **Rewards**: ``step_reward`` for every step, plus ``goal_reward`` on entering a goal or ``pit_reward`` on
      entering a pit; both end the episode.
    - **Start**: uniformly one of the cells ``S``.

    Args:
        map: rows of equal length of the letters ``#`` wall, ``S`` start (at least one), ``G`` goal, ``P`` pit,
            ``.`` free.
        wind: cells the wind blows upwards in each column, negative for downwards; None for no wind.
        slip: probability of slipping, in [0, 1].
        step_reward: reward of each step.
        goal_reward: further reward of entering a goal.
        pit_reward: further reward of entering a pit.
        render_mode: ``"ansi"``, ``"rgb_array"`` or None.

    Raises:
        EnvironmentRuleError: an argument breaks a rule above.

    >>> env = GridWorldEnv(["S.G"], slip=0.0, step_reward=-1.0, goal_reward=10.0)
    >>> env.P[1][3]
    [(1.0, 2, 9.0, True)]
    """

    def __init__(
        self,
        map: Sequence[str] = RUSSELL_NORVIG_4X3,
        *,
        wind: Sequence[int] | None = None,
        slip: float = 0.2,
        step_reward: float = -0.04,
        goal_reward: float = 1.0,
        pit_reward: float = -1.0,
        render_mode: str | None = None,
    ) -> None:
        grid = GridMap.parse(map, letters="SGP.")
        if not grid.find("S"):
            raise EnvironmentRuleError("the map must have at least one start cell 'S', got none")
        strengths = _checked_wind(wind, grid.shape[1])
        slip = checked_probability("slip", slip)
        step_reward = checked_number("step_reward", step_reward)
        gain = {
            "G": step_reward + checked_number("goal_reward", goal_reward),
            "P": step_reward + checked_number("pit_reward", pit_reward),
        }

        def dynamics(cell: Cell, move: Move) -> Iterator[CellOutcome]:
            across, back = (move[1], move[0]), (-move[1], -move[0])
            for probability, actual in ((1.0 - slip, move), (slip / 2, across), (slip / 2, back)):
                target = blown(grid, grid.neighbour(cell, actual), strength=strengths[cell[1]])
                yield probability, target, gain.get(grid[target], step_reward), grid[target] in gain

        super().__init__(grid, FOUR_MOVES, dynamics=dynamics, render_mode=render_mode)
        self.wind = strengths

    def cell_kinds(self) -> list[list[str]]:
        """The kind of each cell, shape (rows, columns)."""
        return windy_kinds(super().cell_kinds(), self.wind)

    def wind_arrows(self) -> dict[Cell, list[Move]]:
        """The wind of each free cell."""
        return {
            (row, column): [(-1 if self.wind[column] > 0 else 1, 0)] for row, column in self.cells if self.wind[column]
        }


def windy_kinds(kinds: list[list[str]], wind: Sequence[int]) -> list[list[str]]:
    """Mark the free cells of ``kinds`` that lie in a windy column."""
    names = ["free" if not strength else "wind" if abs(strength) == 1 else "strong_wind" for strength in wind]
    return [[name if kind == "free" else kind for kind, name in zip(row, names, strict=True)] for row in kinds]


def _checked_wind(wind: Sequence[int] | None, n_columns: int) -> tuple[int, ...]:
    if wind is None:
        return (0,) * n_columns
    whole = isinstance(wind, Sequence) and all(type(strength) is int for strength in wind)
    if not whole or len(wind) != n_columns:
        raise EnvironmentRuleError(
            f"`wind` must hold one whole number per column, {n_columns} for this map, got {wind!r}"
        )
    return tuple(wind)
