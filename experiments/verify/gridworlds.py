"""Gridworlds of textbooks, and cat and mouse, solved exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from policylab.envs.enumeration import table_of
from policylab.envs.grids.gridworld import GridWorldEnv
from policylab.envs.planners import evaluate_policy
from policylab.envs.table import Outcome, TabularMDP
from policylab.experiments.verify.exact import (
    BOOK,
    DYNAMIC_PROGRAMMING,
    best_soft_return,
    optimal_values,
    optimum,
    random_return,
    table,
    uniform,
)
from policylab.experiments.verify.rows import Check

CAT_MOUSE = "policylab/CatMouse-v0"
WINDY = "policylab/WindyGridworld-v0"
KINGS = "policylab/WindyGridworldKings-v0"
MAZE = "policylab/DynaMaze-v0"
RUSSELL_NORVIG = "Russell & Norvig 3rd ed., Figure 17.3"
GAME_MODEL = f"{DYNAMIC_PROGRAMMING} over an independent prototype of the game"

SPECIAL = {(0, 1): ((4, 1), 10.0), (0, 3): ((2, 3), 5.0)}
"""Cells A and B of Example 3.5: where every action leads, and what it pays."""
BORDER_REWARD = -1.0
SIZE = 5


def jumping_gridworld() -> TabularMDP:
    """Return the 5x5 gridworld with the special cells A and B (Sutton & Barto, Example 3.5), cells in reading order."""

    def outcome(cell: tuple[int, int], move: tuple[int, int]) -> Outcome:
        target, reward = SPECIAL.get(cell, ((cell[0] + move[0], cell[1] + move[1]), 0.0))
        if min(target) < 0 or max(target) >= SIZE:
            target, reward = cell, BORDER_REWARD
        return (1.0, SIZE * target[0] + target[1], reward, False)

    moves = ((-1, 0), (1, 0), (0, -1), (0, 1))
    cells = list(np.ndindex(SIZE, SIZE))
    table = {
        SIZE * row + column: {action: [outcome((row, column), move)] for action, move in enumerate(moves)}
        for row, column in cells
    }
    return TabularMDP.from_outcomes(table, np.full(len(cells), 1.0 / len(cells)), env_id="Example 3.5")


def _random_jumps() -> NDArray[np.float64]:
    mdp = jumping_gridworld()
    return evaluate_policy(mdp, uniform(mdp), discount=0.9)


def _random_corners(n_sweeps: int | None = None) -> NDArray[np.float64]:
    """Evaluate random moves in the 4x4 gridworld with two terminal corners, as far as ``n_sweeps`` sweeps."""
    env = GridWorldEnv(["GS..", "....", "....", "...G"], slip=0.0, step_reward=-1.0, goal_reward=0.0)
    mdp = table_of(env)
    return evaluate_policy(mdp, uniform(mdp), discount=1.0, horizon=n_sweeps)


def _russell_norvig() -> NDArray[np.float64]:
    return optimal_values(table("policylab/GridWorld-v0"))


def _maze_steps() -> float:
    """Return the shortest way through the maze: only its last step pays, so V = γ^(steps - 1)."""
    discount = 0.95
    return 1.0 + math.log(optimum(table(MAZE), discount=discount)) / math.log(discount)


def _jumps() -> Iterator[Check]:
    for cell, index, at_random, best in (
        ("A", 1, "8.8", "24.4"),
        ("B", 3, "5.3", "19.4"),
        ("corner", 0, "3.3", "22.0"),
    ):
        yield Check(
            name=f"Gridworld with jumps: value of random moves at {cell}",
            published=at_random,
            source=f"{BOOK}, Example 3.5, Figure 3.2, p. 60",
            measure=lambda index=index: float(_random_jumps()[index]),  # type: ignore[misc]
        )
        yield Check(
            name=f"Gridworld with jumps: optimal value at {cell}",
            published=best,
            source=f"{BOOK}, Example 3.8, Figure 3.5, p. 65",
            measure=lambda index=index: float(  # type: ignore[misc]
                optimal_values(jumping_gridworld(), discount=0.9)[index]
            ),
        )


def _corners() -> Iterator[Check]:
    source = f"{BOOK}, Example 4.1, Figure 4.1, p. 77"
    for state, published in ((1, "-14.0"), (2, "-20.0"), (3, "-22.0"), (5, "-18.0")):
        yield Check(
            name=f"Gridworld 4x4: value of random moves in state {state}",
            published=published,
            source=source,
            measure=lambda state=state: float(_random_corners()[state]),  # type: ignore[misc]
        )
    yield Check(
        name="Gridworld 4x4: value of random moves in state 3 after 10 sweeps",
        published="-9.0",
        source=source,
        measure=lambda: float(_random_corners(10)[3]),
    )


CHECKS: tuple[Check, ...] = (
    *_jumps(),
    *_corners(),
    Check(
        name="Russell & Norvig's 4x3 world: optimal value of the start",
        published="0.705",
        source=RUSSELL_NORVIG,
        measure=lambda: optimum(table("policylab/GridWorld-v0")),
    ),
    Check(
        name="Russell & Norvig's 4x3 world: optimal value left of the goal",
        published="0.918",
        source=RUSSELL_NORVIG,
        measure=lambda: float(_russell_norvig()[2]),
    ),
    Check(
        name="Windy gridworld: shortest path",
        published="15.0",
        source=f"{BOOK}, Example 6.5, p. 130",
        measure=lambda: -optimum(table(WINDY)),
    ),
    Check(
        name="Windy gridworld: shortest path with king's moves",
        published="7.0",
        source=f"{DYNAMIC_PROGRAMMING}; {BOOK}, Exercise 6.9, p. 130",
        measure=lambda: -optimum(table(KINGS)),
    ),
    Check(
        name="Windy gridworld: steps of the best ε-soft policy, ε 0.1",
        published="17.048",
        source=f"{DYNAMIC_PROGRAMMING}; {BOOK}, Example 6.5, p. 130: about 17 steps",
        measure=lambda: -best_soft_return(table(WINDY), 0.1),
    ),
    Check(
        name="Dyna maze: shortest path",
        published="14.0",
        source=f"{BOOK}, Example 8.1, p. 164",
        measure=_maze_steps,
    ),
    Check(
        name="CatMouse: optimal return, discount 0.95",
        published="28.4589815737",
        source=GAME_MODEL,
        measure=lambda: optimum(table(CAT_MOUSE), discount=0.95),
    ),
    Check(
        name="CatMouse: optimal return, discount 0.99",
        published="39.5585858165",
        source=GAME_MODEL,
        measure=lambda: optimum(table(CAT_MOUSE), discount=0.99),
    ),
    Check(
        name="CatMouse: return of random moves, discount 0.95",
        published="-84.3598938327",
        source=GAME_MODEL,
        measure=lambda: random_return(table(CAT_MOUSE), discount=0.95),
    ),
    Check(
        name="CatMouse: return of random moves, discount 0.99",
        published="-99.8695257289",
        source=GAME_MODEL,
        measure=lambda: random_return(table(CAT_MOUSE), discount=0.99),
    ),
)
"""Examples 3.5, 3.8, 4.1, 6.5 and 8.1 of Sutton & Barto, Russell & Norvig's 4x3 world, cat and mouse."""
