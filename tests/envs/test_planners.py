"""Planners against published and recomputed exact values, and against each other on random tables."""

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policylab.envs.enumeration import table_of
from policylab.envs.planners import (
    best_epsilon_soft,
    epsilon_soft,
    evaluate_policy,
    finite_horizon,
    modified_policy_iteration,
    policy_iteration,
    start_value,
    value_iteration,
)
from policylab.envs.table import TabularMDP
from policylab.errors import EnvironmentRuleError

TAXI = "Taxi-v4" if "Taxi-v4" in gym.registry else "Taxi-v3"
PLANNERS = [value_iteration, policy_iteration, modified_policy_iteration]


def table(name):
    env_id, _, variant = name.partition(" ")
    if name == "Taxi-v4 rainy":
        pytest.skip("Taxi-v4 corrected the dynamics of rain; these numbers are of Taxi-v3")
    kwargs = {"": {}, "firm": {"is_slippery": False}, "rainy": {"is_rainy": True}}[variant]
    return table_of(gym.make(env_id, **kwargs))


# Computed independently from Gymnasium's P by dynamic programming, and confirmed by simulation. Registry comments:
# FrozenLake 4x4 "optimum = 0.74", 8x8 "optimum = 0.91". 14/17 and -13 are exact.
STATIONARY = [
    ("FrozenLake-v1", 0.9, 0.068891, 1e-6),
    ("FrozenLake-v1", 0.95, 0.180472, 1e-6),
    ("FrozenLake-v1", 0.99, 0.5420259320, 1e-10),
    ("FrozenLake-v1", 0.999, 0.785533, 1e-6),
    ("FrozenLake-v1", 1.0, 14 / 17, 1e-10),
    ("FrozenLake-v1 firm", 0.99, 0.99**5, 1e-10),
    ("FrozenLake-v1 firm", 1.0, 1.0, 1e-10),
    ("FrozenLake8x8-v1", 0.99, 0.4146403618, 1e-10),
    ("FrozenLake8x8-v1", 1.0, 1.0, 1e-10),
    ("FrozenLake8x8-v1 firm", 0.99, 0.99**13, 1e-10),
    ("FrozenLake8x8-v1 firm", 1.0, 1.0, 1e-10),
    (TAXI, 0.99, 6.3274643149, 1e-9),
    (TAXI, 1.0, 7.93, 1e-10),
    (f"{TAXI} rainy", 0.99, 2.7228173173, 1e-9),  # as slippery as Taxi-v3 is, not as documented
    (f"{TAXI} rainy", 1.0, 4.4348839630, 1e-9),
    ("CliffWalking-v1", 0.99, -12.2478977001, 1e-9),
    ("CliffWalking-v1", 1.0, -13.0, 1e-10),
]


@pytest.mark.parametrize("planner", PLANNERS)
@pytest.mark.parametrize(("name", "discount", "expected", "tolerance"), STATIONARY)
def test_optimal_values(planner, name, discount, expected, tolerance):
    mdp = table(name)
    solution = planner(mdp, discount=discount)
    assert start_value(mdp, solution.values) == pytest.approx(expected, abs=tolerance)
    earned = evaluate_policy(mdp, solution.policy, discount=discount)
    np.testing.assert_allclose(earned, solution.values, atol=1e-9)
    np.testing.assert_allclose(solution.action_values.max(axis=1), solution.values, atol=1e-9)


# name, optimum at discount 1 and .99 within the registered limit (CliffWalking: 1000), uniform random policy ditto
WITHIN_LIMIT = [
    ("FrozenLake-v1", 0.7441902878, 0.5222806609, 0.013940, 0.012356),
    ("FrozenLake-v1 firm", 1.0, 0.99**5, 0.013940, 0.012356),
    ("FrozenLake8x8-v1", 0.9132201502, 0.4119854122, 0.001901, 0.001099),
    ("FrozenLake8x8-v1 firm", 1.0, 0.99**13, 0.001901, 0.001099),
    (TAXI, 7.93, 6.3274643149, -771.090999, -336.839426),
    (f"{TAXI} rainy", 4.4348839630, 2.7228173173, -772.512844, -337.202728),
    ("CliffWalking-v1", -13, -12.2478977001, -9512.058955, -1072.198945),
]


