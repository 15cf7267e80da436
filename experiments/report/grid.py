"""`grid_of`: values and greedy actions laid out on the grid that an environment's states lie on.

Environments of policylab say where a state is drawn (`policylab.envs.drawing.GridLike`); for Gymnasium's
FrozenLake, CliffWalking and Taxi the layout is known here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from policylab.envs.drawing import GridLike
from policylab.envs.table import TabularMDP
from policylab.experiments.report.data import Grid

Cell = tuple[int, int]
_LEFT, _DOWN, _RIGHT, _UP = (0, -1), (1, 0), (0, 1), (-1, 0)


@dataclasses.dataclass(frozen=True, slots=True)
class _Layout:
    """Which cell shows which state, what the cells are, and where the actions point."""

    cells: Mapping[int, Cell]
    kinds: Sequence[Sequence[str]]
    moves: Sequence[tuple[int, int]]
    note: str = ""
    walls: Sequence[tuple[Cell, Cell]] = ()


def grid_of(
    env: gym.Env[Any, Any], mdp: TabularMDP, *, values: NDArray[np.float64], policy: NDArray[Any]
) -> Grid | None:
    """Return the grid picture of a policy, or None where the environment's states lie on no grid.

    Args:
        env: the environment, wrapped or not.
        mdp: its table.
        values: value of each state, shape (S,).
        policy: the action of each state, shape (S,), or the probability of each action (or a mask of the greedy
            ones), shape (S, A); then the most probable actions are shown, ties all of them.
    """
    layout = _layout(env.unwrapped, mdp.n_states)
    if layout is None:
        return None
    if policy.ndim == 1:
        policy = np.eye(mdp.n_actions)[policy]
    shape = (len(layout.kinds), len(layout.kinds[0]))
    shown = np.full(shape, np.nan)
    actions = np.zeros((*shape, policy.shape[1]), dtype=bool)
    deciding = deciding_states(mdp)
    for state, cell in layout.cells.items():
        if deciding[state]:
            shown[cell] = values[state]
            actions[cell] = policy[state] >= policy[state].max() - 1e-12
    return Grid(
        values=shown,
        actions=actions,
        moves=layout.moves,
        kinds=layout.kinds,
        note=layout.note,
        walls=layout.walls,
    )


def deciding_states(mdp: TabularMDP) -> NDArray[np.bool_]:
    """Return whether an agent can ever choose an action in each state, shape (S,).

    Those are the states that can be reached without the episode having ended: no walls, no goals.
    """
    reached = mdp.initial_distribution > 0
    goes_on = (mdp.probability > 0) & ~mdp.terminated
    frontier = reached
    while frontier.any():
        found = np.zeros_like(reached)
        found[mdp.next_state[frontier][goes_on[frontier]]] = True
        frontier = found & ~reached
        reached = reached | found
    return reached


def _layout(env: Any, n_states: int) -> _Layout | None:
    if isinstance(env, GridLike):
        cells = {state: cell for state in range(n_states) if (cell := env.cell_of(state)) is not None}
        return _Layout(cells, env.cell_kinds(), env.moves, env.map_note)
    known = {"FrozenLakeEnv": _frozen_lake, "CliffWalkingEnv": _cliff_walking, "TaxiEnv": _taxi}
    describe = known.get(type(env).__name__)
    return describe(env) if describe and type(env).__module__.startswith("gymnasium.") else None


def _frozen_lake(env: Any) -> _Layout:
    names = {b"S": "start", b"F": "free", b"H": "pit", b"G": "goal"}
    kinds = [[names[letter] for letter in row] for row in env.desc.tolist()]
    return _Layout(_row_by_row(kinds), kinds, (_LEFT, _DOWN, _RIGHT, _UP))


def _cliff_walking(env: Any) -> _Layout:
    rows, columns = env.shape
    kinds = [["free"] * columns for _ in range(rows)]
    for row, column in np.argwhere(env._cliff):
        kinds[row][column] = "pit"
    kinds[-1][0], kinds[-1][-1] = "start", "goal"
    return _Layout(_row_by_row(kinds), kinds, (_UP, _RIGHT, _DOWN, _LEFT))


def _taxi(env: Any) -> _Layout:
    kinds = [["free"] * 5 for _ in range(5)]
    row, column = env.locs[0]
    kinds[row][column] = "goal"
    cells = {int(env.encode(row, column, 4, 0)): (row, column) for row in range(5) for column in range(5)}
    walls = [
        ((row, column), (row, column + 1))
        for row in range(5)
        for column in range(4)
        if env.desc[1 + row, 2 * column + 2] != b":"
    ]
    moves = (_DOWN, _UP, _RIGHT, _LEFT, (0, 0), (0, 0))
    return _Layout(cells, kinds, moves, "the passenger is aboard and wants to the marked corner", walls)


def _row_by_row(kinds: Sequence[Sequence[str]]) -> dict[int, Cell]:
    columns = len(kinds[0])
    return {row * columns + column: (row, column) for row in range(len(kinds)) for column in range(columns)}
