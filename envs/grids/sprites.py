"""Small figures drawn into one grid cell: the agent, cat, mouse, cheese, ghosts and their kin.

A figure is a function of a `Brush`, whose coordinates are those of the cell: (0, 0) is its centre, x goes
right and y down, and the cell is one unit wide.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from PIL.ImageDraw import ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

INK: Colour = (43, 47, 58)
WHITE: Colour = (255, 255, 255)


@dataclasses.dataclass(frozen=True, slots=True)
class Brush:
    """Draws in the coordinates of one cell.

    Attributes:
        pen: where to draw.
        centre: the cell's centre, pixels.
        unit: the cell's width, pixels.
    """

    pen: ImageDraw
    centre: Point
    unit: float

    def at(self, points: Sequence[Point]) -> list[Point]:
        """The pixels of ``points``."""
        return [(self.centre[0] + x * self.unit, self.centre[1] + y * self.unit) for x, y in points]

    def moved(self, by: Point) -> Brush:
        """The same brush with its origin moved."""
        return dataclasses.replace(self, centre=self.at([by])[0])

    def width(self, share: float) -> int:
        """The pixels of a line that is ``share`` of a cell wide, at least one."""
        return max(1, round(share * self.unit))

    def disc(self, centre: Point, *, radius: float, fill: Colour) -> None:
        """Fill a circle."""
        x, y = centre
        self.pen.ellipse(self.at([(x - radius, y - radius), (x + radius, y + radius)]), fill=fill)

    def oval(self, corner: Point, *, opposite: Point, fill: Colour) -> None:
        """Fill the ellipse between two corners."""
        self.pen.ellipse(self.at([corner, opposite]), fill=fill)

    def box(self, corner: Point, *, opposite: Point, fill: Colour) -> None:
        """Fill the rectangle between two corners."""
        self.pen.rectangle(self.at([corner, opposite]), fill=fill)

    def polygon(self, points: Sequence[Point], *, fill: Colour) -> None:
        """Fill a polygon."""
        self.pen.polygon(self.at(points), fill=fill)

    def line(self, points: Sequence[Point], *, fill: Colour, width: float) -> None:
        """Draw a line through ``points``."""
        self.pen.line(self.at(points), fill=fill, width=self.width(width))


Figure = Callable[[Brush], None]


def _agent(brush: Brush) -> None:
    brush.disc((0, 0), radius=0.31, fill=WHITE)
    brush.disc((0, 0), radius=0.27, fill=(36, 99, 204))
    brush.disc((-0.09, -0.10), radius=0.07, fill=(140, 180, 240))


def _flag(brush: Brush) -> None:
    brush.line([(-0.15, -0.30), (-0.15, 0.30)], fill=INK, width=0.05)
    brush.polygon([(-0.13, -0.30), (0.26, -0.16), (-0.13, -0.02)], fill=WHITE)


def _pit(brush: Brush) -> None:
    brush.oval((-0.32, -0.20), opposite=(0.32, 0.20), fill=(92, 32, 38))
    brush.oval((-0.25, -0.09), opposite=(0.25, 0.19), fill=(52, 16, 22))


def _mouse(brush: Brush) -> None:
    grey, pink = (138, 146, 160), (240, 170, 180)
    tail = brush.at([(0.10, -0.02), (0.42, 0.30)])
    brush.pen.arc((*tail[0], *tail[1]), 20, 200, fill=pink, width=brush.width(0.04))
    brush.oval((-0.25, -0.17), opposite=(0.22, 0.25), fill=grey)
    for ear in (-0.20, 0.02):
        brush.disc((ear, -0.17), radius=0.11, fill=grey)
        brush.disc((ear, -0.17), radius=0.06, fill=pink)
    for eye in (-0.15, -0.01):
        brush.disc((eye, -0.01), radius=0.032, fill=INK)
    brush.disc((-0.08, 0.10), radius=0.035, fill=pink)


def _cat(brush: Brush) -> None:
    orange, dark = (224, 132, 50), (160, 84, 22)
    for side in (-1, 1):
        brush.polygon([(side * 0.29, -0.34), (side * 0.04, -0.20), (side * 0.27, 0)], fill=orange)
    brush.oval((-0.29, -0.24), opposite=(0.29, 0.29), fill=orange)
    for side in (-1, 1):
        brush.disc((side * 0.12, -0.03), radius=0.06, fill=(250, 240, 150))
        brush.disc((side * 0.12, -0.03), radius=0.03, fill=INK)
        for tilt in (0.08, 0.14):
            brush.line([(side * 0.10, 0.12), (side * 0.36, tilt)], fill=dark, width=0.025)
    brush.polygon([(-0.04, 0.07), (0.04, 0.07), (0, 0.12)], fill=dark)


def _cheese(brush: Brush) -> None:
    yellow, hole = (250, 204, 66), (217, 160, 30)
    brush.polygon([(-0.30, 0), (0.28, -0.24), (0.28, 0)], fill=(253, 224, 120))
    brush.box((-0.30, 0), opposite=(0.28, 0.24), fill=yellow)
    for x, y, radius in ((-0.15, 0.13, 0.055), (0.04, 0.08, 0.04), (0.17, 0.16, 0.05), (0.15, -0.07, 0.035)):
        brush.disc((x, y), radius=radius, fill=hole)


def _pacman(facing: float) -> Figure:
    """Pac-Man looking ``facing`` degrees clockwise from the right."""

    def figure(brush: Brush) -> None:
        corners = brush.at([(-0.34, -0.34), (0.34, 0.34)])
        brush.pen.pieslice((*corners[0], *corners[1]), facing + 35, facing + 325, fill=(255, 214, 10))

    return figure


def _ghost(body: Colour) -> Figure:
    def figure(brush: Brush) -> None:
        brush.oval((-0.28, -0.34), opposite=(0.28, 0.20), fill=body)
        brush.box((-0.28, -0.06), opposite=(0.28, 0.22), fill=body)
        for foot in (-0.187, 0.0, 0.187):
            brush.disc((foot, 0.22), radius=0.0935, fill=body)
        for eye in (-0.11, 0.11):
            brush.disc((eye, -0.08), radius=0.085, fill=WHITE)
            brush.disc((eye + 0.02, -0.07), radius=0.042, fill=INK)

    return figure


def _pellet(radius: float) -> Figure:
    return lambda brush: brush.disc((0, 0), radius=radius, fill=(255, 222, 179))


def _wall(share: float, *, fill: Colour, towards: Point = (0, 0)) -> Figure:
    """A block of maze wall, ``share`` of a cell wide, that reaches as far as the next cell in a direction."""

    def figure(brush: Brush) -> None:
        half = share / 2
        corners = brush.at([(-half, -half), (half + towards[0], half + towards[1])])
        brush.pen.rounded_rectangle((*corners[0], *corners[1]), radius=brush.unit * share * 0.22, fill=fill)

    return figure


_RIM, _BODY = (92, 120, 240), (34, 46, 120)

FIGURES: Mapping[str, Figure] = {
    "agent": _agent,
    "flag": _flag,
    "pit": _pit,
    "mouse": _mouse,
    "cat": _cat,
    "cheese": _cheese,
    "pacman_right": _pacman(0),
    "pacman_down": _pacman(90),
    "pacman_left": _pacman(180),
    "pacman_up": _pacman(270),
    "ghost_red": _ghost((228, 60, 60)),
    "ghost_pink": _ghost((245, 150, 200)),
    "ghost_cyan": _ghost((70, 200, 220)),
    "ghost_orange": _ghost((240, 160, 70)),
    "ghost_frightened": _ghost((72, 104, 240)),
    "wall_rim": _wall(0.82, fill=_RIM),
    "wall_rim_right": _wall(0.82, fill=_RIM, towards=(1, 0)),
    "wall_rim_down": _wall(0.82, fill=_RIM, towards=(0, 1)),
    "wall_rim_corner": _wall(0.82, fill=_RIM, towards=(1, 1)),
    "wall_body": _wall(0.72, fill=_BODY),
    "wall_body_right": _wall(0.72, fill=_BODY, towards=(1, 0)),
    "wall_body_down": _wall(0.72, fill=_BODY, towards=(0, 1)),
    "wall_body_corner": _wall(0.72, fill=_BODY, towards=(1, 1)),
    "pellet": _pellet(0.07),
    "power_pellet": _pellet(0.19),
}
"""Figure name -> how it is drawn."""
