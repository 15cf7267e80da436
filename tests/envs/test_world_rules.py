"""Rules for environments of other packages: what is known of each, and how much better than chance it is."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from policylab.envs.baselines import RANDOM, make_baseline
from policylab.envs.driving_rules import Car, Traffic, _manoeuvre, _traffic
from policylab.envs.make import make_env
from policylab.envs.optional import provider_of
from policylab.envs.robot_rules import FOREARM_M, UPPER_ARM_M, _solutions
from policylab.envs.settings import EnvSettings
from policylab.errors import EnvironmentRuleError
from policylab.experiments.evaluation import RolloutEvaluator


def settings(env_id: str, **given: Any) -> EnvSettings:
    provider = provider_of(env_id)
    assert provider is not None
    if not provider.installed:
        pytest.skip(f"needs {provider.install}")
    return EnvSettings(id=env_id, **given)


def value(chosen: EnvSettings, name: str, *, episodes: int) -> float:
    rule = make_baseline(chosen.id, name, env=make_env(chosen))
    return RolloutEvaluator(chosen, seed=0)(rule, episodes=episodes).value


@pytest.mark.parametrize(("x", "y"), [*itertools.product((-0.14, 0.03, 0.1), repeat=2), (0.0, 0.2), (0.02, 0.0)])
def test_both_solutions_put_the_fingertip_on_the_target(x: float, y: float) -> None:
    for shoulder, elbow in _solutions(x, y):
        tip = [UPPER_ARM_M * turn(shoulder) + FOREARM_M * turn(shoulder + elbow) for turn in (math.cos, math.sin)]
        assert tip == pytest.approx([x, y], abs=1e-9)


def test_the_arm_reaches_its_target_and_holds_it() -> None:
    chosen = settings("Reacher-v5")
    env = make_env(chosen)
    rule = make_baseline(chosen.id, "reach", env=env)
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        for _ in range(50):
            observation, *_ = env.step(rule.act(observation))
        assert np.linalg.norm(observation[-2:]) < 0.01, f"seed {seed}: 1 cm"


def test_the_gait_runs_and_begins_anew_with_each_episode() -> None:
    chosen = settings("HalfCheetah-v5")
    rule = make_baseline(chosen.id, "gait", env=make_env(chosen))
    returns = RolloutEvaluator(chosen, seed=0)(rule, episodes=3).episode_returns
    assert min(returns) > 1900.0
    assert RolloutEvaluator(chosen, seed=0)(rule, episodes=3).episode_returns == returns


def test_the_gripper_reaches_its_goal() -> None:
    chosen = settings("FetchReach-v4")
    env = make_env(chosen)
    rule = make_baseline(chosen.id, "straight", env=env)
    for seed in range(3):
        observation, _ = env.reset(seed=seed)
        for _ in range(20):
            observation, _, _, _, info = env.step(rule.act(observation))
        assert info["is_success"]


LANE_1 = Traffic(1, 25.0, ())


@pytest.mark.parametrize(
    ("cars", "manoeuvre"),
    [
        ((), "FASTER"),
        ((Car(1, 100.0, 0.0),), "FASTER"),
        ((Car(0, 15.0, 0.0), Car(2, 15.0, 0.0)), "FASTER"),  # others do not matter
        ((Car(1, 35.0, 0.0),), "IDLE"),
        ((Car(1, 20.0, -5.0),), "LANE_RIGHT"),
        ((Car(1, 20.0, -5.0), Car(2, 5.0, 0.0)), "LANE_LEFT"),
        ((Car(1, 20.0, -5.0), Car(2, -5.0, 0.0), Car(0, 20.0, -10.0)), "SLOWER"),
    ],
)
def test_a_driver_keeps_his_distance(cars: tuple[Car, ...], manoeuvre: str) -> None:
    assert _manoeuvre(LANE_1._replace(cars=cars), 3) == manoeuvre


def test_there_is_no_lane_beyond_the_last() -> None:
    slow = Traffic(2, 25.0, (Car(2, 20.0, -5.0), Car(1, 5.0, 0.0)))
    assert _manoeuvre(slow, 3) == "SLOWER"


def test_traffic_is_read_as_the_road_has_it() -> None:
    chosen = settings("highway-fast-v0")
    env = make_env(chosen)
    observation, _ = env.reset(seed=3)
    road = env.unwrapped
    for action in (0, 2, 1, 3):
        seen = _traffic(observation, n_lanes=3)
        me = road.vehicle
        assert seen.lane == me.lane_index[2]
        assert seen.speed_m_s == pytest.approx(me.velocity[0], abs=1e-3)
        near = sorted((other.position[0] - me.position[0], other.lane_index[2], other.velocity[0] - me.velocity[0])
                      for other in road.road.vehicles if other is not me)  # fmt: skip
        for car in seen.cars:
            closest = min(near, key=lambda other: abs(other[0] - car.ahead_m))
            assert car.ahead_m == pytest.approx(closest[0], abs=0.01)
            assert car.faster_m_s == pytest.approx(closest[2], abs=0.01)
        assert seen.cars
        observation, *_ = env.step(action)


def test_rules_that_cannot_read_what_is_shown_say_so() -> None:
    changed = settings("highway-fast-v0", kwargs={"config": {"observation": {"type": "OccupancyGrid"}}})
    with pytest.raises(EnvironmentRuleError, match="keep_distance reads highway-env's default observation"):
        make_baseline(changed.id, "keep_distance", env=make_env(changed))
    pictures = settings("ALE/MsPacman-v5")
    with pytest.raises(EnvironmentRuleError, match=r"set env.kwargs.obs_type to ram"):
        make_baseline(pictures.id, "sweep_and_flee", env=make_env(pictures))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chosen", "name", "episodes", "factor"),
    [
        (("highway-fast-v0", {}), "keep_distance", 10, 2.0),
        (("ALE/MsPacman-v5", {"obs_type": "ram"}), "sweep_and_flee", 10, 2.0),
    ],
)
def test_a_rule_earns_far_more_than_chance(chosen: Any, name: str, episodes: int, factor: float) -> None:
    env = settings(chosen[0], kwargs=chosen[1])
    assert value(env, name, episodes=episodes) > factor * value(env, RANDOM, episodes=episodes) > 0.0


def test_the_arm_earns_far_more_than_chance() -> None:
    chosen = settings("Reacher-v5")
    assert value(chosen, "reach", episodes=20) > -10.0 > -30.0 > value(chosen, RANDOM, episodes=20)
