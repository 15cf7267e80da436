"""The building: its weather, its reward, its actions, and what controllers make of it."""

import itertools
import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from policylab.envs.buildings import hvac_rules
from policylab.envs.buildings.hvac import POWER_W, HvacEnv, HvacReading, HvacState
from policylab.envs.buildings.hvac_site import SEASONS
from policylab.envs.buildings.hvac_table import HOURS, HvacTableEnv
from policylab.envs.planners import finite_horizon
from policylab.envs.table import TabularMDP
from policylab.errors import EnvironmentRuleError


def returns(env: gym.Env, rule: Any, *, episodes: int, seed: int = 0) -> np.ndarray:
    """The returns of a rule on the same weather for every caller."""
    env.reset(seed=seed)
    totals = np.zeros(episodes)
    for episode in range(episodes):
        observation, _ = env.reset(seed=seed + episode)
        rule.reset()
        for _ in range(192):
            observation, reward, *_ = env.step(rule.act(observation))
            totals[episode] += reward
    return totals


@pytest.mark.parametrize("season", list(SEASONS))
@pytest.mark.parametrize("share", [-1.0, 1.0])
def test_no_extreme_leaves_the_observation_space(season: str, share: float) -> None:
    env = HvacEnv(season=season)
    env.reset(seed=0)
    for _ in range(1000):
        observation, *_ = env.step(np.array([share], dtype=np.float32))
        assert env.observation_space.contains(observation)


def test_a_reading_gives_natural_units_back() -> None:
    env = HvacEnv()
    observation, _ = env.reset(seed=4)
    for step in range(96):
        reading = HvacReading.of(observation)
        assert reading.air_c == pytest.approx(env.state.nodes[0], abs=1e-4)
        assert reading.outdoor_c == pytest.approx(env.outdoor_c, abs=1e-4)
        assert reading.hour == pytest.approx(step / 4, abs=1e-3)
        assert reading.occupied is (8 <= step / 4 < 20)
        assert reading.price == pytest.approx(3.0 if 16 <= step / 4 < 21 else 1.0)
        observation, *_ = env.step(np.array([0.1], dtype=np.float32))


def test_the_reward_is_energy_and_discomfort() -> None:
    # 6 h of full power: 25 kW / 3 at the cheap price, weighted 0.5 * 1e-4 per W.
    env = HvacEnv(weather_noise=0.0)
    env.reset(seed=0)
    env.state = HvacState((16.0, 16.0), step=24, deviation_c=0.0, clouds=1.0)
    _, reward, _, _, info = env.step([1.0])
    assert reward == info["energy_term"] == pytest.approx(-0.5 * 1e-4 * POWER_W / 3)
    # At the peak it costs three times as much, and people are in: 1 °C too cold costs 0.5.
    env.state = HvacState((18.0, 18.0), step=68, deviation_c=0.0, clouds=1.0)
    _, reward, _, _, info = env.step([0.5])
    assert info["energy_term"] == pytest.approx(-0.5 * 0.5e-4 * 3 * POWER_W / 3)
    assert info["discomfort_term"] == pytest.approx(-0.5 * (20.0 - env.state.nodes[0]))
    assert reward == pytest.approx(info["energy_term"] + info["discomfort_term"])
    assert info["cost_dollars"] == pytest.approx(0.27 * 0.5 * 25 / 3 / 4)
    # Too warm costs as well.
    env.state = HvacState((30.0, 30.0), step=40, deviation_c=0.0, clouds=1.0)
    assert env.step([0.0])[4]["discomfort_term"] == pytest.approx(-0.5 * (env.state.nodes[0] - 23.5))


def test_without_noise_the_building_follows_the_network() -> None:
    env = HvacEnv(weather_noise=0.0)
    env.reset(seed=0)
    A, B = env.model.network.over(900.0)
    env.state = HvacState((21.0, 19.0), step=40, deviation_c=0.0, clouds=0.5)
    usual = 2.0 + 4.0 * math.cos(2 * math.pi * (10.0 - 15.0) / 24)
    sun = 0.5 * 400.0 * math.sin(math.pi * 4.0 / 12.0) * 6.0 * 0.6
    env.step([0.2])
    assert env.state.nodes == pytest.approx(A @ [21.0, 19.0] + B @ [usual, 3000.0 + 5000.0, sun])


