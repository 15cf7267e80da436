"""The exact model of Blackjack-v1."""

import gymnasium as gym
import numpy as np
import pytest

from policylab.envs.enumeration import table_of
from policylab.envs.planners import evaluate_policy, start_value, value_iteration
from policylab.envs.textbook.blackjack import OBSERVATION_SHAPE, dealer_results, observation_index, observed_policy


def stick_from(total):
    policy = np.ones(704, dtype=int)
    for index in range(704):
        policy[index] = np.unravel_index(index, OBSERVATION_SHAPE)[0] < total
    return observed_policy(policy)


# Exact optimum of the registered rules and of the plain ones, recomputed by an independent dynamic programme.
@pytest.mark.parametrize(("rules", "optimum"), [({}, -0.0431131054), ({"sab": False, "natural": False}, -0.0465559771)])
def test_optimal_value(rules, optimum):
    mdp = table_of(gym.make("Blackjack-v1", **rules))
    solution = value_iteration(mdp, discount=1)
    assert start_value(mdp, solution.values) == pytest.approx(optimum, abs=1e-10)
    by_observation = evaluate_policy(mdp, observed_policy(solution.policy), discount=1)
    assert start_value(mdp, by_observation) == pytest.approx(optimum, abs=1e-10)


@pytest.mark.parametrize(("total", "value"), [(17, -0.0792945317), (18, -0.1119777146), (20, -0.3535540177)])
def test_threshold_policies_under_plain_rules(total, value):
    mdp = table_of(gym.make("Blackjack-v1", sab=False))
    assert start_value(mdp, evaluate_policy(mdp, stick_from(total), discount=1)) == pytest.approx(value, abs=1e-10)
    uniform = np.full((704, 2), 0.5)
    assert start_value(mdp, evaluate_policy(mdp, uniform, discount=1)) == pytest.approx(-0.3958959928, abs=1e-10)


def test_sutton_and_barto_example_5_4():
    # Usable ace, sum 13, dealer shows a deuce, stick on 20 and 21: the book's simulation gives -0.27726.
    mdp = table_of(gym.make("Blackjack-v1"))
    values = evaluate_policy(mdp, stick_from(20), discount=1)
    assert values[observation_index((13, 2, 1))] == pytest.approx(-0.277204, abs=1e-6)


@pytest.mark.parametrize("rules", [{}, {"sab": False}, {"sab": False, "natural": True}])
def test_monte_carlo_agrees_with_the_model(rules):
    env = gym.make("Blackjack-v1", disable_env_checker=True, **rules)
    mdp = table_of(env)
    policy = stick_from(18)
    exact = start_value(mdp, evaluate_policy(mdp, policy, discount=1))
    env.reset(seed=5)
    returns = []
    for _ in range(10_000):
        observation, ended = env.reset()[0], False
        while not ended:
            observation, reward, ended, _, _ = env.step(int(policy[observation_index(observation)]))
        returns.append(reward)
    error = np.std(returns) / np.sqrt(len(returns))
    assert abs(np.mean(returns) - exact) < 4.5 * error  # 4.5 standard errors: one false alarm in 150,000


def test_a_natural_is_paid_by_the_rules():
    stick = {}
    for name, rules in (("sab", {}), ("plain", {"sab": False}), ("casino", {"sab": False, "natural": True})):
        mdp = table_of(gym.make("Blackjack-v1", **rules))
        stick[name] = evaluate_policy(mdp, np.zeros(704, dtype=int), discount=1)[observation_index((21, 5, 1))]
    no_tie = 1 - dict(dealer_results(5))[21]
    assert stick["sab"] == pytest.approx(1)  # against a 5 the dealer cannot have a natural
    assert stick["plain"] == pytest.approx(no_tie)
    assert stick["casino"] == pytest.approx(1.5 * no_tie)


@pytest.mark.parametrize("up_card", range(1, 11))
def test_dealer_results_are_a_distribution(up_card):
    results = dict(dealer_results(up_card))
    assert sum(results.values()) == pytest.approx(1, abs=1e-12)
    natural = {1: 4 / 13, 10: 1 / 13}.get(up_card, 0)
    assert results.get(22, 0) == pytest.approx(natural)


def test_the_table_says_what_the_player_sees():
    mdp = table_of(gym.make("Blackjack-v1", sab=True))
    assert mdp.observation is not None
    hidden = [state for state in range(mdp.n_states) if mdp.observation[state] != state]
    assert [tuple(np.unravel_index(state, (32, 11, 2))) for state in hidden] == [
        (0, dealer, 1) for dealer in range(1, 11)
    ]
    assert {int(np.unravel_index(mdp.observation[state], (32, 11, 2))[0]) for state in hidden} == {21}
