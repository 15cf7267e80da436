"""Problems of Sutton & Barto without a map, solved exactly: gambler, car rental, random walk, corridor."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from policylab.envs.enumeration import table_of
from policylab.envs.planners import epsilon_soft, evaluate_policy, start_value
from policylab.envs.planning_evaluation import evaluate_model
from policylab.envs.planning_model import ExpectedModel
from policylab.envs.textbook.jacks_car_rental import JacksCarRentalEnv
from policylab.envs.textbook.short_corridor import RIGHT, ShortCorridorEnv
from policylab.experiments.verify.exact import BOOK, DYNAMIC_PROGRAMMING, optimal_values, table, uniform
from policylab.experiments.verify.rows import Check

GAIN = 1e-9
"""Dollars by which an action must be better to replace another: rounding gains nothing."""


class CarRental(NamedTuple):
    """Policy iteration on Jack's car rental from "never move": values (S,), cars moved (S,), improvements made."""

    values: NDArray[np.float64]
    moved: NDArray[np.int64]
    improvements: int


@functools.cache  # several rows read one solution, which takes a second
def car_rental() -> CarRental:
    """Solve Jack's car rental as Example 4.2 does, discount 0.9."""
    env = JacksCarRentalEnv()
    mdp = table_of(env)
    model, states = ExpectedModel.of(mdp), np.arange(mdp.n_states)
    policy, improvements = np.full(mdp.n_states, env.max_moves), 0
    while True:
        chosen = epsilon_soft(policy, epsilon=0.0, n_actions=mdp.n_actions)
        values = evaluate_model(mdp, model, probabilities=chosen, discount=0.9)
        action_values = model.action_values(values, 0.9)
        better = action_values.max(axis=1) > action_values[states, policy] + GAIN
        if not better.any():
            break
        policy, improvements = np.where(better, action_values.argmax(axis=1), policy), improvements + 1
    first, second = np.divmod(states, env.max_cars + 1)
    return CarRental(values, np.clip(policy - env.max_moves, -second, first), improvements)


def corridor_value(p_right: float) -> float:
    """Return the value of going right with one probability everywhere in the short corridor (Example 13.1)."""
    mdp = table_of(ShortCorridorEnv(observe_state=True))
    policy = np.full((mdp.n_states, mdp.n_actions), 1.0 - p_right)
    policy[:, RIGHT] = p_right
    return start_value(mdp, evaluate_policy(mdp, policy, discount=1.0))


def _best_corridor() -> tuple[float, float]:
    """Return the best probability of going right, and its value."""
    found = minimize_scalar(
        lambda p: -corridor_value(p), bounds=(0.05, 0.95), method="bounded", options={"xatol": 1e-8}
    )
    return float(found.x), -float(found.fun)


def _gambler(p_heads: float) -> NDArray[np.float64]:
    return optimal_values(table("policylab/Gambler-v0", p_heads=p_heads))


def _walk(**kwargs: float) -> NDArray[np.float64]:
    mdp = table("policylab/RandomWalk-v0", **kwargs)
    return evaluate_policy(mdp, uniform(mdp), discount=1.0)


def _gambler_checks() -> Iterator[Check]:
    figure = f"{BOOK}, Example 4.3, Figure 4.3, p. 84"
    for p_heads, capital, published, source in (
        (0.4, 25, "0.160000000", f"{figure}: 0.4^2"),
        (0.4, 50, "0.400000000", f"{figure}: p"),
        (0.4, 75, "0.640000000", f"{figure}: 0.4 + 0.6 x 0.4"),
        (0.4, 99, "0.964333", f"{DYNAMIC_PROGRAMMING}; {figure}"),
        (0.25, 25, "0.0625", f"{BOOK}, Exercise 4.9, p. 84: 0.25^2"),
        (0.25, 50, "0.25000000", f"{BOOK}, Exercise 4.9, p. 84: p"),
        (0.25, 75, "0.43750000", f"{BOOK}, Exercise 4.9, p. 84: 0.25 + 0.75 x 0.25"),
    ):
        yield Check(
            name=f"Gambler, p = {p_heads}: chance to win from {capital}",
            published=published,
            source=source,
            measure=lambda p=p_heads, capital=capital: float(_gambler(p)[capital]),  # type: ignore[misc]
        )


def _car_rental_checks() -> Iterator[Check]:
    for cars, published in ((0, "421.41"), (10, "574.95"), (20, "636.99")):
        yield Check(
            name=f"Jack's car rental: optimal value with {cars} cars at both locations",
            published=published,
            source=f"{DYNAMIC_PROGRAMMING} without truncation; {BOOK}, Example 4.2, p. 81",
            measure=lambda cars=cars: float(car_rental().values[21 * cars + cars]),  # type: ignore[misc]
        )
    figure = f"{BOOK}, Figure 4.2, p. 81"
    for name, published, measure in (
        ("improvements until the policy is stable", "4.0", lambda: float(car_rental().improvements)),
        ("most cars moved to the second location", "5.0", lambda: float(car_rental().moved.max())),
        ("most cars moved to the first location", "4.0", lambda: -float(car_rental().moved.min())),
    ):
        yield Check(name=f"Jack's car rental: {name}", published=published, source=figure, measure=measure)


def _walk_checks() -> Iterator[Check]:
    for state, published in ((1, "0.166666667"), (3, "0.500000000"), (5, "0.833333333")):
        yield Check(
            name=f"Random walk, 5 states: value of state {'ABCDE'[state - 1]}",
            published=published,
            source=f"{BOOK}, Example 6.2, p. 125: {state}/6",
            measure=lambda state=state: float(_walk(n=5, left_reward=0.0)[state]),  # type: ignore[misc]
        )
    yield Check(
        name="Random walk, 19 states: value of the state before the right end",
        published="0.900000000",
        source=f"{BOOK}, Example 7.1, p. 145: 18/20",
        measure=lambda: float(_walk()[19]),
    )


CHECKS: tuple[Check, ...] = (
    *_gambler_checks(),
    *_car_rental_checks(),
    *_walk_checks(),
    Check(
        name="Short corridor: best probability of right",
        published="0.59",
        source=f"{BOOK}, Example 13.1, p. 323",
        measure=lambda: _best_corridor()[0],
    ),
    Check(
        name="Short corridor: value of the best probability",
        published="-11.6",
        source=f"{BOOK}, Example 13.1, p. 323",
        measure=lambda: _best_corridor()[1],
        slack=0.05,
        reason="the book truncates",
    ),
    Check(
        name="Short corridor: value of the best probability, exactly",
        published=f"{-6.0 - 4.0 * math.sqrt(2.0):.10f}",
        source="-6 - 4 sqrt(2), the maximum of (2p - 4) / (p (1 - p))",
        measure=lambda: _best_corridor()[1],
    ),
    Check(
        name="Short corridor: ε-greedy left, ε 0.1",
        published="-82",
        source=f"{BOOK}, Example 13.1, p. 323",
        measure=lambda: corridor_value(0.05),
    ),
    Check(
        name="Short corridor: ε-greedy right, ε 0.1",
        published="-44",
        source=f"{BOOK}, Example 13.1, p. 323",
        measure=lambda: corridor_value(0.95),
    ),
)
"""Examples 4.2, 4.3, 6.2, 7.1 and 13.1 of Sutton & Barto."""
