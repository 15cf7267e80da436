"""Each algorithm learns what chance, or the recorded behaviour, does not reach; others stand in test_training.

| algorithm | task | bound |
|---|---|---|
| APPO, IMPALA | CartPole-v1, 100,000 steps | 100: an untrained network balances for about 20 |
| MARWIL | one of two sides, from a record of who is mostly wrong | better than the record, BC and chance |
| CQL | a dial to turn to what is seen, from a record of chance | better than the record and BC |

The last two tasks have known answers, and a record from which whoever only imitates cannot do better than it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from policylab.envs.make import make_env
from policylab.envs.settings import EnvSettings
from policylab.experiments.evaluation import RolloutEvaluator
from policylab.seeding import generator

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

pytestmark = pytest.mark.slow

CARTPOLE = EnvSettings(id="CartPole-v1")
COLUMNS = ("episode_id", "t", "obs", "action", "reward", "next_obs", "terminated", "truncated")


class Seen(gym.Env[Any, Any]):
    """Ten steps, each with two numbers seen, of which the first decides what an action is worth."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.look(), {}

    def look(self) -> Any:
        self.seen = self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32)
        return self.seen

    def step(self, action: Any) -> Any:
        reward = self.worth(action)
        return self.look(), reward, False, False, {}

    def worth(self, action: Any) -> float:
        raise NotImplementedError


class Side(Seen):
    """The side that is seen is worth 1: 10 is the best return, and 5 what chance earns."""

    action_space = gym.spaces.Discrete(2)

    def worth(self, action: Any) -> float:
        return float(action == (self.seen[0] > 0.0))


class Aim(Seen):
    """A dial from -2 to 2 to be turned to twice the number; a step costs the square of what it is off by."""

    action_space = gym.spaces.Box(-2.0, 2.0, (1,), np.float32)

    def worth(self, action: Any) -> float:
        return -float((action[0] - 2.0 * self.seen[0]) ** 2)


gym.register("Side-v0", Side, max_episode_steps=10)
gym.register("Aim-v0", Aim, max_episode_steps=10)
SIDE, AIM = EnvSettings(id="Side-v0"), EnvSettings(id="Aim-v0")


def value(agent: Any, env: EnvSettings, *, stochastic: bool = False) -> float:
    return RolloutEvaluator(env, seed=0)(agent.policy(), episodes=50, stochastic=stochastic).value


def recorded(
    path: Path, env_settings: EnvSettings, behave: Callable[[Any, np.random.Generator], Any], *, episodes: int
) -> tuple[str, float]:
    """Record whole episodes of a behaviour; return the file and its mean return."""
    env, rng = make_env(env_settings), generator(0, "record")
    rows: list[tuple[Any, ...]] = []
    for episode in range(episodes):
        observation, _ = env.reset(seed=episode)
        ended, t = False, 0
        while not ended:
            action = behave(observation, rng)
            following, reward, terminated, truncated, _ = env.step(action)
            rows.append((episode, t, observation, action, float(reward), following, terminated, truncated))
            observation, t, ended = following, t + 1, terminated or truncated
    arrays = {name: np.array([row[i] for row in rows]) for i, name in enumerate(COLUMNS)}
    columns = {
        name: pa.array(array) if array.ndim == 1 else pa.array(array.tolist(), pa.list_(pa.float32(), array.shape[1]))
        for name, array in arrays.items()
    }
    parquet.write_table(pa.table(columns), path)
    return str(path), float(arrays["reward"].sum()) / episodes


@pytest.mark.parametrize("algorithm", ["APPO", "IMPALA"])
def test_asynchronous_algorithms_learn_to_balance_a_pole(make: Any, algorithm: str) -> None:
    agent = make(
        algorithm,
        CARTPOLE,
        budget_steps=100_000,
        learning_rate=1e-3,
        discount=0.98,
        network={"hidden": [64, 64]},
        overrides={"entropy_coeff": 0.005},
    )
    assert value(agent, CARTPOLE, stochastic=True) < 40.0
    agent.learn(100_000)
    assert value(agent, CARTPOLE) > 100.0
    assert value(agent, CARTPOLE, stochastic=True) > 100.0


def test_marwil_prefers_what_earned_more_than_usual(make: Any, tmp_path: Path) -> None:
    """Three actions of ten are right. By its weights exp(advantage / scale), four of five ought to be."""

    def mostly_wrong(observation: Any, rng: np.random.Generator) -> int:
        right = int(observation[0] > 0.0)
        return right if rng.random() < 0.3 else 1 - right

    path, mean = recorded(tmp_path / "wrong.parquet", SIDE, mostly_wrong, episodes=300)
    given = {"dataset": path, "learning_rate": 3e-3, "batch_size": 128, "discount": 0.0, "network": {"hidden": [32]}}
    clone, chooser = make("BC", SIDE, **given), make("MARWIL", SIDE, **given)
    for agent in (clone, chooser):
        agent.learn(200_000)
    assert mean == pytest.approx(3.0, abs=0.3)
    assert value(clone, SIDE) < mean, "the best that imitation sees is what was mostly done"
    assert value(chooser, SIDE) > 9.0
    assert value(chooser, SIDE, stochastic=True) > 6.0


def test_cql_finds_the_best_of_what_was_done_at_random(make: Any, tmp_path: Path) -> None:
    """At random a step costs 4/3 + 4/3; always 0, the mean of what was done, 4/3."""

    def chance(observation: Any, rng: np.random.Generator) -> Any:
        return rng.uniform(-2.0, 2.0, 1).astype(np.float32)

    path, mean = recorded(tmp_path / "chance.parquet", AIM, chance, episodes=300)
    network = {"hidden": [64, 64]}
    given = {"dataset": path, "learning_rate": 1e-3, "batch_size": 128, "discount": 0.0, "network": network}
    clone, chooser = make("BC", AIM, **given), make("CQL", AIM, **given)
    for agent in (clone, chooser):
        agent.learn(32_000)
    assert mean == pytest.approx(-80 / 3, abs=2.0)
    assert value(clone, AIM) < -40 / 3 * 0.8
    assert value(chooser, AIM) > -40 / 3 / 4
