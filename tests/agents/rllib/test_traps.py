"""Habits of RLlib that mislead, one test each that fails where we fall for them; others stand beside what they concern.

| trap | test |
|---|---|
| `build_algo` starts Ray with a dashboard on all processors, warns at each start | here, test_training, test_remote |
| no network for Discrete observations | test_training |
| return means are absent until an episode ends, and cover the last hundred episodes | test_training, here |
| a metric missing from a report ends a study that stops or decides by it | tests/experiments/test_absent_metrics.py |
| steps overshoot | test_training |
| restored hyperparameters are the old ones | test_checkpoint, test_retuned |
| checkpoints are pickles | test_checkpoint |
| the filter is lost with remote runners; ids are unknown to them | test_remote |
| policies without filter and rescaling | test_training, tests/agents/test_rllib_export.py |
| n-step replay drops the ends of episodes | test_n_step |
| RLlib pins gymnasium, and pip silently downgrades a newer one | here |
| what is learned is shown by no test, or by a bound below the floor | test_training, test_learning, test_recurrent |
| evaluation is skipped, old names of fault tolerance, all algorithms imported, truncation taken for an end | here |
"""

import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from packaging.requirements import Requirement

from policylab.agents.rllib.extension import MODULE
from policylab.envs.settings import EnvSettings
from policylab.errors import ConfigError

ROOT = Path(__file__).parents[3]


class Growing(gym.Env):
    """Episodes of two steps; the return of the k-th is k."""

    observation_space = gym.spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self):
        self.episode = -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.step_count = self.episode + 1, 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.step_count += 1
        return np.zeros(1, np.float32), self.episode / 2, self.step_count == 2, False, {}


class Endless(gym.Env):
    """One state, reward 1, never an end: its value is 1 / (1 - discount), whatever the time limit."""

    observation_space = gym.spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action):
        return np.ones(1, np.float32), 1.0, False, False, {}


gym.register("Growing-v0", Growing, max_episode_steps=10)
gym.register("Endless-v0", Endless, max_episode_steps=3)


def test_a_mean_return_is_that_of_the_episodes_since_the_last_report(make):
    """RLlib's ``episode_return_mean`` covers the last hundred episodes, and with them policies of long ago."""
    agent = make(env=EnvSettings(id="Growing-v0"))
    before = 0
    for _ in range(3):
        report = agent.learn(200)
        per_env = report.episodes // 4  # the four environments end their episodes together
        assert report.episodes == 4 * per_env > 4 * before
        assert report.metrics["train/return_mean"] == pytest.approx((before + per_env - 1) / 2)
        before = per_env


@pytest.mark.parametrize("algorithm", ["PPO", "DQN"])
def test_a_time_limit_is_no_end(make, algorithm):
    """Pardo et al. 2018: what comes after a truncation counts; taken for an end, it would be worth 1.4, not 2."""
    import torch

    given = {
        "PPO": {"n_epochs": 8, "batch_size": 256},
        "DQN": {"overrides": {"num_steps_sampled_before_learning_starts": 50, "target_network_update_freq": 15}},
    }[algorithm]
    agent = make(algorithm, EnvSettings(id="Endless-v0"), learning_rate=1e-2, discount=0.5, **given)
    agent.learn({"PPO": 3000, "DQN": 250}[algorithm])
    module = agent._learner.algo.learner_group._learner.module[MODULE].unwrapped()
    state = {"obs": torch.ones(1, 1)}
    with torch.no_grad():
        found = module.compute_values(state) if algorithm == "PPO" else module.compute_q_values(state)["qf_preds"]
    assert found.numpy().ravel() == pytest.approx(2.0, abs=0.15)


