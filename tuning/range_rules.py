"""Rules about the parameter ranges of a tuning request."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

from policylab.aws.request_view import View
from policylab.findings import Finding
from policylab.tuning.service_limits import ServiceLimits

OBJECTIVE_NAME = "_tuning_objective_metric"
"""The hyperparameter that the service adds to every training job of a tuning job."""

KINDS = ("IntegerParameterRanges", "ContinuousParameterRanges", "CategoricalParameterRanges")


def members(ranges: View) -> list[View]:
    """Every range of a ParameterRanges section."""
    return [member for kind in KINDS for member in ranges[kind].items()]


def range_findings(ranges: View, limits: ServiceLimits) -> Iterator[Finding]:
    """Check one ParameterRanges (or HyperParameterRanges) section."""
    every = members(ranges)
    for section in (*(ranges[kind] for kind in KINDS), ranges):
        count = len(every) if section is ranges else section.size
        if count > limits.ranges:
            yield section.found(f"at most {limits.ranges} ranges, of all kinds together", _FEWER, value=count)
            break
    names = Counter(member["Name"].text for member in every)
    for member in every:
        if names[member["Name"].text] > 1:
            yield member["Name"].found("a name must have one range only", "remove or rename one of the ranges")
        if member["Name"].text == OBJECTIVE_NAME:
            yield member["Name"].found("the name is the service's own", "rename the hyperparameter")
    for kind in KINDS[:2]:
        for member in ranges[kind].items():
            yield from _numeric_findings(member, integer=kind == KINDS[0])
    for member in ranges[KINDS[2]].items():
        yield from _categorical_findings(member["Values"], limits)


_FEWER = "fix the least important hyperparameters as static ones"


def _numeric_findings(member: View, *, integer: bool) -> Iterator[Finding]:
    low, high = bound(member["MinValue"], integer=integer), bound(member["MaxValue"], integer=integer)
    for side, number in (("MinValue", low), ("MaxValue", high)):
        if member[side].given and number is None:
            kind = "an integer" if integer else "a finite number"
            yield member[side].found(f"a bound must be {kind} as a string", "write it as in '16'")
    if low is None or high is None:
        return
    if low > high:
        yield member["MinValue"].found(f"must not exceed MaxValue {high:g}", "exchange the bounds")
    elif low == high:
        yield member["MinValue"].found(
            f"should be below MaxValue {high:g}", "make it a static hyperparameter", severity="warning"
        )
    yield from _scaling_findings(member["ScalingType"], low, high=high, integer=integer)


def _scaling_findings(scaling: View, low: float, *, high: float, integer: bool) -> Iterator[Finding]:
    if scaling.value == "Logarithmic" and low <= 0:
        yield scaling.found(f"needs MinValue > 0, not {low:g}", "raise MinValue or use Linear")
    if scaling.value == "ReverseLogarithmic" and integer:
        yield scaling.found("is for continuous ranges only", "use Linear, Logarithmic or Auto")
    elif scaling.value == "ReverseLogarithmic" and not 0 <= low <= high < 1:
        yield scaling.found(f"needs 0 <= x < 1, not [{low:g}, {high:g}]", "move the range or use Linear")


def bound(text: View, *, integer: bool) -> float | None:
    """Return the number that a string stands for, or None if it stands for none.

    >>> bound(View("1e-4"), integer=False), bound(View("16.5"), integer=True), bound(View(16), integer=True)
    (0.0001, None, None)
    """
    number = _INTEGER if integer else _NUMBER
    if not number.fullmatch(text.text) or text.size > _MAX_CHARACTERS:
        return None
    value = int(text.text) if integer else float(text.text)
    return value if math.isfinite(value) else None


_MAX_CHARACTERS = 256
_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def _categorical_findings(values: View, limits: ServiceLimits) -> Iterator[Finding]:
    if values.given and not 1 <= values.size <= limits.categories:
        remedy = "give at least one" if not values.size else "drop the least promising ones, or use a numeric range"
        yield values.found(f"1 to {limits.categories} categories", remedy, value=values.size)
    for category, count in Counter(value.text for value in values.items() if value.text).items():
        if count > 1:
            yield values.found("categories must differ", "remove the repeated one", value=category)
    for value in values.items():
        if value.size > limits.value_characters:
            yield value.found(f"at most {limits.value_characters} characters", "shorten the category")
