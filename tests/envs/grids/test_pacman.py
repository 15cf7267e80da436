"""Pac-Man: its rules one by one, its exact table, and the sampled game against that table."""

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policylab.envs.enumeration import table_of
from policylab.envs.grids.grid_map import FOUR_MOVES
from policylab.envs.grids.pacman import PacManEnv, PacManTableEnv
from policylab.envs.grids.pacman_rules import LAYOUTS, PacManRules, PacManState
from policylab.envs.planners import finite_horizon, value_iteration
from policylab.envs.planning_evaluation import evaluate_policy
from policylab.envs.table import TabularMDP
from policylab.errors import EnvironmentRuleError

UP, DOWN, LEFT, RIGHT = FOUR_MOVES


def corridor(rows: str, *, chase: float = 1.0, frightened_steps: int = 3) -> PacManRules:
    return PacManRules([rows], chase=chase, frightened_steps=frightened_steps)


def test_a_pellet_is_worth_ten() -> None:
    rules = corridor(" .P. G")
    state, reward, ended = rules.move_pacman(rules.start, LEFT)
    assert (reward, ended) == (9.0, False)
    assert rules.food_left(state) == [(0, 3)]


def test_the_last_pellet_wins_before_the_ghosts_move() -> None:
    rules = corridor(".PG")
    assert rules.outcomes(rules.start, LEFT) == [(1.0, PacManState((0, 0), ((0, 2),), (0,), 0), 509.0, True)]


def test_a_ghost_eats_whoever_walks_into_it() -> None:
    rules = corridor(".PG")
    ((_, _, reward, ended),) = rules.outcomes(rules.start, RIGHT)
    assert (reward, ended) == (-501.0, True)


def test_a_ghost_that_arrives_eats_too() -> None:
    rules = corridor(".P G")
    outcomes = rules.outcomes(rules.start, UP)
    assert [(p, reward, ended) for p, _, reward, ended in outcomes] == [(1.0, -1.0, False)]
    ((_, _, reward, ended),) = rules.outcomes(outcomes[0][1], UP)
    assert (reward, ended) == (-501.0, True)


def test_a_power_pellet_frightens_for_so_many_ghost_moves() -> None:
    rules = corridor(".Po   G", frightened_steps=2)
    state, reward, _ = rules.move_pacman(rules.start, RIGHT)
    assert (reward, state.frightened) == (9.0, (2,))
    for left in (1, 0):
        state, _, _ = rules.move_ghost(state, 0, to=(0, 5))
        assert state.frightened == (left,)


def test_a_frightened_ghost_is_eaten_and_returns_home_unafraid() -> None:
    rules = corridor(". P  G")
    state = rules.start._replace(ghosts=((0, 3),), frightened=(2,))
    state, reward, ended = rules.move_pacman(state, RIGHT)
    assert (reward, ended) == (199.0, False)
    assert (state.ghosts, state.frightened) == (((0, 5),), (0,))
    # It is eaten as well when it stumbles into him.
    state = rules.start._replace(ghosts=((0, 3),), frightened=(1,))
    after, reward, ended = rules.move_ghost(state, 0, to=(0, 2))
    assert (after.ghosts, after.frightened, reward, ended) == (((0, 5),), (0,), 200.0, False)


def test_a_ghost_chases_with_its_own_probability() -> None:
    rules = PacManRules([". P G G "], chase=[1.0, 0.4], frightened_steps=1)
    assert rules.ghost_options(rules.start, 0) == [(1.0, (0, 3))]
    assert rules.ghost_options(rules.start, 1) == [(pytest.approx(0.7), (0, 5)), (pytest.approx(0.3), (0, 7))]
    afraid = rules.start._replace(frightened=(1, 1))
    assert rules.ghost_options(afraid, 0) == [(0.5, (0, 3)), (0.5, (0, 5))]


def test_equally_near_ways_are_equally_likely() -> None:
    rules = PacManRules(["P  ", " # ", ". G"], chase=1.0, frightened_steps=1)
    assert rules.ghost_options(rules.start, 0) == [(0.5, (1, 2)), (0.5, (2, 1))]


def test_a_walled_in_ghost_stays() -> None:
    rules = corridor(".P#G")
    assert rules.ghost_options(rules.start, 0) == [(1.0, (0, 3))]


