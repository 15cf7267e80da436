"""What the figures of a search share: the colours of values and of levels, the limits of the value axis, text."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from policylab.experiments.report.study_data import StudyData, Tried
from policylab.experiments.report.style import BEST, MUTED, PAPER, RAMP

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

CUT_RATIO = 3.0
"""Bad values are drawn at the edge where they would take more than this multiple of what the better 80 % take."""

ENTRY_IN, LETTER_IN = 0.49, 0.073
"""Inches of a legend's entry without its text, and of a letter of that."""

MAX_DRAWN = 400
"""Configurations drawn one by one, the strongest; more would only make the file large."""


def drawn(study: StudyData) -> list[Tried]:
    """Return the configurations that figures show, weakest first, so that the selected one lies on top."""
    by_id = {trial.id: trial for trial in study.trials}
    return [by_id[i] for i in study.ranking[:MAX_DRAWN]][::-1]


def value_limits(study: StudyData, *, also: Iterable[float] = ()) -> tuple[float, float]:
    """Return the limits of the value axis: everything with a margin, but no single far end of bad values."""
    sign = 1.0 if study.maximise else -1.0
    means = [trial.estimate.value for trial in study.trials]
    shown = [*means, *(value for trial in study.trials for value in trial.values.values()), *also]
    good, middles = (sign * np.array(values, dtype=float) for values in (shown, means))
    good, middles = good[np.isfinite(good)], middles[np.isfinite(middles)]
    if not middles.size:
        return 0.0, 1.0
    best, worst = float(good.max()), float(good.min())
    bulk = best - float(np.quantile(middles, 0.2))
    if best - worst > CUT_RATIO * bulk > 0:
        worst = best - CUT_RATIO * bulk
    pad = 0.05 * (best - worst) or 0.05 * abs(best) or 0.5
    low, high = sorted((sign * (worst - pad), sign * (best + pad)))
    return low, high


def clipped(values: Sequence[float], limits: tuple[float, float]) -> list[float]:
    """Return ``values`` taken to the edges of the axis; NaN stays."""
    return [float(value) for value in np.clip(np.asarray(values, dtype=float), *limits)]


def value_colours(values: Sequence[float], limits: tuple[float, float], *, maximise: bool) -> list[str]:
    """Return the colour of each value; the better, the more it stands out.

    >>> value_colours([0.0, 1.0, float("nan")], (0.0, 1.0), maximise=True) == [RAMP[0], RAMP[-1], MUTED]
    True
    """
    low, high = limits
    ramp = RAMP if maximise else RAMP[::-1]
    places = (np.asarray(values, dtype=float) - low) / (high - low) * len(RAMP)
    return [ramp[int(np.clip(place, 0, len(RAMP) - 1))] if np.isfinite(place) else MUTED for place in places]


def value_scale(limits: tuple[float, float], *, maximise: bool) -> ScalarMappable:
    """Return what a colour bar of `value_colours` needs."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    return ScalarMappable(Normalize(*limits), ListedColormap(list(RAMP if maximise else RAMP[::-1])))


def level_colours(levels: Sequence[int]) -> dict[int, str]:
    """Return a colour for each level; a full training stands out most.

    >>> list(level_colours([10, 30]).values()) == [RAMP[1], RAMP[-2]]
    True
    """
    if not levels:
        return {}
    steps = np.linspace(1, len(RAMP) - 2, len(levels)) if len(levels) > 1 else np.array([4.0])
    return {level: RAMP[round(float(step))] for level, step in zip(levels, steps, strict=True)}


def mark(marker: str, label: str, *, colour: str, size: float = 5.5, edge: str | None = None) -> Line2D:
    """Return a legend's entry for single marks."""
    from matplotlib.lines import Line2D

    return Line2D(
        [], [], marker=marker, linestyle="", color=colour, markersize=size, markeredgecolor=edge or colour, label=label
    )


