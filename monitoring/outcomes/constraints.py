"""Constraints on the quality of policies, in the form of Amazon SageMaker's model-quality monitor.

``constraints.json`` has one block, ``policy_constraints``, of entries ``{"threshold": x, "comparison_operator":
"LessThanThreshold" | "GreaterThanThreshold"}``: the metric is violated where the operator holds. A threshold suggested
by a baseline is the worse end of the baseline's interval, and chance must not explain that a window is beyond it: its
whole interval is. Two intervals of 95 % that do not touch are a false alarm of 3 in 1,000 (2 * 1.96 / sqrt 2 = 2.77
standard deviations of their difference, one-sided). Episodes that all went alike say nothing about chance: a window is
taken to scatter at least as the baseline did.

Source: SageMaker Developer Guide, "Schema for Constraints" and "Schema for Violations" of model quality.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from policylab.config import Document, Settings, read, validate
from policylab.errors import ConfigError, UserError, did_you_mean
from policylab.files import read_json
from policylab.monitoring.outcomes.means import Metric
from policylab.monitoring.outcomes.measures import Measured

Operator = Literal["LessThanThreshold", "GreaterThanThreshold"]
CONSTRAINED = (
    "reward_mean", "reward_coverage", "return_mean", "success_rate", "regret", "overestimation", "td_error_squared",
    "length_mean", "td_error_mean",
)  # fmt: skip
"""Metrics that may have a constraint; the last two only where somebody writes one."""

TWO_SIDED = 1.959964
"""Standard deviations of a normal interval of 95 %."""


class MetricConstraint(Settings):
    """The metric is violated where the operator holds."""

    threshold: float
    comparison_operator: Operator


class OutcomeConstraints(Settings):
    """The content of ``constraints.json``."""

    version: int = 0
    policy_constraints: dict[str, MetricConstraint]


@dataclasses.dataclass(frozen=True, slots=True)
class MetricViolation:
    """One broken constraint, as in ``constraint_violations.json``."""

    constraint_check_type: Operator
    metric_name: str
    description: str


def suggested(baseline: Measured) -> OutcomeConstraints:
    """Return the constraints that a baseline suggests: no metric that is worse than its interval."""
    found: dict[str, MetricConstraint] = {}
    for name, metric in baseline.metrics.items():
        threshold = metric.low if metric.worse == "lower" else metric.high
        if metric.worse is not None and math.isfinite(threshold):
            operator: Operator = "LessThanThreshold" if metric.worse == "lower" else "GreaterThanThreshold"
            found[name] = MetricConstraint(threshold=threshold, comparison_operator=operator)
    return OutcomeConstraints(policy_constraints=found)


def read_outcome_constraints(path: Path) -> OutcomeConstraints:
    """Return the constraints in a file.

    Raises:
        ConfigError: it is missing, or any finding about its content, with its place.
    """
    document = read(path)
    found = validate(OutcomeConstraints, document)
    for name in found.policy_constraints:
        if name not in CONSTRAINED:
            place = document.place(("policy_constraints", name))
            raise ConfigError(f"{place}: policy_constraints.{name}: no such metric{did_you_mean(name, CONSTRAINED)}")
    return found


class MetricLeaf(Settings):
    """A metric of a baseline, as SageMaker writes it, with the number of independent episodes it is worth."""

    value: float
    standard_deviation: float | Literal["NaN"]
    effective_count: Annotated[float, Field(ge=0.0)] = 0.0

    @property
    def deviation(self) -> float | None:
        """None where it is not known."""
        return None if isinstance(self.standard_deviation, str) else self.standard_deviation


class BaselineStatistics(Settings):
    """What is read of the ``statistics.json`` of a baseline."""

    policy_metrics: dict[str, MetricLeaf] = Field(default_factory=dict)


def read_statistics(path: Path) -> dict[str, MetricLeaf]:
    """Return the metrics of a baseline by name, of its ``statistics.json``.

    Raises:
        UserError: it is missing.
        ConfigError: every finding about its content, one per line.
        RunDirectoryError: it is no JSON.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; make the baseline with `policylab monitor quality`")
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold an object with 'policy_metrics'; restore it from a copy")
    metrics = {name: value for name, value in content.items() if name == "policy_metrics"}
    return validate(BaselineStatistics, Document(metrics, {}, source=str(path))).policy_metrics


def read_spreads(path: Path) -> dict[str, float]:
    """Return how much single episodes scattered in a baseline, by metric, of its ``statistics.json``; {} without one.

    Raises:
        PolicylabError: as `read_statistics`, unless it is missing.
    """
    leaves = read_statistics(path) if path.exists() else {}
    return {
        name: leaf.deviation * math.sqrt(leaf.effective_count)
        for name, leaf in leaves.items()
        if leaf.deviation is not None and leaf.effective_count
    }


def violations(
    window: Measured, constraints: OutcomeConstraints, *, spreads: Mapping[str, float] | None = None
) -> tuple[MetricViolation, ...]:
    """Return the constraints that a window breaks beyond chance; a metric that was not measured breaks none.

    Args:
        window: the metrics.
        constraints: what must hold.
        spreads: of the baseline, see `read_spreads`.
    """
    found = []
    for name, constraint in constraints.policy_constraints.items():
        metric = window.metrics.get(name)
        if metric is not None and _beyond(metric, constraint, spread=(spreads or {}).get(name, 0.0)):
            operator, threshold = constraint.comparison_operator, constraint.threshold
            description = f"Metric {name} with {metric.value} was {operator} {threshold}"
            found.append(MetricViolation(operator, name, description))
    return tuple(found)


def _beyond(metric: Metric, constraint: MetricConstraint, *, spread: float) -> bool:
    least = TWO_SIDED * spread / math.sqrt(max(1.0, metric.effective))
    if constraint.comparison_operator == "LessThanThreshold":
        return metric.value + max(least, metric.high - metric.value) < constraint.threshold
    return metric.value - max(least, metric.value - metric.low) > constraint.threshold


def statistics_document(found: Measured) -> dict[str, Any]:
    """Return the JSON of ``statistics.json``; a deviation that is not known is the string ``NaN``, as SageMaker's."""
    blocks: dict[str, Any] = {
        "policy_metrics": {
            name: {
                "value": metric.value,
                "standard_deviation": _deviation(metric.std_error),
                "effective_count": metric.effective,
            }
            for name, metric in found.metrics.items()
        }
    }
    if found.regression:
        blocks["regression_metrics"] = {
            name: {"value": value, "standard_deviation": "NaN"} for name, value in found.regression.items()
        }
    return {"version": 0, "dataset": {"item_count": found.n_decisions, "episode_count": found.n_episodes}, **blocks}


def _deviation(value: float) -> float | str:
    return value if math.isfinite(value) else "NaN"
