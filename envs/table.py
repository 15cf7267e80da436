"""`TabularMDP`: the exact model of a finite environment, as dense arrays.

| symbol | field | shape | meaning |
|---|---|---|---|
| p | probability | (S, A, K) | probability of the k-th outcome of action a in state s; 0 pads |
| s' | next_state | (S, A, K) | its next state |
| r | reward | (S, A, K) | its reward |
| | terminated | (S, A, K) | whether it ends the episode (the next state's value is then 0) |
| μ | initial_distribution | (S,) | distribution of the first state |
| H | max_episode_steps | | the time limit, or None |
| o | observation | (S,) | what an agent sees of each state; None where it sees the state itself |
| | looks | (S, ...) | how each state looks to an agent that sees arrays of numbers; None where it sees an index |

K is the largest number of outcomes of any state and action. Rewards and terminations sit on
transitions, so nothing is averaged away and nothing needs an artificial absorbing state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from policylab.errors import EnvironmentRuleError

Outcome = tuple[float, int, float, bool]
"""(probability, next state, reward, terminated): Gymnasium's own order in ``env.unwrapped.P[s][a]``."""

Outcomes = Mapping[int, Mapping[int, Sequence[Outcome]]]
"""Gymnasium's transition table: ``P[state][action]`` is a list of outcomes."""

