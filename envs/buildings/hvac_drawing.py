"""How the building looks: its temperatures so far as curves over the comfort band, and the plant's power below."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from policylab.envs.grids.sprites import INK, WHITE, Colour, Point

WIDTH, HEIGHT = 640, 360
_OVERSAMPLING = 2
_PLOT = (48, 34, 624, 250)
"""Left, top, right and bottom of the temperatures, pixels."""
_POWER = (48, 266, 624, 330)
_BAND: Colour = (214, 236, 216)
_PEAK: Colour = (252, 236, 206)
_GRID: Colour = (222, 217, 205)
_CURVES: tuple[tuple[str, Colour], ...] = (
    ("outdoor", (110, 150, 200)),
    ("wall", (170, 140, 110)),
    ("air", (200, 60, 50)),
)
_HEATING, _COOLING = (214, 96, 70), (70, 130, 200)


class HvacFrame(NamedTuple):
    """The building at one moment.

    Attributes:
        hours: since the start of the episode.
        air_c, wall_c, outdoor_c: temperatures, °C.
        band_c: comfort band then, °C.
        share: power of the plant in the step that led here, in [-1, 1], negative cools.
        peak: whether electricity is dear.
    """

    hours: float
    air_c: float
    wall_c: float
    outdoor_c: float
    band_c: tuple[float, float]
    share: float
    peak: bool


def hvac_text(frame: HvacFrame) -> str:
    r"""Return one line on the moment.

    >>> hvac_text(HvacFrame(30.25, 20.04, 19.9, -3.0, (15.0, 30.0), 0.5, False))
    'day 2 06:15  air 20.0  wall 19.9  outdoor -3.0  band 15.0-30.0 °C  heating 50 %\n'
    """
    day, minutes = divmod(round(frame.hours * 60), 1440)
    doing = "heating" if frame.share > 0 else "cooling" if frame.share < 0 else "idle"
    power = f"{doing} {abs(frame.share):.0%}".replace("%", " %") if frame.share else doing
    return (
        f"day {day + 1} {minutes // 60:02d}:{minutes % 60:02d}  air {frame.air_c:.1f}  wall {frame.wall_c:.1f}  "
        f"outdoor {frame.outdoor_c:.1f}  band {frame.band_c[0]:.1f}-{frame.band_c[1]:.1f} °C  {power}"
        f"{'  peak price' if frame.peak else ''}\n"
    )


def hvac_picture(past: Sequence[HvacFrame]) -> NDArray[np.uint8]:
    """Return the course of an episode, two days wide or more, as an image, shape (360, 640, 3)."""
    image = Image.new("RGB", (WIDTH * _OVERSAMPLING, HEIGHT * _OVERSAMPLING), WHITE)
    pen = ImageDraw.Draw(image)
    span = max(48.0, past[-1].hours)
    temperatures = [t for f in past for t in (f.air_c, f.wall_c, f.outdoor_c, *f.band_c)]
    low, high = 5.0 * np.floor(min(temperatures) / 5.0), 5.0 * np.ceil(max(temperatures) / 5.0)
    plot = _scaled(_PLOT, span=span, low=float(low), high=float(high))
    _background(pen, past, at=plot, low=float(low), high=float(high))
    for name, colour in _CURVES:
        points = [plot(frame.hours, getattr(frame, f"{name}_c")) for frame in past]
        if len(points) > 1:
            pen.line(points, fill=colour, width=2 * _OVERSAMPLING, joint="curve")
    _power(pen, past, at=_scaled(_POWER, span=span, low=-1.0, high=1.0))
    _legend(pen, past[-1])
    return np.asarray(image.reduce(_OVERSAMPLING), dtype=np.uint8).copy()


def _scaled(box: tuple[int, int, int, int], *, span: float, low: float, high: float) -> Callable[[float, float], Point]:
    left, top, right, bottom = (edge * _OVERSAMPLING for edge in box)

    def at(hours: float, value: float) -> Point:
        return left + (right - left) * hours / span, bottom - (bottom - top) * (value - low) / (high - low)

    return at


def _steps(past: Sequence[HvacFrame]) -> list[tuple[HvacFrame, HvacFrame]]:
    return list(itertools.pairwise(past))


def _background(
    pen: ImageDraw.ImageDraw, past: Sequence[HvacFrame], *, at: Callable[[float, float], Point], low: float, high: float
) -> None:
    for now, later in _steps(past):
        if now.peak:
            pen.rectangle((*at(now.hours, high), *at(later.hours, low)), fill=_PEAK)
        pen.rectangle((*at(now.hours, now.band_c[1]), *at(later.hours, now.band_c[0])), fill=_BAND)
    font = _font(11)
    for value in np.arange(low, high + 1.0, 5.0).tolist():
        pen.line(
            (at(0.0, value), (at(0.0, value)[0] + (_PLOT[2] - _PLOT[0]) * _OVERSAMPLING, at(0.0, value)[1])), fill=_GRID
        )
        pen.text((42 * _OVERSAMPLING, at(0.0, value)[1]), f"{value:g}", font=font, fill=INK, anchor="rm")
    for hours in np.arange(0.0, max(48.0, past[-1].hours) + 1.0, 6.0).tolist():
        x, y = at(hours, low)[0], (_POWER[3] + 4) * _OVERSAMPLING
        pen.line(((x, at(hours, low)[1]), (x, at(hours, high)[1])), fill=_GRID)
        pen.text((x, y), f"{hours % 24:g} h", font=font, fill=INK, anchor="ma")


def _power(pen: ImageDraw.ImageDraw, past: Sequence[HvacFrame], *, at: Callable[[float, float], Point]) -> None:
    left, top, right, bottom = (edge * _OVERSAMPLING for edge in _POWER)
    pen.rectangle((left, top, right, bottom), outline=_GRID)
    for now, later in _steps(past):
        if later.share:
            (x_0, y_0), (x_1, y_1) = at(now.hours, 0.0), at(later.hours, later.share)
            pen.rectangle((x_0, min(y_0, y_1), x_1, max(y_0, y_1)), fill=_HEATING if later.share > 0 else _COOLING)
    pen.line((left, (top + bottom) / 2, right, (top + bottom) / 2), fill=INK)
    for value, text in ((0.75, "heat"), (-0.75, "cool")):
        pen.text((42 * _OVERSAMPLING, at(0.0, value)[1]), text, font=_font(11), fill=INK, anchor="rm")


def _legend(pen: ImageDraw.ImageDraw, last: HvacFrame) -> None:
    font = _font(13)
    x = _PLOT[0] * _OVERSAMPLING
    for name, colour in reversed(_CURVES):
        text = f"{name} {getattr(last, f'{name}_c'):.1f} °C"
        pen.rectangle((x, 11 * _OVERSAMPLING, x + 12 * _OVERSAMPLING, 21 * _OVERSAMPLING), fill=colour)
        pen.text((x + 17 * _OVERSAMPLING, 16 * _OVERSAMPLING), text, font=font, fill=INK, anchor="lm")
        x += (30 + 8 * len(text)) * _OVERSAMPLING
    for colour, text in ((_BAND, "comfort"), (_PEAK, "peak price")):
        pen.rectangle((x, 11 * _OVERSAMPLING, x + 12 * _OVERSAMPLING, 21 * _OVERSAMPLING), fill=colour, outline=_GRID)
        pen.text((x + 17 * _OVERSAMPLING, 16 * _OVERSAMPLING), text, font=font, fill=INK, anchor="lm")
        x += (26 + 8 * len(text)) * _OVERSAMPLING


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size * _OVERSAMPLING)
