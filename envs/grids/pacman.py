"""Pac-Man on small text layouts: as an exact table, and as a game with a vector observation."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from policylab.envs.drawing import draw_grid
from policylab.envs.grids.grid_map import FOUR_MOVES, MOVE_NAMES, Cell
from policylab.envs.grids.pacman_rules import PacManRules, PacManState, chosen_layout
from policylab.envs.table import Outcome
from policylab.envs.table_env import TableEnv, merged, no_such_action
from policylab.errors import EnvironmentRuleError

MAX_TABLE_STATES = 20_000
"""A larger table would take many seconds to build; layouts that go beyond it mostly do so by far."""

_GHOSTS = ("ghost_red", "ghost_pink", "ghost_cyan", "ghost_orange")


class PacManTableEnv(TableEnv):
    """Pac-Man as a finite decision process with the exact table.

    - **States**: (Pac-Man's cell, each ghost's cell and frightened time, uneaten food) as reachable from the
      start, numbered in breadth-first order; `states` decodes them.
    - **Actions**: 0 up, 1 down, 2 left, 3 right.
    - **Dynamics**: Pac-Man moves (a wall stops him). If a ghost is there, it eats him and the game is lost, or,
      if it is frightened, it is eaten and returns home unafraid. He eats the pellet there; the last one wins
      the game; a power pellet frightens every ghost for ``frightened_steps`` of its moves. Then the ghosts move
      one after the other to a neighbouring cell: with probability ``chase`` uniformly among those nearest to
      Pac-Man by shortest path, else (scatter), and always when frightened, uniformly among all; on Pac-Man's
      cell one of the two is eaten as before.
    - **Rewards**: -1 each step, +10 a pellet of either kind, +200 a ghost eaten, +500 the win, -500 the loss.
    - **Start**: as drawn in the layout.

    Implements `policylab.envs.drawing.GridLike` for the slice of states with one pellet left and all ghosts at
    home, unafraid.

    Args:
        layout: name of a layout (`policylab.envs.grids.pacman_rules.LAYOUTS`).
        map: rows of a layout of one's own, instead.
        chase: probability that a ghost chases, for all ghosts or a list with one for each.
        frightened_steps: how long a power pellet works, ghost moves.
        render_mode: ``"ansi"``, ``"rgb_array"`` or None.

    Raises:
        EnvironmentRuleError: a malformed layout or argument, or more than `MAX_TABLE_STATES` states.
    """

    map_note = "one pellet left, ghosts at home"

    def __init__(
        self,
        layout: str = "tiny",
        *,
        map: Sequence[str] | None = None,
        chase: float | Sequence[float] = 0.7,
        frightened_steps: int = 3,
        render_mode: str | None = None,
    ) -> None:
        self.rules = PacManRules(chosen_layout(layout, map), chase=chase, frightened_steps=frightened_steps)
        self.grid_shape = self.rules.grid.shape
        self.moves = FOUR_MOVES
        self.states, P = _enumerated(self.rules)
        distribution = np.zeros(len(self.states))
        distribution[0] = 1.0
        super().__init__(P, distribution, render_mode=render_mode)
        last = self.rules.food_cells[0]
        self._slice = (self.rules.homes, self.rules.start.frightened, [last])

    def cell_of(self, state: int) -> Cell | None:
        """Pac-Man's cell if ``state`` lies in the slice, else None."""
        now = self.states[state]
        return now.pacman if (now.ghosts, now.frightened, self.rules.food_left(now)) == self._slice else None

    def cell_kinds(self) -> list[list[str]]:
        """The kind of each cell, shape (rows, columns)."""
        return _board(self.rules)

    def render_ansi(self) -> str:
        """Return the game as text, see `game_text`."""
        return game_text(self.rules, self.states[self.s], last_action=self.last_action)

    def render_rgb(self) -> NDArray[np.uint8]:
        """Return the game as an image, shape (height, width, 3)."""
        return game_picture(self.rules, self.states[self.s], last_action=self.last_action)


