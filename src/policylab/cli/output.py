"""What commands print: one JSON document with ``--json``, else text; progress on a terminal's standard error."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from policylab.errors import plain
from policylab.launchers import Progress, State

MAX_REASONS = 3


def emit(arguments: argparse.Namespace, document: Any, *, text: Callable[[], str]) -> None:
    """Print ``document`` as JSON if asked for, else ``text()``."""
    content = json.dumps(document, indent=1, allow_nan=False) if arguments.json else text()
    sys.stdout.write(content.rstrip("\n") + "\n")


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return ``rows`` as aligned text columns.

    >>> print(columns([["a", "1"], ["long", "22"]]))
    a     1
    long  22
    """
    rows = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def configuration_text(configuration: Mapping[str, Any]) -> str:
    """Return a configuration as one line of short names and values.

    >>> configuration_text({"agent.learning_rate": 0.123456, "agent.epsilon.kind": "linear"})
    'learning_rate=0.1235 epsilon.kind=linear'
    """
    from policylab.experiments.study_reporting import short_names

    names = short_names(list(configuration))
    return " ".join(f"{names[path]}={value_text(value)}" for path, value in configuration.items())


def value_text(value: Any) -> str:
    """Return a setting's value for a person: four digits, words without quotes."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def bests_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """Return rows of what a warm-started study and its parents found: the overall best where values compare.

    >>> best = {"study": "first_try", "value": 0.81, "n_seeds": 3, "configuration": {"agent.learning_rate": 0.5}}
    >>> bests_rows({"bests": [best], "comparable": True})
    [['best of first_try', '0.81 on 3 seeds: learning_rate=0.5'], ['overall best', 'that of first_try']]
    >>> bests_rows({"bests": [best], "comparable": False})
    [['best of first_try', '0.81 on 3 seeds, on its own data: learning_rate=0.5']]
    """
    bests = found.get("bests") or []
    where = "" if found.get("comparable") else ", on its own data"
    rows = [[f"best of {best['study']}", _best_text(best, where)] for best in bests if best["study"]]
    if found.get("comparable"):
        rows += [["overall best", f"that of {best['study'] or 'this study'}"] for best in bests[:1]]
    return rows


def _best_text(best: Mapping[str, Any], where: str) -> str:
    seeds = f"{best['n_seeds']} seed{'' if best['n_seeds'] == 1 else 's'}"
    return f"{best['value']:.5g} on {seeds}{where}: {configuration_text(best['configuration'])}"


def reason_text(one: Mapping[str, Any], *, noun: str = "run") -> str:
    """Return where a reason was met, and how often, then the reason.

    >>> reason_text({"role": "confirm", "trial": 3, "seed": 0, "error": "ran longer than 10 s", "runs": 2})
    'confirmation of trial 3 on seed 0 and 1 more run: ran longer than 10 s'
    """
    of = "confirmation of trial" if one["role"] == "confirm" else "trial"
    others = f" and {one['runs'] - 1:,} more {noun}{'s' if one['runs'] > 2 else ''}" if one["runs"] > 1 else ""
    return f"{of} {one['trial']} on seed {one['seed']}{others}: {one['error']}"


def reason_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """Return rows of what failed in a search and what was tried again, the most frequent reasons alone."""
    failed = [["failed", reason_text(one)] for one in found.get("failures", ())[:MAX_REASONS]]
    retried = [["tried again", reason_text(one, noun="attempt")] for one in found.get("retried", ())[:MAX_REASONS]]
    return [*failed, *retried]


@contextlib.contextmanager
def progress_bar(what: str, *, total_steps: int, n_runs: int) -> Iterator[Callable[[Sequence[Progress]], None]]:
    """Show on standard error: runs finished, steps per second, time left and the current return."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    parts = (
        TextColumn(f"[bold]{what}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("runs {task.fields[ended]}/{task.fields[runs]}"), TextColumn("{task.fields[speed]}"),
        TextColumn("return {task.fields[value]}"), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Bar(*parts, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total_steps, ended=0, runs=n_runs, speed="", value="-")

        def observe(progress: Sequence[Progress]) -> None:
            values = [one.value for one in progress if one.value is not None]
            speed = bar.tasks[0].speed
            bar.update(
                task,
                completed=sum(one.steps for one in progress),
                ended=sum(one.state is State.FINISHED for one in progress),
                speed=f"{speed:,.0f} steps/s" if speed else "",
                value=f"{sum(values) / len(values):.4g}" if values else "-",
            )

        yield observe
