"""Policies on values held in arrays: `TabularPolicy`, and `BanditPolicy`, which looks at nothing."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from policylab.agents.features import Encoder, encoder_from_json
from policylab.agents.policy import Arrays, Mask, no_files, validated
from policylab.config import Settings
from policylab.errors import UserError


def action_probabilities(
    values: NDArray[np.float64], *, epsilon: float = 0.0, temperature: float | None = None, mask: Mask | None = None
) -> NDArray[np.float64]:
    """Return the probability of each action, shape (n_actions,).

    Greedy (the first index among ties) or, with a temperature, softmax of ``values / temperature``; then
    mixed with the uniform distribution with weight ``epsilon``. With a mask, all that among the allowed actions.

    >>> action_probabilities(np.array([1.0, 3.0, 3.0]), epsilon=0.3).round(2).tolist()
    [0.1, 0.8, 0.1]
    >>> action_probabilities(np.array([1.0, 3.0, 2.0]), epsilon=0.2, mask=np.array([True, False, True])).tolist()
    [0.1, 0.0, 0.9]
    """
    if mask is not None:
        values = np.where(mask, values, -np.inf)
    if temperature is None:
        chosen = np.zeros(values.shape[0])
        chosen[values.argmax()] = 1.0
    else:
        with np.errstate(over="ignore"):  # a value far below the best has probability 0
            chosen = np.exp((values - values.max()) / temperature)
        chosen /= chosen.sum()
    if epsilon == 0.0:
        return chosen
    mixed: NDArray[np.float64] = (1.0 - epsilon) * chosen
    mixed += epsilon / values.shape[0] if mask is None else epsilon * mask / mask.sum()
    return mixed


def sample(probabilities: NDArray[np.float64], rng: np.random.Generator) -> int:
    """Return an index drawn from ``probabilities``, by one uniform number."""
    index = int(probabilities.cumsum().searchsorted(rng.random(), side="right"))
    return min(index, len(probabilities) - 1)  # the sum may fall short of 1 by rounding


class _ListedActions(abc.ABC):
    """What follows from the probabilities of a list of actions, held in arrays."""

    tolerance: float = 1e-9
    first_action: int = 0

    @abc.abstractmethod
    def probabilities(self, observation: Any, *, mask: Mask | None = None, greedy: bool = False) -> NDArray[np.float64]:
        """Return the probability of each action for one raw observation, shape (n_actions,)."""

    def probabilities_batch(
        self, observations: Sequence[Any], *, masks: Sequence[Mask | None] | None = None, greedy: bool = False
    ) -> NDArray[np.float64]:
        """Return what `probabilities` gives for each observation, shape (n, n_actions)."""
        masks = masks or [None] * len(observations)
        pairs = zip(observations, masks, strict=True)
        return np.stack([self.probabilities(observation, mask=mask, greedy=greedy) for observation, mask in pairs])

    @abc.abstractmethod
    def act(self, observation: Any, *, rng: np.random.Generator | None = None) -> int:
        """Return the greedy action, or with ``rng`` one drawn from `probabilities`."""

    def act_batch(self, observations: Iterable[Any], *, rng: np.random.Generator | None = None) -> NDArray[np.int64]:
        """Return one action for each raw observation, shape (n,)."""
        return np.array([self.act(observation, rng=rng) for observation in observations], dtype=np.int64)

    def sample(self, observation: Any, rng: np.random.Generator) -> tuple[int, float]:
        """Return an action drawn from `probabilities`, and its log-probability."""
        action = self.act(observation, rng=rng)
        return action, self.log_probability(observation, action)

    def log_probability(self, observation: Any, action: Any) -> float:
        """Return the logarithm of the action's probability; -inf for one that is never taken."""
        probabilities, index = self.probabilities(observation), int(action) - self.first_action
        probability = float(probabilities[index]) if 0 <= index < len(probabilities) else 0.0
        return math.log(probability) if probability > 0.0 else -math.inf

    def files(self) -> dict[str, bytes]:
        """Return nothing: arrays hold the whole policy."""
        return {}


class _Stochasticity(Settings):
    epsilon: float = Field(0.0, ge=0.0, le=1.0)
    temperature: float | None = Field(None, gt=0.0)


class _TabularConfig(_Stochasticity):
    features: dict[str, Any]
    first_action: int = 0