@pytest.mark.parametrize(("name", "optimum", "discounted", "random", "random_discounted"), WITHIN_LIMIT)
def test_values_within_the_step_limit(name, optimum, discounted, random, random_discounted):
    mdp = table(name)
    horizon = mdp.max_episode_steps or 1000
    uniform = np.full((mdp.n_states, mdp.n_actions), 1 / mdp.n_actions)
    for discount, best, chance in ((1.0, optimum, random), (0.99, discounted, random_discounted)):
        solution = finite_horizon(mdp, horizon=horizon, discount=discount)
        assert solution.values.shape == (horizon + 1, mdp.n_states)
        assert solution.policy.shape == (horizon, mdp.n_states)
        assert start_value(mdp, solution.values) == pytest.approx(best, abs=1e-9)
        earned = evaluate_policy(mdp, uniform, discount=discount, horizon=horizon)
        assert start_value(mdp, earned) == pytest.approx(chance, abs=1e-6)


@pytest.mark.parametrize(("discount", "success"), [(0.95, 0.7298), (0.99, 0.7401648978)])
def test_success_of_the_discounted_optimum_under_the_limit(discount, success):
    mdp = table("FrozenLake-v1")
    policy = value_iteration(mdp, discount=discount).policy
    earned = start_value(mdp, evaluate_policy(mdp, policy, discount=1, horizon=100))
    assert earned == pytest.approx(success, abs=5e-5)
    assert earned < 0.7441902878


# Limits of SARSA and Expected SARSA on the cliff (Sutton & Barto, figures 6.3 and 6.4), and the ε-greedy policy
# round the shortest path with ties to the first index (right before down), which Q-learning ends up following.
@pytest.mark.parametrize(
    ("epsilon", "best", "round_optimum"),
    [(0.1, -20.708, -45.803), (0.05, -17.519, -28.811), (0.01, -15.441, -16.067)],
)
def test_epsilon_soft_policies_on_the_cliff(epsilon, best, round_optimum):
    mdp = table("CliffWalking-v1")
    solution = best_epsilon_soft(mdp, epsilon=epsilon, discount=1)
    assert start_value(mdp, solution.values) == pytest.approx(best, abs=6e-4)
    soft = epsilon_soft(solution.policy, epsilon=epsilon, n_actions=4)
    np.testing.assert_allclose(evaluate_policy(mdp, soft, discount=1), solution.values, atol=1e-8)
    np.testing.assert_allclose((soft * solution.action_values).sum(axis=1), solution.values, atol=1e-8)
    greedy = value_iteration(mdp, discount=1).policy
    around = evaluate_policy(mdp, epsilon_soft(greedy, epsilon=epsilon, n_actions=4), discount=1)
    assert start_value(mdp, around) == pytest.approx(round_optimum, abs=6e-4)


# Cat and mouse: independently recomputed for the reference instance.
@pytest.mark.parametrize(
    ("discount", "best", "random"), [(0.95, 28.4589815737, -84.3598938327), (0.99, 39.5585858165, -99.8695257289)]
)
def test_cat_and_mouse(discount, best, random):
    mdp = table("policylab/CatMouse-v0")
    uniform = np.full((mdp.n_states, mdp.n_actions), 1 / mdp.n_actions)
    assert start_value(mdp, policy_iteration(mdp, discount=discount).values) == pytest.approx(best, abs=1e-8)
    assert start_value(mdp, evaluate_policy(mdp, uniform, discount=discount)) == pytest.approx(random, abs=1e-8)


def random_table(seed, *, n_states=6, n_actions=3, n_outcomes=3):
    rng = np.random.default_rng(seed)
    P = {}
    for state in range(n_states):
        P[state] = {}
        for action in range(n_actions):
            weights = rng.dirichlet(np.ones(n_outcomes))
            P[state][action] = [
                (float(p), int(rng.integers(n_states)), float(rng.normal()), bool(rng.random() < 0.2)) for p in weights
            ]
    return TabularMDP.from_outcomes(P, rng.dirichlet(np.ones(n_states)))


