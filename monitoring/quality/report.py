"""The result of a quality check as JSON and as a page to read."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from policylab.experiments.report.parts import block
from policylab.experiments.report.text import NOTHING, counted, escaped, number, table
from policylab.monitoring.page import page
from policylab.monitoring.profiles.distances import Distance
from policylab.monitoring.quality.check import ColumnCheck, QualityCheck
from policylab.monitoring.quality.dependence import PairCheck

HEAD = ("column", "values", "effective", "L-infinity", "chance", "sketch error", "PSI", "Jensen-Shannon", "Wasserstein")

PAIR_HEAD = ("columns", "baseline", "window", "change", "chance")
MAX_PAIRS = 50
"""Pairs of columns that are reported: those whose correlations changed most."""

STAR = "<p class='note'>* more than chance and the error of the sketches explain</p>"


def status(found: QualityCheck) -> str:
    """Return ``no data``, ``violations`` or ``passed``."""
    if not found.n_window:
        return "no data"
    return "violations" if found.violations else "passed"


def as_document(found: QualityCheck) -> dict[str, Any]:
    """Return the result as JSON."""
    return {
        "status": status(found),
        "n_baseline": found.n_baseline,
        "n_window": found.n_window,
        "false_discovery_rate": found.false_discovery_rate,
        "violations": [dataclasses.asdict(violation) for violation in found.violations],
        "columns": [_column(column) for column in found.columns],
        "notes": list(found.notes),
        "n_pairs": len(found.pairs),
        "pairs": [
            {**dataclasses.asdict(one), "beyond_chance": one.change.beyond_chance} for one in most_changed(found)
        ],
    }


def most_changed(found: QualityCheck) -> list[PairCheck]:
    """Return the pairs of columns whose correlations changed most, by what chance makes of them."""
    return sorted(found.pairs, key=lambda one: (one.p_value(), -one.change.value))[:MAX_PAIRS]


def _column(column: ColumnCheck) -> dict[str, Any]:
    test = column.chi_square
    usable = test is not None and math.isfinite(test.statistic)
    return {
        "name": column.name,
        "n_baseline": column.n_baseline,
        "n_window": column.n_window,
        "effective": column.effective,
        "distances": {
            name: {**dataclasses.asdict(distance), "beyond_chance": distance.beyond_chance}
            for name, distance in column.distances.items()
        },
        "chi_square": dataclasses.asdict(test) if test is not None and usable else None,
        "notes": list(column.notes),
        "adjusted_p_values": dict(column.adjusted),
    }


def html(found: QualityCheck) -> str:
    """Return the page; names and values of the data are escaped."""
    rows, baseline = counted(found.n_window, "rows"), counted(found.n_baseline, "rows")
    q = found.false_discovery_rate
    control = f" On average at most {q:g} of what is called drifted or less complete is so by chance." if q else ""
    lead = f"<p class='lead'>{escaped(status(found))}: {rows} against a baseline of {baseline}.{control}</p>"
    broken = [(v.feature_name, v.constraint_check_type, v.description) for v in found.violations]
    notes = [(column.name, note) for column in found.columns for note in column.notes]
    notes += [(NOTHING, note) for note in found.notes]
    return page(
        "Data quality",
        [
            lead,
            block("Violations", table(("column", "check", "what"), broken)) if broken else "",
            block("Distances", table(HEAD, [_cells(column) for column in found.columns]), STAR)
            if found.columns
            else "",
            block(
                f"Correlations of normal scores, {counted(len(found.pairs), 'pairs')}",
                table(PAIR_HEAD, [pair_cells(one) for one in most_changed(found)]),
                STAR,
            )
            if found.pairs
            else "",
            block("Not compared", table(("column", "why"), notes)) if notes else "",
        ],
    )


def _cells(column: ColumnCheck) -> list[str]:
    distances = column.distances
    simple = distances.get("linf_simple")
    shown = [_marked(distances.get(name)) for name in ("psi", "jensen_shannon", "wasserstein")]
    return [
        column.name,
        number(column.n_window),
        number(column.effective),
        _marked(simple),
        number(simple.noise) if simple else NOTHING,
        number(simple.error) if simple else NOTHING,
        *shown,
    ]


def pair_cells(pair: PairCheck) -> list[str]:
    """Return what is shown of a pair, see `PAIR_HEAD`."""
    values = [number(pair.baseline), number(pair.window), _marked(pair.change), number(pair.change.noise)]
    return [f"{pair.names[0]}, {pair.names[1]}", *values]


def _marked(distance: Distance | None) -> str:
    """Return a distance, starred if neither chance nor the sketches explain it."""
    if distance is None:
        return NOTHING
    return number(distance.value) + ("*" if distance.beyond_chance else "")