def _enumerated(rules: PacManRules) -> tuple[list[PacManState], dict[int, dict[int, list[Outcome]]]]:
    """Return the reachable states and the table, breadth first from the start."""
    index = {rules.start: 0}
    # A frightened ghost eaten at home leaves a state that elsewhere is a loss, so that termination belongs to
    # the transition: a state is played on if it can be reached without ending the game.
    live, queue = {rules.start}, deque([rules.start])
    P: dict[int, dict[int, list[Outcome]]] = {}
    while queue:
        state = queue.popleft()
        row = P[index[state]] = {}
        for action, move in enumerate(FOUR_MOVES):
            branches = rules.outcomes(state, move)
            for _, after, _, ended in branches:
                index.setdefault(after, len(index))
                if not ended and after not in live:
                    live.add(after)
                    queue.append(after)
            row[action] = merged((chance, index[after], reward, ended) for chance, after, reward, ended in branches)
        if len(index) > MAX_TABLE_STATES:
            raise EnvironmentRuleError(
                f"a Pac-Man table may have at most {MAX_TABLE_STATES} states and this layout has more; "
                "use a smaller layout, or policylab/PacMan-v0, which needs no table"
            )
    actions = range(len(FOUR_MOVES))
    ends = {state: {action: [(1.0, state, 0.0, True)] for action in actions} for state in set(index.values()) - set(P)}
    return list(index), dict(sorted({**P, **ends}.items()))


