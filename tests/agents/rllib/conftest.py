"""Deep agents draw from the process's global generators, which they borrow and give back."""

import contextlib
import importlib.util

import pytest

from policylab.agents.build import make_agent
from policylab.envs.settings import EnvSettings

collect_ignore_glob = [] if importlib.util.find_spec("ray") else ["test_*"]

CARTPOLE = EnvSettings(id="CartPole-v1")
PENDULUM = EnvSettings(id="Pendulum-v1", max_episode_steps=20)
SMALL = {
    "PPO": {
        "batch_size": 128,
        "minibatch_size": 64,
        "n_epochs": 2,
        "n_envs_per_runner": 4,
        "network": {"hidden": [16]},
    },
    "DQN": {
        "batch_size": 16,
        "network": {"hidden": [16]},
        "overrides": {"num_steps_sampled_before_learning_starts": 50, "min_sample_timesteps_per_iteration": 50},
    },
    "SAC": {
        "batch_size": 16,
        "network": {"hidden": [16]},
        "overrides": {"num_steps_sampled_before_learning_starts": 30, "min_sample_timesteps_per_iteration": 20},
    },
}
"""Settings that train in a second: enough to see what is saved, reported and exported."""


@pytest.fixture(autouse=True)
def no_global_random_state():
    """Let RLlib draw; that the global state is given back is tested on its own."""


@pytest.fixture
def make():
    """Make agents that end with the test."""
    with contextlib.ExitStack() as ended:

        def make(algorithm="PPO", env=CARTPOLE, *, seed=1, budget_steps=1000, **given):
            settings = {"kind": "rllib", "algorithm": algorithm, **SMALL.get(algorithm, {}), **given}
            agent = make_agent(settings, env, seed=seed, budget_steps=budget_steps)
            ended.callback(agent.close)
            return agent

        yield make
