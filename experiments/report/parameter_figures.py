"""The figures of a search's parameters: parallel coordinates, slices, importances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from policylab.experiments.report.study_data import Axis, Importances, StudyData, Tried
from policylab.experiments.report.study_style import (
    Dot,
    Dots,
    abbreviated,
    bare,
    best_dot,
    clipped,
    drawn,
    legend,
    level_colours,
    level_marks,
    mark,
    named,
    value_colours,
    value_limits,
    value_scale,
)
from policylab.experiments.report.style import BEST, FAILED, INK, MUTED, PAPER, TUNE, WIDTH
from policylab.tuning.scaling import FROM_SCALE, TO_SCALE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_CATEGORIES = 12
"""Categories named on an axis; of more, only the first and the last."""

MARGIN = 0.06
"""Share of a slice's width left free on each side."""


def unit(axis: Axis, place: float | None) -> float:
    """Return where on [0, 1] a position lies; NaN for an inactive parameter.

    >>> round(unit(Axis("a", "a", "logarithmic", 0.01, 1.0), 0.1), 6)
    0.5
    """
    if place is None:
        return math.nan
    if axis.high == axis.low:
        return 0.5
    if axis.scale == "categorical":
        return place / axis.high
    scale = TO_SCALE[axis.scale]
    low, high = float(scale(axis.low)), float(scale(axis.high))
    return float((scale(place) - low) / (high - low))


def ticks(axis: Axis, *, most: int = 4, longest: int = 13) -> tuple[list[float], list[str]]:
    """Return places on [0, 1] and their labels: round numbers on the parameter's scale, or categories."""
    if axis.categories:
        indices = range(len(axis.categories)) if len(axis.categories) <= MAX_CATEGORIES else [0, int(axis.high)]
        labels = abbreviated(axis.categories, most=longest)
        return [unit(axis, float(i)) for i in indices], [labels[i] for i in indices]
    numbers = _round_numbers(axis, most=most)
    return [unit(axis, value) for value in numbers], [f"{value:.4g}".replace("-", "−") for value in numbers]


def _round_numbers(axis: Axis, *, most: int) -> list[float]:
    from matplotlib.ticker import LogLocator, MaxNLocator

    found: Any
    if axis.scale == "linear":
        found = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(axis.low, axis.high)
    elif axis.scale == "logarithmic":
        found = LogLocator(numticks=most + 2).tick_values(axis.low, axis.high)
        if np.count_nonzero((found >= axis.low) & (found <= axis.high)) < 2:
            found = LogLocator(subs=(1.0, 2.0, 5.0), numticks=99).tick_values(axis.low, axis.high)
    else:
        found = 1.0 - np.asarray(LogLocator(numticks=most + 2).tick_values(1.0 - axis.high, 1.0 - axis.low))[::-1]
    inside = [float(value) for value in found if abs(unit(axis, value) - 0.5) <= 0.5 + 1e-9]
    if len(inside) < 2:
        ends = TO_SCALE[axis.scale](np.array([axis.low, axis.high]))  # type: ignore[index]
        inside = [float(value) for value in FROM_SCALE[axis.scale](ends)]  # type: ignore[index]
    return inside


