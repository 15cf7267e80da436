"""One page over all windows of a monitor: alarms, what was done about them, checks, and the course of each number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from policylab.errors import UserError
from policylab.experiments.report.parts import block, figure
from policylab.experiments.report.text import counted, escaped, minute, number, table
from policylab.monitoring.page import page
from policylab.monitoring.schedule.scheduler import done_windows, read_window

MAX_SHOWN, MAX_COURSES = 200, 24
LEAST_WINDOWS = 3
"""Windows from which on a number has a course."""
WIDTH, HEIGHT = 960.0, 60.0
Windows = Sequence[Mapping[str, Any]]


def read_windows(out: Path) -> list[dict[str, Any]]:
    """Return what was found in each window, in the order of time.

    Raises:
        UserError: there is none.
        RunDirectoryError: a file is damaged.
    """
    found = [read_window(path) for path in done_windows(out)]
    if not found:
        raise UserError(f"{out} holds no window; run `policylab monitor schedule` first")
    return found


def html(windows: Windows) -> str:
    """Return the page; names, values and texts are escaped."""
    wrong = [one for one in windows if one["alarms"]]
    first, last = windows[0], windows[-1]
    span = f"{minute(first['start_utc'])} to {minute(last['end_utc'])}"
    lead = f"{counted(len(windows), 'windows')}, {counted(len(wrong), 'with an alarm')}; {span}."
    return page(
        f"Monitor {first['monitor']}",
        [
            f"<p class='lead'>{escaped(lead)}</p>",
            block("Alarms", table(("window", "alarm", "what"), _alarms(windows))) if wrong else "",
            block("What was done", table(("window", "what", "", "result"), _done(windows))) if _done(windows) else "",
            block("Causes", table(("window", "verdict"), _causes(windows))) if _causes(windows) else "",
            block("Checks", table(("window", "check", "status", "what"), _checks(windows))),
            block("Latest numbers", table(("number", "value", "violated", "what"), _latest(last))),
            block("Courses", *_courses(windows)) if len(windows) >= LEAST_WINDOWS else "",
        ],
    )


def _name(window: Mapping[str, Any]) -> str:
    return f"{window['start_utc'][:19].replace('T', ' ')} – {window['end_utc'][11:19]}"


def _alarms(windows: Windows) -> list[tuple[str, str, str]]:
    found = [(_name(one), alarm["alarm"], alarm["text"]) for one in windows for alarm in one["alarms"]]
    return found[-MAX_SHOWN:]


def _done(windows: Windows) -> list[tuple[str, str, str, str]]:
    found = [
        (_name(one), done["what"], "done" if done["ok"] else "FAILED", done["text"])
        for one in windows
        for done in one["done"]
        if ":" in done["what"] or not done["ok"]
    ]
    return found[-MAX_SHOWN:]


def _causes(windows: Windows) -> list[tuple[str, str]]:
    return [
        (_name(one), check["text"])
        for one in windows
        for check in one["checks"]
        if check["kind"] == "causes" and check["status"] == "violations"
    ][-MAX_SHOWN:]


def _checks(windows: Windows) -> list[tuple[str, str, str, str]]:
    found = [(_name(one), check["kind"], check["status"], check["text"]) for one in windows for check in one["checks"]]
    return found[-MAX_SHOWN:]


def _latest(window: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    return [
        (one["name"], number(one["value"]), "yes" if one["violated"] else "", one["detail"])
        for one in window["measurements"][:MAX_SHOWN]
    ]


def _courses(windows: Windows) -> list[str]:
    """Return a drawing of each number over the windows; those that were a violation come first."""
    values: dict[str, list[float | None]] = {}
    violated: dict[str, int] = {}
    for i, window in enumerate(windows):
        for one in window["measurements"]:
            values.setdefault(one["name"], [None] * len(windows))[i] = one["value"]
            violated[one["name"]] = violated.get(one["name"], 0) + one["violated"]
    names = sorted(values, key=lambda name: (-violated[name], name))
    hidden = len(names) - MAX_COURSES
    more = [f"<p class='note'>{counted(hidden, 'more numbers')} in the files of the windows</p>"] if hidden > 0 else []
    return [_course(name, values[name], n_violated=violated[name]) for name in names[:MAX_COURSES]] + more


def _course(name: str, values: Sequence[float | None], *, n_violated: int) -> str:
    known = [(i, value) for i, value in enumerate(values) if value is not None]
    if not known:
        return ""
    low, high = min(value for _, value in known), max(value for _, value in known)
    scale = (high - low) or 1.0
    right = max(1, len(values) - 1)
    points = [(WIDTH * i / right, HEIGHT * (1.0 - (value - low) / scale)) for i, value in known]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='currentColor'/>" for x, y in points)
    svg = (
        f"<svg viewBox='-4 -4 {WIDTH + 8:g} {HEIGHT + 8:g}' width='{WIDTH:g}' role='img' aria-label='{escaped(name)}'>"
        f"<polyline points='{line}' fill='none' stroke='currentColor'/>{dots}</svg>"
    )
    text = f"{name}: latest {number(known[-1][1])}, {number(low)} to {number(high)}"
    return figure(svg, f"{text}; {counted(n_violated, 'violations')}" if n_violated else text)
