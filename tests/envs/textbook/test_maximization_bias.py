"""The maximization-bias example against Sutton & Barto, Example 6.7."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from policylab.envs.textbook.maximization_bias import END, LEFT, RIGHT, A, B, MaximizationBiasEnv
from policylab.errors import EnvironmentRuleError


def rewards_from_b(env: MaximizationBiasEnv, n_episodes: int) -> np.ndarray:
    rewards = []
    for _ in range(n_episodes):
        env.reset()
        assert env.step(LEFT)[:3] == (B, 0.0, False)
        state, reward, terminated, _, _ = env.step(5)
        assert (state, terminated) == (END, True)
        rewards.append(reward)
    return np.array(rewards)


def test_rewards_of_b_are_normal_round_the_tables_mean() -> None:
    env = MaximizationBiasEnv()
    env.reset(seed=0)
    rewards = rewards_from_b(env, 4000)
    assert rewards.mean() == pytest.approx(-0.1, abs=4 / np.sqrt(4000))
    assert rewards.std() == pytest.approx(1.0, abs=0.05)
    assert env.P[B][5] == [(1.0, END, -0.1, True)]
    assert env.P_rewards_are_means


def test_q_learning_prefers_left_at_first_and_unlearns_it() -> None:
    # Figure 6.5: Q-learning takes left far more often than the 5 % of the optimal ε-greedy policy, then less and less.
    rng = np.random.default_rng(0)
    env = MaximizationBiasEnv()
    _, info = env.reset(seed=0)
    went_left = np.zeros(300)
    n_runs = 150
    for _ in range(n_runs):
        q = np.zeros((3, 10))
        for episode in range(went_left.size):
            state, info = env.reset()
            terminated = False
            while not terminated:
                allowed = np.flatnonzero(info["action_mask"])
                best = allowed[q[state, allowed] == q[state, allowed].max()]
                action = int(rng.choice(allowed if rng.random() < 0.1 else best))
                went_left[episode] += state == A and action == LEFT
                target, reward, terminated, _, info = env.step(action)
                q[state, action] += 0.1 * (reward + (not terminated) * q[target].max() - q[state, action])
                state = target
    went_left /= n_runs
    # Recomputed with 10,000 runs: 94 % at episode 22, 12.2 % at episode 300; bounds are 5 standard errors of 150 runs.
    assert went_left[15:30].mean() > 0.80
    assert went_left[280:].mean() == pytest.approx(0.125, abs=0.08)


def test_actions_of_a_beyond_two_repeat_left_and_right() -> None:
    env = MaximizationBiasEnv(n_actions=4)
    assert env.P[A][2] == env.P[A][LEFT]
    assert env.P[A][3] == env.P[A][RIGHT]
    assert env.reset(seed=0)[1]["action_mask"].tolist() == [1, 1, 0, 0]
    assert env.step(LEFT)[4]["action_mask"].tolist() == [1, 1, 1, 1]


def test_same_seed_gives_the_same_noise() -> None:
    def rewards(seed: int) -> np.ndarray:
        env = MaximizationBiasEnv()
        env.reset(seed=seed)
        return rewards_from_b(env, 5)

    assert rewards(4).tolist() == rewards(4).tolist() != rewards(5).tolist()


def test_without_noise_the_reward_is_its_mean() -> None:
    env = MaximizationBiasEnv(reward_mean=0.5, reward_std=0.0)
    env.reset(seed=0)
    assert rewards_from_b(env, 2).tolist() == [0.5, 0.5]


def test_it_follows_the_gymnasium_api() -> None:
    check_env(MaximizationBiasEnv(), skip_render_check=True)


def test_ansi_brackets_the_state() -> None:
    env = MaximizationBiasEnv(render_mode="ansi")
    env.reset(seed=0)
    assert env.render() == " B  [A]  end \n"


@pytest.mark.parametrize(
    ("kwargs", "message"), [({"n_actions": 1}, "n_actions must be >= 2"), ({"reward_std": -1.0}, "reward_std must be")]
)
def test_impossible_arguments_are_refused(kwargs: dict[str, float], message: str) -> None:
    with pytest.raises(EnvironmentRuleError, match=message):
        MaximizationBiasEnv(**kwargs)


def test_the_image_follows_the_state() -> None:
    env = MaximizationBiasEnv(render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    env.s = B
    after = env.render()
    assert before.shape == after.shape == (97, 145, 3)
    assert before.dtype == np.uint8
    assert (before != after).any()
