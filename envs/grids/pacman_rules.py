"""The rules of Pac-Man on a small text layout, one move at a time.

The same rules serve the exact table (every outcome) and the sampled game (one outcome), so the two cannot
differ. Scores are those of the UC Berkeley Pac-Man project (DeNero & Klein, *Teaching introductory AI with
Pac-Man*, EAAI 2010).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from policylab.envs.arguments import checked_count, checked_name, checked_probability
from policylab.envs.grids.grid_map import FOUR_MOVES, Cell, GridMap, Move
from policylab.errors import EnvironmentRuleError

STEP_REWARD = -1.0
PELLET_REWARD = 10.0
GHOST_REWARD = 200.0
WIN_REWARD = 500.0
LOSS_REWARD = -500.0

LAYOUTS: Mapping[str, tuple[str, ...]] = {
    "tiny": (
        "P.  o",
        " #.# ",
        ".  .G",
    ),
    "small": (
        "....o....",
        ".##.#.##.",
        ".#..G..#.",
        "...#G#...",
        ".#.....#.",
        ".##.#.##.",
        "....P...o",
    ),
    "medium": (
        "o.....#.....o",
        ".##.#...#.##.",
        ".#..#.#.#..#.",
        "...#.....#...",
        ".#.#.#G#.#.#.",
        ".#...GGG...#.",
        ".#.#.###.#.#.",
        "...#.....#...",
        ".#..#.#.#..#.",
        ".##.#...#.##.",
        "o.....P.....o",
    ),
    "large": (
        "o......#......o",
        ".##.##.#.##.##.",
        ".#...........#.",
        ".#.##.###.##.#.",
        "...............",
        "##.#.##.##.#.##",
        "##.#.# G #.#.##",
        "##..  GGG  ..##",
        "##.#.#####.#.##",
        "##.#.......#.##",
        ".....##.##.....",
        ".###.......###.",
        ".#...#.P.#...#.",
        "o..#.......#..o",
    ),
}
"""Name -> layout: ``#`` wall, ``P`` Pac-Man, ``G`` a ghost's home, ``.`` pellet, ``o`` power pellet, blank."""


class PacManState(NamedTuple):
    """Everything that changes during a game.

    Attributes:
        pacman: Pac-Man's cell.
        ghosts: the cell of each ghost.
        frightened: for how many more of its moves each ghost is frightened.
        food: bit i is set while the i-th of `PacManRules.food_cells` is uneaten.
    """

    pacman: Cell
    ghosts: tuple[Cell, ...]
    frightened: tuple[int, ...]
    food: int


T = TypeVar("T")

Transition = tuple[PacManState, float, bool]
"""(state, reward, terminated)."""


def chosen_layout(layout: str, map: Sequence[str] | None) -> Sequence[str]:
    """Return ``map`` if given, else the layout of that name.

    Raises:
        EnvironmentRuleError: no such layout.
    """
    if map is not None:
        return map
    return LAYOUTS[checked_name("layout", layout, known=LAYOUTS)]


