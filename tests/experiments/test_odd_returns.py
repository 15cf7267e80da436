"""Rewards that are no finite numbers."""

import gymnasium as gym
import pytest

from policylab.errors import RunError
from policylab.experiments.execute import execute
from policylab.experiments.rundir import create_run
from policylab.experiments.schema import ExperimentConfig
from policylab.files import read_lines


class Overflows(gym.Env):
    """Pays nothing, or what is no finite number."""

    observation_space = gym.spaces.Discrete(2)
    action_space = gym.spaces.Discrete(2)
    reward = 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        return 0, Overflows.reward, False, False, {}


gym.register("tests/Overflows-v0", Overflows, max_episode_steps=5)

EXPERIMENT = {
    "name": "overflows",
    "env": {"id": "tests/Overflows-v0"},
    "agent": {"kind": "q_learning", "learning_rate": 0.1, "discount": 0.9},
    "budget": {"steps": 100},
    "seeds": {"tune": 1, "confirm": 0},
    "evaluation": {"kind": "rollout", "marks": 4, "episodes": 1, "final_episodes": 3},
    "tracking": {"kind": "none"},
}


def test_an_infinite_return_of_the_final_policy_is_no_result(tmp_path, monkeypatch):
    monkeypatch.setattr(Overflows, "reward", 0.0)
    config = ExperimentConfig.model_validate(EXPERIMENT)
    folder = create_run(config, parent=tmp_path).folder(config.specs()[0])

    def overflow(rows):
        if rows[-1].step == config.budget.steps:
            Overflows.reward = float("inf")

    with pytest.raises(RunError, match="a return is inf; the environment gave a reward that is no finite number"):
        execute(folder, on_rows=overflow)
    assert [row["step"] for row in read_lines(folder / "reports.jsonl")] == [25, 50, 75, 100]
    assert not (folder / "result.json").exists()
