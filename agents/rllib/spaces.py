"""What RLlib's networks see of an environment, and which actions they choose among.

RLlib's default networks take float32 vectors and images. Every observation space becomes one of the two, by the same
rule in training and in the exported policy:

| observation space | becomes |
|---|---|
| Box of three dimensions, float32 or uint8 | an image (height, width, channels); uint8 is divided by 255 |
| anything else that Gymnasium can flatten | `gymnasium.spaces.flatten`: Discrete one-hot, a Dict by its sorted keys |
"""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from policylab.agents.rllib.algorithms import ALGORITHMS, ActionKind
from policylab.errors import EnvironmentRuleError

MAX_CONV_SIDE = 8
"""Convolutions halve an image until its shorter side is at most this."""


@dataclasses.dataclass(frozen=True, slots=True)
class Observations:
    """How raw observations of ``space`` become arrays a network takes.

    Attributes:
        space: the environment's own observation space, every Dict in it sorted.
        network_space: the Box of float32 that the network sees.
        image: whether it is an image.
    """

    space: gym.Space[Any]
    network_space: spaces.Box
    image: bool

    def __call__(self, observation: Any) -> NDArray[np.float32]:
        """Return the network's view of one raw observation."""
        if not self.image:
            return np.asarray(spaces.flatten(self.space, observation), dtype=np.float32)
        pixels = np.asarray(observation, dtype=np.float32)
        return pixels / np.float32(255) if self.space.dtype == np.uint8 else pixels


def observations(space: gym.Space[Any], *, env_id: str) -> Observations:
    """Return how observations of ``space`` are seen.

    Raises:
        EnvironmentRuleError: they cannot become an array of fixed size.

    >>> observations(spaces.Discrete(3), env_id="x")(1).tolist()
    [0.0, 1.0, 0.0]
    """
    if is_image(space):
        assert isinstance(space, spaces.Box)
        seen = space if space.dtype == np.float32 else spaces.Box(0.0, 1.0, space.shape, np.float32)
        return Observations(space, seen, image=True)
    space = _sorted(space)
    flat: Any = spaces.flatten_space(space) if space.is_np_flattenable else None
    if not isinstance(flat, spaces.Box) or not flat.shape[0]:
        raise EnvironmentRuleError(
            f"a deep agent needs observations of a fixed size, but {env_id} gives {str(space)[:100]}; "
            "choose another environment"
        )
    low, high = (np.asarray(bound, dtype=np.float32) for bound in (flat.low, flat.high))
    return Observations(space, spaces.Box(low, high, dtype=np.float32), image=False)


def _sorted(space: gym.Space[Any]) -> gym.Space[Any]:
    """Return the space with every Dict in it in the order of its keys, which an environment may choose otherwise."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({name: _sorted(space[name]) for name in sorted(space.spaces)})
    return spaces.Tuple([_sorted(part) for part in space.spaces]) if isinstance(space, spaces.Tuple) else space


def is_image(space: gym.Space[Any]) -> bool:
    """Return whether observations of ``space`` are images."""
    return isinstance(space, spaces.Box) and len(space.shape) == 3 and space.dtype in (np.uint8, np.float32)


def conv_filters(shape: tuple[int, ...]) -> list[list[int]]:
    """Return [channels, kernel, stride] of each convolution for images of ``shape`` (height, width, channels).

    Each layer of stride 2 halves both sides (RLlib pads); a last one of stride 1 follows.

    >>> conv_filters((84, 84, 4))
    [[16, 4, 2], [32, 4, 2], [64, 4, 2], [64, 4, 2], [64, 3, 1]]
    """
    side, channels, layers = min(shape[:2]), 16, []
    while side > MAX_CONV_SIDE:
        layers.append([channels, 4, 2])
        side, channels = -(-side // 2), min(2 * channels, 64)
    return [*layers, [channels, 3, 1]]


def check_actions(space: gym.Space[Any], algorithm: str, *, env_id: str) -> ActionKind:
    """Return the kind of an action space.

    Raises:
        EnvironmentRuleError: the algorithm does not learn over such actions.
    """
    kind: ActionKind | None = None
    if isinstance(space, spaces.Discrete):
        kind = "discrete"
    elif isinstance(space, spaces.MultiDiscrete) and len(space.shape) == 1:
        kind = "multi_discrete"
    elif isinstance(space, spaces.Box) and len(space.shape) == 1 and space.dtype in (np.float32, np.float64):
        kind = "box"
    accepted = ALGORITHMS[algorithm].actions
    if kind is None or kind not in accepted:
        able = ", ".join(name for name, facts in ALGORITHMS.items() if kind in facts.actions)
        remedy = f"choose algorithm {able}" if able else "flatten the actions in a wrapper of the environment"
        raise EnvironmentRuleError(
            f"{algorithm} learns over {' or '.join(accepted)} actions, but {env_id} has {str(space)[:100]}; {remedy}"
        )
    if kind == "box" and algorithm == "SAC" and not space.is_bounded():  # type: ignore[attr-defined]
        raise EnvironmentRuleError(
            f"SAC rescales its actions from [-1, 1] and needs bounds, but {env_id} has {str(space)[:100]}; choose PPO"
        )
    return kind