def test_evaluation_is_our_own(make):
    """RLlib's own can be skipped without a word; so it is never on, and nobody can think of having set it."""
    assert make()._config.evaluation_interval is None
    given = {"evaluation_duration": 5, "evaluation_num_env_runners": 1, "evaluation_config": {"explore": False}}
    lines = (rf"agent\.overrides\.{name}: has no effect here: policylab evaluates by itself" for name in given)
    with pytest.raises(ConfigError, match="(?s)" + ".*\n".join(lines)):
        make(overrides=given)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("recreate_failed_workers", "no such attribute"),
        ("num_workers", "no such attribute"),
        ("num_rollout_workers", "no such attribute"),
        ("output", "`policylab record`"),
        ("input_read_schema", "agent.dataset"),
        ("observation_space", "env.id"),
        ("tf_session_args", "only torch is used"),
        ("policies", "one policy"),
    ],
)
def test_what_would_be_ignored_is_refused(make, name, message):
    with pytest.raises(ConfigError, match=rf"agent\.overrides\.{name}: .*{message}"):
        make(overrides={name: 1})


def test_the_extra_says_which_gymnasium_rllib_brings():
    """`ray[rllib]` pins it, and pip would replace a newer one without a word: the extra itself asks for that one."""
    theirs = [Requirement(text) for text in requires("ray") or ()]
    pinned = {
        str(one.specifier)
        for one in theirs
        if one.name == "gymnasium" and one.marker is not None and one.marker.evaluate({"extra": "rllib"})
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ours = [Requirement(text) for text in project["optional-dependencies"]["rllib"]]
    assert {str(one.specifier) for one in ours if one.name == "gymnasium"} == pinned != set()


def test_runners_that_die_are_replaced(make):
    """The names of RLlib's fault tolerance have changed; the new ones are really set."""
    config = make()._config
    assert config.restart_failed_env_runners
    assert not config.ignore_env_runner_failures


def test_torch_keeps_to_one_thread(make):
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        make().learn(1)
        assert torch.get_num_threads() == 1
        make(torch_threads=2).learn(1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_one_algorithm_is_imported_not_all_of_them():
    """``tune.Tuner("PPO")`` imports every algorithm, and fails where Pillow is absent."""
    probe = """
import sys
sys.modules["PIL"] = None
from policylab.agents.build import make_agent
from policylab.envs.settings import EnvSettings
settings = {"kind": "rllib", "algorithm": "PPO", "batch_size": 64, "network": {"hidden": [8]}}
make_agent(settings, EnvSettings(id="CartPole-v1"), seed=0, budget_steps=100).learn(64)
print("ray.rllib.algorithms.dreamerv3" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "False\n"


class Levers(gym.Env):
    """Two levers, counted from 1 and 3, to be put where the lamps show: every position right is worth 1."""

    observation_space = gym.spaces.Dict(
        {"lamps": gym.spaces.MultiDiscrete([2, 3]), "dim": gym.spaces.Box(0.0, 1.0, (2,))}
    )
    action_space = gym.spaces.MultiDiscrete([2, 3], start=[1, 3])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.lamps = self.np_random.integers([2, 3])
        return self.seen(), {}

    def seen(self):
        return {"lamps": self.lamps, "dim": np.zeros(2, np.float32)}

    def step(self, action):
        reward = float((action - [1, 3] == self.lamps).sum())
        self.lamps = self.np_random.integers([2, 3])
        return self.seen(), reward, False, False, {}


gym.register("Levers-v0", Levers, max_episode_steps=10)


def test_nested_observations_and_several_actions_are_learned(make):
    """20 is the best return, 8.3 what chance earns; both the flattening and the counting must be right for more."""
    from policylab.experiments.evaluation import RolloutEvaluator

    settings = EnvSettings(id="Levers-v0")
    agent = make(env=settings, learning_rate=1e-2, discount=0.0, n_epochs=8, batch_size=256)
    agent.learn(4000)
    assert RolloutEvaluator(settings, seed=0)(agent.policy(), episodes=20).value > 19.0


def test_images_are_learned_from_and_acted_on(make):
    settings = EnvSettings(id="policylab/CatMouseLargeImage-v0")
    agent = make(env=settings)
    report = agent.learn(128)
    assert np.isfinite(report.metrics["train/total_loss"])
    env = gym.make(settings.id)
    observation, _ = env.reset(seed=0)
    assert agent.policy().probabilities(observation).sum() == pytest.approx(1.0)
    assert env.action_space.contains(agent.policy().act(observation))
