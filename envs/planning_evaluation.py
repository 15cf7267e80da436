"""Exact values of a given policy, stationary or ε-soft, with or without a horizon."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from numpy.typing import ArrayLike, NDArray

from policylab.envs.planning_model import ExpectedModel, Values, nearest, reachable
from policylab.envs.table import TabularMDP
from policylab.errors import EnvironmentRuleError

SPARSE_FROM = 100
"""Number of states from which a sparse factorisation can be faster than a dense one."""
SPARSE_SHARE = 0.05
"""Share of non-zero transitions up to which it is."""


def check_discount(discount: float) -> None:
    """Refuse a discount outside [0, 1]."""
    if not 0 <= discount <= 1:
        raise EnvironmentRuleError(f"`discount` must lie in [0, 1], got {discount!r}; 0.99 is usual")


def check_horizon(horizon: int) -> None:
    """Refuse a horizon below one step."""
    if horizon < 1:
        raise EnvironmentRuleError(f"`horizon` must be at least 1 step, got {horizon!r}")


def epsilon_soft(policy: ArrayLike, *, epsilon: float, n_actions: int) -> Values:
    """Return the action probabilities of a policy that takes a uniform action with probability ε.

    The uniform action may be the policy's own. ``policy`` has shape (S,); the result (S, A).

    >>> epsilon_soft([1], epsilon=0.5, n_actions=2).tolist()
    [[0.25, 0.75]]
    """
    if not 0 <= epsilon <= 1:
        raise EnvironmentRuleError(f"`epsilon` must lie in [0, 1], got {epsilon!r}")
    actions = np.asarray(policy, dtype=np.int64)
    probabilities = np.full((len(actions), n_actions), epsilon / n_actions)
    probabilities[np.arange(len(actions)), actions] += 1 - epsilon
    return probabilities


def start_value(mdp: TabularMDP, values: NDArray[np.float64]) -> float:
    """Return the mean value of the first state.

    ``values`` has shape (S,), or (H + 1, S) as `finite_horizon` returns it (then the whole horizon counts).
    """
    first = values if values.ndim == 1 else values[0]
    possible = mdp.initial_distribution > 0
    # A dot product of BLAS ends in other digits on other processors; runs leave the same files everywhere.
    return math.fsum((mdp.initial_distribution[possible] * first[possible]).tolist())


def evaluate_policy(
    mdp: TabularMDP, policy: ArrayLike, *, discount: float, horizon: int | None = None
) -> NDArray[np.float64]:
    """Return the exact value of every state under a stationary policy, shape (S,).

    Args:
        mdp: the table; its own time limit is not applied, give it as ``horizon``.
        policy: actions, shape (S,), or probabilities, shape (S, A).
        discount: in [0, 1].
        horizon: number of steps after which the episode is cut, or None for no limit.

    With discount 1 and no horizon, a state whose value is not finite and which no first state leads to has
    the value minus infinity.

    Raises:
        EnvironmentRuleError: a policy of the wrong shape, or one that with discount 1 and no horizon may
            collect rewards for ever.

    Source: Sutton & Barto (2018), equation 4.4, solved as a linear system.
    """
    check_discount(discount)
    return evaluate_model(
        mdp, ExpectedModel.of(mdp), probabilities=_probabilities(mdp, policy), discount=discount, horizon=horizon
    )


def evaluate_model(
    mdp: TabularMDP, model: ExpectedModel, *, probabilities: Values, discount: float, horizon: int | None = None
) -> NDArray[np.float64]:
    """Return the values of `evaluate_policy` for an expected model that is already there."""
    mixture = model.mixture(probabilities)
    reward: Values = mixture @ model.reward.ravel()
    transitions = mixture @ model.continuing
    if horizon is not None:
        check_horizon(horizon)
        values = np.zeros(mdp.n_states)
        for _ in range(horizon):
            values = reward + discount * (transitions @ values)
        return values
    if discount < 1:
        return _solve(discount * transitions, reward)
    return _undiscounted(mdp, model, probabilities=probabilities, reward=reward, transitions=transitions)


def _probabilities(mdp: TabularMDP, policy: ArrayLike) -> Values:
    given = np.asarray(policy)
    actions_or_rows = (mdp.n_states,), (mdp.n_states, mdp.n_actions)
    if given.shape not in actions_or_rows:
        raise EnvironmentRuleError(
            f"a policy of {mdp.env_id or 'this table'} must have shape {actions_or_rows[0]} (actions) or "
            f"{actions_or_rows[1]} (probabilities), got {given.shape}"
        )
    if given.ndim == 2:
        if not ((given >= 0).all() and np.allclose(given.sum(axis=1), 1, rtol=0, atol=1e-9)):
            raise EnvironmentRuleError("the action probabilities of every state must be >= 0 and sum to 1")
        return given.astype(np.float64)
    if not ((given == np.floor(given)) & (given >= 0) & (given < mdp.n_actions)).all():
        raise EnvironmentRuleError(f"the actions of a policy must be integers in 0 .. {mdp.n_actions - 1}")
    return epsilon_soft(given, epsilon=0, n_actions=mdp.n_actions)


def _undiscounted(
    mdp: TabularMDP, model: ExpectedModel, *, probabilities: Values, reward: Values, transitions: Any
) -> Values:
    """Solve with discount 1 where the policy is sure to end the episode or to rest; resting is worth 0."""
    taken = probabilities > 0
    # To rest: the episode cannot end any more, and no reward can come any more.
    active = np.asarray(((model.rewarding | model.ends) & taken).any(axis=1))
    resting = ~_leads_to(transitions, active)
    sure, _ = nearest(model, resting, allowed=taken)
    unbounded = _leads_to(transitions, ~sure)
    if (unbounded & reachable(transitions, mdp.initial_distribution > 0)).any():
        raise EnvironmentRuleError(
            f"the policy may never end an episode of {mdp.env_id or 'this table'} while it collects rewards, so its "
            "value with discount 1 is not finite; use a discount below 1 or a horizon"
        )
    values = np.where(unbounded, -np.inf, 0.0)
    solved = np.flatnonzero(~resting & ~unbounded)
    values[solved] = _solve(transitions[solved][:, solved], reward[solved])
    return values


def _leads_to(transitions: Any, targets: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return reachable(transitions.T.tocsr(), targets)


def _solve(transitions: Any, reward: Values) -> Values:
    """Solve ``v = r + T v``."""
    n_states = len(reward)
    if n_states < SPARSE_FROM or transitions.nnz > SPARSE_SHARE * n_states**2:
        return np.linalg.solve(np.eye(n_states) - transitions.toarray(), reward)
    system = scipy.sparse.identity(n_states, format="csc") - transitions.tocsc()
    solution: Values = scipy.sparse.linalg.spsolve(system, reward)
    return solution
