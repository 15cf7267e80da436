"""The windy gridworlds against Sutton & Barto, Example 6.5 and Exercises 6.9 and 6.10."""

import gymnasium as gym
import pytest

from policylab.envs.enumeration import table_of
from policylab.envs.grids.windy import WindyGridworldEnv
from policylab.envs.planners import best_epsilon_soft, value_iteration
from policylab.errors import EnvironmentRuleError

START, GOAL = 30, 37


@pytest.mark.parametrize(("name", "length"), [("WindyGridworld-v0", 15), ("WindyGridworldKings-v0", 7)])
def test_shortest_way(name: str, length: int) -> None:
    solution = value_iteration(table_of(gym.make(f"policylab/{name}")), discount=1.0)
    assert solution.values[START] == -length


def test_staying_saves_nothing() -> None:
    # Exercise 6.9 asks whether a ninth move, caused by the wind alone, does better than eight.
    assert value_iteration(table_of(WindyGridworldEnv(n_moves=9)), discount=1.0).values[START] == -7


def test_best_epsilon_soft_length() -> None:
    # What SARSA with epsilon 0.1 can reach at best; Example 6.5 reports "about 17".
    mdp = table_of(gym.make("policylab/WindyGridworld-v0"))
    assert best_epsilon_soft(mdp, epsilon=0.1, discount=1.0).values[START] == pytest.approx(-17.048, abs=0.0005)


def test_from_the_right_of_the_goal_left_leads_above_it() -> None:
    # "If you are one cell to the right of the goal, then the action left takes you to the cell just above the goal."
    env = WindyGridworldEnv()
    assert env.P[GOAL + 1][2] == [(1.0, GOAL - 10, -1.0, False)]


def test_stochastic_wind_varies_by_one_where_there_is_any() -> None:
    env = gym.make("policylab/WindyGridworldStochastic-v0").unwrapped
    assert env.P[START][3] == [(1.0, START + 1, -1.0, False)]
    to_the_goal = sorted(env.P[53 + 3][3])  # from (5, 6): mean wind 2, so 1, 2 or 3 up
    assert to_the_goal == [(pytest.approx(1 / 3), 57 - 10 * up, -1.0, 57 - 10 * up == GOAL) for up in (3, 2, 1)]


def test_stochastic_wind_costs_steps() -> None:
    mdp = table_of(gym.make("policylab/WindyGridworldStochastic-v0"))
    assert -20 < value_iteration(mdp, discount=1.0).values[START] < -7


@pytest.mark.parametrize("n_moves", [0, 5, "8", None])
def test_other_numbers_of_moves_are_refused(n_moves: object) -> None:
    with pytest.raises(EnvironmentRuleError, match="`n_moves` must be 4, 8 or 9, got"):
        gym.make("policylab/WindyGridworld-v0", n_moves=n_moves)
