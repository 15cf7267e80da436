"""A bias analysis: every metric that the given columns allow, with its interval, and the alarm rule of Clarify.

Alarm. The baseline's value b allows the range A of values that are no farther from the metric's neutral value than b
is: with b = 0.2, from -0.2 to 0.2. A window violates it if its bootstrap interval C and A have no value in common, so
that the noise of a small window does not alarm. The noise of the baseline plays no part: make it of more rows.

Source: SageMaker Developer Guide, "Monitor bias drift for models in production" (normal bootstrap intervals; C and A).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from policylab.errors import ConfigError, UserError
from policylab.files import read_json
from policylab.monitoring.bias.counts import Counts, tabulated
from policylab.monitoring.bias.flip_test import flip_test
from policylab.monitoring.bias.metrics import POST_TRAINING, PRE_TRAINING, Direction
from policylab.monitoring.bias.rows import Rows
from policylab.monitoring.bias.selection import Selection
from policylab.seeding import generator

N_RESAMPLES = 1_000
FLIP_TEST = "Counterfactual Fliptest (FT)"
MAX_LABEL_VALUES = 1_000
MAX_FLIPPED = 20_000
"""Rows of each facet in the flip test: nearest neighbours of more take minutes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """Whose bias is asked for.

    Attributes:
        facet: the rows of the disfavoured facet d; all others are a.
        label: which labels are positive outcomes.
        prediction: which predictions are; None for metrics of labels alone.
        group: column of groups for conditional disparity; None leaves it out.
    """

    facet: Selection
    label: Selection
    prediction: Selection | None = None
    group: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it needs."""
        of_prediction = (self.prediction.column,) if self.prediction else ()
        return (self.facet.column, self.label.column, *of_prediction, *((self.group,) if self.group else ()))


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """One metric's value.

    Attributes:
        name: as Clarify abbreviates it.
        title: in words.
        value: may be infinite, or NaN where it is not defined.
        low: lower end of the normal bootstrap interval; as ``value`` where that has none.
        high: its upper end.
        std_error: standard deviation of the value by the bootstrap; 0 where that has none.
        neutral: the value without bias.
        direction: which facet is compared with which.
        post_training: whether it is of predictions.
    """

    name: str
    title: str
    value: float
    low: float
    high: float
    std_error: float
    neutral: float
    direction: Direction
    post_training: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Analysis:
    """The metrics of one question, with the rows behind them."""

    question: Question
    metrics: tuple[Measured, ...]
    n_a: int
    n_d: int
    n_left_out: int
    notes: tuple[str, ...] = ()


def analyse(rows: Rows, question: Question, *, level: float = 0.95, seed: int = 0) -> Analysis:
    """Return the bias metrics of some rows.

    Args:
        rows: with the columns of the question; further numeric columns are features of the flip test.
        question: whose bias is asked for.
        level: confidence level of the intervals, in (0, 1).
        seed: of the resampling.

    Raises:
        UserError: a facet is empty.
    """
    facet_d = question.facet.mask(rows.columns[question.facet.column])
    n_d, n_a = int(facet_d.sum()), int((~facet_d).sum())
    if not n_d or not n_a:
        empty = "no row is" if not n_d else "every row is"
        raise UserError(f"--facet {question.facet}: {empty} of this facet, so there is nothing to compare")
    counts = _counts(rows, question, facet_d=facet_d)
    wanted = {name: metric for name, metric in PRE_TRAINING.items() if name != "CDDL" or question.group}
    if question.prediction:
        wanted |= {name: metric for name, metric in POST_TRAINING.items() if name != "CDDPL" or question.group}
    resampled = counts.resampled(N_RESAMPLES, rng=generator(seed, "bias"))
    z = float(ndtri((1 + level) / 2))
    found = []
    for name, metric in wanted.items():
        value, spread = float(metric.function(counts)), metric.function(resampled)
        post = name in POST_TRAINING
        error = _error(value, spread)
        ends = value - z * error, value + z * error
        found.append(Measured(name, metric.title, value, *ends, error, metric.neutral, metric.direction, post))
    flipped, notes = _flipped(rows, question, facet_d=facet_d, z=z, seed=seed, time=counts.time)
    return Analysis(question, (*found, *flipped), n_a, n_d, rows.n_left_out, (*_never(rows, question), *notes))


def _never(rows: Rows, question: Question) -> Iterator[str]:
    """Yield which outcomes no row has: a misspelt one would look like perfect equality."""
    for outcome in (question.label, question.prediction):
        if outcome is not None and not outcome.mask(rows.columns[outcome.column]).any():
            yield f"no row has the positive outcome {outcome}"


def _counts(rows: Rows, question: Question, *, facet_d: NDArray[np.bool_]) -> Counts:
    label = rows.columns[question.label.column]
    if question.label.threshold is not None:
        codes = question.label.mask(label).astype(np.int64)
        positive = np.array([False, True])
    else:
        values, codes = np.unique(label.astype(str) if label.dtype.kind == "O" else label, return_inverse=True)
        if len(values) > MAX_LABEL_VALUES:
            raise UserError(
                f"--label {question.label}: the column has {len(values):,} different values; use COLUMN>NUMBER"
            )
        positive = question.label.mask(values)
    predicted = question.prediction.mask(rows.columns[question.prediction.column]) if question.prediction else None
    group = None
    if question.group:
        group = np.unique(rows.columns[question.group].astype(str), return_inverse=True)[1]
    return tabulated(facet_d, codes, positive=positive, predicted=predicted, group=group)


def _flipped(
    rows: Rows, question: Question, *, facet_d: NDArray[np.bool_], z: float, seed: int, time: float
) -> tuple[list[Measured], tuple[str, ...]]:
    """Return the flip test of the numeric columns that are not part of the question, or why there is none."""
    if question.prediction is None:
        return [], ()
    others = [(name, column) for name, column in rows.columns.items() if name not in question.columns]
    names = [name for name, column in others if column.dtype.kind in "iuf" and np.isfinite(column).all()]
    if not names:
        return [], ("FT is left out: no further column holds nothing but finite numbers",)
    rng = generator(seed, "flip")
    chosen = np.concatenate([_some(facet_d, rng=rng), _some(~facet_d, rng=rng)])
    features = np.column_stack([rows.columns[name][chosen] for name in names]).astype(np.float64)
    predicted = question.prediction.mask(rows.columns[question.prediction.column])
    test = flip_test(features, facet_d[chosen], predicted=predicted[chosen])
    error = _error(test.value, test.resampled(N_RESAMPLES, rng=rng)) * math.sqrt(time)
    ends = test.value - z * error, test.value + z * error
    measured = Measured("FT", FLIP_TEST, test.value, *ends, error, 0.0, "d - a", post_training=True)
    sampled = (f"FT is of {len(chosen):,} rows drawn at random",) if len(chosen) < len(facet_d) else ()
    return [measured], (f"FT compares rows by {', '.join(names)}, as they are", *sampled)


def _some(mask: NDArray[np.bool_], *, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return at most `MAX_FLIPPED` of the rows, drawn at random, in order."""
    rows = np.flatnonzero(mask)
    return rows if len(rows) <= MAX_FLIPPED else np.sort(rng.choice(rows, MAX_FLIPPED, replace=False))


