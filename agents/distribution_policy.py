"""`DistributionPolicy`: acts on what some function of a raw observation says of the action distribution."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policylab.agents.action_distributions import Distribution, Gaussian, MultiCategorical
from policylab.agents.policy import Mask
from policylab.config import Settings
from policylab.errors import UserError

Limits = tuple[NDArray[Any], NDArray[Any]]
"""Lowest and highest allowed value of each component of a continuous action."""


class DistributionSettings(Settings):
    """What such a policy is beside its function.

    Attributes:
        distribution: what the function's outputs mean.
    """

    distribution: Distribution


class DistributionPolicy(abc.ABC):
    """What follows from `outputs`: actions, probabilities and densities.

    Attributes:
        settings: hold the distribution.
    """

    settings: DistributionSettings

    @property
    @abc.abstractmethod
    def reads_numbers(self) -> bool:
        """Whether an observation is one whole number, as of a Discrete space."""

    @abc.abstractmethod
    def outputs(self, observations: Iterable[Any]) -> NDArray[np.float32]:
        """Return the inputs of the distribution for raw observations, shape (n, n_outputs).

        Raises:
            UserError: an observation does not fit.
        """

    def act(self, observation: Any, *, rng: np.random.Generator | None = None) -> Any:
        """Return the deterministic action, or with ``rng`` a drawn one: an integer, or an array of shape (n,)."""
        return self._one(self.act_batch([observation], rng=rng))

    def act_batch(self, observations: Iterable[Any], *, rng: np.random.Generator | None = None) -> NDArray[Any]:
        """Return one action for each raw observation, shape (n, ...), computed together."""
        outputs, distribution = self.outputs(observations), self.settings.distribution
        actions: NDArray[Any] = distribution.mode(outputs) if rng is None else distribution.sample(outputs, rng)
        return actions

    def sample(self, observation: Any, rng: np.random.Generator) -> tuple[Any, float]:
        """Return a drawn action and its log-probability (for a Box, its log-density), computed together."""
        actions, found = self.sample_batch([observation], rng)
        return self._one(actions), float(found[0])

    def sample_batch(
        self, observations: Sequence[Any], rng: np.random.Generator, *, limits: Limits | None = None
    ) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Return one drawn action for each observation, shape (n, ...), and their log-probabilities, shape (n,).

        Args:
            observations: as the environment gives them.
            rng: draws row by row.
            limits: of continuous actions, which are clipped to them; the log-probabilities are those after clipping.
        """
        outputs, distribution = self.outputs(observations), self.settings.distribution
        actions = distribution.sample(outputs, rng)
        if limits is None or not isinstance(distribution, Gaussian):
            return actions, distribution.log_probabilities(outputs, actions)
        actions = actions.clip(*limits)
        return actions, distribution.log_probabilities(outputs, actions, limits=limits)

    def log_probability(self, observation: Any, action: Any, *, limits: Limits | None = None) -> float:
        """Return the logarithm of the probability (for a Box, of the density) of drawing ``action``.

        Raises:
            UserError: the action has another shape than the policy's actions.
        """
        outputs, distribution = self.outputs([observation]), self.settings.distribution
        actions = np.asarray(action)[None]
        if actions.shape != distribution.mode(outputs).shape or actions.dtype.kind not in "iufb":
            raise UserError(f"{str(action)[:60]} is not an action of this policy; give one as the policy returns it")
        if limits is None or not isinstance(distribution, Gaussian):
            return float(distribution.log_probabilities(outputs, actions)[0])
        return float(distribution.log_probabilities(outputs, actions, limits=limits)[0])

    def probabilities(self, observation: Any, *, mask: Mask | None = None, greedy: bool = False) -> NDArray[np.float64]:
        """Return the probability of each action for one raw observation, shape (n_actions,).

        Raises:
            UserError: the actions are no plain list of choices.
        """
        found: NDArray[np.float64] = self.probabilities_batch(
            [observation], masks=None if mask is None else [mask], greedy=greedy
        )[0]
        return found

    def probabilities_batch(
        self, observations: Sequence[Any], *, masks: Sequence[Mask | None] | None = None, greedy: bool = False
    ) -> NDArray[np.float64]:
        """Return what `probabilities` gives for each observation, shape (n, n_actions), computed together."""
        distribution = self.settings.distribution
        if isinstance(distribution, Gaussian | MultiCategorical):
            raise UserError(
                f"a '{distribution.kind}' policy has no list of action probabilities; use `log_probability`"
            )
        outputs, allowed = self.outputs(observations), None
        if masks is not None:
            everything = np.ones(distribution.n_actions, dtype=np.bool_)
            allowed = np.stack([everything if mask is None else mask for mask in masks])
        return (distribution.choices if greedy else distribution.probabilities)(outputs, allowed)

    def _one(self, actions: NDArray[Any]) -> Any:
        return int(actions[0]) if actions.ndim == 1 else actions[0]
