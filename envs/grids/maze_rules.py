"""Baselines for CatMouse and PacMan: shortest paths, with and without fear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from policylab.envs.baselines import Rule
from policylab.envs.grids.cat_mouse import Positions
from policylab.envs.grids.cat_mouse_grid import CatMouseGridEnv
from policylab.envs.grids.grid_map import FOUR_MOVES, Cell, GridMap, Move
from policylab.envs.grids.pacman_rules import PacManRules, PacManState


def shortest_path(env: gym.Env[Any, Any]) -> Rule:
    """The mouse runs straight to the cheese."""
    game: Any = env.unwrapped
    distance = game.grid.distances([game.cheese])

    def action(observation: Any) -> int:
        mouse, _ = _animals(game, observation)
        return _nearest(game, mouse, distance=lambda cell: float(distance.get(cell, 1e9)))

    return Rule(action)


def out_of_reach(env: gym.Env[Any, Any]) -> Rule:
    """The mouse runs to the cheese by cells that the cat cannot reach with its next move, where there are any."""
    game: Any = env.unwrapped
    distance = game.grid.distances([game.cheese])
    from_cat = {cell: game.grid.distances([cell]) for cell in game.grid.free_cells}

    def action(observation: Any) -> int:
        mouse, cat = _animals(game, observation)

        def badness(cell: Cell) -> float:
            caught = bool(from_cat[cat].get(cell, 1e9) <= 1) and cell != game.cheese
            return float(distance.get(cell, 1e9)) + 1e6 * float(caught)

        return _nearest(game, mouse, distance=badness)

    return Rule(action)


def chase(env: gym.Env[Any, Any]) -> Rule:
    """The cat takes a shortest way to the mouse."""
    game: Any = env.unwrapped
    to = {cell: game.grid.distances([cell]) for cell in game.grid.free_cells}

    def action(observation: Any) -> int:
        mouse, cat = _animals(game, observation)
        return _nearest(game, cat, distance=lambda cell: float(to[mouse].get(cell, 1e9)))

    return Rule(action)


def _animals(game: Any, observation: Any) -> Positions:
    """Return where mouse and cat are, be they observed as a state or as planes."""
    state = game.state_of(observation) if isinstance(game, CatMouseGridEnv) else int(observation)
    positions: Positions = game.states[state]
    return positions


def _nearest(game: Any, at: Cell, *, distance: Callable[[Cell], float]) -> int:
    """Return the first action that leads to a cell of least ``distance``."""
    return _least(game.grid, at, moves=game.moves, badness=distance)


def nearest_pellet(env: gym.Env[Any, Any]) -> Rule:
    """Pac-Man runs to the nearest food, but never beside a ghost that is not frightened if he can help it."""
    game: Any = env.unwrapped
    rules: PacManRules = game.rules
    distance = {cell: rules.grid.distances([cell]) for cell in rules.grid.free_cells}
    states = getattr(game, "states", None)

    def action(observation: Any) -> int:
        state = states[observation] if states is not None else seen_state(rules, observation)
        feared = [cell for cell, left in zip(state.ghosts, state.frightened, strict=True) if left <= 1]
        food = rules.grid.distances(rules.food_left(state))

        def badness(cell: Cell) -> float:
            risk = sum(max(0, 2 - distance[ghost].get(cell, 9)) for ghost in feared)
            return float(food.get(cell, 0) + 1e6 * risk)

        return _least(rules.grid, state.pacman, moves=FOUR_MOVES, badness=badness)

    return Rule(action)


def _least(grid: GridMap, at: Cell, *, moves: tuple[Move, ...], badness: Callable[[Cell], float]) -> int:
    costs = [badness(grid.neighbour(at, move)) for move in moves]
    return int(np.argmin(costs))


def seen_state(rules: PacManRules, observation: Any) -> PacManState:
    """Return the state that the planes of `policylab.envs.grids.pacman.PacManEnv` show."""
    seen = np.asarray(observation)
    planes = seen[..., :-1].transpose(2, 0, 1) if seen.ndim == 3 else seen.reshape(-1, *rules.grid.shape)
    where = [tuple(int(part) for part in np.argwhere(plane)[0]) for plane in (planes[0], *planes[3:])]
    left = [max(0.0, -float(plane.min())) * rules.frightened_steps for plane in planes[3:]]
    eaten_not = planes[1] + planes[2]
    food = sum(1 << i for i, cell in enumerate(rules.food_cells) if eaten_not[cell])
    pacman, *ghosts = where
    return PacManState(pacman, tuple(ghosts), tuple(round(part) for part in left), food)  # type: ignore[arg-type]
