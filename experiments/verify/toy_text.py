"""Gymnasium's toy-text environments, solved exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from policylab.envs.planners import epsilon_soft, evaluate_policy, greedy, start_value, value_iteration
from policylab.envs.table import TabularMDP
from policylab.envs.textbook.blackjack import OBSERVATION_SHAPE, observation_index, observed_policy
from policylab.experiments.verify.exact import (
    BOOK,
    DYNAMIC_PROGRAMMING,
    REGISTRY,
    best_soft_return,
    optimum,
    random_return,
    table,
    uniform,
)
from policylab.experiments.verify.rows import Check

TAXI = "Taxi-v3"
OVER_P = f"{DYNAMIC_PROGRAMMING} over Gymnasium's own P"
OVER_HANDS = f"{DYNAMIC_PROGRAMMING} over (sum, usable ace, dealer's card), infinite deck"
TIE = 1e-9
"""Action values this close are equal."""


def _greedy_success_in_100_steps(discount: float) -> float:
    mdp = table("FrozenLake-v1")
    policy = value_iteration(mdp, discount=discount).policy
    return start_value(mdp, evaluate_policy(mdp, policy, discount=1.0, horizon=100))


def _soft_return_of_optimal_path(epsilon: float, *, random_ties: bool) -> float:
    """Value an ε-greedy policy round the shortest path of CliffWalking, by its rule for ties."""
    mdp = table("CliffWalking-v1")
    action_values = value_iteration(mdp, discount=1.0).action_values
    if random_ties:
        tied = action_values >= action_values.max(axis=1, keepdims=True) - TIE
        chosen = tied / tied.sum(axis=1, keepdims=True)
    else:
        chosen = epsilon_soft(greedy(action_values), epsilon=0.0, n_actions=mdp.n_actions)
    policy = (1.0 - epsilon) * chosen + epsilon * uniform(mdp)
    return start_value(mdp, evaluate_policy(mdp, policy, discount=1.0))


def _blackjack_values(stick_at: int, **kwargs: Any) -> tuple[TabularMDP, NDArray[np.float64]]:
    """Value sticking on a sum of ``stick_at`` or more, else hitting."""
    mdp = table("Blackjack-v1", **kwargs)
    sums = np.indices(OBSERVATION_SHAPE)[0].ravel()
    policy = observed_policy((sums < stick_at).astype(np.int64))
    return mdp, evaluate_policy(mdp, policy, discount=1.0)


def _stick_at(total: int) -> float:
    mdp, values = _blackjack_values(total, sab=False)
    return start_value(mdp, values)


FROZEN_LAKE = (
    Check(
        name="FrozenLake 4x4: optimal success in 100 steps",
        published="0.74",
        source=f"{REGISTRY}: FrozenLake-v1, optimum = .74",
        measure=lambda: optimum(table("FrozenLake-v1"), horizon=100),
    ),
    Check(
        name="FrozenLake 4x4: optimal success in 100 steps, exactly",
        published="0.7441902878",
        source=OVER_P,
        measure=lambda: optimum(table("FrozenLake-v1"), horizon=100),
    ),
    Check(
        name="FrozenLake 4x4: optimal success without a limit",
        published="0.823529411765",
        source="14/17, the rational solution",
        measure=lambda: optimum(table("FrozenLake-v1")),
    ),
    *(
        Check(
            name=f"FrozenLake 4x4: V*(start), discount {discount}",
            published=published,
            source=OVER_P,
            measure=lambda discount=discount: optimum(table("FrozenLake-v1"), discount=discount),  # type: ignore[misc]
        )
        for discount, published in ((0.9, "0.068891"), (0.95, "0.180472"), (0.99, "0.5420259320"), (0.999, "0.785533"))
    ),
    Check(
        name="FrozenLake 4x4: policy for discount 0.99, success in 100 steps",
        published="0.7401648978",
        source=OVER_P,
        measure=lambda: _greedy_success_in_100_steps(0.99),
    ),
    Check(
        name="FrozenLake 4x4: success of random actions in 100 steps",
        published="0.01394",
        source=OVER_P,
        measure=lambda: random_return(table("FrozenLake-v1"), horizon=100),
    ),
    Check(
        name="FrozenLake 8x8: optimal success in 200 steps",
        published="0.91",
        source=f"{REGISTRY}: FrozenLake8x8-v1, optimum = .91",
        measure=lambda: optimum(table("FrozenLake8x8-v1"), horizon=200),
    ),
    Check(
        name="FrozenLake 8x8: optimal success in 200 steps, exactly",
        published="0.9132201502",
        source=OVER_P,
        measure=lambda: optimum(table("FrozenLake8x8-v1"), horizon=200),
    ),
    Check(
        name="FrozenLake 8x8: V*(start), discount 0.99",
        published="0.4146403618",
        source=OVER_P,
        measure=lambda: optimum(table("FrozenLake8x8-v1"), discount=0.99),
    ),
    Check(
        name="FrozenLake 4x4 not slippery: V*(start), discount 0.99",
        published="0.9509900499",
        source="0.99^5: six moves, the last one pays",
        measure=lambda: optimum(table("FrozenLake-v1", is_slippery=False), discount=0.99),
    ),
    Check(
        name="FrozenLake 8x8 not slippery: V*(start), discount 0.99",
        published="0.8775210230",
        source="0.99^13: fourteen moves, the last one pays",
        measure=lambda: optimum(table("FrozenLake8x8-v1", is_slippery=False), discount=0.99),
    ),
)

TAXI_AND_CLIFF = (
    Check(
        name="Taxi: optimal return, mean of the 300 starts",
        published="7.93",
        source=OVER_P,
        measure=lambda: optimum(table(TAXI), horizon=200),
    ),
    Check(
        name="Taxi: optimal return, discount 0.99",
        published="6.3274643149",
        source=OVER_P,
        measure=lambda: optimum(table(TAXI), discount=0.99),
    ),
    Check(
        name="Taxi: return of random actions in 200 steps",
        published="-771.090999",
        source=OVER_P,
        measure=lambda: random_return(table(TAXI), horizon=200),
    ),
    Check(
        name="CliffWalking: optimal return",
        published="-13.000000",
        source=f"{BOOK}, Example 6.6, p. 132: thirteen moves along the edge",
        measure=lambda: optimum(table("CliffWalking-v1")),
    ),
    Check(
        name="CliffWalking: optimal return, discount 0.99",
        published="-12.2478977001",
        source=OVER_P,
        measure=lambda: optimum(table("CliffWalking-v1"), discount=0.99),
    ),
    *(
        Check(
            name=f"CliffWalking: best ε-soft policy, ε {epsilon}",
            published=published,
            source=f"{OVER_P}; the limit of SARSA in {BOOK}, Example 6.6",
            measure=lambda epsilon=epsilon: best_soft_return(table("CliffWalking-v1"), epsilon),  # type: ignore[misc]
        )
        for epsilon, published in ((0.1, "-20.708"), (0.05, "-17.519"), (0.01, "-15.441"))
    ),
    Check(
        name="CliffWalking: ε-greedy round the best path, ties at random",
        published="-50.80",
        source=f"{OVER_P}; the limit of Q-learning in {BOOK}, Example 6.6",
        measure=lambda: _soft_return_of_optimal_path(0.1, random_ties=True),
    ),
    Check(
        name="CliffWalking: ε-greedy round the best path, ties to the first",
        published="-45.803",
        source=OVER_P,
        measure=lambda: _soft_return_of_optimal_path(0.1, random_ties=False),
    ),
)

BLACKJACK = (
    Check(
        name="Blackjack: optimal return, rules of Sutton & Barto",
        published="-0.0431131054",
        source=OVER_HANDS,
        measure=lambda: optimum(table("Blackjack-v1", sab=True)),
    ),
    Check(
        name="Blackjack: optimal return, naturals not special",
        published="-0.0465559771",
        source=OVER_HANDS,
        measure=lambda: optimum(table("Blackjack-v1", sab=False)),
    ),
    Check(
        name="Blackjack: stick on 17, naturals not special",
        published="-0.0792945317",
        source=OVER_HANDS,
        measure=lambda: _stick_at(17),
    ),
    Check(
        name="Blackjack: stick on 20, from a soft 13 against a 2",
        published="-0.27726",
        source=f"{BOOK}, Example 5.4, p. 106: mean of 100 million games",
        measure=lambda: float(_blackjack_values(20)[1][observation_index((13, 2, 1))]),
        slack=0.0004,
        reason="4 standard errors of the book's games, standard deviation < 1",
    ),
    Check(
        name="Blackjack: stick on 20, from a soft 13 against a 2, exactly",
        published="-0.277204",
        source=OVER_HANDS,
        measure=lambda: float(_blackjack_values(20)[1][observation_index((13, 2, 1))]),
    ),
)

CHECKS: tuple[Check, ...] = (*FROZEN_LAKE, *TAXI_AND_CLIFF, *BLACKJACK)
"""FrozenLake, Taxi, CliffWalking and Blackjack."""