def parallel_coordinates(study: StudyData) -> Figure | None:
    """Draw each configuration as a line across its parameters to its value; None for a single parameter."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgba
    from matplotlib.figure import Figure

    if len(study.axes) < 2:
        return None
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    panel = figure.subplots()
    limits = value_limits(study)
    trials = _worst_first(study)
    colours = value_colours([trial.estimate.value for trial in trials], limits, maximise=study.maximise)
    crowded = float(np.clip(30 / len(trials), 0.25, 0.9))
    n_strong = min(20, 1 + len(trials) // 5)
    lines, looks = [], []
    for place, (trial, colour) in enumerate(zip(trials, colours, strict=True)):
        lines.append(list(enumerate(_heights(study, trial, limits=limits))))
        if trial.id == study.winner:
            looks.append((to_rgba(BEST), 2.6, "-"))
        elif trial.ending == "failed":
            looks.append((to_rgba(FAILED, crowded), 1.0, ":"))
        else:
            strong = place >= len(trials) - n_strong
            looks.append((to_rgba(colour, 1.0 if strong else crowded), 1.2 if strong else 1.0, "-"))
    inks, widths, styles = map(list, zip(*looks, strict=True))  # a tuple of two styles would be (offset, dashes)
    panel.add_collection(
        LineCollection(lines, colors=inks, linewidths=widths, linestyles=styles, joinstyle="round", zorder=2)
    )
    _uprights(panel, study, limits=limits)
    bar = figure.colorbar(value_scale(limits, maximise=study.maximise), ax=panel, pad=0.01, aspect=28, fraction=0.04)
    bar.outline.set_visible(False)
    bar.set_label(study.metric, color=MUTED)
    return figure


def _worst_first(study: StudyData) -> list[Tried]:
    sign = 1.0 if study.maximise else -1.0
    strength = {trial.id: np.nan_to_num(sign * trial.estimate.value, nan=-np.inf) for trial in study.trials}
    return sorted(drawn(study), key=lambda trial: (trial.id == study.winner, strength[trial.id]))


def _heights(study: StudyData, trial: Tried, *, limits: tuple[float, float]) -> list[float]:
    """Return where the line of ``trial`` crosses the uprights; lines through one category are spread a little."""
    (value,) = clipped([trial.estimate.value], limits)
    heights = []
    for axis, place in zip(study.axes, trial.places, strict=True):
        height = unit(axis, place)
        if axis.categories:
            height = 0.03 + 0.94 * height + 0.05 * (spread(trial.id) - 0.5)
        heights.append(height)
    return [*heights, (value - limits[0]) / (limits[1] - limits[0])]


def spread(index: int) -> float:
    """Return a number in [0, 1) for a trial, evenly spread over any run of numbers (golden ratio).

    >>> [round(spread(i), 3) for i in range(3)]
    [0.0, 0.618, 0.236]
    """
    return index * 0.6180339887498949 % 1.0


def _uprights(panel: Axes, study: StudyData, *, limits: tuple[float, float]) -> None:
    bare(panel)
    n = len(study.axes)
    size = 8.5 if n < 7 else 7.5
    for x, axis in enumerate(study.axes):
        panel.axvline(x, color=MUTED, linewidth=0.9, zorder=1)
        places, labels = ticks(axis, longest=max(6, 70 // (n + 1)))
        if axis.categories:
            places = [0.03 + 0.94 * place for place in places]
        for place, label in zip(places, labels, strict=True):
            panel.annotate(
                label, (x, place), xytext=(4, 0), textcoords="offset points", va="center", size=size - 0.5, color=INK,
                zorder=5, bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.8},
            )  # fmt: skip
    panel.axvline(n, color=MUTED, linewidth=0.9, zorder=1)
    tilted = n > 4
    panel.set_xticks(
        range(n + 1),
        [*(named(axis.name, most=30) for axis in study.axes), study.metric],
        rotation=(22 if n < 8 else 32) if tilted else 0,
        ha="right" if tilted else "center",
        size=size,
    )
    panel.set_yticks([])
    panel.set_xlim(-0.15, n + 0.08)
    panel.set_ylim(-0.04, 1.04)


def slices(study: StudyData) -> Figure | None:
    """Draw value against each parameter, one panel per parameter, coloured by the resource reached."""
    from matplotlib.figure import Figure

    n_columns = min(3, len(study.axes))
    n_rows = -(-len(study.axes) // n_columns)
    figure = Figure(figsize=(WIDTH, 0.45 + 2.35 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False).ravel()
    limits = value_limits(study)
    levels = sorted({trial.resource for trial in study.trials if trial.resource})
    for panel, (index, axis) in zip(panels, enumerate(study.axes), strict=False):
        _slice(panel, study, index=index, limits=limits, colours=level_colours(levels))
        panel.set_xlabel(named(axis.name, most=34), size=8.5)
    for panel in panels[len(study.axes) :]:
        panel.set_visible(False)
    for panel in panels[::n_columns]:
        panel.set_ylabel(study.metric, size=8.5)
    panels[0].set_ylim(*limits)
    entries = [*level_marks(levels), mark("D", "selected", colour=BEST, size=6)]
    if any(trial.ending == "failed" for trial in study.trials):
        entries.append(mark("x", "failed", colour=FAILED))
    legend(figure, entries)
    return figure


def _slice(panel: Axes, study: StudyData, *, index: int, limits: tuple[float, float], colours: dict[int, str]) -> None:
    axis, trials, dots = study.axes[index], drawn(study), Dots(panel)
    values = clipped([trial.estimate.value for trial in trials], limits)
    worst = limits[0] if study.maximise else limits[1]
    for trial, value in zip(trials, values, strict=True):
        x = _across(axis, trial, index=index)
        if math.isnan(x):
            continue
        if trial.ending == "failed":
            dots.add(Dot(FAILED, "x", edge=FAILED, edge_width=1.2), (x, worst))
        elif trial.id == study.winner:
            dots.add(best_dot(), (x, value))
        elif trial.resource:
            dots.add(Dot(colours[trial.resource]), (x, value))
    dots.draw()
    at, labels = ticks(axis)
    long = axis.categories and sum(map(len, labels)) > 24
    if not axis.categories and sum(map(len, labels)) > 24:
        at, labels = at[::2], labels[::2]
    panel.set_xticks(at, labels, size=7.5 if long else 8, rotation=25 if long else 0)
    margin = MARGIN + (0.3 / max(1.0, axis.high) if axis.categories else 0.0)
    panel.set_xlim(-margin, 1 + margin)
    panel.tick_params(axis="y", labelsize=8)


def _across(axis: Axis, trial: Tried, *, index: int) -> float:
    """Return where a trial is drawn in a slice; those of one category stand side by side."""
    place = unit(axis, trial.places[index])
    return place + 0.3 * (spread(trial.id) - 0.5) / max(1.0, axis.high) if axis.categories else place


def importances(found: Importances | None, axes: Sequence[Axis]) -> Figure | None:
    """Draw each parameter's share of the variance as a bar."""
    from matplotlib.figure import Figure

    if found is None:
        return None
    names = {axis.path: axis.name for axis in axes}
    shares = list(found.shares.items())[::-1]
    figure = Figure(figsize=(WIDTH, 0.75 + 0.3 * len(shares)), layout="constrained")
    panel = figure.subplots()
    rows = range(len(shares))
    panel.barh(rows, [share for _, share in shares], height=0.62, color=TUNE)
    for row, (_, share) in enumerate(shares):
        text = "< 1 %" if share < 0.005 else f"{100 * share:.0f} %"
        panel.annotate(text, (share, row), xytext=(5, 0), textcoords="offset points", va="center", size=8.5, color=INK)
    panel.set_yticks(rows, [named(names[path], most=40) for path, _ in shares])
    panel.set_xlim(0, 1.08 * max(share for _, share in shares))
    panel.set_xticks([])
    panel.grid(visible=False)
    panel.spines["bottom"].set_visible(False)
    panel.set_ylim(-0.6, len(shares) - 0.4)
    return figure
