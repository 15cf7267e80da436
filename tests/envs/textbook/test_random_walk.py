"""The random walk against Sutton & Barto, Examples 6.2 and 7.1."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from policylab.envs.textbook.random_walk import RandomWalkEnv
from policylab.errors import EnvironmentRuleError


def values(env: RandomWalkEnv) -> np.ndarray:
    """Solve the Bellman equation of the walk, shape (n,)."""
    matrix, reward = np.eye(env.n + 2), np.zeros(env.n + 2)
    for state in range(1, env.n + 1):
        for p, target, r, terminated in env.P[state][0]:
            matrix[state, target] -= p * (not terminated)
            reward[state] += p * r
    return np.linalg.solve(matrix, reward)[1:-1]


def test_values_of_example_6_2_are_sixths() -> None:
    env = RandomWalkEnv(n=5, left_reward=0.0)
    assert values(env) == pytest.approx(np.arange(1, 6) / 6)


def test_values_of_example_7_1() -> None:
    # Book, Figure 7.2: 19 states, -1 on the left, +1 on the right; the true values run from -0.9 to 0.9.
    assert values(RandomWalkEnv()) == pytest.approx(np.arange(-9, 10) / 10)


@given(n=st.integers(1, 40), left=st.floats(-5, 5), right=st.floats(-5, 5))
@settings(max_examples=30, deadline=None)
def test_values_lie_on_the_line_between_the_ends(n: int, left: float, right: float) -> None:
    expected = left + (right - left) * np.arange(1, n + 1) / (n + 1)
    assert values(RandomWalkEnv(n=n, left_reward=left, right_reward=right)) == pytest.approx(expected, abs=1e-9)


def test_an_episode_starts_in_the_middle_and_ends_at_an_end() -> None:
    env = RandomWalkEnv(n=5)
    state, _ = env.reset(seed=3)
    assert state == 3
    terminated = False
    while not terminated:
        state, reward, terminated, _, _ = env.step(0)
        assert (reward != 0.0) == terminated
    assert state in (0, 6)
    assert reward == (1.0 if state == 6 else -1.0)


def test_it_follows_the_gymnasium_api() -> None:
    check_env(RandomWalkEnv(), skip_render_check=True)


def test_ansi_shows_the_walker() -> None:
    env = RandomWalkEnv(n=5, render_mode="ansi")
    env.reset(seed=0)
    assert env.render() == "|..o..|\n"


def test_a_walk_without_states_is_refused() -> None:
    with pytest.raises(EnvironmentRuleError, match="n must be >= 1, got 0"):
        RandomWalkEnv(n=0)


def test_the_image_follows_the_state() -> None:
    env = RandomWalkEnv(render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    env.s = 4
    after = env.render()
    assert before.shape == after.shape == (33, 32 * 21 + 1, 3)
    assert before.dtype == np.uint8
    assert (before != after).any()