MDPS = st.builds(random_table, st.integers(0, 2**32 - 1))
DISCOUNTS = st.floats(0, 0.98)


@given(mdp=MDPS, discount=DISCOUNTS)
@settings(max_examples=60, deadline=None)
def test_the_planners_agree_and_earn_what_they_say(mdp, discount):
    first, *others = (planner(mdp, discount=discount) for planner in PLANNERS)
    for solution in others:
        np.testing.assert_allclose(solution.values, first.values, atol=1e-9)
        assert (solution.policy == first.policy).all()
    np.testing.assert_allclose(evaluate_policy(mdp, first.policy, discount=discount), first.values, atol=1e-9)
    bound = abs(mdp.reward).max() / (1 - discount)
    assert abs(first.values).max() <= bound + 1e-9


@given(mdp=MDPS, discount=st.floats(0, 0.9))
@settings(max_examples=30, deadline=None)
def test_a_long_horizon_approaches_no_horizon(mdp, discount):
    stationary = policy_iteration(mdp, discount=discount).values
    long = finite_horizon(mdp, horizon=400, discount=discount).values[0]
    np.testing.assert_allclose(long, stationary, atol=1e-8)
    one_step = finite_horizon(mdp, horizon=1, discount=discount).values[0]
    np.testing.assert_allclose(one_step, (mdp.probability * mdp.reward).sum(axis=2).max(axis=1), atol=1e-12)


