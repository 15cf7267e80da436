"""Saving and restoring: what goes on, what is new, what is refused."""

import json
import pickle

import numpy as np
import pytest

from policylab.envs.settings import EnvSettings
from policylab.errors import CheckpointError

CARTPOLE = EnvSettings(id="CartPole-v1")
STATE = [np.array([0.1, -0.2, 0.03, 0.4], np.float32)]


@pytest.fixture
def saved(make, tmp_path):
    """Return an agent that has learned and the folder it is saved in."""
    agent = make(learning_rate=1e-3, observation_filter="mean_std")
    agent.learn(300)
    agent.save(tmp_path / "saved")
    return agent, tmp_path / "saved"


def test_a_restored_agent_has_the_same_knowledge_and_counters(make, saved):
    agent, folder = saved
    restored = make(seed=99, learning_rate=1e-3, observation_filter="mean_std")
    restored.restore(folder)
    assert restored.steps == agent.steps
    assert np.array_equal(restored.policy().outputs(STATE), agent.policy().outputs(STATE)), "weights and filter"
    assert restored.learn(0).episodes == agent.learn(0).episodes
    before = restored.steps
    assert restored.learn(128).steps >= before + 128


def test_two_restored_agents_agree_and_say_that_they_are_no_uninterrupted_run(make, saved):
    agent, folder = saved
    first, second = (make(learning_rate=1e-3, observation_filter="mean_std") for _ in range(2))
    for one in (first, second):
        one.restore(folder)
    assert not agent.exact_resume
    assert first.learn(256) == second.learn(256)
    assert first.execution_report["resume"] == (
        f"not bit-exact: environments and random streams start anew; resumed after steps {agent.steps}"
    )
    first.save(folder.parent / "again")
    second.restore(folder.parent / "again")
    assert second.execution_report["resume"].endswith(f"after steps {agent.steps}, {first.steps}")


def test_hyperparameters_given_anew_are_really_applied(make, saved):
    """RLlib restores the optimiser with the learning rate it was saved with (ray#62173): read the optimiser itself."""
    _, folder = saved
    settings = {
        "observation_filter": "mean_std",
        "learning_rate": 7e-5,
        "discount": 0.5,
        "overrides": {"clip_param": 0.1},
    }
    restored = make(**settings)
    restored.restore(folder)
    (learner,) = (restored._learner.algo.learner_group._learner,)
    (optimiser,) = learner._named_optimizers.values()
    assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([7e-5])
    assert restored._learner.learning_rates() == pytest.approx({"default_policy_default_optimizer": 7e-5})
    assert (learner.config.gamma, learner.config.clip_param) == (0.5, 0.1)
    assert optimiser.state_dict()["state"], "its moments are those that were saved"
    assert restored.learn(128).metrics["train/learning_rate"] == pytest.approx(7e-5)


@pytest.mark.parametrize(("algorithm", "n_optimisers"), [("DQN", 1), ("SAC", 4)])
def test_every_optimiser_gets_the_new_learning_rate(make, tmp_path, algorithm, n_optimisers):
    env = CARTPOLE if algorithm == "DQN" else EnvSettings(id="Pendulum-v1", max_episode_steps=20)
    agent = make(algorithm, env, learning_rate=1e-3)
    agent.learn(100)
    agent.save(tmp_path)
    restored = make(algorithm, env, learning_rate=7e-5, discount=0.5)
    restored.restore(tmp_path)
    learner = restored._learner.algo.learner_group._learner
    for _ in ("restored", "trained on"):
        rates = [group["lr"] for one in learner._named_optimizers.values() for group in one.param_groups]
        assert rates == pytest.approx([7e-5] * n_optimisers)
        restored.learn(20)
    assert all(one.state_dict()["state"] for one in learner._named_optimizers.values()), "moments were restored"
    assert learner.config.gamma == 0.5