def test_the_tiny_table() -> None:
    env = gym.make("policylab/PacManTiny-v0")
    mdp = table_of(env)
    assert mdp.n_states == 3255
    assert mdp.max_episode_steps == 100
    best = finite_horizon(mdp, horizon=100).values[0, 0]
    random = evaluate_policy(mdp, np.full((mdp.n_states, 4), 0.25), horizon=100, discount=1.0)[0]
    # All five pellets, the win and one ghost for less than 30 steps is the most one may hope for.
    assert random < -400 < 0 < best < 5 * 10 + 500 + 2 * 200
    assert best > 550


def test_every_state_keeps_its_promise() -> None:
    env = PacManTableEnv()
    assert len(set(env.states)) == len(env.states)
    for number in range(0, len(env.states), 7):
        row = env.P[number]
        if row[0] == [(1.0, number, 0.0, True)]:
            continue
        for action, move in enumerate(FOUR_MOVES):
            expected = env.rules.outcomes(env.states[number], move)
            assert sum(p for p, *_ in expected) == pytest.approx(1.0)
            assert sum(p * r for p, _, r, _ in expected) == pytest.approx(sum(p * r for p, _, r, _ in row[action]))


def test_a_state_that_elsewhere_is_a_loss_is_played_on() -> None:
    # The frightened ghost is eaten at home and sits there unafraid, on Pac-Man's cell.
    env = PacManTableEnv(map=[".oPG. "], frightened_steps=5, chase=0.0)
    at_home = [s for s, state in enumerate(env.states) if state.pacman == state.ghosts[0] == (0, 3)]
    arrivals = {
        (s2, ended)
        for row in env.P.values()
        for outcomes in row.values()
        for _, s2, _, ended in outcomes
        if s2 in at_home
    }
    both = {s for s, ended in arrivals if ended} & {s for s, ended in arrivals if not ended}
    assert all(env.P[s][0] != [(1.0, s, 0.0, True)] for s in both)
    assert both


def test_the_sampled_game_follows_the_table() -> None:
    rows, settings_ = LAYOUTS["tiny"], {"chase": 0.7, "frightened_steps": 3}
    table, game = PacManTableEnv(map=rows, **settings_), PacManEnv(map=rows, **settings_)
    mdp = TabularMDP.from_outcomes(table.P, table.initial_state_distrib)
    exact = evaluate_policy(mdp, np.full((mdp.n_states, 4), 0.25), horizon=40, discount=1.0)[0]
    rng, returns = np.random.default_rng(4), []
    game.reset(seed=4)
    for _ in range(1500):
        game.reset()
        total = 0.0
        for _ in range(40):
            _, reward, terminated, _, _ = game.step(int(rng.integers(4)))
            total += reward
            if terminated:
                break
        returns.append(total)
    assert np.mean(returns) == pytest.approx(exact, abs=4 * np.std(returns) / np.sqrt(1500))


def test_the_observation_holds_the_whole_state() -> None:
    env = gym.make("policylab/PacMan-v0", frightened_steps=4).unwrapped
    observation, info = env.reset(seed=0)
    rows, columns = env.rules.grid.shape
    planes = observation.reshape(5, rows, columns)
    assert np.argwhere(planes[0]).tolist() == [list(env.state.pacman)]
    assert planes[1].sum() + planes[2].sum() == len(env.rules.food_cells) == info["food_left"]
    assert [np.argwhere(plane == 1.0).tolist() for plane in planes[3:]] == [[list(home)] for home in env.rules.homes]
    env.state = env.state._replace(frightened=(2, 0), pacman=(6, 7))
    planes = env.step(3)[0].reshape(5, rows, columns)  # eats the power pellet at (6, 8)
    assert planes[3].min() == planes[4].min() == -0.75
    assert planes[2].sum() == 1


