"""Evaluation on other machines: the same episodes, the same returns, and the head where those machines are not."""

import os

import numpy as np
import pytest

from policylab.agents.build import make_agent
from policylab.envs.settings import EnvSettings
from policylab.experiments.evaluation import RolloutEvaluator, make_evaluator
from policylab.experiments.remote_evaluation import VARIABLE, RemoteRollouts

LAKE = EnvSettings(id="FrozenLake-v1")
EPISODES = 40


@pytest.fixture(scope="module")
def policy():
    agent = make_agent({"kind": "q_learning", "execution": "plain"}, LAKE, seed=1, budget_steps=2000)
    agent.learn(2000)
    return agent.policy()


@pytest.fixture
def named(monkeypatch):
    """The resource of a training job's group, as the container names it."""
    monkeypatch.setenv(VARIABLE, "group_evaluation")


def test_episodes_do_not_depend_on_which_others_are_played(policy):
    evaluator = RolloutEvaluator(LAKE, seed=3)
    whole = evaluator(policy, episodes=EPISODES).episode_returns
    parts = [evaluator.play(policy, numbers=numbers) for numbers in (range(16), range(16, 32), range(32, EPISODES))]
    assert tuple(value for part in parts for value in part) == whole
    assert np.var(whole) > 0


def test_without_machines_for_it_the_head_evaluates(policy, named):
    evaluator = make_evaluator(LAKE, policy, kind="rollout", seed=3)
    assert isinstance(evaluator, RemoteRollouts)
    assert evaluator(policy, episodes=EPISODES) == RolloutEvaluator(LAKE, seed=3)(policy, episodes=EPISODES)


def test_the_machines_play_the_episodes_the_head_would(policy, caplog):
    pytest.importorskip("ray")
    from policylab.ray_session import ray_session

    class Unfit:  # it travels by value, as what a worker cannot import does
        def act_batch(self, observations, *, rng=None):
            raise ValueError("boom: not a number")

    with ray_session("local", num_cpus=1):
        there = RemoteRollouts(LAKE, seed=3, resource="node:__internal_head__")  # Ray's own; jobs have group_GROUP
        pids = []
        there._here.play = lambda *_, **__: pids.append(os.getpid())
        for stochastic in (False, True):
            here = RolloutEvaluator(LAKE, seed=3)(policy, episodes=EPISODES, stochastic=stochastic)
            assert there(policy, episodes=EPISODES, stochastic=stochastic) == here
        with pytest.raises(ValueError, match="boom: not a number"):
            there(Unfit(), episodes=2)
        assert not pids  # nothing was played in this process
        gone = RemoteRollouts(LAKE, seed=3, resource="group_evaluation")
        assert gone(policy, episodes=3) == RolloutEvaluator(LAKE, seed=3)(policy, episodes=3)
