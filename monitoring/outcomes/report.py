"""The quality of policies as JSON and as a page to read."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from policylab.experiments.report.parts import block
from policylab.experiments.report.text import NOTHING, counted, escaped, number, table
from policylab.monitoring.outcomes.constraints import MetricViolation
from policylab.monitoring.outcomes.means import Metric
from policylab.monitoring.outcomes.measures import Measured
from policylab.monitoring.page import page

HEAD = ("metric", "value", "interval", "episodes", "effective", "worse if")


def status(found: Measured, broken: tuple[MetricViolation, ...]) -> str:
    """Return ``no data``, ``violations`` or ``passed``."""
    if not found.n_decisions:
        return "no data"
    return "violations" if broken else "passed"


def as_document(found: Measured, broken: tuple[MetricViolation, ...]) -> dict[str, Any]:
    """Return the result as JSON; an end of an interval that is not known is null."""
    metrics = {
        name: {key: _finite(value) for key, value in dataclasses.asdict(metric).items() if key != "name"}
        for name, metric in found.metrics.items()
    }
    return {
        "status": status(found, broken),
        "n_decisions": found.n_decisions,
        "n_episodes": found.n_episodes,
        "metrics": metrics,
        "regression_metrics": dict(found.regression),
        "calibration": [dataclasses.asdict(one) for one in found.calibration],
        "left_out": dict(found.left_out),
        "notes": list(found.notes),
        "violations": [dataclasses.asdict(violation) for violation in broken],
    }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cells(metric: Metric) -> list[str]:
    """Return a metric as the cells of a row."""
    ends = f"[{number(metric.low)}, {number(metric.high)}]" if math.isfinite(metric.std_error) else NOTHING
    shown = [number(metric.value), ends, number(metric.n), number(round(metric.effective))]
    return [metric.name, *shown, metric.worse or NOTHING]


def html(found: Measured, broken: tuple[MetricViolation, ...]) -> str:
    """Return the page."""
    decisions, episodes = counted(found.n_decisions, "decisions"), counted(found.n_episodes, "episodes")
    lead = f"<p class='lead'>{escaped(status(found, broken))}: {decisions} in {episodes}.</p>"
    wrong = [(v.metric_name, v.constraint_check_type, v.description) for v in broken]
    bins = [(one.n, number(one.expected), number(one.realised)) for one in found.calibration]
    left_out = [*found.left_out.items(), *((note, "") for note in found.notes)]
    return page(
        "Quality of the policy",
        [
            lead,
            block("Violations", table(("metric", "check", "what"), wrong)) if wrong else "",
            block("Metrics", table(HEAD, [cells(metric) for metric in found.metrics.values()]))
            if found.metrics
            else "",
            block("Values against returns", table(("episodes", "expected", "realised"), bins)) if bins else "",
            block("Left out, or not measured", table(("what", "decisions"), left_out)) if left_out else "",
        ],
    )
