"""Environments of other packages against what is known of them; a row is there if its package is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from policylab.envs.baselines import RANDOM, make_baseline
from policylab.envs.make import make_env
from policylab.envs.optional import PROVIDERS
from policylab.envs.settings import EnvSettings
from policylab.experiments.evaluation import RolloutEvaluator
from policylab.experiments.verify.rows import Check, Estimate

HIGHWAY = "highway-env 1.12.1 itself, 30 episodes from seeds 1000 to 1029"
N_DRIVES = 40
FALL = "free fall at 10 m/s² for 1/50 s, in units of the observation, v (400 / 30 / 2) / 50 (Gymnasium)"
D4RL = "Fu et al. 2020 (D4RL, arXiv 2004.07219): mean of 100 episodes, HalfCheetah-v2"
NATURE_DQN = "Mnih et al. 2015, extended data table 2: an action at random in every sixth frame, 30 episodes"
TMY3 = "weather file of Denver-Aurora (TMY3, 724695): mean dry-bulb temperature of 1 to 7"
WITHIN_REACH = "1 - (4/3 π 0.05³) / 0.3³: goals lie evenly in 0.3 m around the gripper, 0.05 m are enough"


def rule_returns(settings: EnvSettings, name: str, *, episodes: int) -> Callable[[], Estimate]:
    """Return what plays a registered baseline: its mean return and the standard error of that."""

    def measure() -> Estimate:
        rule = make_baseline(settings.id, name, env=make_env(settings))
        return Estimate.of(RolloutEvaluator(settings, seed=0)(rule, episodes=episodes).episode_returns)

    return measure


def _drive(action: str, published: str, *, error: float) -> Check:
    settings = EnvSettings(id="highway-fast-v0", max_episode_steps=30)
    return Check(
        name=f"highway-fast: always {action}",
        published=published,
        source=HIGHWAY,
        measure=rule_returns(settings, f"always_{action}", episodes=N_DRIVES),
        published_error=error,
        slow=True,
    )


def _falling_lander() -> float:
    """Return what a step adds to the vertical speed, as observed, once the legs have come to rest."""
    env = make_env(EnvSettings(id="LunarLander-v3"))
    observation, _ = env.reset(seed=0)
    speeds = [float(observation[3])]
    for _ in range(10):
        observation, *_ = env.step(0)
        speeds.append(float(observation[3]))
    return float(np.mean(np.diff(speeds)[2:]))


def _mean_outdoor_temperature(month: int) -> float:
    """Return what the controller of the office sees of the first week of a month, °C."""
    env = make_env(EnvSettings(id="policylab/EnergyPlusOffice-v0", kwargs={"first_day": [month, 1]}))
    observation, _ = env.reset(seed=0)
    temperatures, truncated = [float(observation[5])], False
    while not truncated:
        observation, _, _, truncated, _ = env.step(np.zeros(2, np.float32))
        temperatures.append(float(observation[5]))
    env.close()
    return float(np.mean(temperatures))


def _weather(month: int, name: str, *, published: str) -> Check:
    return Check(
        name=f"EnergyPlus office: outdoor temperature in Denver, 1 to 7 {name}, °C",
        published=published,
        source=f"{TMY3} {name}",
        measure=lambda: _mean_outdoor_temperature(month),
    )


_FLAIL = EnvSettings(id="HalfCheetah-v5")
_STANDSTILL = EnvSettings(id="FetchReach-v4", max_episode_steps=1)
_EVERY_SIXTH_FRAME = EnvSettings(
    id="ALE/MsPacman-v5", kwargs={"obs_type": "ram", "frameskip": 6, "repeat_action_probability": 0.0}
)
_EMPTY = EnvSettings(id="policylab/MiniGridDoorKey-v0", kwargs={"task": "MiniGrid-Empty-5x5-v0"})


_ROWS: Mapping[str, tuple[Check, ...]] = {
    "minigrid": (
        Check(
            name="MiniGrid Empty 5x5: the shortest way, five steps of at most 100",
            published="0.955",
            source="minigrid's documentation: 1 - 0.9 steps / most steps",
            measure=rule_returns(_EMPTY, "shortest_way", episodes=3),
        ),
    ),
    "box2d": (
        Check(
            name="LunarLander: speed gained in a step with all engines off",
            published="-0.02667",
            source=FALL,
            measure=_falling_lander,
        ),
    ),
    "energyplus": (_weather(1, "January", published="-5.5"), _weather(7, "July", published="20.9")),
    "robotics": (
        Check(
            name="FetchReach: reward of the first step, at random",
            published="-0.981",
            source=WITHIN_REACH,
            measure=rule_returns(_STANDSTILL, RANDOM, episodes=1000),
        ),
    ),
    "mujoco": (
        Check(
            name="HalfCheetah: random actions",
            published="-280.18",
            source=D4RL,
            measure=rule_returns(_FLAIL, RANDOM, episodes=100),
            published_error=8.0,  # of 100 episodes as spread as ours
            slow=True,
        ),
    ),
    "atari": (
        Check(
            name="Ms. Pac-Man: random actions",
            published="307.3",
            source=NATURE_DQN,
            measure=rule_returns(_EVERY_SIXTH_FRAME, RANDOM, episodes=100),
            published_error=36.0,  # of 30 episodes as spread as ours
            slow=True,
        ),
    ),
    "driving": (_drive("idle", "12.41", error=1.10), _drive("faster", "6.93", error=0.63)),
}

CHECKS: tuple[Check, ...] = tuple(
    check for extra, rows in _ROWS.items() if PROVIDERS[extra].installed for check in rows
)
