"""`training_env`: the environment an agent learns in, whose reward may be a learned one instead of its own.

What an agent is valued by stays the environment's own reward: only `training_env` knows the learned one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from policylab.envs.make import make_env
from policylab.envs.reward_model import Part, RewardModel
from policylab.envs.settings import EnvSettings
from policylab.errors import UserError


class LearnedReward(gym.Wrapper[Any, Any, Any, Any]):
    """Replaces the reward of every step; ``info["own_reward"]`` holds the environment's.

    Args:
        env: whose steps are valued.
        model: values them.
        shift: is added to each reward. Preferences between segments of one length cannot tell it; where the length of
            an episode depends on the policy, it says whether a long one is good.

    Raises:
        UserError: the model is of other observations or actions.
    """

    def __init__(self, env: gym.Env[Any, Any], model: RewardModel, *, shift: float = 0.0) -> None:
        super().__init__(env)
        self._model = model
        self._shift = shift
        self._observation: Any = None
        for part in model.parts:
            space = env.action_space if part.name == "action" else env.observation_space
            if part_of(space, name=part.name) != part:
                raise UserError(
                    f"env.learned_reward: the model's {part.name}s have {part.size} numbers or values, the "
                    f"environment's are {str(space)[:60]}; use a model trained on labels of this environment"
                )

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        observation, info = self.env.reset(**arguments)
        self._observation = column_value(self.observation_space, observation)
        return observation, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take an action; the reward is the model's."""
        observation, own, terminated, truncated, info = self.env.step(action)
        following = column_value(self.observation_space, observation)
        step = {
            "observation": self._observation,
            "action": column_value(self.action_space, action),
            "next_observation": following,
        }
        reward = float(self._model.rewards(self._model.features(step))[0]) + self._shift
        self._observation = following
        return observation, reward, terminated, truncated, {**info, "own_reward": float(own)}


def column_value(space: gym.Space[Any], value: Any) -> NDArray[Any]:
    """Return one observation or action as recorded transitions hold it, as an array of one row."""
    if isinstance(space, gym.spaces.Discrete):
        return np.array([int(value)])
    if isinstance(space, gym.spaces.MultiDiscrete | gym.spaces.Box):
        return np.asarray(value).reshape(1, -1)
    return np.asarray(gym.spaces.flatten(space, value)).reshape(1, -1)


def part_of(space: gym.Space[Any], *, name: Any) -> Part:
    """Return how values of a space become features.

    Raises:
        UserError: they do not become numbers.
    """
    if isinstance(space, gym.spaces.Discrete):
        return Part(name=name, size=int(space.n), first=int(space.start))
    size = 0
    if isinstance(space, gym.spaces.MultiDiscrete | gym.spaces.Box):
        size = int(np.prod(space.shape))
    elif space.is_np_flattenable:
        size = gym.spaces.flatdim(space)
    if not size:
        raise UserError(f"a reward model needs {name}s that are numbers, got {str(space)[:60]}")
    return Part(name=name, size=size)


def training_env(settings: EnvSettings) -> gym.Env[Any, Any]:
    """Make the environment for learning: as `make_env`, with the learned reward if the settings name one.

    Raises:
        EnvironmentRuleError, MissingExtraError: as `make_env`.
        UserError: the reward model is missing, altered or of another environment.
    """
    env = make_env(settings)
    if settings.learned_reward is None:
        return env
    chosen = settings.learned_reward
    try:
        return LearnedReward(env, RewardModel.load(Path(chosen.path), sha256=chosen.sha256), shift=chosen.shift)
    except UserError:
        env.close()
        raise