class TabularPolicy(_ListedActions):
    """Acts on linear action values: the sum of the active rows of a weight table.

    Args:
        weights: shape (n_features, n_actions), finite; copied.
        encoder: maps a raw observation to active rows.
        epsilon: probability of a uniformly random action, in [0, 1].
        temperature: softmax temperature > 0, in units of return; None for greedy.
        first_action: the environment's action of column 0, ``env.action_space.start``.

    Unless `epsilon` or `temperature` is set, `probabilities` is 1 on the first greedy action, so that
    acting with and without a generator agree.

    Raises:
        UserError: the weights do not fit the encoder.
    """

    kind: str = "tabular"

    def __init__(
        self,
        weights: NDArray[np.float64],
        encoder: Encoder,
        *,
        epsilon: float = 0.0,
        temperature: float | None = None,
        first_action: int = 0,
    ) -> None:
        self.weights = np.array(weights, dtype=np.float64)
        if self.weights.ndim != 2 or self.weights.shape[0] != encoder.n_features or self.weights.shape[1] < 1:
            raise UserError(
                f"weights must have shape ({encoder.n_features}, n_actions) for these features, "
                f"got {self.weights.shape}"
            )
        self.weights.flags.writeable = False
        self.encoder = encoder
        self.epsilon = epsilon
        self.temperature = temperature
        self.first_action = first_action

    @property
    def n_actions(self) -> int:
        """Number of actions."""
        return int(self.weights.shape[1])

    def values(self, observation: Any) -> NDArray[np.float64]:
        """Return the action values of one raw observation, shape (n_actions,)."""
        active = self.encoder.encode(observation)
        values: NDArray[np.float64] = self.weights[active].sum(axis=0) if len(active) > 1 else self.weights[active[0]]
        return values

    def probabilities(self, observation: Any, *, mask: Mask | None = None, greedy: bool = False) -> NDArray[np.float64]:
        """Return the probability of each action for one raw observation, shape (n_actions,)."""
        epsilon, temperature = (0.0, None) if greedy else (self.epsilon, self.temperature)
        return action_probabilities(self.values(observation), epsilon=epsilon, temperature=temperature, mask=mask)

    def act(self, observation: Any, *, rng: np.random.Generator | None = None) -> int:
        """Return the greedy action, or with ``rng`` one drawn from `probabilities`."""
        if rng is None or (self.epsilon == 0.0 and self.temperature is None):
            return self.first_action + int(self.values(observation).argmax())
        return self.first_action + sample(self.probabilities(observation), rng)

    def config(self) -> dict[str, Any]:
        """Return features, stochasticity and first action as JSON."""
        return {
            "features": self.encoder.settings(),
            "epsilon": self.epsilon,
            "temperature": self.temperature,
            "first_action": self.first_action,
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the weight table, ``weights`` of shape (n_features, n_actions)."""
        return {"weights": self.weights}

    @classmethod
    def from_parts(cls, config: Mapping[str, Any], arrays: Arrays, *, files: Mapping[str, bytes] | None = None) -> Self:
        """Return the policy that `config` and `arrays` came from."""
        no_files(files or {})
        settings = validated(_TabularConfig, config)
        weights = _only_array(arrays, "weights")
        encoder = encoder_from_json(settings.features)
        return cls(
            weights,
            encoder,
            epsilon=settings.epsilon,
            temperature=settings.temperature,
            first_action=settings.first_action,
        )


class BanditPolicy(_ListedActions):
    """Acts on one value per arm, whatever it observes: estimates (greedy) or preferences (softmax).

    Args:
        values: shape (n_actions,), finite; copied.
        epsilon: probability of a uniformly random arm, in [0, 1].
        temperature: softmax temperature > 0; None for greedy. A gradient bandit's policy has 1.

    Raises:
        UserError: ``values`` is not a vector.
    """

    kind: str = "bandit"

    def __init__(self, values: NDArray[np.float64], *, epsilon: float = 0.0, temperature: float | None = None) -> None:
        self._values = np.array(values, dtype=np.float64)
        if self._values.ndim != 1 or self._values.shape[0] < 1:
            raise UserError(f"bandit values must have shape (n_actions,), got {self._values.shape}")
        self._values.flags.writeable = False
        self.epsilon = epsilon
        self.temperature = temperature

    @property
    def n_actions(self) -> int:
        """Number of arms."""
        return int(self._values.shape[0])

    def values(self, observation: Any) -> NDArray[np.float64]:
        """Return the value of each arm, shape (n_actions,); the observation plays no part."""
        return self._values

    def probabilities(self, observation: Any, *, mask: Mask | None = None, greedy: bool = False) -> NDArray[np.float64]:
        """Return the probability of each arm, shape (n_actions,)."""
        epsilon, temperature = (0.0, None) if greedy else (self.epsilon, self.temperature)
        return action_probabilities(self._values, epsilon=epsilon, temperature=temperature, mask=mask)

    def act(self, observation: Any, *, rng: np.random.Generator | None = None) -> int:
        """Return the best arm, or with ``rng`` one drawn from `probabilities`."""
        return int(self._values.argmax()) if rng is None else sample(self.probabilities(observation), rng)

    def config(self) -> dict[str, Any]:
        """Return the stochasticity as JSON."""
        return {"epsilon": self.epsilon, "temperature": self.temperature}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return ``values`` of shape (n_actions,)."""
        return {"values": self._values}

    @classmethod
    def from_parts(cls, config: Mapping[str, Any], arrays: Arrays, *, files: Mapping[str, bytes] | None = None) -> Self:
        """Return the policy that `config` and `arrays` came from."""
        no_files(files or {})
        settings = validated(_Stochasticity, config)
        return cls(_only_array(arrays, "values"), epsilon=settings.epsilon, temperature=settings.temperature)


def _only_array(arrays: Arrays, name: str) -> NDArray[np.float64]:
    if set(arrays) != {name} or arrays[name].dtype != np.float64:
        held = ", ".join(f"{key} ({array.dtype})" for key, array in arrays.items()) or "none"
        raise UserError(f"the policy needs exactly one float64 array named '{name}', got {held}")
    array: NDArray[np.float64] = arrays[name]
    return array
