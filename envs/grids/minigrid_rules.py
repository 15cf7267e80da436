"""Baseline for minigrid: the shortest sequence of actions to the goal, keys and doors included."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from policylab.envs.baselines import Rule
from policylab.envs.grids.minigrid_view import CARRIED, CELL, COLOURS, KINDS, N_DIRECTIONS

LEFT, RIGHT, FORWARD, PICK_UP, TOGGLE, DONE = 0, 1, 2, 3, 5, 6
"""Numbered as in minigrid's Actions."""
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""(dx, dy) of each direction, as in minigrid."""
OPEN, LOCKED = 0, 2

Cell = tuple[int, int]


class World(NamedTuple):
    """Where the agent is and how it looks, what it carries, and what stands where; cells are (x, y)."""

    at: Cell
    direction: int
    carried: str | None
    things: tuple[tuple[Cell, str, str, int], ...]


def shortest_way(env: gym.Env[Any, Any]) -> Rule:
    """Take the first action of a shortest way to the goal, found breadth-first; nothing is ever dropped.

    It knows the rules of turning, walking, picking up keys and opening doors, which solve Empty, FourRooms and DoorKey.
    """
    shape = env.unwrapped.shape  # type: ignore[attr-defined]
    return Rule(lambda observation: _first_action(_world(np.asarray(observation), shape)))


def _world(observation: NDArray[np.float32], shape: tuple[int, int]) -> World:
    cells, carried = observation[:-CARRIED].reshape(*shape, CELL), observation[-CARRIED:]
    looks = cells[..., -N_DIRECTIONS:]
    y, x, direction = (int(part) for part in np.argwhere(looks)[0])
    things = sorted(
        ((column, row), KINDS[1 + kind], _colour(cells[row, column]), int(cells[row, column, CARRIED:].argmax()))
        for row, column, kind in np.argwhere(cells[..., 1 : len(KINDS)]).tolist()
    )
    return World((x, y), direction, _colour(carried) if carried.any() else None, tuple(things))


def _colour(cell: NDArray[np.float32]) -> str:
    return COLOURS[int(cell[len(KINDS) : CARRIED].argmax())]


def _first_action(start: World) -> int:
    goals = {cell for cell, kind, *_ in start.things if kind == "goal"}
    seen, waiting = {start}, deque((action, after) for action, after in _moves(start))
    while waiting:
        first, world = waiting.popleft()
        if world.at in goals:
            return first
        if world not in seen:
            seen.add(world)
            waiting.extend((first, after) for _, after in _moves(world))
    return DONE  # there is no way


def _moves(world: World) -> Iterator[tuple[int, World]]:
    """Yield each action that changes something, and what it leads to."""
    (x, y), (dx, dy) = world.at, STEPS[world.direction]
    ahead = (x + dx, y + dy)
    yield LEFT, world._replace(direction=(world.direction - 1) % len(STEPS))
    yield RIGHT, world._replace(direction=(world.direction + 1) % len(STEPS))
    thing = next((one for one in world.things if one[0] == ahead), None)
    if thing is None:
        yield FORWARD, world._replace(at=ahead)
        return
    _, kind, colour, state = thing
    others = tuple(one for one in world.things if one is not thing)
    if kind == "goal" or (kind == "door" and state == OPEN):
        yield FORWARD, world._replace(at=ahead)
    elif kind == "door" and (state != LOCKED or world.carried == colour):
        yield TOGGLE, world._replace(things=tuple(sorted((*others, (ahead, kind, colour, OPEN)))))
    elif kind == "key" and world.carried is None:
        yield PICK_UP, world._replace(carried=colour, things=others)
