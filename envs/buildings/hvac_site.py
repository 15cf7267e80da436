"""What acts on a building from outside: weather, people, and the price of electricity."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

DAY_H = 24.0
NOISE_BOUND = 4.0
"""The outdoor temperature deviates by at most so many standard deviations, so that observations are bounded."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Season:
    """The weather of a season and the comfort asked for in it.

    Outdoors it has ``mean_c + swing_c cos(2 pi (hour - 15) / 24)`` plus a first-order autoregressive deviation. The sun
    shines from 6 to 18 as a half sine, dimmed by the clouds of the day.

    Attributes:
        mean_c: mean outdoor temperature, °C.
        swing_c: half the mean daily range, °C; the warmest hour is 15.
        deviation_c: standard deviation round the daily course, °C.
        memory_h: hours after which a deviation has shrunk to 1/e.
        sun_w_per_m2: irradiance on the windows at noon of a clear day.
        band_c: comfort band while people are in, °C (Sinergym's defaults for the season).
        setback_band_c: comfort band while nobody is, °C.
    """

    mean_c: float
    swing_c: float
    deviation_c: float = 2.0
    memory_h: float = 12.0
    sun_w_per_m2: float
    band_c: tuple[float, float]
    setback_band_c: tuple[float, float] = (15.0, 30.0)

    def usual_c(self, hour: float) -> float:
        """Return the mean outdoor temperature at ``hour`` of the day, °C."""
        return self.mean_c + self.swing_c * math.cos(2.0 * math.pi * (hour - 15.0) / DAY_H)

    @property
    def extremes_c(self) -> tuple[float, float]:
        """The coldest and warmest outdoor temperatures there can be, °C."""
        reach = abs(self.swing_c) + NOISE_BOUND * self.deviation_c
        return self.mean_c - reach, self.mean_c + reach

    def sun_at(self, hour: float) -> float:
        """Return the irradiance of a clear sky at ``hour`` of the day, W/m²."""
        return self.sun_w_per_m2 * max(0.0, math.sin(math.pi * (hour - 6.0) / 12.0))

    def later(self, deviation_c: float, *, hours: float, noise: float) -> float:
        """Return the deviation ``hours`` later, for a standard normal ``noise``: exact AR(1), cut off at its bound.

        >>> SEASONS["winter"].later(2.0, hours=12.0, noise=0.0) == 2.0 / math.e
        True
        """
        kept = math.exp(-hours / self.memory_h)
        moved = kept * deviation_c + math.sqrt(1.0 - kept * kept) * self.deviation_c * noise
        bound = NOISE_BOUND * self.deviation_c
        return min(max(moved, -bound), bound)


SEASONS: Mapping[str, Season] = {
    "winter": Season(mean_c=2.0, swing_c=4.0, sun_w_per_m2=400.0, band_c=(20.0, 23.5)),
    "summer": Season(mean_c=27.0, swing_c=6.0, sun_w_per_m2=800.0, band_c=(23.0, 26.0)),
}
"""Name -> season; the weather is made up, round numbers of a temperate winter and a hot summer."""

CLOUD_RANGE = (0.2, 1.0)
"""Share of a clear sky's sun, drawn uniformly for each day at sunrise."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Routine:
    """When people are in and what electricity costs, the same every day.

    Attributes:
        occupied_h: first and last hour of presence.
        peak_h: first and last hour of the dear tariff.
        price: dollars per kWh outside of the peak (sldemo_househeat).
        peak_price: dollars per kWh in the peak.
        heat_w: heat of lamps and appliances at any time, W.
        people_heat_w: further heat while people are in, W.
    """

    occupied_h: tuple[float, float] = (8.0, 20.0)
    peak_h: tuple[float, float] = (16.0, 21.0)
    price: float = 0.09
    peak_price: float = 0.27
    heat_w: float = 500.0
    people_heat_w: float = 2500.0

    def is_occupied(self, hour: float) -> bool:
        """Whether people are in at ``hour`` of the day."""
        return self.occupied_h[0] <= hour < self.occupied_h[1]

    def price_at(self, hour: float) -> float:
        """Return the price at ``hour`` of the day, dollars per kWh."""
        return self.peak_price if self.peak_h[0] <= hour < self.peak_h[1] else self.price

    def heat_at(self, hour: float) -> float:
        """Return the heat given off inside at ``hour`` of the day, W."""
        return self.heat_w + self.people_heat_w * self.is_occupied(hour)
