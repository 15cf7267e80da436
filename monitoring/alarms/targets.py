"""Targets on this machine: who is told of a window, of alarms alone or of all measurements."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Literal

from pydantic import Field

from policylab.config import Settings
from policylab.files import append_lines, write_atomic
from policylab.monitoring.alarms.alarm import Verdict


class Terminal(Settings):
    """A line on standard error for each alarm."""

    kind: Literal["terminal"]

    def tell(self, verdict: Verdict) -> None:
        """Tell of a window."""
        for alarm in verdict.alarms:
            text = f"ALARM {verdict.monitor}/{alarm.name} {verdict.start_utc}: {alarm.text}"
            sys.stderr.write("".join(letter if letter.isprintable() else "?" for letter in text) + "\n")
        sys.stderr.flush()


class AlarmFile(Settings):
    """A JSON line for each alarm, appended."""

    kind: Literal["file"]
    path: Path = Field(description="JSON lines, relative to the monitor file")

    def tell(self, verdict: Verdict) -> None:
        """Tell of a window."""
        if verdict.alarms:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            append_lines(self.path, [verdict.document(alarm) for alarm in verdict.alarms])


class PrometheusFile(Settings):
    """A text file for node_exporter's textfile collector, with all measurements of the latest window.

    Source: prometheus.io/docs/instrumenting/exposition_formats (version 0.0.4).
    """

    kind: Literal["prometheus"]
    path: Path = Field(description="file that ends in .prom, relative to the monitor file")

    def tell(self, verdict: Verdict) -> None:
        """Tell of a window."""
        write_atomic(self.path, exposition(verdict))


def exposition(verdict: Verdict) -> str:
    """Return a window in Prometheus' text format."""
    common = {"monitor": verdict.monitor, "endpoint": verdict.endpoint or ""}
    alarms = {alarm.name for alarm in verdict.alarms}
    lines = ["# HELP policylab_monitor_value what a check measured in the latest window",
             "# TYPE policylab_monitor_value gauge"]  # fmt: skip
    for one in verdict.measurements:
        value = "NaN" if math.isnan(one.value) else repr(one.value).replace("inf", "Inf")
        lines.append(f"policylab_monitor_value{_labels({**common, 'name': one.name})} {value}")
    lines += ["# HELP policylab_monitor_violated 1 where a check calls it a violation",
              "# TYPE policylab_monitor_violated gauge"]  # fmt: skip
    lines += [f"policylab_monitor_violated{_labels({**common, 'name': one.name})} {int(one.violated)}"
              for one in verdict.measurements]  # fmt: skip
    lines += ["# HELP policylab_monitor_alarm 1 for every alarm of the latest window",
              "# TYPE policylab_monitor_alarm gauge"]  # fmt: skip
    lines += [f"policylab_monitor_alarm{_labels({**common, 'alarm': name})} 1" for name in sorted(alarms)]
    return "\n".join(lines) + "\n"


def _labels(labels: dict[str, str]) -> str:
    """Return labels; names of columns may hold anything."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}
    shown = {name: "".join(escapes.get(letter, letter) for letter in value) for name, value in labels.items()}
    return "{" + ",".join(f'{name}="{value}"' for name, value in shown.items()) + "}"
