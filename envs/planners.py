"""Exact planners over a `TabularMDP`: what the best policy earns, to machine precision.

| symbol | name | shape | meaning |
|---|---|---|---|
| γ | discount | | in [0, 1] |
| v | values | (S,) | value of each state |
| q | action_values | (S, A) | value of each action: ``q = r + γ T v`` |
| π | policy | (S,) | greedy action |
| H | horizon | | number of steps left at the start |

Discount 1 without a horizon is a stochastic shortest-path problem: every planner accepts it when some policy
is sure to end the episode (Bertsekas & Tsitsiklis 1991), or to stop collecting rewards. States from which no
policy does, if they need never be visited, get minus infinity.

Ties: q-values closer than `TIE` (relative) count as equal and the first action wins. With discount 1 the first
action on a shortest way to the end wins, because waiting for ever ties with acting there and earns nothing.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
from numpy.typing import NDArray

from policylab.envs.planning_evaluation import (
    check_discount,
    check_horizon,
    epsilon_soft,
    evaluate_model,
    evaluate_policy,
    start_value,
)
from policylab.envs.planning_model import ExpectedModel, Flags, IntPolicy, Values, nearest, proper_policy
from policylab.envs.table import TabularMDP
from policylab.errors import EnvironmentRuleError

__all__ = [
    "FiniteHorizonSolution",
    "Solution",
    "best_epsilon_soft",
    "epsilon_soft",
    "evaluate_policy",
    "finite_horizon",
    "greedy",
    "modified_policy_iteration",
    "policy_iteration",
    "start_value",
    "value_iteration",
]

TIE = 1e-10
"""Relative difference of two action values below which they are equal up to rounding."""
STRICT = 1e-12
"""Relative gain below which policy iteration keeps the action it has, so that rounding cannot make it cycle."""
MAX_IMPROVEMENTS = 10_000
"""Improvements after which policy iteration is called divergent; tens are usual."""
DOUBTFUL_SWEEPS = 10_000
"""Sweeps after which an undiscounted problem that has not converged is proven bounded before going on."""
PARTIAL_SWEEPS = 20
"""Evaluation sweeps between two improvements of modified policy iteration (Puterman 1994, section 6.5)."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """An optimal stationary policy: values (S,), action_values (S, A), policy (S,), and iterations used."""

    values: NDArray[np.float64]
    action_values: NDArray[np.float64]
    policy: NDArray[np.int64]
    iterations: int


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class FiniteHorizonSolution:
    """An optimal time-dependent policy.

    Attributes:
        values: shape (H + 1, S); row t is the value with H - t steps left, the last row is 0.
        policy: shape (H, S); row t is the action at time t.
    """

    values: NDArray[np.float64]
    policy: NDArray[np.int64]


def greedy(action_values: Values) -> IntPolicy:
    """Return the first action whose value ties with the best one, shape (S,).

    >>> greedy(np.array([[0.0, 1.0, 1.0 + 1e-15]])).tolist()
    [1]
    """
    policy: IntPolicy = _tied(action_values).argmax(axis=1)
    return policy


def value_iteration(mdp: TabularMDP, *, discount: float, tolerance: float = 1e-12) -> Solution:
    """Solve by repeated Bellman backups of every state, starting from 0.

    Args:
        mdp: the table, without its time limit.
        discount: in [0, 1].
        tolerance: bound on the error of the values (with discount 1: an estimate from the measured
            contraction), as far as rounding allows.

    Raises:
        EnvironmentRuleError: discount out of range, or 1 where the values are not finite.

    Source: Sutton & Barto (2018), equation 4.10; stopping rule: Puterman (1994), theorem 6.3.1.
    """
    check_discount(discount)
    model = ExpectedModel.of(mdp)
    values = np.zeros(mdp.n_states)
    if discount == 1:
        values[~proper_policy(mdp, model)[0]] = -np.inf
    previous = np.inf
    for sweep in itertools.count(1):
        backed_up = model.action_values(values, discount).max(axis=1)
        change = _distance(backed_up, values)
        values = backed_up
        if _converged(change, _contraction(change, previous, discount=discount), tolerance=tolerance, values=values):
            return _solution(model, values, discount=discount, iterations=sweep)
        previous = change
        if discount == 1 and sweep == DOUBTFUL_SWEEPS:
            _iterate_policy(mdp, model, discount=1)
    raise AssertionError("unreachable")


def policy_iteration(mdp: TabularMDP, *, discount: float) -> Solution:
    """Solve by exact evaluation and strict improvement in turn.

    Raises:
        EnvironmentRuleError: as for `value_iteration`.

    Source: Howard (1960); Sutton & Barto (2018), section 4.3.
    """
    check_discount(discount)
    return _iterate_policy(mdp, ExpectedModel.of(mdp), discount=discount)


def modified_policy_iteration(mdp: TabularMDP, *, discount: float, tolerance: float = 1e-12) -> Solution:
    """Solve by improvement and a few evaluation sweeps in turn, never a linear system when discount < 1.

    Starts below the optimum, so that the values rise monotonically.

    Raises:
        EnvironmentRuleError: as for `value_iteration`.

    Source: Puterman (1994), section 6.5.
    """
    check_discount(discount)
    model = ExpectedModel.of(mdp)
    if discount == 1:
        probabilities = epsilon_soft(proper_policy(mdp, model)[1], epsilon=0, n_actions=mdp.n_actions)
        values = evaluate_model(mdp, model, probabilities=probabilities, discount=1)
    else:
        values = np.full(mdp.n_states, min(0.0, float(model.reward.min())) / (1 - discount))
    previous = np.inf
    for iteration in itertools.count(1):
        action_values = model.action_values(values, discount)
        improved = action_values.max(axis=1)
        change = _distance(improved, values)
        contraction = _contraction(change, previous, discount=discount, sweeps=PARTIAL_SWEEPS + 1)
        if _converged(change, contraction, tolerance=tolerance, values=improved):
            return _solution(model, improved, discount=discount, iterations=iteration)
        mixture = model.mixture(epsilon_soft(action_values.argmax(axis=1), epsilon=0, n_actions=mdp.n_actions))
        reward, transitions = mixture @ model.reward.ravel(), mixture @ model.continuing
        values, previous = improved, change
        for _ in range(PARTIAL_SWEEPS):
            values = reward + discount * (transitions @ values)
        if discount == 1 and iteration == DOUBTFUL_SWEEPS // PARTIAL_SWEEPS:
            _iterate_policy(mdp, model, discount=1)
    raise AssertionError("unreachable")


def best_epsilon_soft(mdp: TabularMDP, *, epsilon: float, discount: float) -> Solution:
    """Return the best policy among those that take a uniform action with probability ε.

    It is what SARSA and Expected SARSA with a constant ε converge to. ``values`` are those of the ε-soft
    policy, ``action_values`` those of one given action followed by it, ``policy`` its greedy action.

    Raises:
        EnvironmentRuleError: ε outside [0, 1], or as for `value_iteration`.

    Source: Sutton & Barto (2018), section 5.4 (the environment with the ε-softness moved inside).
    """
    check_discount(discount)
    if not 0 <= epsilon <= 1:
        raise EnvironmentRuleError(f"`epsilon` must lie in [0, 1], got {epsilon!r}")
    model = ExpectedModel.of(mdp)
    softened = _iterate_policy(mdp, model.softened(epsilon), discount=discount)
    return dataclasses.replace(softened, action_values=model.action_values(softened.values, discount))


def finite_horizon(mdp: TabularMDP, *, horizon: int, discount: float = 1.0) -> FiniteHorizonSolution:
    """Solve exactly for an episode cut after ``horizon`` steps; the policy may depend on the time.

    The start value is the largest return any policy, stationary or not, earns within the limit.

    Raises:
        EnvironmentRuleError: a horizon below 1 or a discount outside [0, 1].

    Source: Puterman (1994), section 4.5, backward induction.
    """
    check_discount(discount)
    check_horizon(horizon)
    model = ExpectedModel.of(mdp)
    values = np.zeros((horizon + 1, mdp.n_states))
    policy = np.zeros((horizon, mdp.n_states), dtype=np.int64)
    for time in reversed(range(horizon)):
        action_values = model.action_values(values[time + 1], discount)
        values[time] = action_values.max(axis=1)
        policy[time] = greedy(action_values)
    return FiniteHorizonSolution(values, policy)


def _iterate_policy(mdp: TabularMDP, model: ExpectedModel, *, discount: float) -> Solution:
    # Starting proper and changing an action only for a strict gain keeps the policy proper when γ = 1: a closed
    # set without an end gains nothing on average, so no action inside it was changed.
    policy = proper_policy(mdp, model)[1] if discount == 1 else greedy(model.reward)
    states = np.arange(mdp.n_states)
    for iteration in range(1, MAX_IMPROVEMENTS + 1):
        probabilities = epsilon_soft(policy, epsilon=0, n_actions=mdp.n_actions)
        values = evaluate_model(mdp, model, probabilities=probabilities, discount=discount)
        action_values = model.action_values(values, discount)
        with np.errstate(invalid="ignore"):  # -inf minus -inf: no gain
            gain = action_values.max(axis=1) - action_values[states, policy]
        better = gain > STRICT * _scale(values)
        if not better.any():
            return _solution(model, values, discount=discount, iterations=iteration)
        policy = np.where(better, action_values.argmax(axis=1), policy)
    raise _divergent(mdp, discount)


def _solution(model: ExpectedModel, values: Values, *, discount: float, iterations: int) -> Solution:
    action_values = model.action_values(values, discount)
    tied = _tied(action_values)
    policy = tied.argmax(axis=1)
    if discount == 1:
        arriving, towards_end = nearest(model, np.zeros(len(values), dtype=np.bool_), allowed=tied)
        policy = np.where(arriving, towards_end, policy)
    return Solution(values, action_values, policy, iterations)


def _tied(action_values: Values) -> Flags:
    best = action_values.max(axis=1, keepdims=True)
    tied: Flags = action_values >= best - TIE * np.maximum(1, abs(best))
    return tied


def _scale(values: Values) -> float:
    finite = np.isfinite(values)
    return max(1.0, float(abs(values[finite]).max(initial=0.0)))


def _distance(new: Values, old: Values) -> float:
    finite = np.isfinite(new) & np.isfinite(old)
    newly_infinite = np.isfinite(new) != np.isfinite(old)
    return np.inf if newly_infinite.any() else float(abs(new[finite] - old[finite]).max(initial=0.0))


def _contraction(change: float, previous: float, *, discount: float, sweeps: int = 1) -> float:
    """Return the factor by which one sweep shrinks the error: γ, or as measured when γ = 1."""
    if discount < 1:
        return discount
    return float((change / previous) ** (1 / sweeps)) if 0 < change < previous < np.inf else 1.0


def _converged(change: float, contraction: float, *, tolerance: float, values: Values) -> bool:
    """Whether ``change`` bounds the error below ``tolerance``, or is nothing but rounding."""
    if change <= 4 * np.finfo(np.float64).eps * _scale(values):
        return True
    return contraction < 1 and change * contraction <= tolerance * (1 - contraction)


def _divergent(mdp: TabularMDP, discount: float) -> EnvironmentRuleError:
    return EnvironmentRuleError(
        f"the values of {mdp.env_id or 'this table'} with discount {discount!r} do not converge; rewards can be "
        "collected for ever, use a smaller discount or a horizon"
    )