def test_earlier_observations_are_not_overwritten() -> None:
    env = gym.make("policylab/PacMan-v0")
    first, _ = env.reset(seed=0)
    kept = first.copy()
    env.step(2)
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_can_be_played(name: str) -> None:
    env = PacManEnv(name)
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    ends = 0
    for _ in range(2000):
        observation, _, terminated, _, info = env.step(int(rng.integers(4)))
        assert env.observation_space.contains(observation)
        if terminated:
            ends += 1
            assert info["won"] == (info["food_left"] == 0)
            env.reset()
    assert ends > 10


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.integers(0, 8))
def test_rewards_add_up_to_what_happened(seed: int, chase: float, frightened_steps: int) -> None:
    env = PacManEnv(chase=chase, frightened_steps=frightened_steps)
    rng = np.random.default_rng(seed)
    env.reset(seed=seed)
    total, steps, terminated = 0.0, 0, False
    while not terminated and steps < 150:
        _, reward, terminated, _, info = env.step(int(rng.integers(4)))
        total, steps = total + reward, steps + 1
    eaten = len(env.rules.food_cells) - info["food_left"]
    end = 0 if not terminated else 500 if info["won"] else -500
    assert (total + steps - 10 * eaten - end) % 200 == 0


def test_frightening_ghosts_helps() -> None:
    values = []
    for frightened_steps in (0, 2, 4):
        env = PacManTableEnv(frightened_steps=frightened_steps)
        mdp = TabularMDP.from_outcomes(env.P, env.initial_state_distrib)
        values.append(value_iteration(mdp, discount=0.99).values[0])
    assert values[0] < values[1] < values[2]


def test_text_shows_food_ghosts_and_fright() -> None:
    env = PacManTableEnv(map=["o.P G"], chase=0.0, render_mode="ansi")
    env.reset(seed=0)
    assert env.render() == "o.P G\n"
    env.step(2)
    env.step(2)
    assert env.render().startswith("P  ")
    assert "g" in env.render()
    assert env.render().endswith("(left)\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layout": "smal"}, "`layout` must be one of tiny, small, medium, large, got 'smal'; did you mean 'small'"),
        ({"map": [".G"]}, "exactly one Pac-Man 'P', got 0"),
        ({"map": ["PP.G"]}, "exactly one Pac-Man 'P', got 2"),
        ({"map": ["P."]}, "at least one ghost 'G'"),
        ({"map": ["PG"]}, "at least one pellet"),
        ({"map": ["PG#."]}, r"reach all food; the way to \(0, 3\) is walled off"),
        ({"map": ["PG.x"]}, "unknown letter 'x'"),
        ({"chase": [0.5, 0.5, 0.5]}, "one probability per ghost"),
        ({"chase": 2}, "`chase` must be a probability"),
        ({"chase": "0.5"}, "`chase` must be a probability"),
        ({"frightened_steps": -1}, "`frightened_steps` must be a whole number >= 0, got -1"),
    ],
)
@pytest.mark.parametrize("env_id", ["policylab/PacManTiny-v0", "policylab/PacMan-v0"])
def test_a_broken_rule_is_named(env_id: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(EnvironmentRuleError, match=message):
        gym.make(env_id, **arguments)


def test_a_table_that_would_be_too_large_is_refused() -> None:
    with pytest.raises(EnvironmentRuleError, match=r"at most 20000 states .* use a smaller layout"):
        gym.make("policylab/PacManTiny-v0", layout="small")


def test_the_image_holds_the_planes_and_the_walls() -> None:
    image = gym.make("policylab/PacManLargeImage-v0").reset(seed=0)[0]
    vector = gym.make("policylab/PacManLarge-v0").reset(seed=0)[0]
    rows, columns, planes = image.shape
    assert planes == 3 + 4 + 1
    assert np.array_equal(image[..., :-1].transpose(2, 0, 1).reshape(-1), vector)
    walls = [[letter == "#" for letter in row] for row in LAYOUTS["large"]]
    assert np.array_equal(image[..., -1], walls)
    assert (rows, columns) == (len(walls), len(walls[0]))


def test_no_layout_has_dead_ends_with_food() -> None:
    """A pellet in a dead end under a chasing ghost would make a game unfair."""
    for name in ("small", "medium", "large"):
        rules = PacManRules(LAYOUTS[name], chase=0.7, frightened_steps=20)
        for cell in rules.food_cells:
            exits = {rules.grid.neighbour(cell, move) for move in FOUR_MOVES} - {cell}
            assert len(exits) >= 2, (name, cell)
