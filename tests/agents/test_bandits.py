"""Bandit learners against published numbers and definitions, and the agent's checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from policylab.agents.bandit_learners import (
    ActionValueLearner,
    GradientLearner,
    ThompsonLearner,
    Ucb1Learner,
    make_learner,
)
from policylab.agents.bandits import (
    BanditAgent,
    BanditSettings,
    EpsilonGreedyBandit,
    GradientBandit,
    OptimisticBandit,
    ThompsonBandit,
    Ucb1Bandit,
    run_testbed,
)
from policylab.envs.settings import EnvSettings
from policylab.errors import CheckpointError, EnvironmentRuleError
from policylab.seeding import generator

BANDIT = EnvSettings(id="policylab/Bandit-v0", max_episode_steps=70)
ALL: list[BanditSettings] = [
    EpsilonGreedyBandit(),
    EpsilonGreedyBandit(learning_rate=0.2),
    OptimisticBandit(),
    Ucb1Bandit(),
    GradientBandit(),
    GradientBandit(baseline=False),
    ThompsonBandit(),
]


def late_window(settings: BanditSettings, *, mean: float = 0.0) -> dict[str, tuple[float, float]]:
    """Return (mean, standard error) over 2,000 problems of reward and % best arm, steps 901 to 1,000."""
    batches = [
        run_testbed(settings, n_problems=400, n_steps=1000, rng=generator(0, "testbed", batch), mean=mean)
        for batch in range(5)
    ]
    rewards = [float(reward[900:].mean()) for reward, _ in batches]
    optimal = [float(100 * best[900:].mean()) for _, best in batches]
    return {
        name: (float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values))))
        for name, values in (("reward", rewards), ("optimal", optimal))
    }


def assert_published(measured: tuple[float, float], published: float, *, rounding: float) -> None:
    """Both numbers are means over 2,000 problems: allow four standard errors of their difference."""
    value, standard_error = measured
    assert value == pytest.approx(published, abs=4 * np.sqrt(2) * standard_error + rounding)


# Sutton & Barto (2018), figures 2.2 to 2.5, recomputed over 2,000 problems, means over steps 901 to 1,000.
@pytest.mark.parametrize(
    ("settings", "mean", "reward", "optimal"),
    [
        pytest.param(EpsilonGreedyBandit(epsilon=0.0), 0.0, 1.03, 34.5, id="figure 2.2 greedy"),
        pytest.param(EpsilonGreedyBandit(epsilon=0.01), 0.0, 1.315, 59.5, id="figure 2.2 epsilon .01"),
        pytest.param(EpsilonGreedyBandit(epsilon=0.1), 0.0, 1.365, 80.5, id="figure 2.2 epsilon .1"),
        pytest.param(OptimisticBandit(), 0.0, None, 86.8, id="figure 2.3 optimistic"),
        pytest.param(EpsilonGreedyBandit(learning_rate=0.1), 0.0, None, 76.7, id="figure 2.3 realistic"),
        pytest.param(Ucb1Bandit(c=2.0), 0.0, 1.484, 85.4, id="figure 2.4 UCB c 2"),
        pytest.param(Ucb1Bandit(c=1.0), 0.0, 1.523, 92.9, id="figure 2.4 UCB c 1"),
        pytest.param(GradientBandit(), 4.0, None, 84.4, id="figure 2.5 alpha .1 with baseline"),
        pytest.param(GradientBandit(baseline=False), 4.0, None, 48.5, id="figure 2.5 alpha .1"),
        pytest.param(GradientBandit(learning_rate=0.4), 4.0, None, 72.9, id="figure 2.5 alpha .4 with baseline"),
        pytest.param(GradientBandit(learning_rate=0.4, baseline=False), 4.0, None, 28.4, id="figure 2.5 alpha .4"),
    ],
)
def test_published_figures_are_reproduced(
    settings: BanditSettings, mean: float, reward: float | None, optimal: float
) -> None:
    measured = late_window(settings, mean=mean)
    assert_published(measured["optimal"], optimal, rounding=0.5)
    if reward is not None:
        assert_published(measured["reward"], reward, rounding=0.015)


def test_the_best_arm_is_worth_the_expected_maximum_of_ten_normals() -> None:
    """E[max of 10 N(0, 1)] = 1.5388 bounds every learner; Thompson sampling comes close to it."""
    reward, standard_error = late_window(ThompsonBandit())["reward"]
    assert 1.45 < reward < 1.5388 + 4 * standard_error


def test_a_constant_step_size_follows_drifting_arms_better_than_the_sample_average() -> None:
    """Sutton & Barto (2018), exercise 2.5: deviation .01 a step, epsilon .1, alpha .1."""
    rates: list[Any] = ["sample_average", 0.1]
    average, constant = (
        run_testbed(
            EpsilonGreedyBandit(learning_rate=rate), n_problems=300, n_steps=4000, rng=generator(1, "drift"), drift=0.01
        )[1][3000:].mean()
        for rate in rates
    )
    assert constant > average + 0.1


def test_a_testbed_is_a_function_of_its_stream() -> None:
    once, again = (run_testbed(Ucb1Bandit(), n_problems=20, n_steps=50, rng=generator(3, "t")) for _ in range(2))
    assert once[0].tolist() == again[0].tolist()
    assert once[1].tolist() == again[1].tolist()


# ------------------------------------------------------------------ the rules themselves


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(-10, 10)), min_size=1, max_size=30))
def test_sample_averages_are_averages(pulls: list[tuple[int, float]]) -> None:
    learner = ActionValueLearner((1, 3), initial_value=100.0)
    for arm, reward in pulls:
        learner.update(np.array([arm]), np.array([reward]))
    for arm in range(3):
        rewards = [reward for pulled, reward in pulls if pulled == arm]
        expected = float(np.mean(rewards)) if rewards else 100.0
        assert float(learner.state["estimates"][0, arm]) == pytest.approx(expected)


def test_a_constant_step_size_weighs_recent_rewards_exponentially() -> None:
    """Equation 2.6: Q = (1 - α)^n Q1 + sum of α (1 - α)^(n - i) R_i."""
    learner = ActionValueLearner((1, 1), learning_rate=0.25, initial_value=8.0)
    for reward in (1.0, 2.0, 4.0):
        learner.update(np.array([0]), np.array([reward]))
    expected = 0.75**3 * 8 + 0.25 * (0.75**2 * 1 + 0.75 * 2 + 4)
    assert float(learner.state["estimates"][0, 0]) == pytest.approx(expected)


def test_ucb_tries_every_arm_first_and_then_follows_equation_2_10() -> None:
    learner, rng = Ucb1Learner((1, 4), c=2.0), generator(0, "ucb")
    rewards = {0: 0.3, 1: 0.1, 2: 0.9, 3: 0.5}
    tried = []
    for _ in range(4):
        arms = learner.select(rng)
        tried.append(int(arms[0]))
        learner.update(arms, np.array([rewards[int(arms[0])]]))
    assert sorted(tried) == [0, 1, 2, 3]
    learner.update(np.array([2]), np.array([0.9]))
    bounds = [rewards[a] + 2 * np.sqrt(np.log(6) / (2 if a == 2 else 1)) for a in range(4)]
    assert int(learner.select(rng)[0]) == int(np.argmax(bounds)) == 3


def test_the_gradient_step_follows_equation_2_12() -> None:
    learner = GradientLearner((1, 2), learning_rate=0.5, baseline=True)
    learner.update(np.array([0]), np.array([3.0]))
    assert learner.state["preferences"].tolist() == [[0.0, 0.0]]  # the first reward is its own baseline
    learner.update(np.array([1]), np.array([5.0]))
    assert learner.state["preferences"].tolist() == [[-0.5, 0.5]]  # α (5 - 3) (1 - 1/2)
    assert learner.state["baseline"].tolist() == [4.0]
    assert learner.policy().probabilities(0).tolist() == pytest.approx([1 / (1 + np.e), np.e / (1 + np.e)])


def test_the_posterior_is_the_conjugate_normal_one() -> None:
    settings = ThompsonBandit(prior_mean=1.0, prior_std=2.0, reward_std=3.0)
    learner = ThompsonLearner((1, 2), settings)
    for reward in (4.0, 6.0):
        learner.update(np.array([0]), np.array([reward]))
    precision = 1 / 4 + 2 / 9
    expected = (1 / 4 * 1.0 + 2 / 9 * 5.0) / precision
    assert learner.policy().values(0).tolist() == pytest.approx([expected, 1.0])
    draws = np.array([learner._scores(generator(seed, "draw"))[0] for seed in range(2000)])
    assert draws[:, 0].std() == pytest.approx(precision**-0.5, rel=0.08)
    assert draws[:, 1].std() == pytest.approx(2.0, rel=0.08)


@pytest.mark.parametrize("settings", ALL, ids=lambda s: s.kind)
def test_ties_are_broken_at_random(settings: BanditSettings) -> None:
    arms = make_learner(settings, n_problems=3000, k=3).select(generator(0, "ties"))
    assert np.bincount(arms, minlength=3).min() > 900


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (EpsilonGreedyBandit, {"epsilon": 1.5}),
        (EpsilonGreedyBandit, {"learning_rate": 0.0}),
        (OptimisticBandit, {"learning_rate": "sample_average"}),
        (Ucb1Bandit, {"c": -1.0}),
        (GradientBandit, {"learning_rate": float("inf")}),
        (ThompsonBandit, {"prior_std": 0.0}),
        (ThompsonBandit, {"epsilon": 0.1}),
    ],
)
def test_settings_out_of_range_are_refused(model: Any, values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(values))):
        model(**values)


# ------------------------------------------------------------------ the agent


def make(settings: BanditSettings, *, seed: int = 5, env: EnvSettings = BANDIT) -> BanditAgent:
    return BanditAgent.make(settings, env, seed=seed, budget_steps=1000)


@pytest.mark.parametrize("settings", ALL, ids=lambda s: s.kind)
def test_saving_and_restoring_continues_to_the_last_bit(settings: BanditSettings, tmp_path: Path) -> None:
    straight = make(settings)
    straight.learn(100)
    expected = straight.learn(130)
    first = make(settings)
    first.learn(100)
    first.save(tmp_path / "checkpoint")
    second = make(settings)
    second.learn(13)
    second.restore(tmp_path / "checkpoint")
    assert second.learn(130) == expected
    assert second.policy().values(0).tolist() == straight.policy().values(0).tolist()


def test_restoring_before_the_first_step_and_at_an_episode_end(tmp_path: Path) -> None:
    for steps in (0, 70):
        first = make(GradientBandit())
        first.learn(steps)
        first.save(tmp_path / str(steps))
        second = make(GradientBandit())
        second.restore(tmp_path / str(steps))
        assert second.learn(90) == first.learn(90)


def test_every_episode_is_a_new_problem_and_the_report_counts_episodes() -> None:
    agent = make(EpsilonGreedyBandit())
    report = agent.learn(150)
    assert (report.steps, report.episodes) == (150, 2)
    assert report.metrics["train/length_mean"] == 70.0
    assert 0.0 <= report.metrics["train/optimal_fraction"] <= 1.0
    assert report.metrics["train/return_mean"] == pytest.approx(70 * report.metrics["train/reward_mean"], abs=40)
    assert agent._learner.state["counts"].sum() == 10
    assert "train/return_mean" not in agent.learn(5).metrics


def test_the_agent_finds_the_best_arm_of_a_problem() -> None:
    agent = make(Ucb1Bandit(c=1.0), env=EnvSettings(id="policylab/Bandit-v0", max_episode_steps=5000))
    agent.learn(4000)
    assert agent.learn(900).metrics["train/optimal_fraction"] > 0.9


def test_the_agent_earns_what_the_testbed_says() -> None:
    """One problem a time on the environment and 2,000 at once are the same experiment (figure 2.2, epsilon .1)."""
    env = EnvSettings(id="policylab/Bandit-v0", max_episode_steps=100)
    earned = make(EpsilonGreedyBandit(), env=env).learn(40_000).metrics["train/reward_mean"]
    expected, _ = run_testbed(EpsilonGreedyBandit(), n_problems=2000, n_steps=100, rng=generator(0, "testbed"))
    standard_error = 0.6 / np.sqrt(400)  # the best arm's deviation over problems is 0.59
    assert earned == pytest.approx(expected.mean(), abs=4 * standard_error)


def test_different_seeds_meet_different_problems() -> None:
    first, second = (make(ThompsonBandit(), seed=seed).learn(70).metrics["train/reward_mean"] for seed in (0, 1))
    assert first != second


def test_environments_with_states_are_refused() -> None:
    with pytest.raises(EnvironmentRuleError, match=r"needs an environment with one observation.*FrozenLake-v1 has"):
        make(Ucb1Bandit(), env=EnvSettings(id="FrozenLake-v1"))


def test_foreign_and_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    agent = make(Ucb1Bandit())
    agent.learn(30)
    agent.save(tmp_path)
    with pytest.raises(CheckpointError, match="was saved by another agent"):
        make(Ucb1Bandit(c=1.0)).restore(tmp_path)
    with pytest.raises(CheckpointError, match="was saved by another agent"):
        make(Ucb1Bandit(), env=EnvSettings(id="policylab/Bandit-v0")).restore(tmp_path)
    arrays = (tmp_path / "state.npz").read_bytes()
    (tmp_path / "state.npz").write_bytes(arrays[:-1])
    with pytest.raises(CheckpointError, match=r"state\.npz is damaged: its sha256"):
        make(Ucb1Bandit()).restore(tmp_path)
    (tmp_path / "state.npz").write_bytes(arrays)
    facts = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps({**facts, "cursor": {}}))
    with pytest.raises(CheckpointError, match=r"state\.json is damaged: its digest does not match"):
        make(Ucb1Bandit()).restore(tmp_path)
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"state\.json is damaged: it is not JSON"):
        make(Ucb1Bandit()).restore(tmp_path)
    with pytest.raises(CheckpointError, match=r"nowhere.state\.json cannot be read"):
        make(Ucb1Bandit()).restore(tmp_path / "nowhere")
