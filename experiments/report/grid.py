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


def grid_of(
    env: gym.Env[Any, Any], mdp: TabularMDP, *, values: NDArray[np.float64], policy: NDArray[Any]
) -> Grid | None:
    """Return the grid picture of a policy, or None where the environment's states lie on no grid.

    Args:
        env: the environment, wrapped or not.
        mdp: its table.
        values: value of each state, shape (S,).
        policy: probability of each action, or a mask of the greedy ones, shape (S, A). The most probable
            actions are shown; ties are all shown.
    """
    layout = _layout(env.unwrapped)
    if layout is None:
        return None
    shape = (len(layout.kinds), len(layout.kinds[0]))
    shown = np.full(shape, np.nan)
    actions = np.zeros((*shape, policy.shape[1]), dtype=bool)
    deciding = deciding_states(mdp)
    for state, cell in layout.cells.items():
        if deciding[state]:
            shown[cell] = values[state]
            actions[cell] = policy[state] >= policy[state].max() - 1e-12
    return Grid(values=shown, actions=actions, moves=layout.moves, kinds=layout.kinds, note=layout.note)


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


def _layout(env: Any) -> _Layout | None:
    if isinstance(env, GridLike):
        n_states = int(getattr(env.observation_space, "n"))  # noqa: B009 - GridLike does not promise a space
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
    note = "with the passenger aboard and bound for the marked corner; walls between cells are not drawn"
    return _Layout(cells, kinds, (_DOWN, _UP, _RIGHT, _LEFT, (0, 0), (0, 0)), note)


def _row_by_row(kinds: Sequence[Sequence[str]]) -> dict[int, Cell]:
    columns = len(kinds[0])
    return {row * columns + column: (row, column) for row in range(len(kinds)) for column in range(columns)}
