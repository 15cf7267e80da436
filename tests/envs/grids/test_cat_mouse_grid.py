"""The larger cat and mouse: the same rules, seen as planes."""

import gymnasium as gym
import numpy as np
import pytest

from policylab.envs.grids.cat_mouse import CatMouseEnv, Positions
from policylab.envs.grids.cat_mouse_grid import LARGE_MAZE, CatMouseGridEnv
from policylab.errors import EnvironmentRuleError


def test_the_rules_are_those_of_the_small_game() -> None:
    grid, plain = CatMouseGridEnv(), CatMouseEnv(LARGE_MAZE)
    assert grid.P == plain.P
    assert grid.states == plain.states


def test_planes_show_both_animals() -> None:
    env = CatMouseGridEnv()
    state = env.states.index(Positions((8, 1), (0, 3)))
    planes = env.observe(state).reshape(2, 9, 9)
    assert planes[0, 8, 1] == planes[1, 0, 3] == 1.0
    assert planes.sum() == 2.0


def test_every_state_looks_different() -> None:
    for image in (False, True):
        env = CatMouseGridEnv(image=image)
        looks = {env.observe(state).tobytes() for state in range(len(env.P))}
        assert len(looks) == len(env.P)


def test_the_image_adds_cheese_and_walls() -> None:
    env = gym.make("policylab/CatMouseLargeImage-v0")
    observation, _ = env.reset(seed=0)
    assert observation.shape == (9, 9, 4)
    assert np.argwhere(observation[..., 2]).tolist() == [[8, 8]]
    assert observation[..., 3].sum() == sum(row.count("#") for row in LARGE_MAZE)
    vector = gym.make("policylab/CatMouseLarge-v0").reset(seed=0)[0].reshape(2, 9, 9)
    assert np.array_equal(observation[..., :2].transpose(2, 0, 1), vector)


def test_steps_show_where_the_animals_went() -> None:
    env = CatMouseGridEnv(head_start=None, epsilon=0.0)
    observation, _ = env.reset(seed=0)
    assert np.array_equal(observation, env.observe(env.states.index(Positions((8, 0), (0, 0)))))
    observation, *_ = env.step(4)
    assert np.array_equal(observation, env.observe(env.s))
    assert env.states[env.s] == ((8, 1), (1, 0))


def test_starts_are_as_far_apart_as_asked() -> None:
    env = CatMouseGridEnv(head_start=5)
    starts = [env.states[state] for state in np.flatnonzero(env.initial_state_distrib)]
    assert all(env.grid.distances([mouse])[cat] >= 5 and mouse != env.cheese for mouse, cat in starts)
    assert len(starts) > 1000


def test_a_head_start_that_no_maze_has_is_refused() -> None:
    with pytest.raises(EnvironmentRuleError, match="`head_start` 50 leaves no start: no two cells are that far apart"):
        CatMouseGridEnv(head_start=50)
