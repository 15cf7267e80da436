"""What a tabular agent has to know of an environment before it learns; looked up once per process."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from gymnasium import Space, spaces

from policylab.envs.enumeration import model_of, name_of, table_refusal, time_limit
from policylab.envs.learned_reward import training_env
from policylab.envs.settings import EnvSettings
from policylab.errors import EnvironmentRuleError


@dataclasses.dataclass(frozen=True, slots=True)
class World:
    """An environment as a table sees it.

    Attributes:
        observations: its observation space.
        n_actions: number of actions.
        first_action: the environment's action of column 0.
        max_episode_steps: steps after which an episode is truncated.
        no_table: why a compiled learner cannot take the environment's exact table instead of it; None if it can.
    """

    observations: Space[Any]
    n_actions: int
    first_action: int
    max_episode_steps: int
    no_table: str | None


def world_of(settings: EnvSettings) -> World:
    """Return what there is to know of the environment that ``settings`` name.

    Raises:
        EnvironmentRuleError: its actions are none that a table can hold, or as `training_env`.

    >>> world_of(EnvSettings(id="FrozenLake-v1"))
    World(observations=Discrete(16), n_actions=4, first_action=0, max_episode_steps=100, no_table=None)
    """
    return _world_of(settings.model_dump_json())


@functools.lru_cache(maxsize=64)
def _world_of(settings_json: str) -> World:
    env = training_env(EnvSettings.model_validate_json(settings_json))
    try:
        actions = env.action_space
        if not isinstance(actions, spaces.Discrete):
            raise EnvironmentRuleError(
                f"a tabular agent needs Discrete actions, but {name_of(env)} has {actions}; "
                "choose an environment with Discrete actions or discretise them"
            )
        limit = time_limit(env)
        assert limit is not None, "make_env sets a time limit"
        refusal = table_refusal(env)
        if refusal is not None:
            refusal = f"there is no exact table: {refusal}"
        elif hasattr(model_of(env), "observed"):
            refusal = "what it observes hides part of the table's state, which a compiled learner would see"
        return World(env.observation_space, int(actions.n), int(actions.start), limit, refusal)
    finally:
        env.close()
