"""Stocks as bars, in text and as an image: the pictures of the supply chain environments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from policylab.envs.drawing import draw_grid

UNITS_PER_CELL = 10
MAX_CELLS = 40


class Bar(NamedTuple):
    """A named amount in units; what is owed is negative."""

    name: str
    units: float


def bars_text(title: str, bars: Sequence[Bar]) -> str:
    """Return one line per bar, a mark per ten units.

    >>> print(bars_text("day 1", [Bar("shelf", 25), Bar("owed", -10)]), end="")
    day 1
    shelf     25 ###
    owed     -10 -
    """
    width = max(len(bar.name) for bar in bars)
    lines = (f"{bar.name:<{width}}  {bar.units:5.0f} {('-' if bar.units < 0 else '#') * _cells(bar)}" for bar in bars)
    return "".join(f"{line.rstrip()}\n" for line in (title, *lines))


def bars_picture(bars: Sequence[Bar]) -> NDArray[np.uint8]:
    """Return one row of cells per bar, a coloured cell per ten units, shape (16 * bars + 1, 641, 3)."""
    rows = []
    for bar in bars:
        kind = "pit" if bar.units < 0 else "goal"
        rows.append([kind] * _cells(bar) + ["free"] * (MAX_CELLS - _cells(bar)))
    return draw_grid(rows, cell_px=16)


def _cells(bar: Bar) -> int:
    return min(MAX_CELLS, round(0.499 + abs(bar.units) / UNITS_PER_CELL))
