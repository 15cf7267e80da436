"""Pictures of grids: cells, figures, arrows and numbers as one RGB array.

`draw_grid` serves the environments' ``rgb_array`` rendering and the value maps of reports:

>>> picture = draw_grid([["start", "free", "goal"]], figures=[("agent", (0, 0))], cell_px=48)
>>> picture.shape, str(picture.dtype)
((49, 145, 3), 'uint8')

Environments that lie on a grid offer `GridLike`, which says where a state is drawn.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from policylab.envs.grids.grid_map import Cell, Move
from policylab.envs.grids.sprites import FIGURES, WHITE, Brush, Colour
from policylab.errors import UnknownNameError, did_you_mean

Drawable = TypeVar("Drawable")

CELL_COLOURS: Mapping[str, Colour] = {
    "free": (250, 248, 243),
    "wall": (66, 73, 89),
    "start": (214, 229, 247),
    "goal": (111, 190, 122),
    "pit": (224, 122, 112),
    "wind": (226, 240, 248),
    "strong_wind": (199, 225, 241),
    "corridor": (20, 22, 34),
    "maze": (44, 62, 148),
}
"""Kind of cell -> colour."""

GRID_LINE: Colour = (222, 217, 205)
ARROW: Colour = (30, 38, 56)
FAINT_ARROW: Colour = (138, 178, 205)

# Anchor colours of the value scale, dark (low) to light (high); dark text stays readable on the upper
# two thirds and white text on the rest.
_SCALE = np.array([(49, 54, 112), (52, 104, 148), (64, 156, 146), (146, 204, 116), (250, 231, 110)], dtype=float)

_OVERSAMPLING = 3


@runtime_checkable
class GridLike(Protocol):
    """An environment whose states can be shown on a grid (optional; reports draw a value map when present).

    Attributes:
        grid_shape: (rows, columns).
        moves: the (row change, column change) each action asks for, shape (n_actions, 2); drawn as arrows.
        map_note: what the map shows when it is a slice of the states (``"cat at its start"``), else ``""``.
    """

    grid_shape: tuple[int, int]
    moves: Sequence[Move]
    map_note: str

    def cell_of(self, state: int) -> Cell | None:
        """The cell that shows ``state``, or None if it is not shown; no two states share a cell."""
        ...

    def cell_kinds(self) -> list[list[str]]:
        """The kind of each cell, keys of `CELL_COLOURS`, shape (rows, columns)."""
        ...


def value_colours(values: ArrayLike, *, low: float | None = None, high: float | None = None) -> NDArray[np.uint8]:
    """Return the colour of each value on the scale from ``low`` to ``high``.

    Args:
        values: any shape; cells that are not finite become light grey.
        low: value of the darkest colour; default the smallest finite value.
        high: value of the lightest colour; default the largest finite value.

    Returns:
        RGB colours, shape (*values.shape, 3).

    >>> value_colours([0.0, 1.0]).tolist()
    [[49, 54, 112], [250, 231, 110]]
    """
    array = np.asarray(values, dtype=float)
    finite = np.isfinite(array)
    if not finite.any():
        return np.full((*array.shape, 3), 232, dtype=np.uint8)
    bottom = array[finite].min() if low is None else low
    top = array[finite].max() if high is None else high
    span = top - bottom if top > bottom else 1.0
    position = np.clip((np.where(finite, array, bottom) - bottom) / span, 0.0, 1.0)
    anchors = np.linspace(0.0, 1.0, len(_SCALE))
    colours = np.stack([np.interp(position, anchors, _SCALE[:, channel]) for channel in range(3)], axis=-1)
    colours[~finite] = 232
    return colours.round().astype(np.uint8)


def draw_grid(
    cells: Sequence[Sequence[str | Sequence[int]]] | NDArray[np.uint8],
    *,
    figures: Iterable[tuple[str, Cell]] = (),
    arrows: Mapping[Cell, Sequence[Move]] | None = None,
    labels: Mapping[Cell, str] | None = None,
    faint: bool = False,
    cell_px: int = 48,
) -> NDArray[np.uint8]:
    """Draw a grid.

    Args:
        cells: a kind (key of `CELL_COLOURS`) or an RGB colour per cell, shape (rows, columns[, 3]).
        figures: (name of `FIGURES`, cell) pairs, drawn in this order above all else.
        arrows: directions to draw per cell; several directions make shorter arrows (tied actions), and
            ``(0, 0)`` a ring (staying).
        labels: a short text per cell, drawn at its bottom.
        faint: draw the arrows as background (wind) rather than as a statement (policy).
        cell_px: width of a cell, pixels, >= 8.

    Returns:
        RGB image, shape (rows * cell_px + 1, columns * cell_px + 1, 3).

    Raises:
        UnknownNameError: no such kind of cell or figure.
    """
    colours = _cell_colours(cells)
    rows, columns = colours.shape[:2]
    unit = cell_px * _OVERSAMPLING
    line = _OVERSAMPLING
    image = Image.new("RGB", (columns * unit + line, rows * unit + line), GRID_LINE)
    pen = ImageDraw.Draw(image)
    for row in range(rows):
        for column in range(columns):
            x, y = column * unit, row * unit
            fill = tuple(int(channel) for channel in colours[row, column])
            # Corridors run on without grid lines.
            first, last = (0, unit + line - 1) if fill == CELL_COLOURS["corridor"] else (line, unit - 1)
            pen.rectangle((x + first, y + first, x + last, y + last), fill=fill)
    brush = functools.partial(_brush_at, pen, unit=unit)
    labels = labels or {}
    for cell, text in labels.items():
        _label(brush(cell), text, colour=_contrast(colours[cell]))
    for cell, moves in (arrows or {}).items():
        colour = FAINT_ARROW if faint else _contrast(colours[cell])
        raised = brush(cell).moved((0.0, -0.1 if cell in labels else 0.0))
        for move in moves:
            _arrow(raised, move, colour=colour, alone=len(moves) == 1)
    for name, cell in figures:
        _known(name, "figure", among=FIGURES)(brush(cell))
    return np.asarray(image.reduce(_OVERSAMPLING), dtype=np.uint8).copy()


def _brush_at(pen: ImageDraw.ImageDraw, cell: Cell, *, unit: int) -> Brush:
    return Brush(pen, ((cell[1] + 0.5) * unit + _OVERSAMPLING / 2, (cell[0] + 0.5) * unit + _OVERSAMPLING / 2), unit)


def _cell_colours(cells: Sequence[Sequence[Any]] | NDArray[np.uint8]) -> NDArray[np.uint8]:
    if isinstance(cells, np.ndarray):
        return cells
    rows = [
        [_known(cell, "kind of cell", among=CELL_COLOURS) if isinstance(cell, str) else tuple(cell) for cell in row]
        for row in cells
    ]
    return np.array(rows, dtype=np.uint8)


def _known(name: str, what: str, *, among: Mapping[str, Drawable]) -> Drawable:
    if name not in among:
        hint = did_you_mean(name, among) or ";"
        raise UnknownNameError(f"unknown {what} '{name}'{hint} (known: {', '.join(among)})")
    return among[name]


def _contrast(background: NDArray[np.uint8]) -> Colour:
    """Dark ink on a light background, white on a dark one (Rec. 601 luma)."""
    return ARROW if float(background @ np.array([0.299, 0.587, 0.114])) > 125 else WHITE


def _label(brush: Brush, text: str, *, colour: Colour) -> None:
    font = ImageFont.load_default(size=brush.unit * 0.21)
    brush.pen.text(brush.at([(0, 0.44)])[0], text, font=font, fill=colour, anchor="mb")


def _arrow(brush: Brush, move: Move, *, colour: Colour, alone: bool) -> None:
    if move == (0, 0):
        corners = brush.at([(-0.11, -0.11), (0.11, 0.11)])
        brush.pen.ellipse(corners, outline=colour, width=brush.width(0.045))
        return
    length = math.hypot(*move)
    dx, dy = move[1] / length, move[0] / length
    # An arrow that is alone is centred; tied arrows all start at the centre.
    tail, tip, head = (-0.26, 0.28, 0.19) if alone else (0.0, 0.33, 0.14)
    neck, side = tip - head, head * 0.62
    brush.line([(tail * dx, tail * dy), ((neck + 0.02) * dx, (neck + 0.02) * dy)], fill=colour, width=0.055)
    wings = [(neck * dx - turn * side * dy, neck * dy + turn * side * dx) for turn in (1, -1)]
    brush.polygon([(tip * dx, tip * dy), *wings], fill=colour)
