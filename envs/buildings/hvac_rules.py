"""Baselines for the building: thermostats, a PI controller and model-predictive control."""

from __future__ import annotations

import functools
import math
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from policylab.envs.baselines import Rule
from policylab.envs.buildings.hvac import POWER_W, HvacEnv, HvacModel, HvacReading
from policylab.envs.buildings.hvac_site import CLOUD_RANGE
from policylab.envs.buildings.hvac_table import HOURS, LEVELS, HvacTableEnv

MARGIN_C = 0.3
"""How far inside of the band a controller keeps, °C."""
DIFFERENTIAL_C = 0.7
"""How far further inside a thermostat switches off again, °C."""
LEAD_H = 3.0
"""How long before people come a controller begins to ask for their comfort."""
GAIN_PER_C, GAIN_PER_C_H = 0.5, 0.3
"""Share of the power per °C below the set point, and per °C and hour."""
PLAN_H = 16.0
"""How far ahead the model-predictive controller plans, hours."""
REPLAN_H = 1.0
"""After how many hours it plans anew."""


class _Controller:
    """What the controllers share: the model, and the way from a share of the power to an action."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        base = env.unwrapped
        assert isinstance(base, HvacEnv)
        self.model: HvacModel = base.model
        self.levels = base.levels
        self.reset()

    def reset(self) -> None:
        """Forget the last episode."""
        self.owed = 0.0

    def act(self, observation: Any, *, rng: np.random.Generator | None = None) -> Any:
        """Return the action for one observation; no chance plays a part."""
        asked = self.share(HvacReading.of(observation))
        if self.levels is None:
            return np.array([asked], dtype=np.float32)
        # What the nearest level gives too little or too much is owed to the next step.
        top = self.levels - 1
        level = min(max(round((asked + self.owed + 1.0) / 2.0 * top), 0), top)
        self.owed = min(max(self.owed + asked - (2.0 * level / top - 1.0), -1.0), 1.0)
        return level

    def share(self, reading: HvacReading) -> float:
        """Return the share of the power to heat with, in [-1, 1], negative cools."""
        raise NotImplementedError

    def wanted_band_c(self, hour: float) -> tuple[float, float]:
        """Return the band to be in at ``hour``: that of people's presence from `LEAD_H` hours before they come."""
        first, last = self.model.routine.occupied_h
        return self.model.season.band_c if first - LEAD_H <= hour < last else self.model.season.setback_band_c


class Thermostat(_Controller):
    """Bang-bang control: full power near either end of the band until well inside of it.

    Args:
        env: the building.
        setback: whether the wider band counts at night; else people's band does all day.
    """

    def __init__(self, env: gym.Env[Any, Any], *, setback: bool) -> None:
        self.setback = setback
        super().__init__(env)

    def reset(self) -> None:
        """Switch off."""
        super().reset()
        self.running = 0.0

    def share(self, reading: HvacReading) -> float:
        """Return -1, 0 or 1."""
        low, high = self.wanted_band_c(reading.hour) if self.setback else self.model.season.band_c
        warm, cool = low + MARGIN_C, high - MARGIN_C
        if reading.air_c < warm:
            self.running = 1.0
        elif reading.air_c > cool:
            self.running = -1.0
        elif warm + DIFFERENTIAL_C < reading.air_c < cool - DIFFERENTIAL_C or (
            reading.air_c > warm + DIFFERENTIAL_C if self.running > 0.0 else reading.air_c < cool - DIFFERENTIAL_C
        ):
            self.running = 0.0
        return self.running


class ProportionalIntegral(_Controller):
    """PI control towards the near end of the band: heating while it is colder outside than its middle, else cooling."""

    def reset(self) -> None:
        """Empty the integral."""
        super().reset()
        self.integral = 0.0

    def share(self, reading: HvacReading) -> float:
        """Return the controller's output, which does not wind up beyond its limits."""
        low, high = self.wanted_band_c(reading.hour)
        heating = reading.outdoor_c < (low + high) / 2.0
        missing = (low + MARGIN_C if heating else high - MARGIN_C) - reading.air_c
        least, most = (0.0, 1.0) if heating else (-1.0, 0.0)
        integral = self.integral + GAIN_PER_C_H * self.model.step_h * missing
        output = GAIN_PER_C * missing + integral
        if least < output < most or (output >= most) != (missing > 0.0):
            self.integral = integral
        return min(max(output, least), most)