def test_the_outdoor_deviation_is_stationary_and_remembers() -> None:
    env = HvacEnv(weather_noise=1.5)
    env.reset(seed=1)
    course = []
    for _ in range(30_000):
        env.step([0.0])
        course.append(env.state.deviation_c)
    kept = math.exp(-0.25 / 12)
    effective = len(course) * (1 - kept**2) / (1 + kept**2)  # independent squares a correlated series is worth
    assert np.mean(course) == pytest.approx(0.0, abs=4 * 1.5 * math.sqrt((1 + kept) / (1 - kept) / len(course)))
    assert np.var(course) == pytest.approx(1.5**2, rel=4 * math.sqrt(2 / effective))
    assert np.corrcoef(course[:-1], course[1:])[0, 1] == pytest.approx(kept, abs=0.01)


def test_clouds_change_at_sunrise_only() -> None:
    env = HvacEnv()
    env.reset(seed=2)
    clouds = []
    for _ in range(96 * 3):
        clouds.append(env.state.clouds)
        env.step([0.0])
    changes = [step for step, (old, new) in enumerate(itertools.pairwise(clouds), start=1) if old != new]
    assert changes == [25, 121, 217]  # the first step of the day with sun
    assert all(0.2 <= clouds[step] <= 1.0 for step in changes)


def test_levels_are_equal_steps_of_power() -> None:
    discrete, continuous = HvacEnv(levels=5), HvacEnv()
    for action, share in enumerate((-1.0, -0.5, 0.0, 0.5, 1.0)):
        discrete.reset(seed=7)
        continuous.reset(seed=7)
        assert discrete.step(action)[1] == continuous.step([share])[1]
        assert discrete.state == continuous.state


@pytest.mark.parametrize("action", [[1.1], [-2.0], [math.nan], [0.0, 0.0], 0.5])
def test_power_beyond_the_plant_is_refused(action: object) -> None:
    env = HvacEnv()
    env.reset(seed=0)
    with pytest.raises(EnvironmentRuleError, match=r"an action must be one number in \[-1, 1\], shape \(1,\), got"):
        env.step(action)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"season": "sumer"}, "`season` must be one of winter, summer, got 'sumer'; did you mean 'summer'"),
        ({"step_minutes": 7}, r"`step_minutes` must be 1 to 60 and divide a day \(1440\), got 7"),
        ({"levels": 1}, "`levels` must be 2 to 101, or null for continuous actions, got 1"),
        ({"energy_weight": 1.5}, "`energy_weight` must be a probability between 0 and 1, got 1.5"),
        ({"weather_noise": -1}, "`weather_noise` must be >= 0 °C, got -1"),
    ],
)
def test_a_broken_rule_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(EnvironmentRuleError, match=message):
        gym.make("policylab/Hvac-v0", **arguments)


@pytest.mark.parametrize("season", list(SEASONS))
def test_planning_beats_feedback_beats_no_setback(season: str) -> None:
    """Each controller on the same weather; the differences are large and paired."""
    env = HvacEnv(season=season)
    makers = (hvac_rules.thermostat, hvac_rules.setback_thermostat, hvac_rules.predictive)
    always_on, setback, planned = (returns(env, make(env), episodes=3) for make in makers)
    pi = returns(env, hvac_rules.proportional_integral(env), episodes=3)
    assert (always_on <= setback).all()
    assert always_on.sum() < setback.sum()
    assert (setback < planned).all()
    assert (pi < planned).all()
    assert (pi > 1.2 * always_on).all()  # costs are negative: never a fifth worse


@pytest.mark.parametrize("season", list(SEASONS))
def test_a_plan_is_optimal_for_weather_that_keeps_to_the_forecast(season: str) -> None:
    """From the morning of a day without noise no other plan does better: shifting heat between hours only loses."""
    env = HvacEnv(season=season, weather_noise=0.0)
    env.reset(seed=0)
    morning = HvacState((19.0, 18.0), step=32, deviation_c=0.0, clouds=0.7)

    def value(shares: np.ndarray) -> float:
        env.state = morning
        return sum(env.step(np.array([share]))[1] for share in shares)

    env.state = morning
    plan = hvac_rules.predictive(env)._planned(HvacReading.of(env._observation()))
    best = value(plan)
    assert best > value(np.zeros(plan.size)) + 1.0
    rng = np.random.default_rng(0)
    for _ in range(200):
        other = np.clip(plan + rng.normal(0.0, 0.1, plan.size) * (rng.random(plan.size) < 0.1), -1.0, 1.0)
        assert value(other) <= best + 1e-6  # observations are float32