class PacManRules:
    """The game on one layout.

    Args:
        rows: the layout, letters as in `LAYOUTS`; one ``P``, at least one ``G`` and one pellet.
        chase: probability that a ghost chases rather than scatters, for all ghosts or for each.
        frightened_steps: for how many of its moves a power pellet frightens a ghost, >= 0.

    Raises:
        EnvironmentRuleError: an argument breaks a rule above, or some food is out of reach.
    """

    def __init__(self, rows: Sequence[str], *, chase: float | Sequence[float], frightened_steps: int) -> None:
        self.grid = GridMap.parse(rows, letters="PGo. ")
        homes = tuple(self.grid.find("G"))
        self.power_cells = frozenset(self.grid.find("o"))
        self.food_cells = tuple(sorted((*self.grid.find("."), *self.power_cells)))
        self._bit = {cell: 1 << i for i, cell in enumerate(self.food_cells)}
        self.homes = homes
        self.chase = _checked_chase(chase, len(homes))
        self.frightened_steps = checked_count("frightened_steps", frightened_steps)
        self._check_pieces()
        cells = self.grid.free_cells
        self._distance = {cell: self.grid.distances([cell]) for cell in cells}
        self._exits = {cell: [to for m in FOUR_MOVES if (to := self.grid.neighbour(cell, m)) != cell] for cell in cells}
        all_food = (1 << len(self.food_cells)) - 1
        self.start = PacManState(self.grid.find("P")[0], homes, (0,) * len(homes), all_food)

    def _check_pieces(self) -> None:
        if len(self.grid.find("P")) != 1:
            raise EnvironmentRuleError(f"the map must hold exactly one Pac-Man 'P', got {len(self.grid.find('P'))}")
        if not self.homes:
            raise EnvironmentRuleError("the map must hold at least one ghost 'G', got none")
        if not self.food_cells:
            raise EnvironmentRuleError("the map must hold at least one pellet '.' or 'o', got none")
        reach = self.grid.distances(self.grid.find("P"))
        if lost := [cell for cell in self.food_cells if cell not in reach]:
            raise EnvironmentRuleError(f"Pac-Man must be able to reach all food; the way to {lost[0]} is walled off")

    def food_left(self, state: PacManState) -> list[Cell]:
        """The cells with food, in reading order."""
        return [cell for cell in self.food_cells if state.food & self._bit[cell]]

    def is_over(self, state: PacManState) -> bool:
        """Whether all food is eaten."""
        return state.food == 0

    def move_pacman(self, state: PacManState, move: Move) -> Transition:
        """Pac-Man's half of a step."""
        cell = self.grid.neighbour(state.pacman, move)
        after, reward, lost = state._replace(pacman=cell), STEP_REWARD, False
        for ghost, ghost_cell in enumerate(state.ghosts):
            if ghost_cell == cell and not lost:
                after, gain, lost = self._meet(after, ghost)
                reward += gain
        bit = self._bit.get(cell, 0) & state.food
        if lost or not bit:
            return after, reward, lost
        after, reward = after._replace(food=after.food & ~bit), reward + PELLET_REWARD
        if cell in self.power_cells:
            after = after._replace(frightened=(self.frightened_steps,) * len(self.homes))
        return (after, reward + WIN_REWARD, True) if self.is_over(after) else (after, reward, False)

    def ghost_options(self, state: PacManState, ghost: int) -> list[tuple[float, Cell]]:
        """The (probability, cell) pairs of one ghost's move."""
        at = state.ghosts[ghost]
        exits = self._exits[at] or [at]
        chase = 0.0 if state.frightened[ghost] else self.chase[ghost]
        to_pacman = self._distance[state.pacman]
        gap = [to_pacman.get(cell, len(self._exits)) for cell in exits]
        nearest = [distance == min(gap) for distance in gap]
        chances = [(1.0 - chase) / len(exits) + chase * near / sum(nearest) for near in nearest]
        return [(chance, cell) for chance, cell in zip(chances, exits, strict=True) if chance > 0.0]

    def move_ghost(self, state: PacManState, ghost: int, *, to: Cell) -> Transition:
        """One ghost's part of a step."""
        after = state._replace(ghosts=_put(state.ghosts, ghost, value=to))
        if to == state.pacman:
            after, reward, lost = self._meet(after, ghost)
            if lost:
                return after, reward, True
        else:
            reward = 0.0
        left = max(0, after.frightened[ghost] - 1)
        return after._replace(frightened=_put(after.frightened, ghost, value=left)), reward, False

    def outcomes(self, state: PacManState, move: Move) -> list[tuple[float, PacManState, float, bool]]:
        """All (probability, state, reward, terminated) of a whole step."""
        branches: list[tuple[float, PacManState, float, bool]] = [(1.0, *self.move_pacman(state, move))]
        for ghost in range(len(self.homes)):
            grown: list[tuple[float, PacManState, float, bool]] = []
            for chance, now, reward, ended in branches:
                if ended:
                    grown.append((chance, now, reward, ended))
                    continue
                for share, cell in self.ghost_options(now, ghost):
                    after, gain, lost = self.move_ghost(now, ghost, to=cell)
                    grown.append((chance * share, after, reward + gain, lost))
            branches = grown
        return branches

    def _meet(self, state: PacManState, ghost: int) -> Transition:
        """Pac-Man and a ghost share a cell: one of them is eaten."""
        if not state.frightened[ghost]:
            return state, LOSS_REWARD, True
        ghosts = _put(state.ghosts, ghost, value=self.homes[ghost])
        frightened = _put(state.frightened, ghost, value=0)
        return state._replace(ghosts=ghosts, frightened=frightened), GHOST_REWARD, False


def _put(values: tuple[T, ...], index: int, *, value: T) -> tuple[T, ...]:
    return (*values[:index], value, *values[index + 1 :])


def _checked_chase(chase: float | Sequence[float], n_ghosts: int) -> tuple[float, ...]:
    if isinstance(chase, Sequence) and not isinstance(chase, str):
        if len(chase) != n_ghosts:
            raise EnvironmentRuleError(
                f"`chase` must hold one probability per ghost, {n_ghosts} here, got {len(chase)}"
            )
        return tuple(checked_probability("chase", value) for value in chase)
    return (checked_probability("chase", chase),) * n_ghosts
