"""Training for real: what is counted and reported, and what is left as it was."""

import os
import random
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

from policylab.envs.settings import EnvSettings
from policylab.errors import UserError
from policylab.seeding import generator

CARTPOLE = EnvSettings(id="CartPole-v1")
ENVS = {"PPO": CARTPOLE, "DQN": CARTPOLE, "SAC": EnvSettings(id="Pendulum-v1", max_episode_steps=20)}


@pytest.mark.parametrize("algorithm", ENVS)
def test_it_learns_reports_and_leaves_a_policy(make, algorithm):
    agent = make(algorithm, ENVS[algorithm])
    report = agent.learn(150)
    assert report.steps == agent.steps >= 150
    assert report.episodes > 0
    assert {"train/return_mean", "train/length_mean", "train/learning_rate"} <= set(report.metrics)
    assert np.isfinite(list(report.metrics.values())).all()
    policy, state = agent.policy(), np.zeros(4 if algorithm != "SAC" else 3, np.float32)
    before = policy.outputs([state]).copy()
    agent.learn(200)
    assert np.array_equal(policy.outputs([state]), before), "a policy is independent of later learning"
    assert not np.array_equal(agent.policy().outputs([state]), before)


def test_steps_are_those_sampled_not_those_asked_for(make):
    agent = make()
    lengths = []
    for asked in (1, 100, 300):
        before = agent.steps
        report = agent.learn(asked)
        assert report.steps - before >= asked
        lengths.append(report.steps)
    assert agent.steps == agent._learner.algo.metrics.peek(("env_runners", "num_env_steps_sampled_lifetime"))
    assert lengths[0] >= 128, "a whole batch is sampled even for one step"
    assert agent.learn(0).steps == lengths[-1]
    with pytest.raises(UserError, match="at least 0, got -1"):
        agent.learn(-1)


def test_every_episode_is_reported_once_with_its_whole_length(make):
    """RLlib cuts episodes at the ends of batches, adds a step to them in place when PPO learns, and gives a series of
    one as a number."""
    agent = make(env=EnvSettings(id="CartPole-v1", max_episode_steps=9))
    counted = 0
    for _ in range(8):
        before = agent._progress.episodes
        report = agent.learn(128)
        ended = report.episodes - before
        counted += ended
        assert report.metrics["train/return_mean"] == report.metrics["train/length_mean"] <= 9.0
    assert counted == agent._learner.algo.metrics.peek(("env_runners", "num_episodes_lifetime"))


def test_a_return_is_absent_while_no_episode_has_ended(make):
    agent = make(env=EnvSettings(id="Pendulum-v1"))
    assert "train/return_mean" not in agent.learn(128).metrics
    assert agent.learn(800).metrics["train/return_mean"] < 0


def test_returns_are_of_the_episodes_since_the_last_report(make):
    agent = make(env=EnvSettings(id="Pendulum-v1", max_episode_steps=10))
    for _ in range(3):
        before = agent.learn(0).episodes
        report = agent.learn(256)
        result = agent._progress
        assert report.episodes > before
        assert result.take().keys() & {"train/return_mean"} == set(), "taken twice"


def test_the_learning_rate_follows_its_schedule_over_the_budget(make):
    agent = make(learning_rate={"kind": "linear", "start": 1e-3, "end": 0.0}, budget_steps=1000)
    for _ in range(3):
        report = agent.learn(200)
        assert report.metrics["train/learning_rate"] == pytest.approx(1e-3 * (1 - report.steps / 1000), rel=0.01)
    assert agent.learn(700).metrics["train/learning_rate"] == 0.0


@pytest.mark.parametrize("algorithm", ["PPO", "DQN"])
def test_two_fresh_agents_of_a_seed_learn_the_same_and_another_seed_does_not(make, algorithm):
    """RLlib leaves the generator of its replay buffers unseeded."""
    reports = [make(algorithm, seed=seed).learn(200) for seed in (3, 3, 4)]
    assert reports[0] == reports[1]
    assert reports[0].metrics != reports[2].metrics


def test_agents_do_not_shift_each_others_numbers(make):
    alone = make(seed=3)
    expected = [alone.learn(128) for _ in range(3)]
    one, other = make(seed=3), make(seed=8)
    found = []
    for _ in range(3):
        found.append(one.learn(128))
        other.learn(128)
    assert found == expected


def test_the_global_generators_are_given_back(make):
    import torch

    torch.manual_seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    make().learn(128)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    assert before == after


