"""The figures of a search's course: its value over the budget, and what became of each configuration."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from policylab.experiments.report.data import Estimate
from policylab.experiments.report.study_data import StudyData, Tried
from policylab.experiments.report.study_style import (
    Dot,
    Dots,
    best_dot,
    clipped,
    drawn,
    legend,
    level_colours,
    level_marks,
    line,
    mark,
    steps,
    value_colours,
    value_limits,
    value_scale,
)
from policylab.experiments.report.style import BEST, CONFIRM, FAILED, INK, MUTED, OPTIMUM, PAPER, WIDTH, thousands
from policylab.experiments.report.text import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

MAX_RUNGS = 12
"""More distinct levels than this are drawn at their true distance instead of evenly."""

MAX_NAMED_ROWS = 40


def history(study: StudyData, *, confirmed: Estimate | None = None, optimum: float | None = None) -> Figure | None:
    """Draw value over spent budget: every configuration with its seeds, and who would have been selected when."""
    from matplotlib.figure import Figure

    if not study.moments:
        return None
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    panel = figure.subplots()
    shown = [confirmed.value, confirmed.low, confirmed.high] if confirmed else []
    limits = value_limits(study, also=[*shown, *([optimum] if optimum is not None else [])])
    _moments(panel, study, limits=limits)
    entries = [*level_marks(_reached(study)), mark("D", "selected", colour=BEST, size=6)]
    entries.append(line("selected so far", colour=INK))
    if confirmed is not None:
        _confirmation(panel, confirmed, spent=study.spent)
        entries.append(mark("D", "confirmed", colour=CONFIRM))
    if optimum is not None:
        panel.axhline(optimum, color=OPTIMUM, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1.8)
        entries.append(line("optimum", colour=OPTIMUM, width=1.2, dashed=True))
    panel.set_ylim(*limits)
    panel.set_xlim(left=0)
    panel.set_xlabel("environment steps spent")
    panel.set_ylabel(study.metric)
    thousands(panel)
    legend(figure, entries)
    return figure


def _reached(study: StudyData) -> list[int]:
    return sorted({moment.resource for moment in study.moments})


def _moments(panel: Axes, study: StudyData, *, limits: tuple[float, float]) -> None:
    from matplotlib.collections import LineCollection

    colours = level_colours(_reached(study))
    last = {moment.trial: index for index, moment in enumerate(study.moments)}
    dots, spans, span_colours = Dots(panel), [], []
    for index, moment in enumerate(study.moments):
        values, colour = clipped(moment.values, limits), colours[moment.resource]
        middle = (moment.spent, float(np.mean(values)))
        if last[moment.trial] != index:
            dots.add(Dot(colour, size=3.5, alpha=0.6, zorder=2.6), middle)
            continue
        if len(values) > 1:
            spans.append([(moment.spent, min(values)), (moment.spent, max(values))])
            span_colours.append(colour)
            dots.add(Dot(colour, size=2.4, edge=colour, zorder=2.8), *((moment.spent, value) for value in values))
        dots.add(best_dot() if moment.trial == study.winner else Dot(colour), middle)
    dots.draw()
    panel.add_collection(LineCollection(spans, colors=span_colours, linewidths=0.8, alpha=0.7, zorder=2.1))
    leaders = clipped([moment.leader for moment in study.moments], limits)
    spent = [*(moment.spent for moment in study.moments), study.spent]
    panel.step(spent, [*leaders, leaders[-1]], where="post", color=INK, linewidth=1.8, zorder=2.5)


def _confirmation(panel: Axes, confirmed: Estimate, *, spent: int) -> None:
    """Draw the confirmed value with its interval just behind the end of the search."""
    at = 1.03 * spent
    panel.plot(
        [at, at], [confirmed.low, confirmed.high], color=CONFIRM, linewidth=2.2, solid_capstyle="round", zorder=4
    )
    panel.plot([at], [confirmed.value], "D", color=CONFIRM, markersize=6, markeredgecolor=PAPER, zorder=5)


def rungs(study: StudyData) -> Figure | None:
    """Draw each configuration as a line through the levels it reached, as wide as seeds went there.

    None when all went the same way: nothing was stopped, promoted or given more seeds.
    """
    from matplotlib.figure import Figure

    levels = study.levels
    trials = _rows(study)
    ways = {(trial.resource, len(trial.runs), trial.ending == "failed") for trial in trials}
    if not levels or len(ways) < 2:
        return None
    row_in = float(np.clip(4.8 / len(trials), 0.012, 0.2))
    figure = Figure(figsize=(WIDTH, 1.1 + row_in * len(trials)), layout="constrained")
    panel = figure.subplots()
    limits, place = value_limits(study), _places(levels)
    _lanes(panel, study, place=place, limits=limits, row_pt=72 * row_in)
    _brackets(panel, trials)
    _descent(panel, study, place=place)
    _rung_axes(panel, trials, place=place)
    if len(trials) > MAX_NAMED_ROWS:
        _value_bar(figure, panel, scale=value_scale(limits, maximise=study.maximise), metric=study.metric)
    legend(figure, _entries(study))
    return figure


def _rows(study: StudyData) -> list[Tried]:
    """Return the configurations from bottom to top: bracket by bracket, the furthest and best on top."""
    sign = 1.0 if study.maximise else -1.0
    shown = drawn(study)
    worst = min((sign * t.estimate.value for t in shown if np.isfinite(t.estimate.value)), default=0.0) - 1.0

    def key(trial: Tried) -> tuple[int, bool, int, int, float]:
        value = sign * trial.estimate.value
        known = value if np.isfinite(value) else worst
        return (-trial.entered, trial.id == study.winner, trial.resource, len(trial.runs), known)

    return sorted(shown, key=key)


def _places(levels: Sequence[int]) -> dict[int, float]:
    """Return the horizontal place of the start and of every level, evenly if they are few."""
    marks = [0, *levels]
    if len(levels) <= MAX_RUNGS:
        return {level: float(i) for i, level in enumerate(marks)}
    return {level: level / levels[-1] * MAX_RUNGS for level in marks}


MARKS = {"full": "o", "paused": "|", "stopped": "|", "failed": "x", "running": ">"}


def _lanes(
    panel: Axes, study: StudyData, *, place: dict[int, float], limits: tuple[float, float], row_pt: float
) -> None:
    from matplotlib.collections import LineCollection

    trials = _rows(study)
    colours = value_colours([trial.estimate.value for trial in trials], limits, maximise=study.maximise)
    dots, end_size = Dots(panel), float(np.clip(1.1 * row_pt, 1.6, 4.0))
    segments, widths, inks = [], [], []
    for row, (trial, colour) in enumerate(zip(trials, colours, strict=True)):
        for below, above in itertools.pairwise(sorted(place)):
            n = sum(run.resource >= above for run in trial.runs)
            if n and below >= trial.origin:
                segments.append([(place[below], row), (place[above], row)])
                widths.append(min(max(0.9, 0.75 * row_pt), 1.0 + 0.9 * (n - 1), 7.0))
                inks.append(colour)
        passed = {level for run in trial.runs for level in run.levels[:-1]}
        size = float(np.clip(0.35 * row_pt, 1.0, 4.0))
        dots.add(Dot(PAPER, size=size, edge=colour, edge_width=0.8), *((place[level], row) for level in passed))
        ink = FAILED if trial.ending == "failed" else colour
        end = Dot(ink, MARKS[trial.ending], end_size, edge=ink, edge_width=0.3 * end_size, zorder=3.5)
        dots.add(best_dot() if trial.id == study.winner else end, (place[trial.resource], row))
    panel.add_collection(LineCollection(segments, colors=inks, linewidths=widths, capstyle="butt"))
    dots.draw()


def _brackets(panel: Axes, trials: Sequence[Tried]) -> None:
    """Part the configurations that entered at different levels by dotted lines."""
    for row, (below, above) in enumerate(itertools.pairwise(trials)):
        if below.entered != above.entered:
            panel.axhline(row + 0.5, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))


def _descent(panel: Axes, study: StudyData, *, place: dict[int, float]) -> None:
    """Join each fork to the run it goes on from by an upright line, the winner's ancestors in its colour."""
    rows = {trial.id: row for row, trial in enumerate(_rows(study))}
    for trial in study.trials:
        if trial.parent in rows and trial.id in rows:
            won = trial.id in study.line
            panel.plot(
                [place[trial.origin]] * 2,
                [rows[trial.parent], rows[trial.id]],
                color=BEST if won else MUTED,
                linewidth=1.6 if won else 0.6,
                zorder=2.4 if won else 1.5,
            )


