"""GridWorld against the textbook, and text maps against their rules."""

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policylab.envs.enumeration import table_of
from policylab.envs.grids.grid_map import FOUR_MOVES, GridMap
from policylab.envs.grids.gridworld import GridWorldEnv
from policylab.envs.planners import value_iteration
from policylab.errors import EnvironmentRuleError

UP, DOWN, LEFT, RIGHT = range(4)


def test_russell_and_norvigs_utilities() -> None:
    # Artificial Intelligence: A Modern Approach, 3rd ed., Figure 17.3 (discount 1, step -0.04, slip 0.2).
    solution = value_iteration(table_of(gym.make("policylab/GridWorld-v0")), discount=1.0)
    published = [0.812, 0.868, 0.918, 0.0, 0.762, 0.660, 0.0, 0.705, 0.655, 0.611, 0.388]
    assert solution.values == pytest.approx(published, abs=0.0005)


def test_russell_and_norvigs_policy() -> None:
    # Figure 17.2(a): right along the top, up at the left, and the long way round from the bottom.
    env = gym.make("policylab/GridWorld-v0").unwrapped
    policy = value_iteration(table_of(env), discount=1.0).policy
    chosen = {env.cell_of(state): int(action) for state, action in enumerate(policy)}
    assert [chosen[0, column] for column in range(3)] == [RIGHT] * 3
    assert [chosen[cell] for cell in [(1, 0), (2, 0), (1, 2)]] == [UP] * 3
    assert [chosen[2, column] for column in (1, 2, 3)] == [LEFT] * 3


def test_slipping_is_to_the_sides_only() -> None:
    env = GridWorldEnv(["...", ".S.", "..."], slip=0.5, step_reward=0.0)
    assert sorted(env.P[4][UP]) == [(0.25, 3, 0.0, False), (0.25, 5, 0.0, False), (0.5, 1, 0.0, False)]


def test_wind_of_the_column_left_behind_blows_until_a_wall() -> None:
    env = GridWorldEnv(["#.", "..", "..", "S."], wind=[3, -1], slip=0.0)
    from_the_top = [env.cell_of(env.P[0][action][0][1]) for action in (UP, DOWN, LEFT, RIGHT)]
    assert from_the_top == [(1, 1), (2, 1), (1, 1), (1, 1)]
    start = env.cells.index((3, 0))
    assert env.cell_of(env.P[start][DOWN][0][1]) == (1, 0)
    assert env.cell_of(env.P[start][RIGHT][0][1]) == (0, 1)


def test_rewards_of_goal_and_pit_come_on_top_of_the_step() -> None:
    env = GridWorldEnv(["GSP"], slip=0.0, step_reward=-1.0, goal_reward=10.0, pit_reward=-20.0)
    assert env.P[1][LEFT] == [(1.0, 0, 9.0, True)]
    assert env.P[1][RIGHT] == [(1.0, 2, -21.0, True)]
    assert env.P[0][RIGHT] == [(1.0, 0, 0.0, True)]


def test_several_starts_are_equally_likely() -> None:
    env = GridWorldEnv(["SGS", "..S"])
    assert env.initial_state_distrib.tolist() == pytest.approx([1 / 3, 0, 1 / 3, 0, 0, 1 / 3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"map": []}, "at least one row"),
        ({"map": [""]}, "at least one row and one column"),
        ({"map": "S.G"}, "must be a list of strings"),
        ({"map": [["S"]]}, "must be a list of strings"),
        ({"map": None}, "must be a list of strings"),
        ({"map": ["S.", "..."]}, "got 3 in row 1 and 2 in row 0; pad the shorter"),
        ({"map": ["S.", ".x"]}, "unknown letter 'x' in row 1, column 1"),
        ({"map": ["..", ".G"]}, "at least one start cell 'S'"),
        ({"slip": 1.5}, "`slip` must be a probability between 0 and 1, got 1.5"),
        ({"slip": float("nan")}, "`slip` must be a probability"),
        ({"slip": "0.1"}, "`slip` must be a probability"),
        ({"wind": [1]}, "one whole number per column, 4 for this map"),
        ({"wind": [0, 0, 0, 0.5]}, "one whole number per column"),
        ({"wind": 1}, "one whole number per column"),
        ({"step_reward": float("inf")}, "`step_reward` must be a finite number"),
        ({"goal_reward": "1"}, "`goal_reward` must be a finite number"),
    ],
)
def test_a_broken_rule_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(EnvironmentRuleError, match=message):
        gym.make("policylab/GridWorld-v0", **arguments)


@st.composite
def maps(draw: st.DrawFn) -> list[str]:
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    letters = draw(st.lists(st.sampled_from("#SGP..."), min_size=rows * columns, max_size=rows * columns))
    letters[draw(st.integers(0, rows * columns - 1))] = "S"
    return ["".join(letters[row * columns : (row + 1) * columns]) for row in range(rows)]


@given(maps(), st.floats(0, 1), st.data())
def test_any_map_makes_a_sound_table(rows: list[str], slip: float, data: st.DataObject) -> None:
    wind = data.draw(st.lists(st.integers(-3, 3), min_size=len(rows[0]), max_size=len(rows[0])))
    env = GridWorldEnv(rows, slip=slip, wind=wind)
    for state, by_action in env.P.items():
        ended = env.grid[env.cells[state]] in "GP"
        for outcomes in by_action.values():
            assert sum(outcome[0] for outcome in outcomes) == pytest.approx(1.0)
            for _, following, _, terminated in outcomes:
                assert env.grid.is_free(env.cells[following])
                assert terminated == (env.grid[env.cells[following]] in "GP")
                assert not ended or following == state


@given(maps())
def test_distances_differ_by_one_move(rows: list[str]) -> None:
    grid = GridMap.parse(rows, letters="SGP.")
    known = grid.distances(grid.find("S"))
    for cell, distance in known.items():
        near = [known[grid.neighbour(cell, move)] for move in FOUR_MOVES]
        assert distance == 0 if grid[cell] == "S" else distance == 1 + min(near)


def test_text_and_picture_show_the_agent() -> None:
    env = GridWorldEnv(["S.G"], slip=0.0, render_mode="ansi")
    env.reset(seed=0)
    assert env.render() == "@.G\n"
    env.step(RIGHT)
    assert env.render() == "S@G\n(right)\n"
    before = env.render_rgb()
    env.step(LEFT)
    assert not np.array_equal(before, env.render_rgb())


def test_without_a_render_mode_nothing_is_drawn() -> None:
    assert GridWorldEnv().render() is None
