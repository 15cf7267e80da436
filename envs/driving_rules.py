"""Baselines for highway-env: every constant meta-action, and a driver who keeps his distance.

Many policies learned there are worth no more than a constant action; on highway-fast-v0 going slower all the time is
hard to beat.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from policylab.envs.baselines import Rule
from policylab.errors import EnvironmentRuleError

META_ACTIONS = ("LANE_LEFT", "IDLE", "LANE_RIGHT", "FASTER", "SLOWER")
"""Numbered as in highway-env's DiscreteMetaAction."""

LANE_M = 4.0
FAR_M = 200.0
"""Where observed distances along the road end: five times highway-env's largest speed of 40 m/s, times a second."""
SPEED_RANGE_M_S = 80.0
STANDSTILL_GAP_M, HEADWAY_S = 12.0, 0.6
"""Distance kept to the car ahead: this much, and so long a way of one's own speed."""
FORESIGHT_S = 3.0
"""The gap must be kept for so long if nobody changes speed."""
BESIDE_M = 12.0
"""A lane with a car so near behind or ahead is not entered."""


def always_left(env: gym.Env[Any, Any]) -> Rule:
    """Change to the left lane whenever there is one."""
    return _always(env, "LANE_LEFT")


def always_idle(env: gym.Env[Any, Any]) -> Rule:
    """Keep lane and speed."""
    return _always(env, "IDLE")


def always_right(env: gym.Env[Any, Any]) -> Rule:
    """Change to the right lane whenever there is one."""
    return _always(env, "LANE_RIGHT")


def always_faster(env: gym.Env[Any, Any]) -> Rule:
    """Accelerate to the highest target speed."""
    return _always(env, "FASTER")


def always_slower(env: gym.Env[Any, Any]) -> Rule:
    """Slow down to the lowest target speed."""
    return _always(env, "SLOWER")


def _always(env: gym.Env[Any, Any], name: str) -> Rule:
    _check_actions(env)
    action = META_ACTIONS.index(name)
    return Rule(lambda observation: action)


def _check_actions(env: gym.Env[Any, Any]) -> None:
    if not (isinstance(env.action_space, gym.spaces.Discrete) and env.action_space.n == len(META_ACTIONS)):
        raise EnvironmentRuleError(f"driving rules need highway-env's five meta-actions, got {env.action_space}")


def keep_distance(env: gym.Env[Any, Any]) -> Rule:
    """Drive as fast as the distance to the car ahead allows; else change to a free lane, else slow down.

    A gap is large enough by a constant time headway. What is seen are the four nearest cars, none far behind, so that
    drivers behind in the other lane must look out for themselves.

    Raises:
        EnvironmentRuleError: the environment is told to show or to take something else than by default.
    """
    game: Any = env.unwrapped
    kind = game.config["observation"]
    if kind != {"type": "Kinematics"}:
        raise EnvironmentRuleError(f"keep_distance reads highway-env's default observation, got {kind}")
    _check_actions(env)
    n_lanes = int(game.config["lanes_count"])
    return Rule(lambda observation: META_ACTIONS.index(_manoeuvre(_traffic(observation, n_lanes=n_lanes), n_lanes)))


class Car(NamedTuple):
    """Another car: its lane, how far ahead it is, m, and by how much it is faster, m/s."""

    lane: int
    ahead_m: float
    faster_m_s: float


class Traffic(NamedTuple):
    """The own lane, counted from the left, the own speed, m/s, and the cars that are seen."""

    lane: int
    speed_m_s: float
    cars: tuple[Car, ...]


def _traffic(observation: NDArray[np.float32], *, n_lanes: int) -> Traffic:
    """Return what rows of presence, x, y, vx and vy say, each in shares of its range; the first is the own car."""
    width_m = LANE_M * n_lanes
    own_y, own_speed = float(observation[0, 2]) * width_m, float(observation[0, 3]) * SPEED_RANGE_M_S
    cars = tuple(
        Car(round((own_y + float(y) * width_m) / LANE_M), float(x) * FAR_M, float(vx) * SPEED_RANGE_M_S)
        for present, x, y, vx, _ in observation[1:]
        if present > 0.5
    )
    return Traffic(round(own_y / LANE_M), own_speed, cars)


def _manoeuvre(seen: Traffic, n_lanes: int) -> str:
    if _is_safe(seen, seen.lane, faster_m_s=5.0):
        return "FASTER"
    if _is_safe(seen, seen.lane):
        return "IDLE"
    free = [name for name, lane in _neighbours(seen.lane, n_lanes) if _is_free(seen, lane)]
    return free[0] if free else "SLOWER"


def _neighbours(lane: int, n_lanes: int) -> list[tuple[str, int]]:
    """Return the lanes beside one; the right one, which pays more, comes first."""
    beside = (("LANE_RIGHT", lane + 1), ("LANE_LEFT", lane - 1))
    return [(name, other) for name, other in beside if 0 <= other < n_lanes]


def _is_safe(seen: Traffic, lane: int, *, faster_m_s: float = 0.0) -> bool:
    """Return whether the gap to every car ahead in ``lane`` stays large enough at the own speed plus ``faster_m_s``."""
    wanted = STANDSTILL_GAP_M + HEADWAY_S * (seen.speed_m_s + faster_m_s)
    gaps = (
        car.ahead_m + FORESIGHT_S * min(car.faster_m_s - faster_m_s, 0.0)
        for car in seen.cars
        if car.lane == lane and car.ahead_m > 0.0
    )
    return all(gap > wanted for gap in gaps)


def _is_free(seen: Traffic, lane: int) -> bool:
    beside = any(car.lane == lane and abs(car.ahead_m) < BESIDE_M for car in seen.cars)
    return not beside and _is_safe(seen, lane)
