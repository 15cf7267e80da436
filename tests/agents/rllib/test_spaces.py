"""How observations become what a network sees."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from policylab.agents.rllib.environment import create, network_env
from policylab.agents.rllib.spaces import check_actions, conv_filters, observations
from policylab.envs.settings import EnvSettings
from policylab.errors import EnvironmentRuleError


class Strange(gym.Env):
    """An environment with the spaces the tests ask for."""

    def __init__(self, observed=None, acted=None, render_mode=None):
        self.observation_space = observed or spaces.Discrete(5, start=2)
        self.action_space = acted or spaces.Discrete(3, start=-1)
        self.last = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        self.last = action
        return self.observation_space.sample(), 0.0, False, False, {}


gym.register("Strange-v0", Strange, max_episode_steps=3)


def test_discrete_observations_are_one_hot():
    env = network_env(EnvSettings(id="Strange-v0"))
    observation, _ = env.reset(seed=1)
    assert observation.shape == (5,)
    assert observation.dtype == np.float32
    assert observation.sum() == 1
    assert env.observation_space.contains(observation)


def test_actions_count_from_zero_for_rllib_and_from_their_start_for_the_environment():
    env = network_env(EnvSettings(id="Strange-v0"))
    assert env.action_space == spaces.Discrete(3)
    env.reset(seed=1)
    env.step(0)
    assert env.unwrapped.last == -1


def test_a_dict_is_flattened_by_its_sorted_keys():
    space = spaces.Dict([("b", spaces.Discrete(2)), ("a", spaces.Box(-1, 1, (2,), np.float64))])
    view = observations(space, env_id="x")
    seen = view({"b": 1, "a": np.array([0.5, -0.5])})
    assert seen.tolist() == [0.5, -0.5, 0.0, 1.0]
    assert view.network_space.contains(seen)


def test_images_of_bytes_become_fractions():
    view = observations(spaces.Box(0, 255, (8, 8, 3), np.uint8), env_id="x")
    assert view(np.full((8, 8, 3), 51, np.uint8)).max() == pytest.approx(0.2)
    assert view.network_space == spaces.Box(0.0, 1.0, (8, 8, 3), np.float32)


def test_a_matrix_is_no_image():
    assert observations(spaces.Box(-1, 1, (5, 5), np.float32), env_id="x").network_space.shape == (25,)


@pytest.mark.parametrize("space", [spaces.Sequence(spaces.Discrete(2)), spaces.Box(0, 1, (0,))])
def test_observations_without_a_fixed_size_are_refused(space):
    with pytest.raises(EnvironmentRuleError, match="a deep agent needs observations of a fixed size, but x gives"):
        observations(space, env_id="x")


@pytest.mark.parametrize("shape", [(3, 3, 1), (5, 5, 3), (10, 10, 4), (64, 96, 3), (84, 84, 4), (210, 160, 3)])
def test_convolutions_end_at_a_small_picture(shape):
    side = min(shape[:2])
    for _, _, stride in conv_filters(shape):
        side = -(-side // stride)
    assert 1 <= side <= 8


def test_unbounded_actions_are_not_for_sac():
    unbounded = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    assert check_actions(unbounded, "PPO", env_id="x") == "box"
    with pytest.raises(EnvironmentRuleError, match="needs bounds, but x has"):
        check_actions(unbounded, "SAC", env_id="x")


def test_the_batch_resets_at_the_step_after_an_end_and_keeps_the_time_limit():
    batch = create({"settings": {"id": "CartPole-v1", "max_episode_steps": 2}, "num_envs": 2})
    assert batch.metadata["autoreset_mode"] is gym.vector.AutoresetMode.NEXT_STEP
    batch.reset(seed=0)
    truncations = [batch.step(np.zeros(2, np.int64))[3].all() for _ in range(3)]
    assert truncations == [False, True, False]
