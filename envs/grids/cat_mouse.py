"""Cat and mouse: a pursuit in a maze, playable from either side.

The game follows the pursuit domain (ideas: the QLearningMouse project); its rules are fixed here so that
every state can be solved exactly.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from policylab.envs.arguments import checked_probability
from policylab.envs.drawing import draw_grid
from policylab.envs.grids.grid_map import FOUR_MOVES, MOVE_NAMES, STAY, Cell, GridMap, Move
from policylab.envs.table import Outcome
from policylab.envs.table_env import TableEnv, merged
from policylab.errors import EnvironmentRuleError

REFERENCE_MAZE: tuple[str, ...] = ("C...K", ".#...", "...#.", ".#...", "M....")
"""5x5, walls (1,1), (2,3), (3,1), cheese (0,4), mouse (4,0), cat (0,0)."""

MOVES: tuple[Move, ...] = (STAY, *FOUR_MOVES)

CHEESE_REWARD = 50.0
CATCH_REWARD = 100.0
STEP_REWARD = -1.0


class Positions(NamedTuple):
    """Where the two animals are."""

    mouse: Cell
    cat: Cell


def _answer(grid: GridMap, at: Cell, *, epsilon: float, badness: Mapping[Cell, float]) -> list[tuple[float, Cell]]:
    """The (probability, next cell) pairs of an animal that is at ``at``.

    With probability 1 - epsilon it takes one of its options of least badness, else any of its five.
    """
    options = [grid.neighbour(at, move) for move in MOVES]
    least = min(badness[option] for option in options)
    best = [option for option in options if badness[option] == least]
    chances: dict[Cell, float] = {}
    for option in options:
        chances[option] = chances.get(option, 0.0) + epsilon / len(options)
    for option in best:
        chances[option] += (1.0 - epsilon) / len(best)
    return [(chance, cell) for cell, chance in chances.items() if chance > 0.0]


class _PursuitEnv(TableEnv):
    """What both sides share: maze, states, ends of the game, and pictures."""

    agent_name: str

    def __init__(self, map: Sequence[str], *, epsilon: float, render_mode: str | None) -> None:
        self.grid = GridMap.parse(map, letters="CMK.")
        self._start = Positions(self._only("M", "mouse"), self._only("C", "cat"))
        self.cheese = self._only("K", "cheese")
        self.epsilon = checked_probability("epsilon", epsilon)
        self.grid_shape = self.grid.shape
        self.moves = MOVES
        cells = self.grid.free_cells
        self.states = [Positions(mouse, cat) for mouse, cat in itertools.product(cells, cells)]
        self._index = {positions: state for state, positions in enumerate(self.states)}
        distribution = np.zeros(len(self.states))
        distribution[self._index[self._start]] = 1.0
        self._to_cheese = self._distances(self.cheese)
        self._to = {cell: self._distances(cell) for cell in cells}
        super().__init__(self._table(), distribution, render_mode=render_mode)

    def _only(self, letter: str, what: str) -> Cell:
        found = self.grid.find(letter)
        if len(found) != 1:
            raise EnvironmentRuleError(f"the map must hold exactly one {what} '{letter}', got {len(found)}")
        return found[0]

    def _distances(self, goal: Cell) -> dict[Cell, float]:
        known = self.grid.distances([goal])
        return {cell: float(known.get(cell, np.inf)) for cell in self.grid.free_cells}

    def _table(self) -> dict[int, dict[int, list[Outcome]]]:
        return {
            state: {action: self._outcomes(positions, move) for action, move in enumerate(self.moves)}
            for state, positions in enumerate(self.states)
        }

    def _outcomes(self, at: Positions, move: Move) -> list[Outcome]:
        if at.mouse in (at.cat, self.cheese):
            return [(1.0, self._index[at], 0.0, True)]
        return merged((p, self._index[after], reward, ended) for p, after, reward, ended in self._play(at, move))

    def _play(self, at: Positions, move: Move) -> Iterable[tuple[float, Positions, float, bool]]:
        raise NotImplementedError

    def cell_kinds(self) -> list[list[str]]:
        """The kind of each cell, shape (rows, columns)."""
        kinds = [["wall" if letter == "#" else "free" for letter in row] for row in self.grid.rows]
        kinds[self.cheese[0]][self.cheese[1]] = "goal"
        return kinds

    def render_ansi(self) -> str:
        """Return the maze as text (``M`` mouse, ``C`` cat, ``K`` cheese, ``X`` caught), below it the last move."""
        lines = [["#" if letter == "#" else "." for letter in row] for row in self.grid.rows]
        mouse, cat = self.states[self.s]
        lines[self.cheese[0]][self.cheese[1]] = "K"
        lines[mouse[0]][mouse[1]] = "M"
        lines[cat[0]][cat[1]] = "X" if mouse == cat else "C"
        move = "" if self.last_action is None else f"({self.agent_name} {MOVE_NAMES[self.moves[self.last_action]]})\n"
        return "\n".join("".join(line) for line in lines) + "\n" + move

    def render_rgb(self) -> NDArray[np.uint8]:
        """Return the maze with both animals as an image, shape (height, width, 3)."""
        mouse, cat = self.states[self.s]
        return draw_grid(self.cell_kinds(), figures=[("cheese", self.cheese), ("mouse", mouse), ("cat", cat)])


class CatMouseEnv(_PursuitEnv):
    """Cat and mouse; the agent is the **mouse**.

    - **States**: (mouse cell, cat cell), ``n * mouse + cat`` with both counted over the n free cells in reading
      order: 484 in the default maze. States in which the mouse is caught or at the cheese are terminal.
    - **Actions**: 0 stay, 1 up, 2 down, 3 left, 4 right; a blocked move stays.
    - **Dynamics and rewards**, in this order: the mouse moves; on the cheese +50, end; on the cat's cell -100,
      end. Then the cat moves: with probability 1 - ``epsilon`` uniformly among its options (stay included)
      nearest to the mouse by shortest path, with probability ``epsilon`` uniformly among all five; on the mouse
      -100, end. Otherwise -1.
    - **Start**: the cells ``M`` and ``C`` of the map.
    - **Optimum** in the default maze, no time limit: 28.4589815737 at discount 0.95, 39.5585858165 at 0.99.

    Implements `policylab.envs.drawing.GridLike` for the slice of states in which the cat is at its start.

    Args:
        map: rows of the letters ``#`` wall, ``M`` mouse, ``C`` cat, ``K`` cheese (one of each), ``.`` free.
        epsilon: probability that the cat moves at random, in [0, 1].
        render_mode: ``"ansi"``, ``"rgb_array"`` or None.

    Raises:
        EnvironmentRuleError: the map or the probability breaks a rule above.
    """

    agent_name = "mouse"
    map_note = "cat at its start"

    def __init__(
        self, map: Sequence[str] = REFERENCE_MAZE, *, epsilon: float = 0.2, render_mode: str | None = None
    ) -> None:
        super().__init__(map, epsilon=epsilon, render_mode=render_mode)

    def _play(self, at: Positions, move: Move) -> Iterable[tuple[float, Positions, float, bool]]:
        mouse = self.grid.neighbour(at.mouse, move)
        if mouse == self.cheese:
            return [(1.0, Positions(mouse, at.cat), CHEESE_REWARD, True)]
        if mouse == at.cat:
            return [(1.0, Positions(mouse, at.cat), -CATCH_REWARD, True)]
        return [
            (p, Positions(mouse, cat), -CATCH_REWARD if cat == mouse else STEP_REWARD, cat == mouse)
            for p, cat in _answer(self.grid, at.cat, epsilon=self.epsilon, badness=self._to[mouse])
        ]

    def cell_of(self, state: int) -> Cell | None:
        """The mouse's cell if the cat is at its start, else None."""
        positions = self.states[state]
        return positions.mouse if positions.cat == self._start.cat else None


