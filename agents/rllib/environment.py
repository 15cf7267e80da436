"""Environments as RLlib steps them: a batch of ours, seen through `policylab.agents.rllib.spaces`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from policylab.agents.rllib.spaces import observations
from policylab.envs.learned_reward import training_env
from policylab.envs.settings import EnvSettings

NAME = "policylab"
"""Under this name `create` is registered with RLlib; the environment's settings travel in its `env_config`."""
RLLIB_ID = "rllib-single-agent-env-v0"
"""The Gymnasium id RLlib registers for every environment it makes, over and over."""


def network_env(settings: EnvSettings, *, rescaled: bool = False) -> gym.Env[Any, Any]:
    """Return one environment whose observations are what the network sees and whose actions count from 0.

    Args:
        settings: the environment.
        rescaled: let bounded Box actions be in [-1, 1]. RLlib otherwise scales them outside of the environment, which
            its CQL does not know when it draws random actions.
    """
    env = training_env(settings)
    if rescaled and isinstance(env.action_space, spaces.Box) and env.action_space.is_bounded():
        env = gym.wrappers.RescaleAction(env, np.float32(-1.0), np.float32(1.0))
    view = observations(env.observation_space, env_id=settings.id)
    seen: gym.Env[Any, Any] = gym.wrappers.TransformObservation(env, view, view.network_space)
    start = first_action(env.action_space)
    if start is None:
        return seen
    return gym.wrappers.TransformAction(seen, lambda action: action + start, _from_zero(env.action_space))


def first_action(space: gym.Space[Any]) -> Any:
    """Return what must be added to an action counted from 0, or None where nothing must be."""
    start = getattr(space, "start", None)
    return start if start is not None and np.any(np.asarray(start)) else None


def _from_zero(space: Any) -> gym.Space[Any]:
    return spaces.Discrete(int(space.n)) if isinstance(space, spaces.Discrete) else spaces.MultiDiscrete(space.nvec)


def create(config: Mapping[str, Any]) -> Any:
    """Return what RLlib asks for: ``num_envs`` environments as a batch, or one.

    The batch resets an environment at the step after its episode's end (``NEXT_STEP``), the mode RLlib's runner counts
    steps for.
    """
    settings = EnvSettings.model_validate(config["settings"])
    n_envs, rescaled = config.get("num_envs"), config.get("rescaled", False)
    if n_envs is None:
        return network_env(settings, rescaled=rescaled)
    makers = [lambda: network_env(settings, rescaled=rescaled)] * n_envs
    return gym.vector.SyncVectorEnv(makers, autoreset_mode=gym.vector.AutoresetMode.NEXT_STEP)


def register() -> None:
    """Tell RLlib, here and in the processes of the Ray session in use, how an environment is made.

    The registry remembers the job that it first wrote for; a process that leaves a cluster and comes back is another
    job there, whose env runners would look in vain.
    """
    from ray.tune import registry

    registry._global_registry._prefix = None
    registry.register_env(NAME, create)


def forget_registration() -> None:
    """Remove the id RLlib will register again, which would make Gymnasium warn."""
    gym.registry.pop(RLLIB_ID, None)