def _rung_axes(panel: Axes, trials: Sequence[Tried], *, place: dict[int, float]) -> None:
    even = len(place) - 1 <= MAX_RUNGS
    marks = list(place) if even else [max(place) * share // 4 for share in range(5)]
    at = [place[mark] if even else mark / max(place) * MAX_RUNGS for mark in marks]
    panel.set_xticks(at, ["start" if mark == 0 else steps(mark) for mark in marks])
    panel.set_xlabel("environment steps" + (" (levels at equal distances)" if even and len(marks) > 2 else ""))
    panel.set_ylim(-0.8, len(trials) - 0.2)
    panel.grid(visible=False, axis="y")
    panel.spines["left"].set_visible(False)
    if len(trials) > MAX_NAMED_ROWS:
        panel.set_yticks([])
        panel.set_ylabel(f"{len(trials)} configurations, by bracket, reach and value")
        return
    panel.set_yticks(range(len(trials)), [f"{trial.id}" for trial in trials], fontsize=8)
    panel.set_ylabel("trial")
    right = panel.secondary_yaxis("right")
    right.set_yticks(range(len(trials)), [_result(trial) for trial in trials], fontsize=8)
    right.spines[:].set_visible(False)
    right.tick_params(length=0)


def _value_bar(figure: Figure, panel: Axes, *, scale: ScalarMappable, metric: str) -> None:
    bar = figure.colorbar(scale, ax=panel, pad=0.02, aspect=24, fraction=0.05, shrink=0.8)
    bar.outline.set_visible(False)
    bar.set_label(metric, color=MUTED)


def _result(trial: Tried) -> str:
    if trial.ending == "failed":
        return "failed"
    seeds = f" ×{trial.estimate.n_seeds}" if trial.estimate.n_seeds > 1 else ""
    return f"{number(trial.estimate.value)}{seeds}"


def _entries(study: StudyData) -> list[Line2D]:
    """Return the legend's entries for what occurs."""
    endings = {trial.ending for trial in study.trials}
    entries = [mark("D", "selected", colour=BEST, size=6)]
    if "full" in endings:
        entries.append(mark(MARKS["full"], "trained in full", colour=MUTED))
    if endings & {"paused", "stopped"}:
        entries.append(mark("|", "stopped there", colour=MUTED, size=6))
    if any(len(run.levels) > 1 for trial in study.trials for run in trial.runs):
        entries.append(mark("o", "promoted", colour=PAPER, edge=MUTED))
    if any(trial.parent is not None for trial in study.trials):
        entries.append(line("copied to", colour=MUTED, width=0.8))
    if "failed" in endings:
        entries.append(mark(MARKS["failed"], "failed", colour=FAILED))
    if "running" in endings:
        entries.append(mark(MARKS["running"], "cut off", colour=MUTED))
    if any(len(trial.runs) > 1 for trial in study.trials):
        entries.append(line("several seeds", colour=MUTED, width=4.0))
    return entries
