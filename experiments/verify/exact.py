"""Exact quantities that many checks share, and how their sources are named."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from policylab.envs.enumeration import table_of
from policylab.envs.make import make_env
from policylab.envs.planners import (
    best_epsilon_soft,
    evaluate_policy,
    finite_horizon,
    start_value,
    value_iteration,
)
from policylab.envs.settings import EnvSettings
from policylab.envs.table import TabularMDP

BOOK = "Sutton & Barto 2nd ed."
REGISTRY = "Gymnasium registry, gymnasium/envs/__init__.py"
DYNAMIC_PROGRAMMING = "dynamic programming"


def table(env_id: str, **kwargs: Any) -> TabularMDP:
    """Return the exact model of a registered environment, a retired id replaced."""
    return table_of(make_env(EnvSettings(id=env_id, kwargs=kwargs)))


def uniform(mdp: TabularMDP) -> NDArray[np.float64]:
    """Return the policy that takes every action equally often, shape (S, A)."""
    return np.full((mdp.n_states, mdp.n_actions), 1.0 / mdp.n_actions)


def optimal_values(mdp: TabularMDP, *, discount: float = 1.0) -> NDArray[np.float64]:
    """Return the optimal value of every state without a time limit, shape (S,)."""
    return value_iteration(mdp, discount=discount).values


def optimum(mdp: TabularMDP, *, discount: float = 1.0, horizon: int | None = None) -> float:
    """Return the largest expected return from the first state, within ``horizon`` steps if given."""
    if horizon is None:
        return start_value(mdp, optimal_values(mdp, discount=discount))
    return start_value(mdp, finite_horizon(mdp, horizon=horizon, discount=discount).values)


def random_return(mdp: TabularMDP, *, discount: float = 1.0, horizon: int | None = None) -> float:
    """Return the expected return of the uniformly random policy."""
    return start_value(mdp, evaluate_policy(mdp, uniform(mdp), discount=discount, horizon=horizon))


def best_soft_return(mdp: TabularMDP, epsilon: float) -> float:
    """Return the undiscounted return of the best ε-soft policy."""
    return start_value(mdp, best_epsilon_soft(mdp, epsilon=epsilon, discount=1.0).values)
