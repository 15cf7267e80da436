"""Jack's car rental against Sutton & Barto, Example 4.2, and against simulated days."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from policylab.envs.textbook.jacks_car_rental import JacksCarRentalEnv, location_day
from policylab.errors import EnvironmentRuleError


def test_optimal_values_and_policy_are_the_books() -> None:
    env = JacksCarRentalEnv()
    probability, reward = env.arrays()
    expected = (probability * reward).sum(axis=2)
    values = np.zeros(441)
    for _ in range(300):
        action_values = expected + 0.9 * probability @ values
        values = action_values.max(axis=1)
    # Exact dynamic programming with discount 0.9, the values behind Figure 4.2.
    assert [values[env.state(c, c)] for c in (0, 10, 20)] == pytest.approx([421.41, 574.95, 636.99], abs=0.01)
    moves = [
        env.cars(s)[0] - env.after_move(s, int(a))[0] if env.after_move(s, int(a))[2] else 0
        for s, a in enumerate(action_values.argmax(axis=1))
    ]
    # Figure 4.2, the optimal policy moves at most 5 cars to the second location and at most 4 to the first.
    assert (min(moves), max(moves)) == (-4, 5)


def test_a_day_at_one_location_agrees_with_simulation() -> None:
    rng = np.random.default_rng(0)
    n_days, morning = 200_000, 2
    rented = np.minimum(rng.poisson(3.0, n_days), morning)
    evening = np.minimum(morning - rented + rng.poisson(2.0, n_days), 4)
    probability, income = location_day(3.0, 2.0, max_cars=4)
    for cars in range(5):
        of_those = evening == cars
        assert of_those.mean() == pytest.approx(probability[morning, cars], abs=5 * 0.5 / np.sqrt(n_days))
        assert 10 * rented[of_those].mean() == pytest.approx(income[morning, cars], abs=0.3)


def test_every_row_of_the_table_is_a_distribution() -> None:
    env = JacksCarRentalEnv(max_cars=6, max_moves=2)
    for row in env.P.values():
        assert list(row) == [0, 1, 2, 3, 4]
        for outcomes in row.values():
            assert sum(outcome[0] for outcome in outcomes) == pytest.approx(1.0, abs=1e-12)
            assert [outcome[1] for outcome in outcomes] == list(range(49))
            assert not any(outcome[3] for outcome in outcomes)


def test_the_lazy_table_equals_the_arrays() -> None:
    env = JacksCarRentalEnv(max_cars=3, max_moves=1)
    probability, reward = env.arrays()
    assert probability.shape == reward.shape == (16, 3, 16)
    for s, a in np.ndindex(16, 3):
        assert [outcome[0] for outcome in env.P[s][a]] == probability[s, a].tolist()
        assert [outcome[2] for outcome in env.P[s][a]] == reward[s, a].tolist()


def test_moves_are_cut_to_the_cars_that_are_there() -> None:
    env = JacksCarRentalEnv()
    assert env.after_move(env.state(2, 0), 10) == (0, 2, 2)
    assert env.after_move(env.state(2, 1), 0) == (3, 0, 1)
    assert env.after_move(env.state(20, 20), 8) == (17, 20, 3)  # three cars find no place


def test_a_step_pays_what_the_table_says() -> None:
    env = JacksCarRentalEnv()
    env.reset(seed=0)
    for action in (0, 5, 10, 3):
        state = env.s
        target, reward, terminated, truncated, info = env.step(action)
        assert env.P[state][action][target] == (info["prob"], target, reward, False)
        assert (terminated, truncated) == (False, False)


def test_actions_outside_the_space_are_not_in_the_table() -> None:
    env = JacksCarRentalEnv()
    with pytest.raises(KeyError, match="11"):
        env.P[0][11]


def test_it_follows_the_gymnasium_api() -> None:
    check_env(JacksCarRentalEnv(), skip_render_check=True)


def test_ansi_shows_the_cars() -> None:
    env = JacksCarRentalEnv(max_cars=4, render_mode="ansi")
    env.reset(seed=0)
    assert env.render() == "location 1:   2 ##..\nlocation 2:   2 ##..\n"


@pytest.mark.parametrize("kwargs", [{"max_cars": 0}, {"max_moves": 101}])
def test_impossible_arguments_are_refused(kwargs: dict[str, int]) -> None:
    with pytest.raises(EnvironmentRuleError, match="must be from 1 to 100"):
        JacksCarRentalEnv(**kwargs)


def test_the_image_follows_the_state() -> None:
    env = JacksCarRentalEnv(render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    env.s = 3
    after = env.render()
    assert before.shape == after.shape == (49, 481, 3)
    assert before.dtype == np.uint8
    assert (before != after).any()