class PacManEnv(gym.Env[NDArray[np.float32], int]):
    """Pac-Man of any size; rules, actions and rewards are those of `PacManTableEnv`.

    **Observation**: float32 in [-1, 1], shape ((3 + n_ghosts) * rows * columns,), to be read as
    ``observation.reshape(3 + n_ghosts, rows, columns)``: Pac-Man's cell, pellets, power pellets, and a plane per
    ghost that holds 1 at its cell, or -(share of the frightened time left) while it is frightened. The planes
    hold the whole state, so the observation is Markov; walls never change and are left out. With ``image`` the
    shape is (rows, columns, 4 + n_ghosts), as convolutions take it: the planes last, and walls as a further one.

    Args:
        layout: name of a layout (`policylab.envs.grids.pacman_rules.LAYOUTS`).
        image: observe the planes as an image instead of a vector.
        map: rows of a layout of one's own, instead.
        chase: probability that a ghost chases, for all ghosts or a list with one for each.
        frightened_steps: how long a power pellet works, ghost moves.
        render_mode: ``"ansi"``, ``"rgb_array"`` or None.

    Attributes:
        state: the state of the game; assign it to put the environment into a state.

    Raises:
        EnvironmentRuleError: a malformed layout or argument.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 6}  # type: ignore[misc]

    def __init__(
        self,
        layout: str = "small",
        *,
        image: bool = False,
        map: Sequence[str] | None = None,
        chase: float | Sequence[float] = 0.7,
        frightened_steps: int = 20,
        render_mode: str | None = None,
    ) -> None:
        self.rules = PacManRules(chosen_layout(layout, map), chase=chase, frightened_steps=frightened_steps)
        rows, columns = self.rules.grid.shape
        self._planes = (3 + len(self.rules.homes), rows, columns)
        self._walls = np.array([[letter == "#" for letter in row] for row in self.rules.grid.rows], dtype=np.float32)
        self._image = image
        shape = (rows, columns, self._planes[0] + 1) if image else (int(np.prod(self._planes)),)
        self.observation_space = gym.spaces.Box(-1.0, 1.0, shape, np.float32)
        self.action_space = gym.spaces.Discrete(len(FOUR_MOVES))
        self.render_mode = render_mode
        self.state = self.rules.start
        self.last_action: int | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start a game."""
        super().reset(seed=seed)
        self.state, self.last_action = self.rules.start, None
        return self._observation(), self._info()

    def step(self, action: int) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Move Pac-Man, then the ghosts; one uniform number is drawn per ghost that moves.

        Raises:
            EnvironmentRuleError: the environment has no such action.
        """
        if action not in range(len(FOUR_MOVES)):
            raise no_such_action(action, n_actions=len(FOUR_MOVES))
        self.last_action = int(action)
        self.state, reward, terminated = self.rules.move_pacman(self.state, FOUR_MOVES[self.last_action])
        for ghost in range(len(self.rules.homes)):
            if terminated:
                break
            options = self.rules.ghost_options(self.state, ghost)
            reached = np.cumsum([chance for chance, _ in options]) > self.np_random.random()
            self.state, gain, terminated = self.rules.move_ghost(
                self.state, ghost, to=options[int(np.argmax(reached))][1]
            )
            reward += gain
        return self._observation(), reward, terminated, False, self._info()

    def _observation(self) -> NDArray[np.float32]:
        planes = np.zeros(self._planes, dtype=np.float32)
        planes[0][self.state.pacman] = 1.0
        for cell in self.rules.food_left(self.state):
            planes[2 if cell in self.rules.power_cells else 1][cell] = 1.0
        for plane, cell, left in zip(planes[3:], self.state.ghosts, self.state.frightened, strict=True):
            plane[cell] = -left / self.rules.frightened_steps if left else 1.0
        if self._image:
            return np.concatenate([planes, self._walls[None]]).transpose(1, 2, 0).copy()
        return planes.reshape(-1)

    def _info(self) -> dict[str, Any]:
        return {"food_left": self.state.food.bit_count(), "won": self.rules.is_over(self.state)}

    def render(self) -> Any:
        """Return the game as text (``ansi``) or as an image (``rgb_array``)."""
        if self.render_mode == "ansi":
            return game_text(self.rules, self.state, last_action=self.last_action)
        if self.render_mode == "rgb_array":
            return game_picture(self.rules, self.state, last_action=self.last_action)
        return None


def _board(rules: PacManRules) -> list[list[str]]:
    return [["maze" if letter == "#" else "corridor" for letter in row] for row in rules.grid.rows]


def _walls(rules: PacManRules) -> list[tuple[str, Cell]]:
    """The walls as figures, joined where they touch: all rims first, so that bodies cover the joints."""
    board = _board(rules)
    walls = {(r, c) for r, row in enumerate(board) for c, kind in enumerate(row) if kind == "maze"}
    joints = {"": (0, 0), "_right": (0, 1), "_down": (1, 0), "_corner": (1, 1)}
    return [
        (f"wall_{part}{name}", (row, column))
        for part in ("rim", "body")
        for row, column in sorted(walls)
        for name, (down, right) in joints.items()
        if all((row + r, column + c) in walls for r in {0, down} for c in {0, right})
    ]


def game_text(rules: PacManRules, state: PacManState, *, last_action: int | None) -> str:
    """Return the game as text: ``P`` Pac-Man, ``G`` ghost, ``g`` frightened ghost, ``X`` eaten, the last move."""
    lines = [["#" if letter == "#" else " " for letter in row] for row in rules.grid.rows]
    for row, column in rules.food_left(state):
        lines[row][column] = "o" if (row, column) in rules.power_cells else "."
    lines[state.pacman[0]][state.pacman[1]] = "P"
    for (row, column), left in zip(state.ghosts, state.frightened, strict=True):
        lines[row][column] = "X" if (row, column) == state.pacman else "g" if left else "G"
    move = "" if last_action is None else f"({MOVE_NAMES[FOUR_MOVES[last_action]]})\n"
    return "\n".join("".join(line) for line in lines) + "\n" + move


def game_picture(rules: PacManRules, state: PacManState, *, last_action: int | None) -> NDArray[np.uint8]:
    """Return the game as an image, shape (height, width, 3)."""
    food = [("power_pellet" if cell in rules.power_cells else "pellet", cell) for cell in rules.food_left(state)]
    facing = "right" if last_action is None else MOVE_NAMES[FOUR_MOVES[last_action]]
    ghosts = [
        ("ghost_frightened" if left else _GHOSTS[index % len(_GHOSTS)], cell)
        for index, (cell, left) in enumerate(zip(state.ghosts, state.frightened, strict=True))
    ]
    floor = [["corridor"] * rules.grid.shape[1]] * rules.grid.shape[0]
    return draw_grid(floor, figures=[*_walls(rules), *food, (f"pacman_{facing}", state.pacman), *ghosts])
