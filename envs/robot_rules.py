"""Baselines for robots: inverse kinematics for Reacher, straight lines for the Fetch arm, a gait for HalfCheetah."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from policylab.envs.baselines import Rule

UPPER_ARM_M, FOREARM_M = 0.1, 0.11
"""Lengths of Reacher's links, in gymnasium's reacher.xml."""
ELBOW_LIMIT_RAD = 3.0
STIFFNESS, DAMPING = 0.3, 0.05
"""Reacher: share of the largest torque per rad and per rad/s, the best of a grid; less than critically damped, as a
joint has an inertia of about 1 and a friction of 1, and the largest torque is 200."""

FETCH_STEP_M = 0.05
"""Way of the Fetch arm's gripper per step of a full action."""

GAIT_HZ, GAIT_STIFFNESS = 2.66, 0.86
GAIT_AMPLITUDES_RAD = np.array([0.43, 0.61, 0.40, 0.45, 0.37, 0.56])
GAIT_PHASES_RAD = np.array([0.32, 0.47, -1.00, 2.65, -2.10, -0.65])
GAIT_CENTRES_RAD = np.array([-0.70, -0.59, -0.17, -0.44, -0.03, 0.08])
"""HalfCheetah, hip, knee and ankle of the hind leg, then of the fore leg: found by the cross-entropy method on some 1.5
million steps, on other starts than a policy is judged on."""
CHEETAH_JOINTS = slice(2, 8)
"""Where the joint angles stand in HalfCheetah's observation."""


def reach(env: gym.Env[Any, Any]) -> Rule:
    """Turn both joints of Reacher to the angles that put the fingertip on the target.

    The angles are the closed-form inverse kinematics of two links, the nearer of its two solutions (Siciliano et al.,
    Robotics, 2009, section 2.12.1); joints are moved by proportional-derivative control.
    """
    return Rule(_reacher_torques)


def _reacher_torques(observation: NDArray[np.float64]) -> NDArray[np.float32]:
    cosines, sines, target, speeds = observation[:2], observation[2:4], observation[4:6], observation[6:8]
    angles = np.arctan2(sines, cosines)
    errors = min((_turns(wanted - angles) for wanted in _solutions(*target)), key=lambda error: float(error @ error))
    return np.clip(STIFFNESS * errors - DAMPING * speeds, -1.0, 1.0).astype(np.float32)


def _solutions(x: float, y: float) -> list[NDArray[np.float64]]:
    """Return both pairs of joint angles with the fingertip at (x, y), or as near as the arm gets."""
    reached = (x * x + y * y - UPPER_ARM_M**2 - FOREARM_M**2) / (2 * UPPER_ARM_M * FOREARM_M)
    bend = min(math.acos(min(max(reached, -1.0), 1.0)), ELBOW_LIMIT_RAD)
    return [
        np.array([math.atan2(y, x) - math.atan2(FOREARM_M * math.sin(q), UPPER_ARM_M + FOREARM_M * math.cos(q)), q])
        for q in (bend, -bend)
    ]


def _turns(error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the error with the shoulder, which may turn all the way round, on its shorter way; the elbow may not."""
    return np.array([(error[0] + math.pi) % (2 * math.pi) - math.pi, error[1]])


def straight(env: gym.Env[Any, Any]) -> Rule:
    """Move the Fetch arm's gripper straight to the goal, as far as one step takes it."""

    def action(observation: dict[str, NDArray[np.float64]]) -> NDArray[np.float32]:
        way = (observation["desired_goal"] - observation["achieved_goal"]) / FETCH_STEP_M
        return np.append(np.clip(way, -1.0, 1.0), 0.0).astype(np.float32)

    return Rule(action)


def gait(env: gym.Env[Any, Any]) -> Gait:
    """Let the joints of HalfCheetah follow sine waves; it feels its joints, and knows neither ground nor speed.

    Source of the idea: Raffin et al. 2023, "An Open-Loop Baseline for Reinforcement Learning Locomotion Tasks" (arXiv
    2310.05808).
    """
    return Gait(step_s=float(env.unwrapped.dt))  # type: ignore[attr-defined]


class Gait:
    """Proportional control towards one sine wave per joint.

    Args:
        step_s: time of a step, s.
    """

    def __init__(self, *, step_s: float) -> None:
        self._step_s = step_s
        self._steps = 0

    def reset(self) -> None:
        """Begin the first stride."""
        self._steps = 0

    def act(self, observation: NDArray[np.float64], *, rng: np.random.Generator | None = None) -> NDArray[np.float32]:
        """Return the torques of the next step, shares of the largest; no chance plays a part."""
        turned = 2.0 * math.pi * GAIT_HZ * self._step_s * self._steps
        self._steps += 1
        wanted = GAIT_CENTRES_RAD + GAIT_AMPLITUDES_RAD * np.sin(turned + GAIT_PHASES_RAD)
        torques: NDArray[np.float64] = np.clip(GAIT_STIFFNESS * (wanted - observation[CHEETAH_JOINTS]), -1.0, 1.0)
        return torques.astype(np.float32)
