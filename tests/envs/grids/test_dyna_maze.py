"""The mazes of Sutton & Barto, chapter 8."""

import pickle

import gymnasium as gym
import numpy as np
import pytest

from policylab.envs.enumeration import table_of
from policylab.envs.grids.dyna_maze import ChangingMazeEnv
from policylab.envs.planners import value_iteration
from policylab.envs.table import TabularMDP
from policylab.errors import EnvironmentRuleError

UP, DOWN, LEFT, RIGHT = range(4)


def steps_to_goal(env: ChangingMazeEnv) -> float:
    """The length of the shortest way in the current phase, from the value of a reward of 1 at its end."""
    mdp = TabularMDP.from_outcomes(env.P, env.initial_state_distrib)
    value = float(env.initial_state_distrib @ value_iteration(mdp, discount=0.95).values)
    return 1 + np.log(value) / np.log(0.95)


def test_dyna_maze_takes_fourteen_steps() -> None:
    # Example 8.1: "14 steps"; discount 0.95.
    env = gym.make("policylab/DynaMaze-v0")
    assert len(env.unwrapped.P) == 47
    value = env.unwrapped.initial_state_distrib @ value_iteration(table_of(env), discount=0.95).values
    assert value == pytest.approx(0.95**13, abs=1e-12)


@pytest.mark.parametrize(("variant", "before", "after"), [("blocking", 10, 16), ("shortcut", 16, 10)])
def test_the_short_way_closes_or_opens(variant: str, before: int, after: int) -> None:
    env = ChangingMazeEnv(variant, change_at=3)
    env.reset(seed=0)
    assert steps_to_goal(env) == pytest.approx(before)
    env.step(DOWN)
    env.reset()
    env.step(DOWN)
    assert steps_to_goal(env) == pytest.approx(before)
    env.step(DOWN)
    assert steps_to_goal(env) == pytest.approx(after)
    env.reset()
    assert steps_to_goal(env) == pytest.approx(after)
    env.reset(seed=1)
    assert env.clock == 0
    assert steps_to_goal(env) == pytest.approx(before)


def test_the_change_comes_after_the_step_that_completes_the_count() -> None:
    env = ChangingMazeEnv("blocking", change_at=1)
    env.reset(seed=0)
    env.s = env.cells.index((4, 8))
    assert env.cell_of(env.step(UP)[0]) == (3, 8)
    assert env.grid[3, 8] == "#"


def test_who_stands_where_a_wall_appears_can_leave_but_not_return() -> None:
    env = ChangingMazeEnv("blocking", change_at=1)
    env.reset(seed=0)
    env.s = env.cells.index((4, 8))
    env.step(UP)
    assert env.cell_of(env.step(UP)[0]) == (2, 8)
    assert env.cell_of(env.step(DOWN)[0]) == (2, 8)


def test_registered_changes_are_the_books() -> None:
    blocking, shortcut = (gym.make(f"policylab/{name}-v0").unwrapped for name in ("BlockingMaze", "ShortcutMaze"))
    assert (blocking.change_at, shortcut.change_at) == (1000, 3000)


def test_no_one_table_is_offered_for_a_changing_maze() -> None:
    with pytest.raises(EnvironmentRuleError, match="dynamics change while it lives"):
        table_of(gym.make("policylab/BlockingMaze-v0"))


def test_a_snapshot_and_a_pickle_keep_the_clock() -> None:
    env = ChangingMazeEnv("shortcut", change_at=2)
    env.reset(seed=0)
    env.step(UP)
    env.step(RIGHT)
    fresh = ChangingMazeEnv("shortcut", change_at=2)
    fresh.restore(env.snapshot())
    assert (fresh.s, fresh.clock, fresh.P) == (env.s, 2, env.P)
    assert pickle.loads(pickle.dumps(env)).clock == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "blocked"}, "one of blocking, shortcut, got 'blocked'; did you mean 'blocking'"),
        ({"variant": "?"}, "one of blocking, shortcut, got '?'"),
        ({"variant": None}, "one of blocking, shortcut, got None"),
        ({"change_at": -1}, "`change_at` must be a whole number >= 0, got -1"),
        ({"change_at": 1.5}, "`change_at` must be a whole number"),
        ({"change_at": True}, "`change_at` must be a whole number"),
    ],
)
def test_a_broken_rule_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(EnvironmentRuleError, match=message):
        gym.make("policylab/BlockingMaze-v0", **arguments)