PROBABILITY_TOLERANCE = 1e-9
"""How far the probabilities of one state and action may sum from 1: rounding, not modelling."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class TabularMDP:
    """A finite Markov decision process; see the module's symbol table.

    Arrays are C-contiguous and read-only. Outcomes keep the order of the environment's ``P``, so that
    sampling one uniform number through the cumulative probabilities picks the outcome Gymnasium's own
    ``categorical_sample`` picks.
    """

    probability: NDArray[np.float64]
    next_state: NDArray[np.int32]
    reward: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    initial_distribution: NDArray[np.float64]
    max_episode_steps: int | None = None
    env_id: str = ""
    observation: NDArray[np.int32] | None = None
    looks: NDArray[np.float32] | None = None

    @property
    def n_states(self) -> int:
        """Number of states S."""
        return int(self.probability.shape[0])

    @property
    def n_actions(self) -> int:
        """Number of actions A."""
        return int(self.probability.shape[1])

    @classmethod
    def from_outcomes(
        cls,
        P: Outcomes,
        initial_distribution: ArrayLike,
        *,
        max_episode_steps: int | None = None,
        env_id: str = "",
        observation: ArrayLike | None = None,
    ) -> TabularMDP:
        """Build the arrays from Gymnasium's transition table.

        Outcomes keep their order and are not merged. Padding has probability 0 and comes last: next state
        0, reward 0, terminated.

        Args:
            P: ``P[s][a]`` is a list of (probability, next state, reward, terminated), for every state
                0 .. S-1 and action 0 .. A-1.
            initial_distribution: shape (S,), sums to 1.
            max_episode_steps: the time limit, at least 1, or None.
            env_id: named in messages and records.
            observation: index of what an agent sees of each state, shape (S,), if it is not the state itself.

        Raises:
            EnvironmentRuleError: the table is no Markov decision process: a missing state or action,
                probabilities that are negative or do not sum to 1, a next state out of range, a reward
                that is not finite.

        >>> mdp = TabularMDP.from_outcomes({0: {0: [(0.5, 0, -1.0, False), (0.5, 0, 1.0, True)]}}, [1.0])
        >>> mdp.probability.shape, mdp.terminated[0, 0].tolist()
        ((1, 1, 2), [False, True])
        """
        place = f"table of {env_id}" if env_id else "table"
        rows = _rows(P, place)
        n_states, n_actions = len(rows), len(rows[0])
        shape = (n_states, n_actions, max(len(row) for actions in rows for row in actions))
        probability, reward = np.zeros(shape), np.zeros(shape)
        target = np.zeros(shape)
        terminated = np.ones(shape, dtype=np.bool_)
        for state, actions in enumerate(rows):
            for action, row in enumerate(actions):
                cell = (state, action, slice(len(row)))
                probability[cell], target[cell], reward[cell] = row[:, 0], row[:, 1], row[:, 2]
                terminated[cell] = row[:, 3] != 0
        initial = np.array(initial_distribution, dtype=np.float64)
        _check_transitions(probability, target, reward=reward, place=place)
        _check_initial(initial, n_states, place=place)
        seen = None if observation is None else np.array(observation, dtype=np.int32)
        arrays = (probability, target.astype(np.int32), reward, terminated, initial)
        for array in (*arrays, *(() if seen is None else (seen,))):
            array.setflags(write=False)
        return cls(*arrays, max_episode_steps=max_episode_steps, env_id=env_id, observation=seen)


def _rows(P: Outcomes, place: str) -> list[list[NDArray[np.float64]]]:
    """Return ``rows[s][a]``, an array of shape (K_sa, 4), after checking that the table is complete."""
    try:
        n_actions = len(P[0])
        rows = [
            [np.array(list(P[state][action]), dtype=np.float64) for action in range(n_actions)]
            for state in range(len(P))
        ]
    except (KeyError, IndexError) as error:
        raise EnvironmentRuleError(
            f"{place}: states and actions must be numbered from 0 without gaps, {error} is missing; "
            "give P[s][a] for every state and action"
        ) from error
    except (TypeError, ValueError) as error:
        raise EnvironmentRuleError(
            f"{place}: every P[s][a] must be a list of (probability, next state, reward, terminated): {error}"
        ) from error
    for state, actions in enumerate(rows):
        for action, row in enumerate(actions):
            if row.ndim != 2 or row.shape[1] != 4 or len(P[state]) != n_actions:
                raise EnvironmentRuleError(
                    f"{place}: state {state}, action {action} must have at least one outcome of four parts, and "
                    f"every state {n_actions} actions; give an absorbing state a self-loop that terminates"
                )
    return rows


def _check_transitions(
    probability: NDArray[np.float64], target: NDArray[np.float64], *, reward: NDArray[np.float64], place: str
) -> None:
    n_states = probability.shape[0]
    sums_to_1 = abs(probability.sum(axis=2) - 1) <= PROBABILITY_TOLERANCE
    rule = f"{place}: the probabilities of a state and action must be >= 0 and sum to 1"
    _refuse(np.asarray(~((probability >= 0).all(axis=2) & sums_to_1)), rule, values=probability)
    in_range = (target >= 0) & (target < n_states) & (target == np.floor(target))
    rule = f"{place}: next states must be integers in 0 .. {n_states - 1}"
    _refuse(np.asarray(~in_range.all(axis=2)), rule, values=target)
    finite = np.isfinite(reward).all(axis=2)
    _refuse(np.asarray(~finite), f"{place}: rewards must be finite", values=reward)


def _refuse(broken: NDArray[np.bool_], rule: str, *, values: NDArray[np.float64]) -> None:
    if broken.any():
        state, action = (int(index) for index in np.argwhere(broken)[0])
        raise EnvironmentRuleError(
            f"{rule}, got {values[state, action].tolist()} in state {state}, action {action}; "
            "correct the environment's P"
        )


def _check_initial(initial: NDArray[np.float64], n_states: int, *, place: str) -> None:
    if initial.shape != (n_states,):
        raise EnvironmentRuleError(
            f"{place}: the initial distribution must have shape ({n_states},), got {initial.shape}; "
            "correct initial_state_distrib"
        )
    if not ((initial >= 0).all() and abs(float(initial.sum()) - 1) <= PROBABILITY_TOLERANCE):
        raise EnvironmentRuleError(
            f"{place}: the initial distribution must be >= 0 and sum to 1, got the sum {float(initial.sum())!r}; "
            "correct initial_state_distrib"
        )