def test_a_schedule_goes_on_where_it_stood(make, tmp_path):
    rate = {"kind": "linear", "start": 1e-3, "end": 0.0}
    agent = make(learning_rate=rate, budget_steps=1000)
    agent.learn(400)
    agent.save(tmp_path)
    restored = make(learning_rate=rate, budget_steps=1000)
    restored.restore(tmp_path)
    (found,) = restored._learner.learning_rates().values()
    assert found == pytest.approx(1e-3 * (1 - agent.steps / 1000), rel=1e-3)


def test_a_replay_buffer_is_remembered(make, tmp_path):
    agent = make("DQN")
    agent.learn(200)
    agent.save(tmp_path)
    restored = make("DQN")
    restored.restore(tmp_path)
    buffers = [one._learner.algo.local_replay_buffer for one in (agent, restored)]
    assert buffers[1].get_num_timesteps() == buffers[0].get_num_timesteps() >= 200
    for theirs, ours in zip(buffers[0].episodes, buffers[1].episodes, strict=True):
        assert np.array_equal(theirs.get_observations(), ours.get_observations())
        assert np.array_equal(theirs.get_actions(), ours.get_actions())
        assert (theirs.get_return(), theirs.is_terminated) == (ours.get_return(), ours.is_terminated)
    assert np.isfinite(restored.learn(100).metrics["train/qf_loss"])


@pytest.mark.parametrize(
    "given",
    [
        {"observation_filter": "none"},
        {"network": {"hidden": [8]}},
        {"env": EnvSettings(id="CartPole-v0")},
    ],
)
def test_foreign_checkpoints_are_refused(make, saved, given):
    with pytest.raises(CheckpointError, match="was saved by another agent"):
        make(**{"observation_filter": "mean_std", **given}).restore(saved[1])


def damage_flip(folder):
    path = next(folder.rglob("module_state.pkl"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damage_cut(folder):
    path = folder / "rllib" / "algorithm_state.pkl"
    path.write_bytes(path.read_bytes()[:100])


def damage_remove(folder):
    (folder / "rllib" / "algorithm_state.pkl").unlink()


def damage_add(folder):
    (folder / "rllib" / "more.pkl").write_bytes(b"")


def damage_facts(folder):
    facts = json.loads((folder / "state.json").read_text())
    facts["progress"]["steps"] = 5
    (folder / "state.json").write_text(json.dumps(facts))


def damage_version(folder):
    facts = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**facts, "version": 9}))


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("name", ["class_and_ctor_args.pkl", "algorithm_state.pkl", "module_state.pkl"])
def test_a_pickle_that_this_run_did_not_write_is_never_loaded(make, saved, tmp_path, name):
    """Also with msgpack, RLlib's checkpoints contain pickles, and loading one runs whatever it says."""
    for path in saved[1].rglob(name):
        path.write_bytes(pickle.dumps(Hostile(tmp_path / "harm")))
    with pytest.raises(CheckpointError, match=f"{name} is damaged"):
        make(observation_filter="mean_std").restore(saved[1])
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_flip, "module_state.pkl is damaged"),
        (damage_cut, "algorithm_state.pkl is damaged"),
        (damage_remove, "algorithm_state.pkl is missing"),
        (damage_add, "more.pkl is not part of it"),
        (damage_facts, "its digest does not match"),
        (damage_version, "has version 9, this policylab reads version 1"),
        (lambda folder: (folder / "state.json").write_text("{"), "it is not JSON"),
        (lambda folder: (folder / "state.json").write_text("{}"), "is not the checkpoint of an RLlib agent"),
        (lambda folder: (folder / "state.json").unlink(), "is this a checkpoint folder"),
    ],
)
def test_a_damaged_checkpoint_is_one_clear_error_and_nothing_of_it_is_unpickled(make, saved, damage, message):
    damage(saved[1])
    with pytest.raises(CheckpointError, match=message):
        make(observation_filter="mean_std").restore(saved[1])