@pytest.mark.parametrize("levels", [2, 5])
def test_controllers_speak_in_levels_too(levels: int) -> None:
    env = HvacEnv(levels=levels)
    for make in (hvac_rules.thermostat, hvac_rules.proportional_integral, hvac_rules.predictive):
        rule = make(env)
        observation, _ = env.reset(seed=1)
        for _ in range(96):
            action = rule.act(observation)
            assert env.action_space.contains(action)
            observation, *_ = env.step(action)


def test_levels_deliver_the_power_asked_for_on_average() -> None:
    class Steady(hvac_rules._Controller):
        def share(self, reading: HvacReading) -> float:
            return 0.3

    rule = Steady(HvacEnv(levels=5))
    observation, _ = HvacEnv().reset(seed=0)
    shares = [-1.0 + rule.act(observation) / 2 for _ in range(1000)]
    assert np.mean(shares) == pytest.approx(0.3, abs=1e-3)


def test_text_and_picture_tell_the_course() -> None:
    env = HvacEnv(weather_noise=0.0, render_mode="ansi")
    env.reset(seed=0)
    env.step([-0.5])
    assert env.render().startswith("day 1 00:15  air ")
    assert env.render().endswith("band 15.0-30.0 °C  cooling 50 %\n")
    picture = HvacEnv(render_mode="rgb_array")
    picture.reset(seed=0)
    before = picture.render()
    for _ in range(20):
        picture.step([1.0])
    assert before.shape == picture.render().shape == (360, 640, 3)
    assert (before != picture.render()).any()


def test_a_day_on_the_grid_keeps_its_mean() -> None:
    """The grid's two nearest points and the three outdoor temperatures keep the exact solution's expectation."""
    env = HvacTableEnv()
    for state, action in ((20, 0), (49 * 7 + 20, 1), (49 * 15 + 30, 2)):
        hour, temperature = env.place(state)
        network = env.model.house.one_node()
        A, B = network.over(3600.0)
        heat = (500.0 if not 8 <= hour < 20 else 3000.0) + action * 12_500.0
        usual = 2.0 + 4.0 * math.cos(2 * math.pi * (hour - 15.0) / 24)
        expected = A[0, 0] * temperature + B[0] @ [usual, heat]
        assert sum(p * env.place(after)[1] for p, after, _, _ in env.P[state][action]) == pytest.approx(expected)
        assert all(env.place(after)[0] == hour + 1 for _, after, _, _ in env.P[state][action])


def day_values(**kwargs: Any) -> tuple[HvacTableEnv, float, np.ndarray]:
    env = HvacTableEnv(**kwargs)
    mdp = TabularMDP.from_outcomes(env.P, env.initial_state_distrib, max_episode_steps=HOURS)
    plan = finite_horizon(mdp, horizon=HOURS)
    return env, float(env.initial_state_distrib @ plan.values[0]), plan.values[0]


def test_the_best_day_is_the_best_of_all_heating_plans() -> None:
    """Without noise and grid error, backward induction agrees with trying every plan of a short day by hand."""
    env, _, values = day_values(weather_noise=0.0)
    n = len(env.temperatures)

    def best(state: int) -> float:
        """Plain recursion over the last hours, written without the planner."""
        hour, _ = env.place(state)
        if hour == HOURS:
            return 0.0
        return max(
            sum(p * (reward + best(after)) for p, after, reward, _ in env.P[state][action]) for action in range(3)
        )

    for i in (0, 20, n - 1):
        state = (HOURS - 4) * n + i
        assert values[state] == pytest.approx(best(state), abs=1e-12)


def test_comfort_alone_heats_and_thrift_alone_does_not() -> None:
    _, comfortable, _ = day_values(energy_weight=0.0)
    env, thrifty, _ = day_values(energy_weight=1.0)
    assert comfortable > -1.0  # the cold start costs a little before people come
    assert thrifty == 0.0
    assert env.P[0][0][0][2] == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grid_c": 5}, "`grid_c` must be from 0.1 to 2 °C, got 5"),
        ({"weather_noise": -2}, "`weather_noise` must be >= 0 °C, got -2"),
    ],
)
def test_a_broken_rule_of_the_day_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(EnvironmentRuleError, match=message):
        gym.make("policylab/HvacDay-v0", **arguments)


def test_the_day_can_be_read() -> None:
    env = HvacTableEnv(render_mode="ansi")
    env.reset(seed=0)
    assert env.render() == "00:00  18.00 °C  band 15.0-30.0 °C\n"
    for _ in range(HOURS):
        terminated = env.step(1)[2]
    assert terminated
    assert env.render() == "the day is over\n"
