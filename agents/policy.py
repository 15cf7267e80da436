"""Policies: what a trained agent leaves behind, and what a bundle, an endpoint and an evaluation hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from policylab.agents.features import Encoder, encoder_from_json
from policylab.config import Settings
from policylab.errors import UserError
from policylab.registry import Registry

Arrays = Mapping[str, NDArray[Any]]
_Model = TypeVar("_Model", bound=Settings)

POLICIES = Registry(
    "policy",
    {
        "tabular": "policylab.agents.policy:TabularPolicy",
        "bandit": "policylab.agents.policy:BanditPolicy",
    },
    plural="policies",
)


class Policy(Protocol):
    """A decision rule over batches of raw environment observations.

    `act` with ``rng=None`` is deterministic (greedy, first index among ties); with a generator it samples
    from `probabilities`.
    """

    def act(self, observation: Any, *, rng: np.random.Generator | None = None) -> Any:
        """Return the action for one raw observation of the environment."""
        ...

    def probabilities(self, observation: Any) -> NDArray[np.float64]:
        """Return the probability of each action for one raw observation, shape (n_actions,)."""
        ...


class StoredPolicy(Policy, Protocol):
    """A policy that a bundle can hold: its kind, its JSON and its arrays rebuild it exactly."""

    kind: str

    def config(self) -> dict[str, Any]:
        """Return the JSON part."""
        ...

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the numeric part: finite arrays by name."""
        ...

    @classmethod
    def from_parts(cls, config: Mapping[str, Any], arrays: Arrays) -> Self:
        """Return the policy that `config` and `arrays` came from.

        Raises:
            UserError: the parts do not fit together.
        """
        ...


def policy_from(kind: str, config: Mapping[str, Any], *, arrays: Arrays) -> StoredPolicy:
    """Return the stored policy of one kind; the reverse of `StoredPolicy.config` and `StoredPolicy.arrays`.

    Raises:
        UnknownNameError: no such kind.
        UserError: the parts do not fit together.
    """
    policy: StoredPolicy = POLICIES.load(kind).from_parts(config, arrays)
    return policy


def action_probabilities(
    values: NDArray[np.float64], *, epsilon: float = 0.0, temperature: float | None = None
) -> NDArray[np.float64]:
    """Return the probability of each action, shape (n_actions,).

    Greedy (the first index among ties) or, with a temperature, softmax of ``values / temperature``; then
    mixed with the uniform distribution with weight ``epsilon``.

    >>> action_probabilities(np.array([1.0, 3.0, 3.0]), epsilon=0.3).round(2).tolist()
    [0.1, 0.8, 0.1]
    """
    if temperature is None:
        chosen = np.zeros(values.shape[0])
        chosen[values.argmax()] = 1.0
    else:
        with np.errstate(over="ignore"):  # a value far below the best has probability 0
            chosen = np.exp((values - values.max()) / temperature)
        chosen /= chosen.sum()
    mixed: NDArray[np.float64] = (1.0 - epsilon) * chosen + epsilon / values.shape[0]
    return mixed


def sample(probabilities: NDArray[np.float64], rng: np.random.Generator) -> int:
    """Return an index drawn from ``probabilities``, by one uniform number."""
    index = int(probabilities.cumsum().searchsorted(rng.random(), side="right"))
    return min(index, len(probabilities) - 1)  # the sum may fall short of 1 by rounding


class _Stochasticity(Settings):
    epsilon: float = Field(0.0, ge=0.0, le=1.0)
    temperature: float | None = Field(None, gt=0.0)


class _TabularConfig(_Stochasticity):
    features: dict[str, Any]
    first_action: int = 0


class TabularPolicy:
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

    def probabilities(self, observation: Any) -> NDArray[np.float64]:
        """Return the probability of each action for one raw observation, shape (n_actions,)."""
        return action_probabilities(self.values(observation), epsilon=self.epsilon, temperature=self.temperature)

    def act(self, observation: Any, *, rng: np.random.Generator | None = None) -> int:
        """Return the greedy action, or with ``rng`` one drawn from `probabilities`."""
        if rng is None or (self.epsilon == 0.0 and self.temperature is None):
            return self.first_action + int(self.values(observation).argmax())
        return self.first_action + sample(self.probabilities(observation), rng)

    def act_batch(self, observations: Iterable[Any], *, rng: np.random.Generator | None = None) -> NDArray[np.int64]:
        """Return one action for each raw observation, shape (n,)."""
        return np.array([self.act(observation, rng=rng) for observation in observations], dtype=np.int64)

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
    def from_parts(cls, config: Mapping[str, Any], arrays: Arrays) -> Self:
        """Return the policy that `config` and `arrays` came from."""
        settings = _validated(_TabularConfig, config)
        weights = _only_array(arrays, "weights")
        encoder = encoder_from_json(settings.features)
        return cls(
            weights,
            encoder,
            epsilon=settings.epsilon,
            temperature=settings.temperature,
            first_action=settings.first_action,
        )


class BanditPolicy:
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

    def probabilities(self, observation: Any) -> NDArray[np.float64]:
        """Return the probability of each arm, shape (n_actions,)."""
        return action_probabilities(self._values, epsilon=self.epsilon, temperature=self.temperature)

    def act(self, observation: Any, *, rng: np.random.Generator | None = None) -> int:
        """Return the best arm, or with ``rng`` one drawn from `probabilities`."""
        return int(self._values.argmax()) if rng is None else sample(self.probabilities(observation), rng)

    def act_batch(self, observations: Iterable[Any], *, rng: np.random.Generator | None = None) -> NDArray[np.int64]:
        """Return one arm for each raw observation, shape (n,)."""
        return np.array([self.act(observation, rng=rng) for observation in observations], dtype=np.int64)

    def config(self) -> dict[str, Any]:
        """Return the stochasticity as JSON."""
        return {"epsilon": self.epsilon, "temperature": self.temperature}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return ``values`` of shape (n_actions,)."""
        return {"values": self._values}

    @classmethod
    def from_parts(cls, config: Mapping[str, Any], arrays: Arrays) -> Self:
        """Return the policy that `config` and `arrays` came from."""
        settings = _validated(_Stochasticity, config)
        return cls(_only_array(arrays, "values"), epsilon=settings.epsilon, temperature=settings.temperature)


def _validated(model: type[_Model], config: Mapping[str, Any]) -> _Model:
    try:
        return model.model_validate(dict(config))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(f"policy config: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _only_array(arrays: Arrays, name: str) -> NDArray[np.float64]:
    if set(arrays) != {name} or arrays[name].dtype != np.float64:
        held = ", ".join(f"{key} ({array.dtype})" for key, array in arrays.items()) or "none"
        raise UserError(f"the policy needs exactly one float64 array named '{name}', got {held}")
    array: NDArray[np.float64] = arrays[name]
    return array
