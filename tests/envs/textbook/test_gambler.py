"""The gambler's problem against Sutton & Barto, Example 4.3."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from policylab.envs.textbook.gambler import GamblerEnv
from policylab.errors import EnvironmentRuleError


def optimal_values(env: GamblerEnv) -> np.ndarray:
    values = np.zeros(env.goal + 1)
    for _ in range(10_000):
        previous = values.copy()
        for capital in range(1, env.goal):
            values[capital] = max(
                sum(p * (r + values[target] * (not end)) for p, target, r, end in outcomes)
                for outcomes in env.P[capital].values()
            )
        if np.abs(values - previous).max() < 1e-13:
            break
    return values


def test_values_are_those_of_figure_4_3() -> None:
    values = optimal_values(GamblerEnv())
    assert values[[25, 50, 75]] == pytest.approx([0.16, 0.4, 0.64], abs=1e-9)
    assert values[99] == pytest.approx(0.964333, abs=5e-7)


def test_values_with_a_worse_coin() -> None:
    values = optimal_values(GamblerEnv(p_heads=0.25))
    assert values[[25, 50, 75]] == pytest.approx([0.0625, 0.25, 0.4375], abs=1e-9)


def test_with_a_fair_coin_every_capital_is_worth_its_share() -> None:
    # A martingale: the probability of winning is capital / goal whatever the stakes.
    assert optimal_values(GamblerEnv(p_heads=0.5, goal=10)) == pytest.approx([*np.arange(10) / 10, 0.0], abs=1e-9)


def test_stakes_are_cut_to_what_is_possible() -> None:
    table = GamblerEnv().P
    assert table[10][50] == table[10][10]
    assert table[90][50] == table[90][10]
    assert table[30][0] == [(1.0, 30, 0.0, False)]


def test_odd_goal_has_stakes_up_to_its_half() -> None:
    env = GamblerEnv(goal=7)
    assert env.action_space.n == 4
    assert all(0 <= target <= 7 for row in env.P.values() for o in row.values() for _, target, _, _ in o)


def test_it_follows_the_gymnasium_api() -> None:
    check_env(GamblerEnv(), skip_render_check=True)


def test_ansi_shows_the_capital() -> None:
    env = GamblerEnv(render_mode="ansi")
    env.reset(seed=0)
    env.s = 50
    assert env.render() == "capital 50 of 100 [##########..........]\n"


@pytest.mark.parametrize(("kwargs", "message"), [({"p_heads": 1.5}, "p_heads must be in"), ({"goal": 1}, "goal must")])
def test_impossible_arguments_are_refused(kwargs: dict[str, float], message: str) -> None:
    with pytest.raises(EnvironmentRuleError, match=message):
        GamblerEnv(**kwargs)


def test_the_image_follows_the_state() -> None:
    env = GamblerEnv(render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    env.s = 90
    after = env.render()
    assert before.shape == after.shape == (49, 481, 3)
    assert before.dtype == np.uint8
    assert (before != after).any()
