"""`EnergyPlusEnv`: setpoints of a real building model under real weather, simulated by EnergyPlus."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from policylab.envs.arguments import checked_count, checked_name, checked_probability, checked_unit_action
from policylab.envs.baselines import Rule
from policylab.envs.buildings.energyplus_run import Reading, Setpoints, Simulation, with_run_period
from policylab.errors import EnvironmentRuleError
from policylab.extras import require

Observation = NDArray[np.float32]

STEPS_PER_HOUR = 4
OFFICE_ZONES = ("Core_ZN", "Perimeter_ZN_1", "Perimeter_ZN_2", "Perimeter_ZN_3", "Perimeter_ZN_4")
HEATING_RANGE_C = (15.0, 22.5)
COOLING_RANGE_C = (22.5, 30.0)
SUMMER = (datetime.date(2001, 6, 1), datetime.date(2001, 9, 30))
SUMMER_COMFORT_C = (23.0, 26.0)
WINTER_COMFORT_C = (20.0, 23.5)
POWER_WEIGHT = 1e-4  # per W
DISCOMFORT_WEIGHT = 1.0  # per °C outside of the comfort range
MAX_POWER_W = 200_000.0
N_CLOCK = 5


class EnergyPlusEnv(gym.Env[Observation, NDArray[np.float32]]):
    """A small office of five conditioned zones (the ASHRAE 90.1-2019 prototype, 511 m²), a step every 15 minutes.

    - **Observation**: float32, shape (20,): sine and cosine of the time of day, weekend (1) or not, sine and cosine of
      the time of year; outdoor temperature, °C; direct solar radiation, W/m²; the air temperature of each zone, °C; its
      occupants; the two setpoints now, °C, and the power of the last step, W. What walls have stored is hidden.
    - **Actions**: Box [-1, 1], shape (2,): the heating setpoint from 15 to 22.5 °C and the cooling setpoint from 22.5
      to 30 °C, of all zones until the next step.
    - **Reward**: -(1 - w) x discomfort - w x 1e-4 x power: Sinergym's linear reward. Power is electricity and gas of
      heating, cooling and fans, W. Discomfort is how far zones that people are in lie outside of 20 to 23.5 °C (June to
      September: 23 to 26 °C), °C, mean over those zones.
    - **Start**: midnight of ``first_day``, or of a random day, after the warm-up of EnergyPlus; the first quarter-hour
      is over when the first observation comes. That day counts as a Monday, and the model keeps American holidays.
    - **End**: truncates after ``days``.

    Args:
        days: length of an episode, 1 to 365.
        first_day: [month, day]; None draws one such that the episode lies within the year.
        weather: one of EnergyPlus's weather files by name (``usa_co_denver``), or a list to draw from.
        energy_weight: w in [0, 1].
        render_mode: None or ``"ansi"``.

    Raises:
        MissingExtraError: pyenergyplus-lbnl is not installed.
        EnvironmentRuleError: an argument is out of its range.

    Source: U.S. DOE commercial prototype buildings and TMY3 weather as packaged by pyenergyplus-lbnl; reward of Campoy-
    Nieves et al., "Sinergym", Energy and Buildings 327 (2025).
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi"], "render_fps": 4}  # type: ignore[misc]

    def __init__(
        self,
        *,
        days: int = 7,
        first_day: Sequence[int] | None = None,
        weather: str | Sequence[str] = "usa_co_denver",
        energy_weight: float = 0.5,
        render_mode: str | None = None,
    ) -> None:
        data = require("pyenergyplus.dataset", extra="energyplus")
        if not 1 <= checked_count("days", days) <= 365:
            raise EnvironmentRuleError(f"`days` must be from 1 to 365, got {days}")
        self.days = int(days)
        self._first_day = None if first_day is None else _checked_day(first_day, days=self.days)
        names = [weather] if isinstance(weather, str) else list(weather)
        self._weather = [
            Path(data.weather_files[checked_name("weather", name, known=data.weather_files)]) for name in names
        ]
        if not self._weather:
            raise EnvironmentRuleError("`weather` must name at least one weather file, got none")
        self._model = Path(data.ashrae_models["office_small"]).read_text(errors="replace")
        self.energy_weight = checked_probability("energy_weight", energy_weight)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        n_zones = len(OFFICE_ZONES)
        ends = [
            *[(-1.0, 1.0)] * 2, (0.0, 1.0), *[(-1.0, 1.0)] * 2, (-60.0, 60.0), (0.0, 1500.0),
            *[(-40.0, 80.0)] * n_zones, *[(0.0, 100.0)] * n_zones, HEATING_RANGE_C, COOLING_RANGE_C, (0.0, MAX_POWER_W),
        ]  # fmt: skip
        low, high = np.array(ends, dtype=np.float32).T
        self.observation_space = gym.spaces.Box(low.copy(), high.copy(), dtype=np.float32)
        self.render_mode = render_mode
        self._simulation: Simulation | None = None
        self._reading: Reading | None = None
        self._setpoints = Setpoints(HEATING_RANGE_C[0], COOLING_RANGE_C[1])
        self._left = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start a simulation; takes about a second.

        Raises:
            RunError: EnergyPlus refuses to run.
        """
        super().reset(seed=seed)
        self.close()
        first = self._first_day or _new_year() + datetime.timedelta(int(self.np_random.integers(366 - self.days)))
        last = first + datetime.timedelta(self.days - 1)
        weather = self._weather[int(self.np_random.integers(len(self._weather)))]
        model = with_run_period(self._model, first_day=(first.month, first.day), last_day=(last.month, last.day))
        self._simulation = Simulation(model, weather=weather, zones=OFFICE_ZONES)
        self._setpoints = Setpoints(HEATING_RANGE_C[0], COOLING_RANGE_C[1])
        self._reading = self._simulation.start()
        self._left = self.days * 24 * STEPS_PER_HOUR - 1
        return self._observation(), {"first_day": first.strftime("%m-%d"), "weather": weather.stem}

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Hold two setpoints for 15 minutes.

        Raises:
            EnvironmentRuleError: the action lies outside of the action space, or there was no reset.
            RunError: the simulation failed.
        """
        if self._simulation is None:
            raise EnvironmentRuleError("call reset() before step(), and after an episode has ended")
        heating, cooling = (checked_unit_action(action, size=2) + 1.0) / 2.0
        self._setpoints = Setpoints(_between(HEATING_RANGE_C, heating), _between(COOLING_RANGE_C, cooling))
        self._reading = self._simulation.advance(self._setpoints)
        self._left -= 1
        power_w, discomfort_c = power(self._reading), discomfort(self._reading)
        reward = -self.energy_weight * POWER_WEIGHT * power_w
        reward -= (1.0 - self.energy_weight) * DISCOMFORT_WEIGHT * discomfort_c
        observation, truncated = self._observation(), self._left <= 0
        if truncated:
            self.close()
        return observation, float(reward), False, truncated, {"power_w": power_w, "discomfort_c": discomfort_c}

    def close(self) -> None:
        """Stop the simulation."""
        if self._simulation is not None:
            self._simulation.close()
            self._simulation = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy in another process starts with a reset: a running simulation cannot be carried over."""
        return {**self.__dict__, "_simulation": None}

    def _observation(self) -> Observation:
        reading = self._reading
        assert reading is not None
        day, year = 2 * math.pi * reading.hour / 24, 2 * math.pi * reading.day_of_year / 365
        clock = [math.sin(day), math.cos(day), float(reading.day_of_week in (1, 7)), math.sin(year), math.cos(year)]
        seen = [
            *clock, reading.outdoor_c, reading.sun_w_m2, *reading.zones_c, *reading.people, *self._setpoints,
            power(reading),
        ]  # fmt: skip
        space = self.observation_space
        return np.clip(np.array(seen, dtype=np.float32), space.low, space.high)  # type: ignore[attr-defined]

    def render(self) -> Any:
        """Return the temperatures as one line of text."""
        if self.render_mode != "ansi" or self._reading is None:
            return None
        zones = " ".join(f"{zone:.1f}" for zone in self._reading.zones_c)
        return (
            f"day {self._reading.day_of_year}, {self._reading.hour:05.2f} h: "
            f"outdoors {self._reading.outdoor_c:.1f} °C, "
            f"zones {zones} °C, {power(self._reading) / 1000:.1f} kW\n"
        )


def power(reading: Reading) -> float:
    """Return the mean power of the last step, W."""
    return reading.hvac_j * STEPS_PER_HOUR / 3600.0


def discomfort(reading: Reading) -> float:
    """Return how far the zones with people in them are from comfort, °C, mean over those zones; 0 if all are empty."""
    today = _new_year() + datetime.timedelta(reading.day_of_year - 1)
    low, high = SUMMER_COMFORT_C if SUMMER[0] <= today <= SUMMER[1] else WINTER_COMFORT_C
    peopled = [zone for zone, people in zip(reading.zones_c, reading.people, strict=True) if people > 0.0]
    return sum(max(0.0, low - zone, zone - high) for zone in peopled) / len(peopled) if peopled else 0.0


def _new_year() -> datetime.date:
    return datetime.date(2001, 1, 1)  # any year without a 29 February, as in the weather files


def _checked_day(first_day: Sequence[int], *, days: int) -> datetime.date:
    try:
        month, day = first_day
        first = datetime.date(2001, month, day)
    except (TypeError, ValueError):
        raise EnvironmentRuleError(f"`first_day` must be [month, day], got {first_day!r}") from None
    if first + datetime.timedelta(days - 1) > datetime.date(2001, 12, 31):
        raise EnvironmentRuleError(f"{days} `days` from `first_day` {list(first_day)} must end within the year")
    return first


def _between(ends: tuple[float, float], share: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * float(share)


def _action(*, heating_c: float, cooling_c: float) -> NDArray[np.float32]:
    pairs = ((heating_c, HEATING_RANGE_C), (cooling_c, COOLING_RANGE_C))
    return np.array([2 * (value - low) / (high - low) - 1 for value, (low, high) in pairs], dtype=np.float32)


def always_comfortable(env: gym.Env[Any, Any]) -> Rule:
    """Baseline: setpoints at 21 and 24 °C day and night."""
    return Rule(lambda observation: _action(heating_c=21.0, cooling_c=24.0))


def night_setback(env: gym.Env[Any, Any]) -> Rule:
    """Baseline: 21 and 24 °C on weekdays from 6 to 18 h (the summer's 25 °C from June on), else 15.6 and 29.4 °C."""

    def action(observation: Observation) -> NDArray[np.float32]:
        sine, cosine, weekend, year_sine, year_cosine = (float(number) for number in observation[:N_CLOCK])
        hour = (math.atan2(sine, cosine) * 12 / math.pi) % 24
        day = (math.atan2(year_sine, year_cosine) * 365 / (2 * math.pi)) % 365
        if weekend > 0.5 or not 6.0 <= hour < 18.0:
            return _action(heating_c=15.6, cooling_c=29.4)
        return _action(heating_c=21.0, cooling_c=25.0 if 152 <= day <= 273 else 23.5)

    return Rule(action)
