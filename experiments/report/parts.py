"""The parts that sections are built from: blocks, figures with captions, cards."""

from __future__ import annotations

from policylab.experiments.report.data import Estimate
from policylab.experiments.report.text import NOTHING, counted, escaped, interval


def block(title: str, *parts: str) -> str:
    """Return a titled section around the parts that are not empty, or ``""`` if all are."""
    inside = "\n".join(part for part in parts if part)
    return f"<section><h2>{escaped(title)}</h2>\n{inside}\n</section>" if inside else ""


def figure(svg: str | None, caption: str) -> str:
    """Return a drawing with its caption (plain text), or ``""`` without a drawing."""
    return f"<figure>{svg}<figcaption>{escaped(caption)}</figcaption></figure>" if svg else ""


def card(title: str, value: str, *, note: str, css: str = "") -> str:
    """Return one headline number with what it means."""
    return (
        f"<div class='card {css}'><div class='title'>{escaped(title)}</div>"
        f"<div class='value'>{escaped(value)}</div><div class='detail'>{escaped(note)}</div></div>"
    )


def estimate_card(title: str, estimate: Estimate | None, *, seeds: str, css: str) -> str:
    """Return a value with its interval and the seeds behind it."""
    if estimate is None:
        return card(title, NOTHING, note=f"no {seeds} seeds", css=css)
    value, brackets = interval(estimate)
    return card(title, value, note=f"{brackets} · {counted(estimate.n_seeds, f'{seeds} seeds')}", css=css)
