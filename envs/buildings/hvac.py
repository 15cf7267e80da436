"""`HvacEnv`: heating and cooling a house under weather, occupancy and a tariff."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from policylab.envs.arguments import checked_count, checked_name, checked_number, checked_probability
from policylab.envs.buildings.hvac_drawing import HvacFrame, hvac_picture, hvac_text
from policylab.envs.buildings.hvac_site import CLOUD_RANGE, DAY_H, SEASONS, Routine, Season
from policylab.envs.buildings.thermal import House
from policylab.envs.table_env import no_such_action
from policylab.errors import EnvironmentRuleError

CENTRE_C, SCALE_C = 20.0, 10.0
SUN_SCALE = 1000.0
POWER_W = 25_000.0
"""Largest heat the plant adds or removes, W thermal; the heater of sldemo_househeat gives 30 kW."""
PERFORMANCE = 3.0
"""Heat moved per electricity used, the same for heating and cooling."""
POWER_WEIGHT = 1e-4
"""λ_P of the reward, per W of electric power (Sinergym)."""
DISCOMFORT_WEIGHT = 1.0
"""λ_T of the reward, per °C outside of the band (Sinergym)."""
SUN_SHARE = 0.6
"""Share of the irradiance on the windows that comes in."""


class HvacReading(NamedTuple):
    """An observation in natural units."""

    air_c: float
    wall_c: float
    outdoor_c: float
    sun_w_per_m2: float
    hour: float
    occupied: bool
    price: float

    @classmethod
    def of(cls, observation: ArrayLike) -> HvacReading:
        """Return what an observation of `HvacEnv` says; ``price`` is relative to the cheap tariff."""
        air, wall, outdoor, sun, sine, cosine, occupied, price = np.asarray(observation, dtype=float).tolist()
        air_c, wall_c, outdoor_c = (CENTRE_C + SCALE_C * value for value in (air, wall, outdoor))
        hour = math.atan2(sine, cosine) / (2.0 * math.pi) * DAY_H
        return cls(air_c, wall_c, outdoor_c, SUN_SCALE * sun, round(hour, 4) % DAY_H, occupied > 0.5, price)


@dataclasses.dataclass(frozen=True, slots=True)
class HvacState:
    """Where an episode is: temperatures (°C), steps since midnight, weather."""

    nodes: tuple[float, float]
    step: int
    deviation_c: float
    clouds: float


class HvacModel:
    """The dynamics and the reward, which environment and planning controllers share.

    Attributes:
        season: weather and comfort.
        routine: occupancy and tariff.
        A, B: exact one-step dynamics of (air, wall) under (outdoor temperature, heat to air, heat to wall).
    """

    def __init__(self, *, season: Season, step_h: float, energy_weight: float) -> None:
        self.season = season
        self.routine = Routine()
        self.step_h = step_h
        self.energy_weight = energy_weight
        self.house = House()
        self.network = self.house.two_nodes()
        self.A, self.B = self.network.over(step_h * 3600.0)

    def hour(self, step: int) -> float:
        """Return the hour of the day at the start of a step."""
        return step * self.step_h % DAY_H

    def gains_w(self, hour: float, sun_w_per_m2: float) -> tuple[float, float]:
        """Return the heat into air (people, appliances) and into the wall (sun through the windows), W."""
        return self.routine.heat_at(hour), SUN_SHARE * self.house.window_area_m2 * sun_w_per_m2

    def band_c(self, hour: float) -> tuple[float, float]:
        """Return the comfort band at ``hour`` of the day, °C."""
        return self.season.band_c if self.routine.is_occupied(hour) else self.season.setback_band_c

    def energy_cost(self, hour: float) -> float:
        """Return the reward lost by running at full power for a step: ``ω λ_P P price / cheap price``."""
        relative = self.routine.price_at(hour) / self.routine.price
        return self.energy_weight * POWER_WEIGHT * POWER_W / PERFORMANCE * relative

    @property
    def discomfort_cost(self) -> float:
        """The reward lost per °C outside of the band at the end of a step: ``(1 - ω) λ_T``."""
        return (1.0 - self.energy_weight) * DISCOMFORT_WEIGHT

    def extremes_c(self) -> tuple[float, float]:
        """Return temperatures that no node can leave: the steady states of the coldest and the hottest extremes."""
        coldest, hottest = self.season.extremes_c
        people, sun = self.gains_w(self.routine.occupied_h[0], self.season.sun_w_per_m2)
        low = self.network.steady_state([coldest, -POWER_W, 0.0])
        high = self.network.steady_state([hottest, POWER_W + people, sun])
        return float(low.min()), float(high.max())


class HvacEnv(gym.Env[NDArray[np.float32], Any]):
    """Keep a house comfortable at low cost.

    - **State**: temperatures of air and wall (2R2C model of `thermal.House`, discretised exactly), time
      of day, outdoor temperature, sun.
    - **Observation**: 8 numbers, float32: air, wall and outdoor temperature as (°C - 20) / 10; irradiance, kW/m²;
      sine and cosine of the time of day; 1 while people are in; price relative to the cheap tariff.
      `HvacReading.of` gives natural units. The state can be read off, so the observation is Markov.
    - **Actions**: heat put into the air as a share of 25 kW, in [-1, 1], negative cools; or, with ``levels``, one of so
      many equal steps from -1 to 1, action 0 cooling most. 3 W of heat take 1 W of electricity.
    - **Dynamics**, each step of ``step_minutes``: the heat of plant, people (8 to 20 h), appliances and sun acts with
      the weather held; then the weather moves on. Outdoors, a daily cosine plus an exact AR(1) deviation; clouds are
      drawn at sunrise.
    - **Reward**: ``-ω λ_P P price/cheap price - (1 - ω) λ_T max(0, T - high, low - T)`` with the electric power P in W,
      λ_P 1e-4 per W, λ_T 1 per °C, and the air temperature T at the end of the step against the band of that time:
      20 to 23.5 °C in winter, 23 to 26 °C in summer, 15 to 30 °C while nobody is in. 0.09 $/kWh, 0.27 from 16 to 21 h.
    - **Start**: midnight, air and wall at one temperature, uniform within 2 °C of the middle of the comfort band.
    - Continuing: nothing terminates; the time limit cuts after two days.

    ``info`` carries the terms of the reward and, in dollars and kWh, what a bill would say.

    Args:
        season: ``"winter"`` or ``"summer"`` (`policylab.envs.buildings.hvac_site.SEASONS`).
        levels: None for continuous actions, else their number, 2 to 101.
        step_minutes: length of a step, 1 to 60 minutes, a whole part of a day.
        energy_weight: ω, in [0, 1].
        weather_noise: standard deviation of the outdoor temperature round its daily course, °C, >= 0.
        render_mode: None, ``"ansi"`` or ``"rgb_array"``.

    Raises:
        EnvironmentRuleError: an argument is out of its range.

    Source: linear reward and comfort bands of Sinergym (Jiménez-Raboso et al., BuildSys 2021); house of MathWorks'
    sldemo_househeat. Weather, routine and peak price are made up.

    >>> env = HvacEnv(weather_noise=0.0)
    >>> observation, _ = env.reset(seed=1)
    >>> HvacReading.of(observation).hour, env.step([1.0])[4]["energy_kwh"] == 25 / 3 / 4
    (0.0, True)
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 8}  # type: ignore[misc]

    def __init__(
        self,
        *,
        season: str = "winter",
        levels: int | None = None,
        step_minutes: int = 15,
        energy_weight: float = 0.5,
        weather_noise: float = 2.0,
        render_mode: str | None = None,
    ) -> None:
        self.model = HvacModel(
            season=_checked_season(season, weather_noise),
            step_h=_checked_step(step_minutes) / 60.0,
            energy_weight=checked_probability("energy_weight", energy_weight),
        )
        self.levels = _checked_levels(levels)
        self.action_space: gym.Space[Any] = (
            gym.spaces.Box(-1.0, 1.0, (1,), np.float32) if levels is None else gym.spaces.Discrete(levels)
        )
        self.observation_space = _observation_space(self.model)
        self.render_mode = render_mode
        self.state = HvacState((CENTRE_C, CENTRE_C), 0, 0.0, 1.0)
        self.past: list[HvacFrame] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start at midnight."""
        super().reset(seed=seed)
        low, high = self.model.season.band_c
        start = (low + high) / 2.0 + self.np_random.uniform(-2.0, 2.0)
        deviation = self.model.season.deviation_c * float(np.clip(self.np_random.standard_normal(), -4.0, 4.0))
        self.state = HvacState((start, start), 0, deviation, 1.0)
        self.past = [self._frame(0.0)]
        return self._observation(), {}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Heat or cool for one step.

        Raises:
            EnvironmentRuleError: the action lies outside of the action space.
        """
        share = self._share(action)
        model, hour = self.model, self.model.hour(self.state.step)
        air_w, wall_w = model.gains_w(hour, self.sun_w_per_m2)
        nodes = model.A @ self.state.nodes + model.B @ [self.outdoor_c, air_w + share * POWER_W, wall_w]
        self.state = self._weather_moves_on((float(nodes[0]), float(nodes[1])))
        low, high = model.band_c(model.hour(self.state.step))
        outside_c = max(0.0, low - nodes[0], nodes[0] - high)
        energy, discomfort = abs(share) * model.energy_cost(hour), float(model.discomfort_cost * outside_c)
        kwh = abs(share) * POWER_W / PERFORMANCE / 1000.0 * model.step_h
        info = {
            "energy_term": -energy,
            "discomfort_term": -discomfort,
            "energy_kwh": kwh,
            "cost_dollars": kwh * model.routine.price_at(hour),
            "outside_band_c": float(outside_c),
        }
        self.past.append(self._frame(share))
        return self._observation(), -energy - discomfort, False, False, info

    @property
    def outdoor_c(self) -> float:
        """The outdoor temperature, °C."""
        return self.model.season.usual_c(self.model.hour(self.state.step)) + self.state.deviation_c

    @property
    def sun_w_per_m2(self) -> float:
        """The irradiance on the windows, W/m²."""
        return self.state.clouds * self.model.season.sun_at(self.model.hour(self.state.step))

    def _share(self, action: Any) -> float:
        if self.levels is not None:
            if action not in range(self.levels):
                raise no_such_action(action, n_actions=self.levels)
            return -1.0 + 2.0 * int(action) / (self.levels - 1)
        value = np.asarray(action, dtype=float)
        if value.shape != (1,) or not abs(value[0]) <= 1.0 + 1e-6:  # a float32 may round a little beyond
            raise EnvironmentRuleError(f"an action must be one number in [-1, 1], shape (1,), got {action!r}")
        return float(np.clip(value[0], -1.0, 1.0))

    def _weather_moves_on(self, nodes: tuple[float, float]) -> HvacState:
        before, step = self.state, self.state.step + 1
        season, hour = self.model.season, self.model.hour(step)
        noise = float(self.np_random.standard_normal())
        deviation = season.later(before.deviation_c, hours=self.model.step_h, noise=noise)
        sunrise = season.sun_at(hour) > 0.0 and season.sun_at(self.model.hour(before.step)) == 0.0
        clouds = float(self.np_random.uniform(*CLOUD_RANGE)) if sunrise else before.clouds
        return HvacState(nodes, step, deviation, clouds)

    def _observation(self) -> NDArray[np.float32]:
        hour, routine = self.model.hour(self.state.step), self.model.routine
        angle = 2.0 * math.pi * hour / DAY_H
        temperatures = [(value - CENTRE_C) / SCALE_C for value in (*self.state.nodes, self.outdoor_c)]
        price = routine.price_at(hour) / routine.price
        rest = [self.sun_w_per_m2 / SUN_SCALE, math.sin(angle), math.cos(angle), routine.is_occupied(hour), price]
        return np.array([*temperatures, *rest], dtype=np.float32)

    def _frame(self, share: float) -> HvacFrame:
        hour = self.model.hour(self.state.step)
        return HvacFrame(
            hours=self.state.step * self.model.step_h,
            air_c=self.state.nodes[0],
            wall_c=self.state.nodes[1],
            outdoor_c=self.outdoor_c,
            band_c=self.model.band_c(hour),
            share=share,
            peak=self.model.routine.price_at(hour) > self.model.routine.price,
        )

    def render(self) -> Any:
        """Return one line of text (``ansi``) or the course of the episode as an image (``rgb_array``)."""
        if self.render_mode == "ansi":
            return hvac_text(self.past[-1])
        if self.render_mode == "rgb_array":
            return hvac_picture(self.past)
        return None