def test_discrete_observations_train_and_act(make):
    """RLlib has no default network for them: `No default encoder config for obs space=Discrete(16)`."""
    agent = make(env=EnvSettings(id="FrozenLake-v1"))
    agent.learn(200)
    policy = agent.policy()
    assert {policy.act(state) for state in range(16)} <= set(range(4))
    assert policy.probabilities(3).sum() == pytest.approx(1.0)


def test_training_needs_no_cluster_leaves_no_folder_and_says_nothing(tmp_path):
    """``build_algo`` of RLlib starts a cluster with dashboard, a folder in the user's home, and prints warnings."""
    probe = """
import ray
from policylab.agents.build import make_agent
from policylab.envs.settings import EnvSettings
for algorithm, env_id in {"PPO": "CartPole-v1", "DQN": "CartPole-v1", "SAC": "Pendulum-v1"}.items():
    settings = {"kind": "rllib", "algorithm": algorithm, "batch_size": 64, "network": {"hidden": [8]}}
    agent = make_agent(settings, EnvSettings(id=env_id), seed=0, budget_steps=100)
    agent.learn(64)
    agent.policy()
    assert not ray.is_initialized()
    agent.close()
"""
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "ray_results").exists()


class Dial(gym.Env):
    """Turned to a number in [-2, 6], which is the reward: an action that is not stretched as in training earns less."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Box(-2.0, 6.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seen = self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32)
        return self.seen, {}

    def step(self, action):
        reward = self.worth(action)
        self.seen = self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32)
        return self.seen, reward, False, False, {}

    def worth(self, action):
        return float(action[0])


class Sides(Dial):
    """Which side is seen is worth 1: whoever takes the other action earns what is missing to 10."""

    action_space = gym.spaces.Discrete(2)

    def worth(self, action):
        return float(action == (self.seen[0] > 0.0))


gym.register("Dial-v0", Dial, max_episode_steps=10)
gym.register("Sides-v0", Sides, max_episode_steps=10)


@pytest.mark.parametrize(("algorithm", "env_id"), [("PPO", "Sides-v0"), ("DQN", "Sides-v0"), ("SAC", "Dial-v0")])
def test_what_rllib_plays_and_what_the_exported_policy_plays_agree(make, algorithm, env_id):
    """The return of RLlib's own runner with ``explore=False`` and that of the exported policy are of one population.

    In CartPole and a short Pendulum, the returns of a beginner and of one who does the opposite are of one too.
    """
    from policylab.experiments.evaluation import RolloutEvaluator

    env = EnvSettings(id=env_id)
    agent = make(algorithm, env, learning_rate=1e-2, discount=0.5)
    agent.learn(600)
    runner = agent._learner.algo.env_runner
    with agent._learner.streams.lent():
        episodes = runner.sample(num_episodes=40, explore=False)
    theirs = np.array([episode.get_return() for episode in episodes[:40]])
    ours = np.array(RolloutEvaluator(env, seed=1)(agent.policy(), episodes=40).episode_returns)
    error = np.sqrt(theirs.var(ddof=1) / len(theirs) + ours.var(ddof=1) / len(ours))
    assert abs(theirs.mean() - ours.mean()) <= 4 * error + 1e-9
    assert theirs.mean() > 7.0, "it has learned something"
    drawn = RolloutEvaluator(env, seed=1)(agent.policy(), episodes=40, stochastic=True)
    assert np.isfinite(drawn.value)


def test_the_exported_policy_acts_as_rllib_does_behind_an_observation_filter(make):
    """Skipping either pipeline is what makes a restored policy bad: the filter before, the rescaling after."""
    agent = make(env=EnvSettings(id="Pendulum-v1", max_episode_steps=20), observation_filter="mean_std")
    agent.learn(400)
    runner = agent._learner.algo.env_runner
    (step,) = (piece for piece in runner._env_to_module.connectors if type(piece).__name__ == "MeanStdFilter")
    step._update_stats = False
    raw = generator(0, "observations").uniform(-1, 1, (50, 3)).astype(np.float32)
    import torch

    filtered = np.stack([step._filters[None](one, update=False) for one in raw]).astype(np.float32)
    outputs = agent._learner.module.forward_inference({"obs": torch.from_numpy(filtered)})["action_dist_inputs"]
    expected = np.clip(2.0 * outputs[:, :1].numpy(), -2.0, 2.0)
    assert np.abs(agent.policy().act_batch(raw) - expected).max() < 1e-5
    assert np.abs(filtered - raw).max() > 0.1, "the filter does something"