def _error(value: float, resampled: NDArray[np.float64]) -> float:
    """Return the standard deviation of the resampled values that are finite; 0 where there is none."""
    finite = resampled[np.isfinite(resampled)]
    return float(finite.std(ddof=1)) if math.isfinite(value) and finite.size >= 2 else 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class BiasViolation:
    """One metric that has drifted from its baseline, as in ``constraint_violations.json``."""

    facet: str
    facet_value: str
    metric_name: str
    constraint_check_type: str
    description: str


def violations(
    found: Analysis, baseline: Mapping[str, float], *, errors: Mapping[str, float] | None = None
) -> list[BiasViolation]:
    """Return the metrics whose interval and the range that the baseline's value allows have nothing in common.

    Args:
        found: the analysis of a window.
        baseline: the value of each metric in the baseline; a metric that is not there is not checked.
        errors: standard errors of these, by which intervals are widened: two times that do not differ then alarm as
            rarely as the level of the intervals says. Without them the rule is Clarify's.
    """
    broken = []
    for metric in found.metrics:
        allowed = abs(baseline.get(metric.name, math.inf) - metric.neutral)
        error = (errors or {}).get(metric.name, 0.0)
        wider = math.hypot(1.0, error / metric.std_error) if metric.std_error > 0.0 else 1.0
        low, high = (metric.value + wider * (end - metric.value) for end in (metric.low, metric.high))
        # NaN, an undefined metric, is in no range and alarms about nothing.
        if low > metric.neutral + allowed or high < metric.neutral - allowed:
            description = f"Value {metric.value} does not meet the constraint requirement"
            facet = found.question.facet
            broken.append(
                BiasViolation(facet.column, facet.value_or_threshold, metric.name, "bias_drift_check", description)
            )
    return broken


def analysis_document(found: Analysis) -> dict[str, Any]:
    """Return the JSON of Clarify's ``analysis.json``; values that are no numbers are null, infinite ones text."""
    question = found.question
    sections = {}
    for name, post in (("pre_training_bias_metrics", False), ("post_training_bias_metrics", True)):
        metrics = [metric for metric in found.metrics if metric.post_training == post]
        if metrics:
            entry = {"value_or_threshold": question.facet.value_or_threshold, "metrics": list(map(_entry, metrics))}
            label = question.prediction if post and question.prediction else question.label
            sections[name] = {
                "label": label.column,
                "label_value_or_threshold": label.value_or_threshold,
                "facets": {question.facet.column: [entry]},
            }
    return {"version": "1.0", **sections}


def _entry(metric: Measured) -> dict[str, Any]:
    entry = {"name": metric.name, "description": metric.title, "value": _json(metric.value)}
    return {**entry, "std_error": metric.std_error}  # an addition to Clarify's


def _json(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")


def baseline_values(path: Path, question: Question) -> tuple[dict[str, float], dict[str, float]]:
    """Return the values in an ``analysis.json`` for the same facet, and their standard errors where it has them.

    Raises:
        ConfigError: it is missing, damaged, or of another facet.
    """
    try:
        document = read_json(path)
        metrics = [
            metric
            for section in ("pre_training_bias_metrics", "post_training_bias_metrics")
            for entry in document.get(section, {}).get("facets", {}).get(question.facet.column, [])
            if entry["value_or_threshold"] == question.facet.value_or_threshold
            for metric in entry["metrics"]
        ]
        found = {metric["name"]: float(metric["value"]) for metric in metrics if metric["value"] is not None}
        errors = {metric["name"]: float(metric.get("std_error") or 0.0) for metric in metrics}
    except UserError as error:
        raise ConfigError(str(error)) from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is no analysis.json of a bias analysis ({error!r:.60})") from error
    if not found:
        raise ConfigError(f"{path} holds no metrics of the facet {question.facet}; analyse the baseline with it")
    return found, errors
