"""The short corridor against Sutton & Barto, Example 13.1."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from scipy.optimize import minimize_scalar

from policylab.envs.textbook.short_corridor import GOAL, LEFT, RIGHT, ShortCorridorEnv


def value_of_right_with(probability: float) -> float:
    """Value of the first state when every state goes right with ``probability``."""
    env = ShortCorridorEnv()
    matrix, reward = np.eye(GOAL), np.zeros(GOAL)
    for state in range(GOAL):
        for action, chosen in ((LEFT, 1 - probability), (RIGHT, probability)):
            for p, target, r, terminated in env.P[state][action]:
                reward[state] += chosen * p * r
                if not terminated:
                    matrix[state, target] -= chosen * p
    return float(np.linalg.solve(matrix, reward)[0])


def test_best_stochastic_policy_is_the_books() -> None:
    # Book: "the best probability of selecting right ... about 0.59", value about -11.6.
    best = minimize_scalar(lambda p: -value_of_right_with(p), bounds=(0.1, 0.9), method="bounded")
    assert best.x == pytest.approx(2 - np.sqrt(2), abs=1e-4)
    assert -best.fun == pytest.approx(-6 - 4 * np.sqrt(2), abs=1e-6)


def test_epsilon_greedy_policies_are_the_books() -> None:
    # Book: "values ... of less than -44 and -82" for ε = 0.1.
    assert value_of_right_with(0.95) == pytest.approx(-44.2, abs=0.05)
    assert value_of_right_with(0.05) == pytest.approx(-82.1, abs=0.05)


def test_the_observation_hides_the_state() -> None:
    env = ShortCorridorEnv()
    assert env.reset(seed=0)[0] == 0
    assert env.step(RIGHT)[0] == 0
    assert env.s == 1
    assert env.observation_space.n == 1


def test_observe_state_shows_it() -> None:
    env = ShortCorridorEnv(observe_state=True)
    env.reset(seed=0)
    assert [env.step(action)[0] for action in (LEFT, RIGHT, RIGHT, RIGHT, LEFT, RIGHT)] == [0, 1, 0, 1, 2, 3]


@pytest.mark.parametrize("observe_state", [False, True])
def test_it_follows_the_gymnasium_api(observe_state: bool) -> None:
    check_env(ShortCorridorEnv(observe_state=observe_state), skip_render_check=True)


def test_ansi_shows_the_true_state() -> None:
    env = ShortCorridorEnv(render_mode="ansi")
    env.reset(seed=0)
    assert env.render() == "ox.G\n"
    env.step(RIGHT)
    assert env.render() == ".o.G\n"


def test_the_image_follows_the_state() -> None:
    env = ShortCorridorEnv(render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    env.s = 2
    after = env.render()
    assert before.shape == after.shape == (49, 193, 3)
    assert before.dtype == np.uint8
    assert (before != after).any()