def _observation_space(model: HvacModel) -> gym.spaces.Box:
    coldest, hottest = model.extremes_c()
    low, high = (coldest - CENTRE_C) / SCALE_C, (hottest - CENTRE_C) / SCALE_C
    dearest = model.routine.peak_price / model.routine.price
    return gym.spaces.Box(
        np.array([low, low, low, 0.0, -1.0, -1.0, 0.0, 1.0], dtype=np.float32),
        np.array([high, high, high, model.season.sun_w_per_m2 / SUN_SCALE, 1.0, 1.0, 1.0, dearest], dtype=np.float32),
        dtype=np.float32,
    )


def _checked_season(season: str, weather_noise: float) -> Season:
    noise = checked_number("weather_noise", weather_noise)
    if noise < 0.0:
        raise EnvironmentRuleError(f"`weather_noise` must be >= 0 °C, got {weather_noise!r}")
    return dataclasses.replace(SEASONS[checked_name("season", season, known=SEASONS)], deviation_c=noise)


def _checked_step(step_minutes: int) -> int:
    minutes = checked_count("step_minutes", step_minutes)
    if not 1 <= minutes <= 60 or 1440 % minutes:
        raise EnvironmentRuleError(f"`step_minutes` must be 1 to 60 and divide a day (1440), got {step_minutes!r}")
    return minutes


def _checked_levels(levels: int | None) -> int | None:
    if levels is not None and not 2 <= checked_count("levels", levels) <= 101:
        raise EnvironmentRuleError(f"`levels` must be 2 to 101, or null for continuous actions, got {levels!r}")
    return levels
