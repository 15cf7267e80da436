"""`Target`: what the policy under evaluation would do wherever the log has been."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from policylab.agents.bundle import Bundle
from policylab.agents.distribution_policy import DistributionPolicy
from policylab.errors import UserError
from policylab.monitoring.ope.log import Log

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Choices:
    """A target policy whose actions can be listed, A of them, on a log of N steps.

    Attributes:
        action: the logged actions as positions in the list, shape (N,).
        here: π_e(.|s), shape (N, A).
        after: π_e(.|s'), shape (N, A).
    """

    action: NDArray[np.int64]
    here: Floats
    after: Floats


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Target:
    """The target policy π_e on a log of N steps.

    Attributes:
        log_probability: ln π_e(a|s) of the logged actions, shape (N,); -inf for those it never takes.
        choices: what it would do everywhere; None where actions cannot be listed.
    """

    log_probability: Floats
    choices: Choices | None = None

    @classmethod
    def of_choices(cls, choices: Choices) -> Self:
        """Return the target with these choices."""
        with np.errstate(divide="ignore"):  # an action that is never taken
            return cls(np.log(choices.here[np.arange(len(choices.action)), choices.action]), choices)


def target_on(bundle: Bundle, log: Log, *, deterministic: bool = False) -> Target:
    """Return what the bundle's policy would do on a log.

    Args:
        bundle: the policy under evaluation.
        log: observations and actions as `policylab record` stores them.
        deterministic: value its deterministic actions instead of its distribution.

    Raises:
        UserError: the log's observations or actions are not those of the bundle's spaces, or a deterministic policy of
            actions that cannot be listed, under which no logged action has a probability.
    """
    _check_shapes(bundle, log)
    both = np.concatenate([log.observation, log.next_observation])
    masks = _masks(log)
    keys = both if masks is None else np.column_stack([both, masks])
    _, first, place = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    observations = [_raw(bundle.observation_space, row) for row in both[first]]
    if not isinstance(bundle.action_space, spaces.Discrete):
        if deterministic:
            raise UserError(
                "a deterministic policy of actions that cannot be listed gives every logged action the probability 0; "
                "leave out --deterministic"
            )
        return Target(_densities(bundle, log, observations=observations, place=place.ravel()[: len(log)]))
    policy: Any = bundle.policy
    allowed = None if masks is None else list(masks[first])
    table: Floats = policy.probabilities_batch(observations, masks=allowed, greedy=deterministic)[place.ravel()]
    action = log.action.astype(np.int64) - int(bundle.action_space.start)
    if not ((action >= 0) & (action < table.shape[1])).all():
        wrong = log.action[(action < 0) | (action >= table.shape[1])][0]
        raise UserError(
            f"the log holds the action {wrong}, which is none of {bundle.action_space}; is it another task?"
        )
    return Target.of_choices(Choices(action, here=table[: len(log)], after=table[len(log) :]))


def _check_shapes(bundle: Bundle, log: Log) -> None:
    seen, done = bundle.observation_space, bundle.action_space
    wanted_seen = () if isinstance(seen, spaces.Discrete) else (spaces.flatdim(seen),)
    for what, column, wanted, space in (
        ("observations", log.observation, wanted_seen, seen),
        ("actions", log.action, done.shape or (), done),
    ):
        if column.shape[1:] != wanted:
            raise UserError(
                f"the log's {what} have shape {column.shape[1:]}, those of the policy's space {str(space)[:60]} "
                f"{wanted}; is it a log of another environment?"
            )


def _raw(space: spaces.Space[Any], row: Any) -> Any:
    return int(row) if isinstance(space, spaces.Discrete) else spaces.unflatten(space, row)


def _masks(log: Log) -> NDArray[np.bool_] | None:
    """Return the masks of observations and next observations, shape (2 N, A): the next step's, or all allowed."""
    if log.mask is None:
        return None
    following = np.ones_like(log.mask)
    going_on = np.flatnonzero(np.diff(log.episode) == 0)
    following[going_on] = log.mask[going_on + 1]
    return np.concatenate([log.mask, following])


def _densities(bundle: Bundle, log: Log, *, observations: list[Any], place: NDArray[np.int64]) -> Floats:
    policy: Any = bundle.policy
    if isinstance(policy, DistributionPolicy):
        outputs = policy.outputs(observations)[place]
        actions = log.action.astype(bundle.action_space.dtype)
        found: Floats = policy.settings.distribution.log_probabilities(outputs, actions)
        return found
    rows = zip(place, log.action, strict=True)
    return np.array([policy.log_probability(observations[i], action) for i, action in rows])
