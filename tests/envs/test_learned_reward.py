"""Reward models as files, and environments whose reward is a learned one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from policylab.agents.build import make_agent
from policylab.envs.learned_reward import training_env
from policylab.envs.make import make_env
from policylab.envs.reward_model import ARRAYS, MANIFEST, Part, RewardModel
from policylab.envs.settings import EnvSettings
from policylab.errors import UserError


def lake_model(by_state: np.ndarray[Any, Any]) -> RewardModel:
    """A linear model that pays by the state an action leads to."""
    arrays = {
        "mean": np.zeros(16), "scale": np.ones(16), "first": by_state[None].astype(float),
        "offset": np.zeros(1), "unit": np.ones(1),
    }  # fmt: skip
    return RewardModel((Part(name="next_observation", size=16, first=0),), arrays, lineage={})


def settings(folder: Path, digest: str, *, env_id: str = "FrozenLake-v1", shift: float = 0.0) -> EnvSettings:
    learned = {"path": str(folder), "sha256": digest, "shift": shift}
    return EnvSettings.model_validate({"id": env_id, "kwargs": {"is_slippery": False}, "learned_reward": learned})


def test_steps_are_rewarded_by_the_model(tmp_path: Path) -> None:
    digest = lake_model(np.arange(16)).save(tmp_path)
    env = training_env(settings(tmp_path, digest, shift=0.5))
    check_env(env.unwrapped, skip_render_check=True)
    env.reset(seed=0)
    _, reward, *_, info = env.step(1)  # down, to state 4
    assert (reward, info["own_reward"]) == (4.5, 0.0)
    assert make_env(settings(tmp_path, digest)).reset(seed=0)[0] == 0  # valued by its own reward
    assert make_env(settings(tmp_path, digest)).step  # and not wrapped
    env.close()


def test_an_agent_learns_what_the_model_wants(tmp_path: Path) -> None:
    wants_corner = np.where(np.arange(16) == 12, 10.0, -0.1)  # state 12 is a hole far from the goal
    chosen = settings(tmp_path, lake_model(wants_corner).save(tmp_path))
    agent = make_agent({"kind": "q_learning"}, chosen, seed=0, budget_steps=20_000)
    assert agent.execution_report["kind"] == "plain"
    agent.learn(20_000)
    env, policy = make_env(chosen), agent.policy()
    observation, _ = env.reset(seed=0)
    ended = False
    while not ended:
        observation, _, terminated, truncated, _ = env.step(policy.act(observation))
        ended = terminated or truncated
    assert observation == 12
    env.close()


def test_experiments_without_one_keep_their_hash() -> None:
    assert "learned_reward" not in EnvSettings(id="FrozenLake-v1").model_dump(mode="json")


def test_a_model_survives_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = (Part(name="observation", size=3), Part(name="action", size=2, first=1))
    arrays = {
        "mean": rng.normal(size=5), "scale": rng.random(5) + 1, "first": rng.normal(size=(2, 5, 4)),
        "bias": rng.normal(size=(2, 4)), "second": rng.normal(size=(2, 4)),
        "offset": rng.normal(size=2), "unit": rng.random(2) + 1,
    }  # fmt: skip
    model = RewardModel(parts, arrays, lineage={"n_pairs": 3})
    digest = model.save(tmp_path)
    again = RewardModel.load(tmp_path, sha256=digest)
    step = {"observation": rng.normal(size=(6, 3)), "action": np.array([1, 2, 1, 2, 1, 1])}
    assert (again.rewards(again.features(step)) == model.rewards(model.features(step))).all()
    assert (again.hidden, again.lineage) == (4, {"n_pairs": 3})
    with pytest.raises(UserError, match="actions from 1 to 2"):
        model.features({**step, "action": np.zeros(6)})


def test_altered_and_hostile_models_are_refused(tmp_path: Path) -> None:
    digest = lake_model(np.arange(16)).save(tmp_path)
    with pytest.raises(UserError, match="another reward model: its sha256"):
        RewardModel.load(tmp_path, sha256="0" * 64)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    content = (tmp_path / ARRAYS).read_bytes()
    (tmp_path / ARRAYS).write_bytes(content[:-1] + b"x")
    with pytest.raises(UserError, match="not what manifest"):
        RewardModel.load(tmp_path)
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, mean=np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / ARRAYS).write_bytes(pickled.read_bytes())
    manifest["arrays_sha256"] = hashlib.sha256(pickled.read_bytes()).hexdigest()
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="damaged reward model"):
        RewardModel.load(tmp_path)
    with pytest.raises(UserError, match="holds no reward model"):
        training_env(settings(tmp_path / "none", digest))


def test_a_model_of_another_task_is_refused(tmp_path: Path) -> None:
    digest = lake_model(np.arange(16)).save(tmp_path)
    with pytest.raises(UserError, match="next_observations have 16 numbers or values, the environment's are Discrete"):
        training_env(settings(tmp_path, digest, env_id="FrozenLake8x8-v1"))
