"""Baselines for Gymnasium's classic control tasks and its lander: feedback rules of a line or two."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from policylab.envs.baselines import Rule


def lean(env: gym.Env[Any, Any]) -> Rule:
    """Push the cart to the side to which the pole leans and falls: the sign of its angle plus its speed."""
    return Rule(lambda observation: int(observation[2] + observation[3] > 0))


def with_velocity(env: gym.Env[Any, Any]) -> Rule:
    """Accelerate in the direction of travel, so that every swing gains energy."""
    return Rule(lambda observation: 2 if observation[1] >= 0 else 0)


SWING_GAIN = 1.0  # torque per unit of missing energy and of speed
UPRIGHT_RAD = 0.5  # within this angle of the top a linear controller balances
STIFFNESS, DAMPING = 16.0, 4.0  # torque per rad and per rad/s


def swing_up(env: gym.Env[Any, Any]) -> Rule:
    """Pump energy until the pendulum nears the top, then balance it by proportional-derivative control.

    Source: Åström and Furuta, "Swinging up a pendulum by energy control", Automatica 36 (2000), equation 8.
    """
    limit = float(env.unwrapped.max_torque)  # type: ignore[attr-defined]
    gravity = float(env.unwrapped.g)  # type: ignore[attr-defined]
    return Rule(lambda observation: _pendulum_torque(observation, limit=limit, gravity=gravity))


def _pendulum_torque(observation: NDArray[np.float32], *, limit: float, gravity: float) -> NDArray[np.float32]:
    cosine, sine, speed = (float(part) for part in observation)
    angle = math.atan2(sine, cosine)
    if abs(angle) < UPRIGHT_RAD:
        torque = -STIFFNESS * angle - DAMPING * speed
    else:
        # Rod of mass 1 and length 1: the energy per moment of inertia is 0 at rest at the top.
        energy = 0.5 * speed**2 + 1.5 * gravity * (cosine - 1.0)
        torque = -SWING_GAIN * energy * (math.copysign(1.0, speed))
    return np.array([np.clip(torque, -limit, limit)], dtype=np.float32)


def descend(env: gym.Env[Any, Any]) -> Rule:
    """Gymnasium's own heuristic for its lander: proportional-derivative control of angle and height."""
    from gymnasium.envs.box2d.lunar_lander import heuristic  # needs Box2D

    game: Any = env.unwrapped
    return Rule(lambda observation: heuristic(game, observation))
