"""Metric lines: how a run prints a metric so that SageMaker finds it in the log.

The pattern runs over standard output and error of every container; its one group is the value. The classical pattern of
the SDK's RL containers knew neither nan nor infinity and dropped such values without a word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from policylab.aws.request_view import View
from policylab.findings import Finding

MAX_REGEX = 500
"""Characters of a metric's pattern."""

SAMPLES = (0.0, 1.0, -1.5, 12_345.678, 1e-07, -2.5e20, math.nan, math.inf, -math.inf)
"""Values that a pattern must find whole."""


def metric_line(name: str, value: float) -> str:
    """Return the line that `metric_regex` finds.

    >>> metric_line("eval/return_mean", -1.5)
    '[metric] eval/return_mean=-1.5'
    """
    return f"[metric] {name}={float(value)!r}"


def metric_regex(name: str) -> str:
    """Return the pattern that finds the metric in the log, with the value as its one group.

    >>> re.search(metric_regex("eval_return"), "[metric] eval_return=-1.5e+02").group(1)
    '-1.5e+02'
    """
    return rf"\[metric\] {re.escape(name)}=([-+0-9.eEnaif]+)"


def regex_findings(regex: View, *, max_characters: int = MAX_REGEX) -> Iterator[Finding]:
    """Check that a metric's pattern compiles and captures one group."""
    if regex.size > max_characters:
        yield regex.found(f"at most {max_characters} characters", "shorten it")
    try:
        groups = re.compile(regex.text).groups if regex.text else 1
    except re.error as error:
        yield regex.found(f"must be a regular expression ({error})", "escape brackets that are meant literally")
        return
    if groups != 1:
        yield regex.found(
            f"must have one capture group, the metric's value; it has {groups}",
            "write the others as (?:...)" if groups else "put the number in parentheses",
        )


def sample_findings(metric: View) -> Iterator[Finding]:
    """Check that a metric's pattern finds the values of our own lines whole: negative, scientific, nan and infinite."""
    name, regex = metric["Name"].text, metric["Regex"]
    try:
        pattern = re.compile(regex.text)
    except re.error:
        return
    if not name or pattern.groups != 1:
        return
    missed = [value for value in SAMPLES if not _finds(pattern, metric_line(name, value), value=repr(value))]
    if missed:
        yield regex.found(
            f"does not find {', '.join(map(repr, missed))} in lines such as {metric_line(name, missed[0])!r}",
            f"use {metric_regex(name)!r}, unless your own code prints the metric in another way",
            severity="warning",
        )


def _finds(pattern: re.Pattern[str], line: str, *, value: str) -> bool:
    found = pattern.search(line)
    return found is not None and found.group(1) == value
