"""How figures look: one palette with a role for each colour, and the two forms a figure takes.

A figure is drawn once in the light palette. As PNG it stays so. As SVG inside the page each palette colour
becomes a CSS variable, so that the same drawing follows the reader's light or dark setting.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1d2330"
MUTED = "#667085"
RULE = "#d8dce5"
PAPER = "#ffffff"
TUNE = "#2f6fd0"
CONFIRM = "#c9662b"
OPTIMUM = "#1f8a5b"
BEST = "#b02a86"
FAILED = "#c8393b"
RAMP = ("#c3cede", "#9dbbdd", "#74a1d8", "#4b85cc", "#3169b4", "#224f91", "#16376b")
"""Low to high, or bad to good: each step stands out more from the paper, in the light and in the dark."""

VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    PAPER: "--paper",
    TUNE: "--tune",
    CONFIRM: "--confirm",
    OPTIMUM: "--optimum",
    BEST: "--best",
    FAILED: "--failed",
    **{colour: f"--ramp-{step}" for step, colour in enumerate(RAMP, start=1)},
}
"""Palette colour -> the variable of report.css that takes its place on the page."""

WIDTH = 7.6
"""Width of a figure, inches."""

ROLE_COLOURS = {"tune": TUNE, "confirm": CONFIRM}
ROLE_NAMES = {"tune": "tuning seeds", "confirm": "confirmation seeds"}

_SETTINGS: dict[str, Any] = {
    "font.size": 9.5,
    "font.family": "sans-serif",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "text.color": INK,
    "text.parse_math": False,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "none",
}


@contextlib.contextmanager
def house_style() -> Iterator[None]:
    """Draw in the house style inside the block, whatever the user's own matplotlib settings are."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        settings: Any = mpl.rcParams  # the names are literals only in recent versions of matplotlib
        settings.update(_SETTINGS)
        yield


def thousands(axis: Axes) -> None:
    """Label the steps on the x axis as 50k, 1.5M."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG file of twice the screen's usual density."""
    with house_style():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=192, metadata={"Software": None})
        return buffer.getvalue()


def inline_svg(figure: Figure, *, name: str, title: str) -> str:
    """Return the figure as one ``<svg>`` element that takes its colours from the page.

    Args:
        figure: drawn in the palette of this module.
        name: unique on the page; keeps the ids of several drawings apart.
        title: what a screen reader says; must be HTML already.
    """
    import matplotlib as mpl

    with house_style(), mpl.rc_context({"svg.hashsalt": name}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\1{name}-", text)
    return re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', rf'<svg viewBox="\1" role="img" aria-label="{title}">', text, count=1
    )
