"""The figures of a report, each a function from plain data to a matplotlib `Figure`.

They use matplotlib's object-oriented interface alone: no pyplot, no global figure, no display.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from policylab.experiments.report import parameter_figures, study_figures
from policylab.experiments.report.data import Curves, Estimate, Exact, ReportData
from policylab.experiments.report.policy_map import policy_map
from policylab.experiments.report.style import (
    MUTED,
    OPTIMUM,
    PAPER,
    ROLE_COLOURS,
    ROLE_NAMES,
    WIDTH,
    house_style,
    thousands,
)
from policylab.experiments.report.text import counted, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_SEED_LINES = 100
"""Single runs drawn per role; more would only make the file large."""

CUT_RATIO = 6.0
"""Early returns are cut off where they would take more than this multiple of what comes later."""


def draw_figures(data: ReportData) -> dict[str, Figure]:
    """Return every figure that ``data`` can fill, by name, in the order of the page."""
    makers: dict[str, Callable[[], Figure | None]] = {
        **_study_makers(data),
        "learning_curves": lambda: learning_curves(data),
        "optimality_gap": lambda: optimality_gap(data.curves, data.exact) if data.exact else None,
        "seeds": lambda: seed_dots(data),
        "policy": lambda: policy_map(data.grid) if data.grid else None,
    }
    with house_style():
        drawn = {name: make() for name, make in makers.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _study_makers(data: ReportData) -> dict[str, Callable[[], Figure | None]]:
    study = data.study
    if study is None:
        return {}
    returns = study.maximise and study.metric == "eval/return_mean"
    confirmed = data.objective.confirmed if data.objective else data.confirmed if returns else None
    optimum = data.exact.optimal_return if data.exact and returns else None
    return {
        "search_history": lambda: study_figures.history(study, confirmed=confirmed, optimum=optimum),
        "search_rungs": lambda: study_figures.rungs(study),
        "search_parallel": lambda: parameter_figures.parallel_coordinates(study),
        "search_importances": lambda: parameter_figures.importances(study.importances, study.axes),
        "search_slices": lambda: parameter_figures.slices(study),
    }


def learning_curves(data: ReportData) -> Figure | None:
    """Draw one panel per role: every seed thinly, the middle with its band, the optimum and the best baseline."""
    from matplotlib.figure import Figure

    curves = data.curves
    if not curves:
        return None
    figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
    panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for panel, curve in zip(panels, curves, strict=True):
        _curve(panel, curve)
        panel.set_title(counted(len(curve.seeds), ROLE_NAMES[curve.role]), color=ROLE_COLOURS[curve.role])
        panel.set_xlabel("environment steps")
        thousands(panel)
    levels = _levels(data)
    for level in levels:
        _draw_level(panels, level)
    panels[0].set_ylabel(textwrap.fill(data.metric, 38))
    panels[0].set_ylim(*value_limits([curve.returns for curve in curves], also=[level.value for level in levels]))
    return figure


class Level(NamedTuple):
    """A horizontal line with its name above it, at one end: where two lines nearly meet, the names do not."""

    name: str
    value: float
    colour: str
    end: Literal["left", "right"]


def _levels(data: ReportData) -> list[Level]:
    """Return the optimum and the best classical baseline, as far as they are known."""
    classical = [found for found in data.baselines if found.classical]
    levels = []
    if classical:
        best = max(classical, key=lambda found: found.value)
        levels.append(Level(f"{best.name} {number(best.value)}", best.value, MUTED, end="left"))
    if data.exact is not None:
        optimum = data.exact.optimal_return
        levels.append(Level(f"optimum {number(optimum)}", optimum, OPTIMUM, end="right"))
    return levels


def _draw_level(panels: Sequence[Axes], level: Level) -> None:
    for panel in panels:
        panel.axhline(level.value, color=level.colour, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1.8)
    panels[-1].annotate(
        level.name,
        (0.985 if level.end == "right" else 0.015, level.value),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        ha=level.end,
        va="bottom",
        color=level.colour,
    )


def _curve(panel: Axes, curve: Curves) -> None:
    colour = ROLE_COLOURS[curve.role]
    marker = "o" if len(curve.steps) == 1 else None
    singles = curve.returns[:MAX_SEED_LINES]
    panel.plot(curve.steps, singles.T, color=colour, linewidth=0.7, alpha=0.28, marker=marker)
    panel.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=0.22, linewidth=0)
    panel.plot(curve.steps, curve.middle, color=colour, linewidth=2.0, marker=marker)
    panel.margins(x=0.02)


def value_limits(returns: Sequence[NDArray[np.float64]], *, also: Sequence[float] = ()) -> tuple[float, float]:
    """Return the limits of the value axis: everything, unless early returns would flatten all else; always ``also``.

    >>> early = np.array([[-5000.0, -40.0, -20.0, -15.0, -13.0]])
    >>> value_limits([early], also=[-13.0])[0] > -100
    True
    """
    everything = np.concatenate([*(part.ravel() for part in returns), np.asarray(also, dtype=float)])
    everything = everything[np.isfinite(everything)]
    if everything.size == 0:
        return 0.0, 1.0
    late = np.concatenate([part[:, part.shape[1] // 4 :].ravel() for part in returns])
    late = late[np.isfinite(late)]
    high = float(everything.max())
    low = float(everything.min())
    if late.size and high - low > CUT_RATIO * (high - float(late.min())) > 0:
        low = min([float(late.min()), *also])  # a level beyond the axis would pull its name out of the picture
    pad = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    return low - (2 * pad if low in also else pad), high + 2 * pad  # room for the names of levels


def optimality_gap(curves: Sequence[Curves], exact: Exact) -> Figure | None:
    """Draw how far the middle of each role is from the optimum, logarithmic down to 1/100 of the largest gap."""
    from matplotlib.figure import Figure

    if not curves:
        return None
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    panel = figure.subplots()
    optimum = exact.optimal_return
    for curve in curves:
        colour = ROLE_COLOURS[curve.role]
        panel.fill_between(
            curve.steps, optimum - curve.high, optimum - curve.low, color=colour, alpha=0.18, linewidth=0
        )
        marker = "o" if len(curve.steps) == 1 else None
        label = ROLE_NAMES[curve.role]
        panel.plot(curve.steps, optimum - curve.middle, color=colour, linewidth=2.0, label=label, marker=marker)
    panel.axhline(0.0, color=OPTIMUM, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1.8)
    _logarithmic(panel, optimum - np.concatenate([curve.middle for curve in curves]))
    panel.set_xlabel("environment steps")
    panel.set_ylabel("optimum minus value")
    figure.legend(loc="outside upper left", ncols=len(curves))
    panel.margins(x=0.02)
    thousands(panel)
    return figure


def _logarithmic(panel: Axes, gaps: NDArray[np.float64]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    gaps = gaps[np.isfinite(gaps)]
    if gaps.size == 0 or gaps.max() <= 0:
        return
    top = int(np.floor(np.log10(gaps.max())))
    lowest = 10.0 ** (top - 2)
    panel.set_yscale("symlog", linthresh=lowest, linscale=0.6)
    panel.set_ylim(bottom=min(-0.4 * lowest, 1.2 * gaps.min()))
    panel.yaxis.set_major_locator(FixedLocator([0.0, *(10.0 ** np.arange(top - 2, top + 1))]))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_locator(NullLocator())


def seed_dots(data: ReportData) -> Figure | None:
    """Draw the final value of every run as a dot, one row per role, with the estimate and its interval."""
    from matplotlib.figure import Figure

    curves = [curve for curve in data.curves if np.isfinite(curve.final).any()]
    if not curves:
        return None
    figure = Figure(figsize=(WIDTH, 0.9 + 0.75 * len(curves)), layout="constrained")
    panel = figure.subplots()
    estimates = {"tune": data.selected, "confirm": data.confirmed}
    for row, curve in enumerate(curves):
        _dots(panel, curve, row=-row, estimate=estimates[curve.role])
    if data.exact is not None:
        panel.axvline(data.exact.optimal_return, color=OPTIMUM, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1.8)
    panel.set_yticks([-row for row in range(len(curves))], [ROLE_NAMES[curve.role] for curve in curves])
    for label, curve in zip(panel.get_yticklabels(), curves, strict=True):
        label.set_color(ROLE_COLOURS[curve.role])
    panel.set_ylim(-len(curves) + 0.4, 0.6)
    panel.set_xlabel(f"final value: {data.metric}")
    panel.grid(visible=False, axis="y")
    panel.spines["left"].set_visible(False)
    return figure


def _dots(panel: Axes, curve: Curves, *, row: int, estimate: Estimate | None) -> None:
    colour = ROLE_COLOURS[curve.role]
    panel.scatter(curve.final, row + 0.16 + spread(curve.final), s=22, color=colour, alpha=0.55, linewidth=0)
    if estimate is None:
        return
    panel.plot([estimate.low, estimate.high], [row - 0.22] * 2, color=colour, linewidth=2.4, solid_capstyle="round")
    panel.plot([estimate.value], [row - 0.22], marker="D", markersize=5.5, color=colour, markeredgecolor=PAPER)


def spread(values: NDArray[np.float64], *, n_bins: int = 60, height: float = 0.26) -> NDArray[np.float64]:
    """Return small vertical offsets that keep dots of nearly equal value apart, shape like ``values``.

    >>> spread(np.array([1.0, 1.0, 5.0])).round(3).tolist()
    [0.0, 0.08, 0.0]
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return np.zeros_like(values)
    width = float(np.ptp(finite)) or 1.0
    bins = np.nan_to_num(np.floor((values - finite.min()) / width * n_bins))
    rank = np.array([np.count_nonzero(bins[:i] == bins[i]) for i in range(len(bins))], dtype=float)
    return rank * min(0.08, height / max(1.0, float(rank.max())))