def line(label: str, *, colour: str, width: float = 1.8, dashed: bool = False) -> Line2D:
    """Return a legend's entry for lines."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, linewidth=width, linestyle=(0, (5, 3)) if dashed else "-", label=label)


def legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """Put the entries above the panels, where nothing is drawn: in one row, or in as few as they fit into."""
    widths = [ENTRY_IN + LETTER_IN * len(str(handle.get_label())) for handle in handles]
    n_rows = max(1, math.ceil(sum(widths) / figure.get_figwidth()))
    figure.legend(
        handles=list(handles),
        loc="outside upper left",
        ncols=math.ceil(len(handles) / n_rows),
        handletextpad=0.4,
        columnspacing=1.3,
        fontsize=8.5,
    )


def level_marks(levels: Sequence[int]) -> list[Line2D]:
    """Return the legend's entries for the colours of the levels; of many levels, for a few."""
    colours = level_colours(levels)
    few = np.linspace(0, len(levels) - 1, min(len(levels), 5)).round().astype(int)
    return [mark("o", f"{steps(levels[i])} steps", colour=colours[levels[i]]) for i in few]


def steps(count: float) -> str:
    """Return a number of environment steps as on the axes.

    >>> steps(5540), steps(50_000), steps(800)
    ('5.54k', '50k', '800')
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.3g}"


def named(text: str, *, most: int = 26) -> str:
    """Return a dotted name short enough for an axis, its end kept.

    >>> named("exploration.epsilon.initial_value", most=16)
    '…n.initial_value'
    """
    return text if len(text) <= most else f"…{text[1 - most :]}"


def abbreviated(categories: Sequence[str], *, most: int = 13) -> list[str]:
    """Return labels of categories short enough for an axis: numbers rounded, texts from where those alike differ.

    >>> abbreviated(["double_q_learning", "0.3333333333333333"])
    ['double_q_lea…', '0.3333']
    >>> abbreviated(['{"kind": "softmax", "heat": 0.1}', '{"kind": "softmax", "heat": 0.5}'])
    ['…heat": 0.1}', '…heat": 0.5}']
    """
    labels = [_short(text, most=most) for text in categories]
    for label in {label for label in labels if labels.count(label) > 1}:
        alike = [i for i, other in enumerate(labels) if other == label]
        letters = zip(*(categories[i] for i in alike), strict=False)
        common = next((place for place, found in enumerate(letters) if len(set(found)) > 1), most)
        longest = max(len(categories[i]) for i in alike)
        start = max(0, min(common - 2, longest - most + 2))
        for i in alike:
            labels[i] = f"…{_short(categories[i][start:], most=most - 1)}"
    return labels


def _short(text: str, *, most: int) -> str:
    if len(text) <= most:
        return text
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return f"{text[: most - 1]}…"


@dataclasses.dataclass(frozen=True, slots=True)
class Dot:
    """How a point looks; points that look alike are drawn together, which is what makes large searches fast."""

    colour: str
    marker: str = "o"
    size: float = 5.0
    alpha: float = 1.0
    edge: str = PAPER
    edge_width: float = 0.5
    zorder: float = 3.0


class Dots:
    """Points of a panel, collected and then drawn look by look.

    Args:
        panel: to draw in.
    """

    def __init__(self, panel: Axes) -> None:
        self._panel = panel
        self._places: dict[Dot, list[tuple[float, float]]] = {}

    def add(self, dot: Dot, *places: tuple[float, float]) -> None:
        """Put one or more points of one look at (x, y)."""
        self._places.setdefault(dot, []).extend(places)

    def draw(self) -> None:
        """Draw all points."""
        for dot, places in self._places.items():
            self._panel.plot(
                *zip(*places, strict=True),
                dot.marker,
                color=dot.colour,
                markersize=dot.size,
                alpha=dot.alpha,
                markeredgecolor=dot.edge,
                markeredgewidth=dot.edge_width,
                zorder=dot.zorder,
                clip_on=False,
            )


def best_dot() -> Dot:
    """Return the look of the selected configuration."""
    return Dot(BEST, "D", 7.0, zorder=4.5)


def bare(panel: Axes) -> None:
    """Take away a panel's frame, ticks and grid."""
    panel.grid(visible=False)
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0)
