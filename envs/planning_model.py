"""Expected rewards and continuing transitions of a table, and what can be reached in it.

| symbol | name | shape | meaning |
|---|---|---|---|
| r(s, a) | reward | (S, A) | expected immediate reward |
| T | continuing | (S·A, S), sparse | probability of moving on to s' *without* ending the episode |
| | ends | (S, A) | whether the episode can end on this action |
| | rewarding | (S, A) | whether any of its outcomes has a reward other than 0 |

A backup is ``q = r + γ T v``: an outcome that terminates has no row entry in T, so its value is 0.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from policylab.envs.table import TabularMDP
from policylab.errors import EnvironmentRuleError

Values = NDArray[np.float64]
Flags = NDArray[np.bool_]
IntPolicy = NDArray[np.int64]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ExpectedModel:
    """A table with its outcomes averaged where only expectations count; see the module's symbol table."""

    reward: Values
    continuing: Any
    ends: Flags
    rewarding: Flags

    @classmethod
    def of(cls, mdp: TabularMDP) -> ExpectedModel:
        """Return the expected model of ``mdp``; made once per table, its arrays are read-only."""
        return _expected_model(mdp)

    @classmethod
    def _averaged(cls, mdp: TabularMDP) -> ExpectedModel:
        possible = mdp.probability > 0
        state, action, outcome = np.nonzero(possible & ~mdp.terminated)
        continuing = scipy.sparse.csr_matrix(
            (
                mdp.probability[state, action, outcome],
                (state * mdp.n_actions + action, mdp.next_state[state, action, outcome]),
            ),
            shape=(mdp.n_states * mdp.n_actions, mdp.n_states),
        )
        return cls(
            reward=(mdp.probability * mdp.reward).sum(axis=2),
            continuing=continuing,
            ends=np.asarray((possible & mdp.terminated).any(axis=2)),
            rewarding=np.asarray((possible & (mdp.reward != 0)).any(axis=2)),
        )

    def action_values(self, values: Values, discount: float) -> Values:
        """Return ``q = r + γ T v``, shape (S, A); a value of minus infinity stays that."""
        onward: Values = self.continuing @ values
        return self.reward + discount * onward.reshape(self.reward.shape)

    def mixture(self, probabilities: Values) -> Any:
        """Return the sparse (S, S·A) matrix that averages rows of state-action pairs by a policy."""
        state, action = np.nonzero(probabilities)
        shape = (self.reward.shape[0], self.reward.size)
        columns = state * self.reward.shape[1] + action
        return scipy.sparse.csr_matrix((probabilities[state, action], (state, columns)), shape=shape)

    def softened(self, epsilon: float) -> ExpectedModel:
        """Return the model in which every action is replaced by a random one with probability ε."""
        if epsilon == 0:
            return self
        n_states, n_actions = self.reward.shape
        blend = (1 - epsilon) * np.eye(n_actions) + epsilon / n_actions
        blocks = scipy.sparse.kron(scipy.sparse.identity(n_states), blend, format="csr")
        return ExpectedModel(
            reward=self.reward @ blend.T,
            continuing=(blocks @ self.continuing).tocsr(),
            ends=np.repeat(self.ends.any(axis=1, keepdims=True), n_actions, axis=1),
            rewarding=np.repeat(self.rewarding.any(axis=1, keepdims=True), n_actions, axis=1),
        )

    def touches(self, states: Flags) -> Flags:
        """Return, shape (S, A), whether an action can move on to one of ``states``."""
        mass: Values = self.continuing @ states.astype(np.float64)
        return mass.reshape(self.reward.shape) > 0


@functools.lru_cache(maxsize=8)
def _expected_model(mdp: TabularMDP) -> ExpectedModel:
    model = ExpectedModel._averaged(mdp)
    for array in (model.reward, model.ends, model.rewarding, model.continuing.data, model.continuing.indices):
        array.setflags(write=False)
    return model


def nearest(model: ExpectedModel, targets: Flags, *, allowed: Flags) -> tuple[Flags, IntPolicy]:
    """Search backwards for the states from which allowed actions can reach the end or a target.

    Args:
        model: the model.
        targets: shape (S,), states that count as arrived.
        allowed: shape (S, A).

    Returns:
        Which states can arrive, shape (S,), and for each the first action on a shortest way (0 elsewhere).
    """
    arrived = targets.copy()
    policy = np.zeros(len(targets), dtype=np.int64)
    while True:
        closer = allowed & (model.ends | model.touches(arrived))
        new = closer.any(axis=1) & ~arrived
        if not new.any():
            return arrived, policy
        policy[new] = closer[new].argmax(axis=1)
        arrived |= new


def reachable(transitions: Any, start: Flags) -> Flags:
    """Return the states a chain with the sparse matrix ``transitions`` (S, S) can visit from ``start``."""
    forward = transitions.T.tocsr()
    found = start
    while True:
        grown: Flags = found | (forward @ found.astype(np.float64) > 0)
        if (grown == found).all():
            return found
        found = grown


def proper_policy(mdp: TabularMDP, model: ExpectedModel) -> tuple[Flags, IntPolicy]:
    """Find a policy whose undiscounted return is finite wherever some policy has one.

    Such a policy ends the episode with probability 1, or stays for ever where every reward is 0.

    Returns:
        Which states have such a policy, shape (S,), and the policy, shape (S,).

    Raises:
        EnvironmentRuleError: a first state has none, so that its value with discount 1 is not finite.
    """
    alive = np.ones(len(model.reward), dtype=np.bool_)
    while True:
        allowed = ~model.touches(~alive) & alive[:, None]
        idle, staying = _idle(model, allowed)
        arriving, policy = nearest(model, idle, allowed=allowed)
        policy[idle] = staying[idle]
        if (arriving == alive).all():
            break
        alive = arriving
    if (mdp.initial_distribution[~alive] > 0).any():
        raise EnvironmentRuleError(
            f"no policy is sure to end an episode of {mdp.env_id or 'this table'}, so its value with discount 1 is "
            "not finite; use a discount below 1 or a horizon"
        )
    return alive, policy


def _idle(model: ExpectedModel, allowed: Flags) -> tuple[Flags, IntPolicy]:
    """Return the states in which one can stay for ever without any reward, and how."""
    quiet = allowed & ~model.rewarding & ~model.ends
    idle = np.ones(len(allowed), dtype=np.bool_)
    while True:
        stays = quiet & ~model.touches(~idle) & idle[:, None]
        if (stays.any(axis=1) == idle).all():
            return idle, stays.argmax(axis=1)
        idle = np.asarray(stays.any(axis=1))