@given(mdp=MDPS, discount=DISCOUNTS, epsilon=st.floats(0, 1), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_no_epsilon_soft_policy_beats_the_best_one(mdp, discount, epsilon, seed):
    best = best_epsilon_soft(mdp, epsilon=epsilon, discount=discount)
    other = np.random.default_rng(seed).integers(mdp.n_actions, size=mdp.n_states)
    for policy, slack in ((best.policy, 1e-9), (other, np.inf)):
        soft = epsilon_soft(policy, epsilon=epsilon, n_actions=mdp.n_actions)
        values = evaluate_policy(mdp, soft, discount=discount)
        assert (values <= best.values + 1e-9).all()
        assert (values >= best.values - slack).all()


@given(mdp=MDPS, discount=DISCOUNTS, seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_evaluation_solves_the_bellman_equation(mdp, discount, seed):
    rng = np.random.default_rng(seed)
    policy = rng.dirichlet(np.ones(mdp.n_actions), size=mdp.n_states)
    values = evaluate_policy(mdp, policy, discount=discount)
    targets = mdp.reward + discount * ~mdp.terminated * values[mdp.next_state]
    backed_up = (policy * (mdp.probability * targets).sum(axis=2)).sum(axis=1)
    np.testing.assert_allclose(backed_up, values, atol=1e-9)


def chain(*rows):
    """One action per state unless given more: rows[s][a] = list of outcomes."""
    return TabularMDP.from_outcomes(
        {s: dict(enumerate(actions)) for s, actions in enumerate(rows)}, np.eye(len(rows))[0]
    )


@pytest.mark.parametrize("planner", PLANNERS)
def test_undiscounted_planning_prefers_acting_to_waiting_for_ever(planner):
    # Waiting is free and ties with going on for every discount-1 value; only going on earns the reward.
    mdp = chain(
        [[(1.0, 0, 0.0, False)], [(1.0, 1, 0.0, False)]],
        [[(1.0, 0, 0.0, False)], [(1.0, 1, 5.0, True)]],
    )
    solution = planner(mdp, discount=1)
    assert solution.values.tolist() == [5.0, 5.0]
    assert solution.policy.tolist() == [1, 1]


@pytest.mark.parametrize("planner", PLANNERS)
def test_undiscounted_planning_may_stop_where_nothing_is_earned(planner):
    # From state 0: end now for -1, or move to a resting state where every reward is 0.
    mdp = chain(
        [[(1.0, 0, -1.0, True)], [(1.0, 1, -0.25, False)]],
        [[(1.0, 1, 0.0, False)], [(1.0, 1, -3.0, False)]],
    )
    solution = planner(mdp, discount=1)
    assert solution.values.tolist() == [-0.25, 0.0]
    assert solution.policy.tolist() == [1, 0]


@pytest.mark.parametrize("planner", PLANNERS)
def test_a_trap_that_can_be_avoided_is_worth_minus_infinity(planner):
    mdp = chain(
        [[(0.5, 0, 0.0, False), (0.5, 1, 0.0, False)], [(1.0, 0, -7.0, True)]],
        [[(1.0, 1, -1.0, False)], [(1.0, 1, -2.0, False)]],
    )
    solution = planner(mdp, discount=1)
    assert solution.values.tolist() == [-7.0, -np.inf]
    assert solution.policy[0] == 1
    assert start_value(mdp, solution.values) == -7.0


@pytest.mark.parametrize("planner", PLANNERS)
def test_an_undiscounted_task_without_an_end_is_refused(planner):
    mdp = chain([[(1.0, 0, -1.0, False)]])
    with pytest.raises(EnvironmentRuleError, match=r"no policy is sure to end .* use a discount below 1 or a horizon"):
        planner(mdp, discount=1)
    assert planner(mdp, discount=0.5).values[0] == pytest.approx(-2)


@pytest.mark.parametrize("planner", PLANNERS)
def test_rewards_without_bound_are_refused(planner):
    mdp = chain([[(1.0, 0, 1.0, False)], [(1.0, 0, 0.0, True)]])
    with pytest.raises(EnvironmentRuleError, match=r"use a (smaller discount|discount below 1) or a horizon"):
        planner(mdp, discount=1)


def test_an_endless_policy_is_refused_only_without_discount_or_horizon():
    mdp = table("CliffWalking-v1")
    into_the_wall = np.zeros(mdp.n_states, dtype=int)
    with pytest.raises(EnvironmentRuleError, match="may never end an episode of CliffWalking-v1"):
        evaluate_policy(mdp, into_the_wall, discount=1)
    assert start_value(mdp, evaluate_policy(mdp, into_the_wall, discount=0.9)) == pytest.approx(-10)
    assert start_value(mdp, evaluate_policy(mdp, into_the_wall, discount=1, horizon=30)) == -30
    lake = table("FrozenLake-v1 firm")
    assert start_value(lake, evaluate_policy(lake, np.zeros(16, dtype=int), discount=1)) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda mdp: value_iteration(mdp, discount=1.5), r"`discount` must lie in \[0, 1\], got 1.5"),
        (lambda mdp: policy_iteration(mdp, discount=float("nan")), "`discount` must lie"),
        (lambda mdp: finite_horizon(mdp, horizon=0), "`horizon` must be at least 1 step, got 0"),
        (lambda mdp: best_epsilon_soft(mdp, epsilon=-0.1, discount=1), "`epsilon` must lie"),
        (lambda mdp: epsilon_soft([0], epsilon=2, n_actions=2), "`epsilon` must lie"),
        (lambda mdp: evaluate_policy(mdp, [0, 1], discount=0.9), r"must have shape \(16,\) \(actions\) or \(16, 4\)"),
        (lambda mdp: evaluate_policy(mdp, [4] * 16, discount=0.9), r"integers in 0 \.\. 3"),
        (lambda mdp: evaluate_policy(mdp, [0.5] * 16, discount=0.9), r"integers in 0 \.\. 3"),
        (lambda mdp: evaluate_policy(mdp, np.ones((16, 4)), discount=0.9), "sum to 1"),
        (lambda mdp: evaluate_policy(mdp, [0] * 16, discount=0.9, horizon=-1), "`horizon` must be at least 1"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(EnvironmentRuleError, match=message):
        call(table("FrozenLake-v1"))


def test_a_large_chain_is_solved_sparsely():
    n = 3000  # a random walk: from state i the end at the right is reached with probability (i + 1) / (n + 1)
    rows = [[[(0.5, max(i - 1, 0), 0.0, i == 0), (0.5, min(i + 1, n - 1), float(i == n - 1), i == n - 1)]]
            for i in range(n)]  # fmt: skip
    mdp = chain(*rows)
    values = evaluate_policy(mdp, np.zeros(n, dtype=int), discount=1)
    np.testing.assert_allclose(values, (np.arange(n) + 1) / (n + 1), atol=1e-8)
