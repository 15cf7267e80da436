"""Cat and mouse against exact values computed independently, and its rules one by one."""

import gymnasium as gym
import numpy as np
import pytest

from policylab.envs.enumeration import table_of
from policylab.envs.grids.cat_mouse import CatMouseCatEnv, CatMouseEnv, Positions
from policylab.envs.planners import value_iteration
from policylab.envs.planning_evaluation import evaluate_policy
from policylab.errors import EnvironmentRuleError

STAY, UP, DOWN, LEFT, RIGHT = range(5)


def start_value(env: gym.Env, values: np.ndarray) -> float:
    return float(env.unwrapped.initial_state_distrib @ values)


@pytest.mark.parametrize(
    ("discount", "optimal", "random"),
    [(0.95, 28.4589815737, -84.3598938327), (0.99, 39.5585858165, -99.8695257289)],
)
def test_values_of_the_reference_maze(discount: float, optimal: float, random: float) -> None:
    # Exact values of the same rules, computed by a separate program without a time limit.
    env = gym.make("policylab/CatMouse-v0")
    mdp = table_of(env)
    assert mdp.n_states == 484
    assert start_value(env, value_iteration(mdp, discount=discount).values) == pytest.approx(optimal, abs=5e-10)
    uniform = np.full((484, 5), 0.2)
    assert start_value(env, evaluate_policy(mdp, uniform, discount=discount)) == pytest.approx(random, abs=5e-10)


def outcomes(env: CatMouseEnv | CatMouseCatEnv, mouse: tuple[int, int], cat: tuple[int, int], action: int) -> dict:
    """{(mouse, cat, reward, terminated): probability} of one action."""
    state = env.states.index(Positions(mouse, cat))
    return {(*env.states[s], reward, ended): p for p, s, reward, ended in env.P[state][action]}


def test_the_cheese_comes_before_the_cat() -> None:
    assert outcomes(CatMouseEnv(), (0, 3), (0, 4), RIGHT) == {((0, 4), (0, 4), 50.0, True): 1.0}


def test_running_into_the_cat_ends_it() -> None:
    assert outcomes(CatMouseEnv(), (4, 1), (4, 2), RIGHT) == {((4, 2), (4, 2), -100.0, True): 1.0}


def test_the_cat_chases_but_sometimes_errs() -> None:
    # The cat at (4, 2) has the mouse to its left; up leads to (3, 2), right to (4, 3), down is blocked.
    chances = outcomes(CatMouseEnv(epsilon=0.2), (4, 1), (4, 2), STAY)
    assert chances == {
        ((4, 1), (4, 1), -100.0, True): pytest.approx(0.8 + 0.04),
        ((4, 1), (4, 2), -1.0, False): pytest.approx(0.08),
        ((4, 1), (3, 2), -1.0, False): pytest.approx(0.04),
        ((4, 1), (4, 3), -1.0, False): pytest.approx(0.04),
    }


def test_equally_near_cells_are_equally_likely() -> None:
    env = CatMouseEnv(["M.K", "...", "..C"], epsilon=0.0)
    chances = outcomes(env, (0, 0), (2, 2), STAY)
    assert {key[1]: p for key, p in chances.items()} == {(1, 2): 0.5, (2, 1): 0.5}


def test_the_cat_wins_by_catching_and_loses_to_the_cheese() -> None:
    env = CatMouseCatEnv(epsilon=0.0)
    assert outcomes(env, (4, 1), (4, 2), LEFT) == {((4, 1), (4, 1), 100.0, True): 1.0}
    assert outcomes(env, (0, 3), (4, 0), STAY) == {((0, 4), (4, 0), -50.0, True): 1.0}


def test_the_mouse_keeps_clear_of_the_cat() -> None:
    # From (0, 2) the cheese is to the right, but the cat at (0, 4) could then pounce on (0, 3).
    reached = outcomes(CatMouseCatEnv(epsilon=0.0), (0, 2), (0, 4), STAY)
    assert ((0, 3), (0, 4), -1.0, False) not in reached
    assert sum(reached.values()) == pytest.approx(1.0)


def test_a_cornered_mouse_takes_the_farthest_cell_it_can_reach() -> None:
    reached = outcomes(CatMouseCatEnv(["MC.K"], epsilon=0.0), (0, 0), (0, 1), STAY)
    assert reached == {((0, 0), (0, 1), -1.0, False): 1.0}


def test_a_good_cat_beats_a_random_one() -> None:
    env = gym.make("policylab/CatMouseCat-v0")
    mdp = table_of(env)
    best = start_value(env, value_iteration(mdp, discount=0.95).values)
    random = start_value(env, evaluate_policy(mdp, np.full((484, 5), 0.2), discount=0.95))
    assert best > 40 > 0 > random


def test_animals_that_cannot_meet_never_do() -> None:
    env = CatMouseEnv(["M#C", "K#."])
    assert all(cat != (0, 0) for (_, cat, _, _) in outcomes(env, (0, 0), (0, 2), STAY))


def test_the_text_shows_both_and_the_last_move() -> None:
    env = gym.make("policylab/CatMouse-v0", epsilon=0.0, render_mode="ansi")
    env.reset(seed=0)
    assert env.render() == "C...K\n.#...\n...#.\n.#...\nM....\n"
    env.step(STAY)
    assert env.render() == "....K\nC#...\n...#.\n.#...\nM....\n(mouse stay)\n"
    env.unwrapped.s = env.unwrapped.states.index(Positions((2, 2), (2, 2)))
    assert "X" in env.render()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"map": ["MC."]}, "exactly one cheese 'K', got 0"),
        ({"map": ["MMCK"]}, "exactly one mouse 'M', got 2"),
        ({"map": ["MCCK"]}, "exactly one cat 'C', got 2"),
        ({"map": ["MCK?"]}, r"unknown letter '\?' in row 0, column 3"),
        ({"epsilon": -0.1}, "`epsilon` must be a probability between 0 and 1, got -0.1"),
    ],
)
@pytest.mark.parametrize("env_id", ["policylab/CatMouse-v0", "policylab/CatMouseCat-v0"])
def test_a_broken_rule_is_named(env_id: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(EnvironmentRuleError, match=message):
        gym.make(env_id, **arguments)