class PredictiveControl(_Controller):
    """Model-predictive control: the best plan for the mean weather ahead, found by linear programming every hour.

    Dynamics are linear and both terms of the reward piecewise linear, so that the plan is exactly optimal for its
    forecast: the outdoor deviation dies away as it does on average, and today's clouds stay.
    """

    def reset(self) -> None:
        """Drop the plan."""
        super().reset()
        self.plan: list[float] = []

    def share(self, reading: HvacReading) -> float:
        """Return the first step of the plan that is left."""
        if not self.plan:
            self.plan = self._planned(reading)[: max(1, round(REPLAN_H / self.model.step_h))].tolist()
        return self.plan.pop(0)

    def _planned(self, reading: HvacReading) -> NDArray[np.float64]:
        model, first = self.model, round(reading.hour / self.model.step_h)
        steps = range(first, first + self._response.shape[0])
        bands = np.array([model.band_c(model.hour(step + 1)) for step in steps])
        price = np.array([model.energy_cost(model.hour(step)) for step in steps])
        idle, response = self._idle(reading, steps), self._response
        n = len(steps)
        slack = np.eye(n)
        found = linprog(
            np.concatenate([price, price, np.full(n, model.discomfort_cost)]),  # heating, cooling, °C outside the band
            A_ub=np.block([[-response, response, -slack], [response, -response, -slack]]),
            b_ub=np.concatenate([idle - bands[:, 0], bands[:, 1] - idle]),
            bounds=[(0.0, 1.0)] * (2 * n) + [(0.0, None)] * n,
        )
        shares: NDArray[np.float64] = found.x[:n] - found.x[n : 2 * n]
        return np.clip(shares, -1.0, 1.0)

    def _idle(self, reading: HvacReading, steps: range) -> NDArray[np.float64]:
        """Return the air temperature after each step if the plant stood still, °C, shape (n,)."""
        model, season = self.model, self.model.season
        nodes = np.array([reading.air_c, reading.wall_c])
        deviation = reading.outdoor_c - season.usual_c(reading.hour)
        clear = season.sun_at(reading.hour)
        clouds = reading.sun_w_per_m2 / clear if clear > 1.0 else sum(CLOUD_RANGE) / 2.0
        course = []
        for ahead, step in enumerate(steps):
            hour = model.hour(step)
            air_w, wall_w = model.gains_w(hour, clouds * season.sun_at(hour))
            outdoor = season.usual_c(hour) + deviation * math.exp(-ahead * model.step_h / season.memory_h)
            nodes = model.A @ nodes + model.B @ [outdoor, air_w, wall_w]
            course.append(float(nodes[0]))
        return np.array(course)

    @functools.cached_property
    def _response(self) -> NDArray[np.float64]:
        """°C of the air after step i per full power in step j, shape (n, n), lower triangular."""
        n = round(PLAN_H / self.model.step_h)
        nodes, impulse = self.model.B[:, 1] * POWER_W, np.empty(n)
        for i in range(n):
            impulse[i] = nodes[0]
            nodes = self.model.A @ nodes
        rows, columns = np.indices((n, n))
        response: NDArray[np.float64] = np.where(rows >= columns, impulse[np.abs(rows - columns)], 0.0)
        return response


def day_thermostat(env: gym.Env[Any, Any]) -> Rule:
    """On the grid of a single day: full power while it is below the band asked for in an hour, which begins early."""
    day = env.unwrapped
    assert isinstance(day, HvacTableEnv)

    def action(state: int) -> int:
        hour, temperature = day.place(int(state))
        low, _ = day.model.band_c(min(hour + LEAD_H, HOURS - 1) if hour < 12 else (hour + 1) % HOURS)
        return len(LEVELS) - 1 if temperature < low + MARGIN_C else 0

    return Rule(action)


def thermostat(env: gym.Env[Any, Any]) -> Thermostat:
    """Hold people's comfort band day and night by bang-bang control."""
    return Thermostat(env, setback=False)


def setback_thermostat(env: gym.Env[Any, Any]) -> Thermostat:
    """Hold the band by bang-bang control, the wider one at night."""
    return Thermostat(env, setback=True)


def proportional_integral(env: gym.Env[Any, Any]) -> ProportionalIntegral:
    """Hold the near end of the band by PI control, with setback at night."""
    return ProportionalIntegral(env)


def predictive(env: gym.Env[Any, Any]) -> PredictiveControl:
    """Plan 16 hours ahead by linear programming."""
    return PredictiveControl(env)
