"""Metrics as the service finds them: regular expressions over the output of every host, line by line."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from policylab.files import append_lines

_MAX_LINE = 1_000_000
"""Bytes after which a line without an end is read as one: CloudWatch splits such lines too."""


class MetricLog:
    """Reads logs as they grow and keeps every captured value.

    Args:
        definitions: the request's MetricDefinitions; each pattern's first group is the value.
        series: JSON Lines file that receives ``{"name", "value", "host", "timestamp"}``; values that are not finite
            are written as strings.
    """

    def __init__(self, definitions: Sequence[Mapping[str, str]], series: Path) -> None:
        self._patterns = [(one["Name"], re.compile(one["Regex"].encode())) for one in definitions]
        self._series = series
        self._read: dict[Path, int] = {}
        self._last: dict[str, dict[str, Any]] = {}

    def scan(self, logs: Mapping[str, Path], *, ended: bool = False) -> None:
        """Read what was added to the hosts' ``logs``; a line without its end waits until ``ended``."""
        found = [
            record
            for host, log in logs.items()
            for line in self._new_lines(log, ended=ended)
            for record in self._captured(line, host=host)
        ]
        if found:
            append_lines(self._series, [{**one, "value": _json_value(one["value"])} for one in found])
        self._last.update((one["name"], one) for one in found)

    def _new_lines(self, log: Path, *, ended: bool) -> list[bytes]:
        if not log.exists():
            return []
        with log.open("rb") as file:
            file.seek(self._read.get(log, 0))
            content = file.read()
        whole = len(content) if ended or len(content) > _MAX_LINE else content.rfind(b"\n") + 1
        self._read[log] = self._read.get(log, 0) + whole
        return content[:whole].splitlines()

    def _captured(self, line: bytes, *, host: str) -> list[dict[str, Any]]:
        now = datetime.datetime.now(datetime.UTC).isoformat()
        found = []
        for name, pattern in self._patterns:
            for match in pattern.finditer(line):
                value = _number(match[1] if pattern.groups else match[0])
                if value is not None:
                    found.append({"name": name, "value": value, "host": host, "timestamp": now})
        return found

    def final(self) -> list[dict[str, Any]]:
        """Return FinalMetricDataList: the last value of each metric, of those whose last value is finite.

        What the service does with a captured nan is not documented, so none is reported.
        """
        return [
            {"MetricName": name, "Value": one["value"], "Timestamp": one["timestamp"]}
            for name, one in self._last.items()
            if math.isfinite(one["value"])
        ]

    def not_finite(self) -> list[str]:
        """Return the metrics whose last value is nan or infinite."""
        return sorted(name for name, one in self._last.items() if not math.isfinite(one["value"]))


def _number(text: bytes) -> float | None:
    """Return the captured value, or None for text that is no number.

    >>> _number(b"-1.5e+02"), _number(b"inf"), _number(b"e")
    (-150.0, inf, None)
    """
    try:
        return float(text)
    except ValueError:
        return None


def _json_value(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
