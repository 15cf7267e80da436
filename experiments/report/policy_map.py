"""The value heat map of a gridworld, with an arrow for every greedy action."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from policylab.envs.drawing import CELL_COLOURS
from policylab.experiments.report.data import Grid
from policylab.experiments.report.style import INK, MUTED, WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

MAX_NUMBERED_CELLS = 150
"""A larger map shows its values by colour alone."""

LETTERS = {"start": "S", "goal": "G", "pit": "pit"}
LIGHT, DARK = "#fdfdfb", "#10141f"


def policy_map(grid: Grid) -> Figure:
    """Draw the value of each cell as its colour and number, and the greedy actions as arrows."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    rows, columns = grid.values.shape
    cell = min((WIDTH - 1.2) / columns, 5.2 / rows, 0.85)
    figure = Figure(figsize=(max(columns * cell + 1.3, 3.0), rows * cell + 0.25), layout="constrained")
    panel = figure.subplots()
    finite = grid.values[np.isfinite(grid.values)]
    scale = Normalize(*((float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)))
    colours = cell_colours(grid, colormaps["viridis"], scale=scale)
    panel.imshow(colours, interpolation="nearest")
    _lines(panel, grid)
    _arrows(panel, grid, light=luma(colours) < 0.5)
    _labels(panel, grid, light=luma(colours) < 0.5, size=min(8.5, 11 * cell))
    panel.set_xticks([])
    panel.set_yticks([])
    panel.spines[:].set_visible(False)
    panel.grid(visible=False)
    bar = figure.colorbar(ScalarMappable(scale, colormaps["viridis"]), ax=panel, shrink=0.9, pad=0.03, aspect=24)
    bar.outline.set_visible(False)
    bar.set_label("value of the state", color=MUTED)
    return figure


def cell_colours(grid: Grid, colormap: Colormap, *, scale: Normalize) -> NDArray[np.float64]:
    """Return the colour of each cell, shape (rows, columns, 3): its value's, else that of its kind."""
    kinds = np.array([[CELL_COLOURS.get(kind, CELL_COLOURS["free"]) for kind in row] for row in grid.kinds]) / 255.0
    known = np.isfinite(grid.values)
    coloured = np.asarray(colormap(scale(np.where(known, grid.values, scale.vmin or 0.0))))[..., :3]
    return np.where(known[..., None], coloured, kinds)


def luma(colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the perceived brightness of RGB colours in [0, 1] (ITU-R BT.601), shape without the last axis."""
    brightness: NDArray[np.float64] = colours @ np.array([0.299, 0.587, 0.114])
    return brightness


def _lines(panel: Axes, grid: Grid) -> None:
    rows, columns = grid.values.shape
    panel.hlines(np.arange(1, rows) - 0.5, -0.5, columns - 0.5, color=LIGHT, linewidth=0.6, alpha=0.6)
    panel.vlines(np.arange(1, columns) - 0.5, -0.5, rows - 0.5, color=LIGHT, linewidth=0.6, alpha=0.6)
    for (row_a, column_a), (row_b, column_b) in grid.walls:
        x, y = (column_a + column_b) / 2, (row_a + row_b) / 2
        dx, dy = (row_b - row_a) / 2, (column_b - column_a) / 2
        panel.plot([x - dx, x + dx], [y - dy, y + dy], color=INK, linewidth=3.5, solid_capstyle="round")


def _arrows(panel: Axes, grid: Grid, *, light: NDArray[np.bool_]) -> None:
    shown = grid.actions & np.isfinite(grid.values)[..., None]
    tied = np.count_nonzero(shown, axis=-1) > 1
    for on_dark, colour in ((True, LIGHT), (False, DARK)):
        inked = shown & (light == on_dark)[..., None]
        _arrow_group(panel, grid, actions=inked & ~tied[..., None], colour=colour, tied=False)
        _arrow_group(panel, grid, actions=inked & tied[..., None], colour=colour, tied=True)


def _arrow_group(panel: Axes, grid: Grid, *, actions: NDArray[np.bool_], colour: str, tied: bool) -> None:
    """A single arrow passes through the middle of its cell; tied ones are slimmer and start there."""
    row, column, action = np.nonzero(actions)
    x, y = column.astype(float), row - 0.08
    moves = np.array(grid.moves, dtype=float).reshape(-1, 2)[action]
    stays = ~moves.any(axis=1)
    panel.scatter(x[stays], y[stays], s=26, facecolors="none", edgecolors=colour, linewidths=1.3)
    dy, dx = (0.3 if tied else 0.36) * moves[~stays].T / np.maximum(np.hypot(*moves[~stays].T), 1.0)
    back = 0.0 if tied else 0.5
    panel.quiver(
        x[~stays] - back * dx,
        y[~stays] - back * dy,
        dx,
        dy,
        color=colour,
        angles="xy",
        scale_units="xy",
        scale=1.0,
        units="x",
        width=0.026 if tied else 0.042,
        headwidth=4.2,
        headlength=4.2,
        headaxislength=3.9,
    )


def _labels(panel: Axes, grid: Grid, *, light: NDArray[np.bool_], size: float) -> None:
    numbered = grid.values.size <= MAX_NUMBERED_CELLS
    for (row, column), value in np.ndenumerate(grid.values):
        colour = LIGHT if light[row, column] else DARK
        letter = LETTERS.get(grid.kinds[row][column], "")
        if not np.isfinite(value):
            panel.text(column, row, letter, ha="center", va="center", color=colour, size=size * 1.2)
            continue
        if numbered:
            text = f"{value:.3g}".replace("-", "\N{MINUS SIGN}")
            panel.text(column, row + 0.44, text, ha="center", va="bottom", color=colour, size=size)
        panel.text(column - 0.44, row - 0.44, letter, ha="left", va="top", color=colour, size=size, weight="bold")
