"""Targets on this machine: who is told of a window, of alarms alone or of all measurements."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from policylab.config import Settings
from policylab.errors import plain
from policylab.files import append_lines, write_atomic
from policylab.monitoring.alarms.alarm import Verdict
from policylab.monitoring.alarms.exposition import exposition


class Terminal(Settings):
    """A line on standard error for each alarm."""

    kind: Literal["terminal"]

    def tell(self, verdict: Verdict) -> None:
        """Tell of a window."""
        for alarm in verdict.alarms:
            text = f"ALARM {verdict.monitor}/{alarm.name} {verdict.start_utc}: {alarm.text}"
            sys.stderr.write(plain(text) + "\n")
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
    """A text file for node_exporter's textfile collector, with all measurements of the latest window."""

    kind: Literal["prometheus"]
    path: Path = Field(description="file that ends in .prom, relative to the monitor file")

    def tell(self, verdict: Verdict, *, names: Sequence[str] = ()) -> None:
        """Tell of a window; ``names`` are those of all alarms there are."""
        write_atomic(self.path, exposition([verdict], alarms=names))
