"""Policies with a memory: RLlib's LSTM and the exported policy are one, over whole episodes, until they are served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from tests.deployment.conftest import running

from policylab.agents.bundle import Bundle, Lineage, load_bundle, write_bundle
from policylab.agents.recurrent_policy import RecurrentPolicy, in_episode
from policylab.deployment.http.client import EndpointClient
from policylab.envs.make import make_env
from policylab.envs.settings import EnvSettings
from policylab.errors import BundleError, UserError
from policylab.experiments.evaluation import RolloutEvaluator
from policylab.seeding import generator

TOLERANCE = 1e-5


class Recall(gym.Env[Any, Any]):
    """A cue of -1 or 1, two steps of silence, and the question, which the cue answers: worth 1. Chance earns 0.5."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.cue, self.t = int(self.np_random.integers(2)), 0
        return np.array([2 * self.cue - 1, 0], np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        reward = float(self.t == 4 and action == self.cue)
        return np.array([0, self.t == 3], np.float32), reward, self.t == 4, False, {}


gym.register("Recall-v0", Recall, max_episode_steps=10)
RECALL = EnvSettings(id="Recall-v0")
LSTM = {"hidden": [16], "lstm": {"cell_size": 16, "sequence": 8}}


def learned(make: Any, **given: Any) -> Any:
    agent = make(env=RECALL, learning_rate=1e-2, batch_size=512, n_envs_per_runner=16, n_epochs=6, **given)
    agent.learn(10_000)
    return agent


def bundle_of(agent: Any, folder: Path, env: EnvSettings) -> Bundle:
    return write_bundle(folder, agent.policy(), env=make_env(env), lineage=Lineage(), metrics={})


@pytest.mark.parametrize(
    ("env_id", "shared", "given"),
    [("CartPole-v1", False, {}), ("Pendulum-v1", True, {"observation_filter": "mean_std"})],
)
def test_the_exported_policy_is_rllibs_own_over_whole_episodes(
    make: Any, env_id: str, shared: bool, given: dict[str, Any]
) -> None:
    import torch
    import tree

    env = EnvSettings(id=env_id)
    agent = make(env=env, network={**LSTM, "shared": shared}, **given)
    untrained = agent.policy()
    agent.learn(200)
    policy, module = agent.policy(), agent._learner.module.unwrapped()
    assert policy.model != untrained.model
    pieces = agent._learner.env_to_module.connectors
    filters = [piece._filters[None] for piece in pieces if type(piece).__name__ == "MeanStdFilter"]
    space = make_env(env).observation_space
    observations = generator(0, "steps").normal(size=(3, 100, *space.shape)).astype(np.float32)
    steps = policy.after([policy.initial()] * 3)
    state = tree.map_structure(lambda part: torch.as_tensor(part)[None].repeat(3, 1, 1), module.get_initial_state())
    for t in range(observations.shape[1]):
        seen = observations[:, t]
        for one in filters:
            seen = np.stack([one(row, update=False) for row in seen]).astype(np.float32)
        with torch.no_grad():
            theirs = module.forward_inference({"obs": torch.from_numpy(seen)[:, None], "state_in": state})
        state = theirs["state_out"]
        found = steps.outputs(list(observations[:, t]))
        assert np.abs(found - theirs["action_dist_inputs"][:, 0].numpy()).max() < TOLERANCE
    assert np.abs(found - policy.outputs(list(observations[:, t]))).max() > 1e-3, "the memory does something"


@pytest.mark.slow
def test_a_memory_is_learned_carried_through_episodes_bundled_and_served(make: Any, tmp_path: Path) -> None:
    agent = learned(make, network=LSTM)
    evaluator = RolloutEvaluator(RECALL, seed=0)
    policy = agent.policy()
    assert evaluator(policy, episodes=50).value == 1.0, "each episode begins with an empty memory"
    assert evaluator(policy, episodes=50, stochastic=True).value > 0.9
    bundle = bundle_of(agent, tmp_path / "bundle", RECALL)
    assert bundle.manifest.policy.config["memory"] == {"h": [1, 16], "c": [1, 16]}
    env = make_env(RECALL)
    with running(tmp_path / "bundle", "--set", "variants.0.exploration=false") as server:
        client = EndpointClient(server.url)
        right = 0
        for number in range(8):
            playing, ended = in_episode(policy), False
            observation, _ = env.reset(seed=number)
            while not ended:
                answer = client.post(
                    "/invocations",
                    {"observation": observation.tolist()},
                    headers={"X-Amzn-SageMaker-Session-Id": f"episode-{number}"},
                )
                assert answer["action"] == playing.act(observation)
                observation, reward, ended, _, _ = env.step(answer["action"])
            right += int(reward)
        assert right == 8
        alone = [client.post("/invocations", {"observation": [0.0, 1.0]})["action"] for _ in range(2)]
        assert set(alone) == {policy.act(np.array([0, 1], np.float32))}, "without a session it knows of no cue"


@pytest.mark.slow
def test_without_a_memory_it_is_not_learned(make: Any) -> None:
    """The task is what it says: the same network without the LSTM guesses."""
    agent = learned(make, network={"hidden": [16]})
    assert RolloutEvaluator(RECALL, seed=0)(agent.policy(), episodes=200).value == pytest.approx(0.5, abs=0.15)


def test_it_goes_on_from_a_checkpoint_and_only_with_the_same_memory(make: Any, tmp_path: Path) -> None:
    agent = make(network=LSTM)
    agent.learn(128)
    agent.save(tmp_path / "saved")
    other = make(network=LSTM)
    other.restore(tmp_path / "saved")
    state = [np.ones(4, np.float32)]
    assert np.array_equal(other.policy().outputs(state), agent.policy().outputs(state))
    other.learn(128)
    with pytest.raises(UserError, match="saved by another agent"):
        make(network={"hidden": [16]}).restore(tmp_path / "saved")


def test_a_bundle_with_a_memory_is_checked_and_kept_from_who_carries_none(make: Any, tmp_path: Path) -> None:
    agent = make(env=RECALL, network=LSTM)
    bundle = bundle_of(agent, tmp_path / "bundle", RECALL)
    assert bundle.manifest.schema_version == 4
    policy = load_bundle(tmp_path / "bundle", memory=True).policy
    assert isinstance(policy, RecurrentPolicy)
    with pytest.raises(BundleError, match="has a memory, which only its evaluation"):
        load_bundle(tmp_path / "bundle")
    config = policy.config()
    for memory in ({"h": [1, 8], "c": [1, 16]}, {"h": [1, 16]}, {"h": [1, 16], "d": [1, 16]}):
        with pytest.raises(UserError, match="must take and give the memory"):
            RecurrentPolicy.from_parts({**config, "memory": memory}, {}, files=policy.files())


def test_only_ppo_takes_a_memory(make: Any) -> None:
    with pytest.raises(UserError, match=r"`network.lstm` is for PPO; DQN has no memory here"):
        make("DQN", network=LSTM)