class CatMouseCatEnv(_PursuitEnv):
    """Cat and mouse; the agent is the **cat**.

    - **States**: (mouse cell, cat cell), numbered as in `CatMouseEnv`.
    - **Actions**: 0 stay, 1 up, 2 down, 3 left, 4 right; a blocked move stays.
    - **Dynamics and rewards**, in this order: the cat moves; on the mouse's cell +100, end. Then the mouse moves;
      on the cheese -50, end; on the cat's cell +100, end. Otherwise -1.
    - **The mouse**: with probability 1 - ``epsilon`` uniformly among its best options (stay included), with
      probability ``epsilon`` uniformly among all five. Options that the cat could reach with its next move
      (shortest path <= 1) are worse than all others, save the cheese; among equals the nearest to the cheese
      is best, and of the reachable ones the farthest from the cat.
    - **Start**: the cells ``M`` and ``C`` of the map.

    Implements `policylab.envs.drawing.GridLike` for the slice of states in which the mouse is at its start.

    Args:
        map: as in `CatMouseEnv`.
        epsilon: probability that the mouse moves at random, in [0, 1].
        render_mode: ``"ansi"``, ``"rgb_array"`` or None.

    Raises:
        EnvironmentRuleError: the map or the probability breaks a rule above.
    """

    agent_name = "cat"
    map_note = "mouse at its start"

    def __init__(
        self, map: Sequence[str] = REFERENCE_MAZE, *, epsilon: float = 0.2, render_mode: str | None = None
    ) -> None:
        super().__init__(map, epsilon=epsilon, render_mode=render_mode)

    def _play(self, at: Positions, move: Move) -> Iterable[tuple[float, Positions, float, bool]]:
        cat = self.grid.neighbour(at.cat, move)
        if cat == at.mouse:
            return [(1.0, Positions(at.mouse, cat), CATCH_REWARD, True)]
        outcomes = []
        for p, mouse in _answer(self.grid, at.mouse, epsilon=self.epsilon, badness=self._fear(cat)):
            ended = mouse in (self.cheese, cat)
            reward = -CHEESE_REWARD if mouse == self.cheese else CATCH_REWARD if ended else STEP_REWARD
            outcomes.append((p, Positions(mouse, cat), reward, ended))
        return outcomes

    def _fear(self, cat: Cell) -> dict[Cell, float]:
        """How bad each cell is for the mouse when the cat is at ``cat``; the cheese is 0."""
        far = float(len(self.states))
        near = {cell: far + 1.0 - distance for cell, distance in self._to[cat].items() if distance <= 1.0}
        return {**self._to_cheese, **near, self.cheese: 0.0}

    def cell_of(self, state: int) -> Cell | None:
        """The cat's cell if the mouse is at its start, else None."""
        positions = self.states[state]
        return positions.cat if positions.mouse == self._start.mouse else None
