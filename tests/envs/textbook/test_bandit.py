"""The k-armed testbed against Sutton & Barto, section 2.3."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from policylab.envs.textbook.bandit import BanditEnv
from policylab.errors import EnvironmentRuleError


def test_the_best_of_ten_arms_is_worth_1_54_on_average() -> None:
    # E[max of 10 N(0, 1)] = 1.5388; the standard deviation of that maximum is 0.587.
    env = BanditEnv()
    env.reset(seed=0)
    best = []
    for _ in range(4000):
        env.reset()
        best.append(env.q.max())
    assert np.mean(best) == pytest.approx(1.5388, abs=4 * 0.587 / np.sqrt(4000))


def test_rewards_scatter_round_the_mean_of_the_arm() -> None:
    env = BanditEnv(reward_std=2.0)
    env.reset(seed=1)
    rewards = np.array([env.step(3)[1] for _ in range(4000)])
    assert rewards.mean() == pytest.approx(env.q[3], abs=4 * 2 / np.sqrt(4000))
    assert rewards.std() == pytest.approx(2.0, abs=0.1)


def test_mean_shifts_every_arm() -> None:
    shifted, plain = BanditEnv(mean=4.0), BanditEnv()
    shifted.reset(seed=2)
    plain.reset(seed=2)
    assert shifted.q == pytest.approx(plain.q + 4.0)


def test_a_stationary_problem_stays_and_a_reset_deals_a_new_one() -> None:
    env = BanditEnv()
    env.reset(seed=3)
    first = env.q.copy()
    for arm in range(10):
        env.step(arm)
    assert env.q.tolist() == first.tolist()
    env.reset()
    assert not np.isclose(env.q, first).any()


def test_drifting_arms_walk_independently() -> None:
    env = BanditEnv(k=200, drift=0.01)
    env.reset(seed=4)
    first = env.q.copy()
    for _ in range(100):
        env.step(0)
    # 100 steps of standard deviation 0.01 add up to 0.1; tolerance 5 standard errors of 200 arms.
    assert (env.q - first).std() == pytest.approx(0.1, abs=5 * 0.1 / np.sqrt(2 * 200))


def test_info_tells_the_optimal_arm_of_the_pull() -> None:
    env = BanditEnv(drift=1.0)
    _, info = env.reset(seed=5)
    for _ in range(50):
        best, mean = int(env.q.argmax()), float(env.q[7])
        _, _, terminated, truncated, info = env.step(7)
        assert info == {"optimal": best == 7, "optimal_action": best, "mean_reward": mean}
        assert not terminated
        assert not truncated


@pytest.mark.parametrize("kwargs", [{}, {"k": 1}, {"drift": 0.01, "mean": 4.0}])
def test_it_follows_the_gymnasium_api(kwargs: dict[str, float]) -> None:
    check_env(BanditEnv(**kwargs), skip_render_check=True)


def test_ansi_marks_the_best_and_the_last_arm() -> None:
    env = BanditEnv(k=2, render_mode="ansi")
    _, info = env.reset(seed=0)
    worse = 1 - info["optimal_action"]
    env.step(worse)
    lines = env.render().splitlines()
    assert lines[worse].endswith("<")
    assert lines[1 - worse].endswith("*")


@pytest.mark.parametrize("action", [10, -1, 2.5, None])
def test_an_arm_that_is_not_there_is_refused(action: object) -> None:
    env = BanditEnv()
    env.reset(seed=0)
    with pytest.raises(EnvironmentRuleError, match="action must be an arm 0 to 9, got"):
        env.step(action)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [({"k": 0}, "k must be >= 1"), ({"drift": -0.1}, "drift must be >= 0"), ({"reward_std": np.nan}, "reward_std")],
)
def test_impossible_arguments_are_refused(kwargs: dict[str, float], message: str) -> None:
    with pytest.raises(EnvironmentRuleError, match=message):
        BanditEnv(**kwargs)


def test_the_image_follows_the_state() -> None:
    env = BanditEnv(render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    env.step(0)
    after = env.render()
    assert before.shape == after.shape == (97, 481, 3)
    assert before.dtype == np.uint8
    assert (before != after).any()
