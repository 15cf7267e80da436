"""minigrid as deep agents see it, and the shortest way through it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from policylab.envs.baselines import make_baseline
from policylab.envs.grids.minigrid_view import CARRIED, CELL, COLOURS, KINDS, MiniGridEnv
from policylab.envs.make import make_env
from policylab.envs.settings import EnvSettings
from policylab.errors import EnvironmentRuleError

pytest.importorskip("minigrid")

DOOR_KEY = "policylab/MiniGridDoorKey-v0"


def length_by_search(env: Any) -> int:
    """Length of a shortest episode that ends at the goal, by trying all actions in copies of the game itself."""
    first = copy.deepcopy(env.unwrapped)
    frontier, seen, length = [(first, first._observation())], {first._observation().tobytes()}, 0
    while frontier:
        length += 1
        found = []
        for game, _ in frontier:
            for action in range(game.action_space.n):
                after = copy.deepcopy(game)
                observation, reward, terminated, _, _ = after.step(action)
                if terminated:
                    assert reward > 0.0
                    return length
                if observation.tobytes() not in seen:
                    seen.add(observation.tobytes())
                    found.append((after, observation))
        frontier = found
    raise AssertionError("there is no way to the goal")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_shortest_way_is_the_shortest_there_is(seed: int) -> None:
    env = make_env(EnvSettings(id=DOOR_KEY))
    rule = make_baseline(DOOR_KEY, "shortest_way", env=env)
    observation, _ = env.reset(seed=seed)
    expected = length_by_search(env)
    steps, terminated = 0, False
    while not terminated:
        observation, reward, terminated, truncated, _ = env.step(rule.act(observation))
        assert not truncated
        steps += 1
    assert steps == expected
    assert reward == pytest.approx(1 - 0.9 * steps / 250)


@pytest.mark.parametrize("task", ["MiniGrid-FourRooms-v0", "MiniGrid-Empty-Random-6x6-v0", "MiniGrid-DoorKey-6x6-v0"])
def test_other_tasks_are_solved_by_the_same_rule(task: str) -> None:
    settings = EnvSettings(id=DOOR_KEY, kwargs={"task": task})
    env = make_env(settings)
    rule = make_baseline(DOOR_KEY, "shortest_way", env=env)
    observation, _ = env.reset(seed=4)
    reward, ended = 0.0, False
    while not ended:
        observation, reward, terminated, truncated, _ = env.step(rule.act(observation))
        ended = terminated or truncated
    assert reward > 0.0


def test_a_locked_door_a_key_and_what_is_carried_are_seen() -> None:
    env = MiniGridEnv()
    observation, _ = env.reset(seed=0)
    cells, carried = observation[:-CARRIED].reshape(5, 5, CELL), observation[-CARRIED:]
    assert env.observation_space.contains(observation)
    assert cells[..., : len(KINDS)].sum() == 25, "every cell holds one kind of thing"
    assert cells[..., KINDS.index("wall")].sum() == 16 + 2
    assert cells[..., KINDS.index("goal")].argmax() == 3 * 5 + 3
    door = cells[cells[..., KINDS.index("door")] == 1.0][0]
    assert door[len(KINDS) : CARRIED].tolist() == [colour == "yellow" for colour in COLOURS]
    assert door[CARRIED : CARRIED + 3].tolist() == [0.0, 0.0, 1.0], "locked"
    assert cells[..., -4:].sum() == 1, "the agent is in one cell and looks in one direction"
    assert not carried.any()
    rule = make_baseline(DOOR_KEY, "shortest_way", env=env)
    while not carried.any():
        observation, *_ = env.step(rule.act(observation))
        carried = observation[-CARRIED:]
    assert carried[KINDS.index("key")] == carried[len(KINDS) + COLOURS.index("yellow")] == carried.sum() / 2 == 1.0
    assert observation[:-CARRIED].reshape(5, 5, CELL)[..., KINDS.index("key")].sum() == 0


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("MiniGrid-DoorKey-5x5-v9", r"must be one of minigrid's, got 'MiniGrid-DoorKey-5x5-v9'; did you mean"),
        ("FrozenLake-v1", "must be one of minigrid's"),
        ("MiniGrid-GoToDoor-5x5-v0", "the mission of MiniGrid-GoToDoor-5x5-v0 differs from episode to episode"),
    ],
)
def test_tasks_that_cannot_be_seen_are_refused(task: str, message: str) -> None:
    with pytest.raises(EnvironmentRuleError, match=message):
        make_env(EnvSettings(id=DOOR_KEY, kwargs={"task": task}))


def test_all_randomness_is_the_environments_own() -> None:
    env = MiniGridEnv()
    env.reset(seed=5)
    layouts = [env.reset()[0] for _ in range(5)]
    env.reset(seed=5)
    assert all(np.array_equal(env.reset()[0], layout) for layout in layouts)
    assert any(not np.array_equal(layouts[0], layout) for layout in layouts)
