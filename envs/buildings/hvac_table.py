"""`HvacTableEnv`: one day of heating a house on a temperature grid, small enough to be solved exactly."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policylab.envs.arguments import checked_number, checked_probability
from policylab.envs.buildings.hvac import POWER_W, HvacModel
from policylab.envs.buildings.hvac_site import SEASONS
from policylab.envs.drawing import draw_grid, value_colours
from policylab.envs.table import Outcome
from policylab.envs.table_env import TableEnv, merged
from policylab.errors import EnvironmentRuleError

HOURS = 24
LEVELS = (0.0, 0.5, 1.0)
"""Share of the power of each action."""
COLDEST_C, WARMEST_C = 14.0, 26.0
START_C = 18.0


class HvacTableEnv(TableEnv):
    """Heat a house through a winter day, hour by hour.

    - **States**: ``hour * n + i``, temperature i of the grid (14 to 26 °C, n points) at a full hour 0 to 23; the last
      state is midnight, terminal.
    - **Actions**: 0 off, 1 half, 2 full power (25 kW of heat) for an hour.
    - **Dynamics**: air and wall share one temperature (1R1C, exact solution over the hour) under the usual outdoor
      temperature of the winter of `hvac_site` and the heat of people and appliances; the sun is left
      out. Outdoors, ``weather_noise * sqrt(2)`` comes on top with probability 1/4, as much is taken off with 1/4,
      independently each hour. The temperature then lands on one of the two nearest grid points, so that its mean is
      right; beyond the ends of the grid it stays there.
    - **Rewards**: as in `HvacEnv`: electricity at the hour's price, and discomfort by the expected
      temperature at the end of the hour, counted per hour.
    - **Start**: 18 °C at midnight. After 24 steps the day is over.

    Args:
        grid_c: distance of grid points, °C, 0.1 to 2.
        weather_noise: standard deviation of the outdoor temperature, °C, >= 0.
        energy_weight: ω of the reward, in [0, 1].
        render_mode: None, ``"ansi"`` or ``"rgb_array"``.

    Raises:
        EnvironmentRuleError: an argument is out of its range.

    >>> env = HvacTableEnv()
    >>> len(env.P), env.temperatures[8].item()
    (1177, 16.0)
    """

    def __init__(
        self,
        *,
        grid_c: float = 0.25,
        weather_noise: float = 2.0,
        energy_weight: float = 0.5,
        render_mode: str | None = None,
    ) -> None:
        if not 0.1 <= checked_number("grid_c", grid_c) <= 2.0:
            raise EnvironmentRuleError(f"`grid_c` must be from 0.1 to 2 °C, got {grid_c!r}")
        if checked_number("weather_noise", weather_noise) < 0.0:
            raise EnvironmentRuleError(f"`weather_noise` must be >= 0 °C, got {weather_noise!r}")
        weight = checked_probability("energy_weight", energy_weight)
        self.model = HvacModel(season=SEASONS["winter"], step_h=1.0, energy_weight=weight)
        self.temperatures = COLDEST_C + grid_c * np.arange(math.floor((WARMEST_C - COLDEST_C) / grid_c + 1e-9) + 1)
        self._grid_c, self._noise = grid_c, weather_noise * math.sqrt(2.0)
        kept, inputs = self.model.house.one_node().over(3600.0)
        self._kept, self._inputs = float(kept[0, 0]), inputs[0]
        start = np.zeros(HOURS * len(self.temperatures) + 1)
        start[int(np.argmin(abs(self.temperatures - START_C)))] = 1.0
        super().__init__(self._table(), start, render_mode=render_mode)

    def place(self, state: int) -> tuple[int, float]:
        """Return the hour (24 at the end) and the temperature, °C, of a state (NaN at the end).

        >>> HvacTableEnv().place(49 * 8 + 8)
        (8, 16.0)
        """
        hour, i = divmod(state, len(self.temperatures))
        return (hour, float(self.temperatures[i])) if hour < HOURS else (HOURS, math.nan)

    def _table(self) -> dict[int, dict[int, list[Outcome]]]:
        end = HOURS * len(self.temperatures)
        actions = range(len(LEVELS))
        table = {state: {action: self._outcomes(state, LEVELS[action]) for action in actions} for state in range(end)}
        return {**table, end: {action: [(1.0, end, 0.0, True)] for action in actions}}

    def _outcomes(self, state: int, share: float) -> list[Outcome]:
        hour, temperature = self.place(state)
        model, n = self.model, len(self.temperatures)
        heat_w = model.gains_w(hour, 0.0)[0] + share * POWER_W
        low, high = model.band_c((hour + 1) % HOURS)
        outcomes: list[Outcome] = []
        for chance, noise in ((0.5, 0.0), (0.25, self._noise), (0.25, -self._noise)):
            outdoor = model.season.usual_c(hour) + noise
            after = self._kept * temperature + float(self._inputs @ [outdoor, heat_w])
            reward = -share * model.energy_cost(hour) - model.discomfort_cost * max(0.0, low - after, after - high)
            for weight, i in self._nearest(after):
                target = (hour + 1) * n + i if hour + 1 < HOURS else HOURS * n
                outcomes.append((chance * weight, target, reward, hour + 1 == HOURS))
        return merged(outcomes)

    def _nearest(self, temperature: float) -> list[tuple[float, int]]:
        """Return (weight, index) of the grid points round a temperature, whose weighted mean it is."""
        last = len(self.temperatures) - 1
        place = min(max((temperature - COLDEST_C) / self._grid_c, 0.0), float(last))
        below = min(int(place), last - 1)
        return [(1.0 - (place - below), below), (place - below, below + 1)]

    def render_ansi(self) -> str:
        """Return hour, temperature and comfort band as one line."""
        hour, temperature = self.place(self.s)
        if hour == HOURS:
            return "the day is over\n"
        low, high = self.model.band_c(hour)
        return f"{hour:02d}:00  {temperature:.2f} °C  band {low:.1f}-{high:.1f} °C\n"

    def render_rgb(self) -> NDArray[np.uint8]:
        """Return the day as a row of hours, coloured by comfort band and price, above it the temperature of now."""
        hour, temperature = self.place(self.s)
        kinds = ["goal" if self.model.routine.is_occupied(h) else "free" for h in range(HOURS)]
        dear = ["pit" if self.model.routine.price_at(h) > self.model.routine.price else "free" for h in range(HOURS)]
        labels: dict[tuple[int, int], str] = {(2, h): str(h) for h in range(0, HOURS, 6)}
        figures: list[Any] = []
        if hour < HOURS:
            labels[0, hour] = f"{temperature:.1f}"
            figures.append(("agent", (1, hour)))
        scale = value_colours([temperature], low=COLDEST_C, high=WARMEST_C)[0].tolist()
        now = [tuple(scale) if h == hour else "free" for h in range(HOURS)]
        return draw_grid([now, kinds, dear], figures=figures, labels=labels, cell_px=32)
