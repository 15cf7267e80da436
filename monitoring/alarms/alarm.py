"""`Alarm`: what was found to be wrong in a window of time; `Verdict`: all that was found in it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from policylab.monitoring.alarms.measurement import Measurement

MAX_SHOWN = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm.

    Attributes:
        name: of the alarm in the monitor file.
        measurements: that exceeded its threshold.
        begins: false if the window before had the same alarm.
    """

    name: str
    measurements: tuple[Measurement, ...]
    begins: bool = True

    @property
    def text(self) -> str:
        """What is wrong, in one line."""
        shown = [f"{one.name} ({one.detail})" for one in self.measurements[:MAX_SHOWN]]
        more = len(self.measurements) - len(shown)
        return "; ".join(shown) + (f"; and {more} more" if more else "")


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What was found in one window.

    Attributes:
        monitor: name of the monitor.
        endpoint: that is watched; None of data that is no endpoint's.
        start_utc: of the window, ISO 8601.
        end_utc: of the window.
        measurements: all of them.
        alarms: those of the window, in the order of the monitor file.
    """

    monitor: str
    endpoint: str | None
    start_utc: str
    end_utc: str
    measurements: tuple[Measurement, ...]
    alarms: tuple[Alarm, ...]

    def document(self, alarm: Alarm | None = None) -> dict[str, Any]:
        """Return one alarm, or all with the measurements, as JSON."""
        about = {
            "monitor": self.monitor,
            "endpoint": self.endpoint,
            "start_utc": self.start_utc,
            "end_utc": self.end_utc,
        }
        if alarm is not None:
            return {**about, **alarm_document(alarm)}
        measured = [measurement_document(one) for one in self.measurements]
        return {**about, "alarms": [alarm_document(one) for one in self.alarms], "measurements": measured}


def alarm_document(alarm: Alarm) -> dict[str, Any]:
    """Return an alarm as JSON."""
    measured = [measurement_document(one) for one in alarm.measurements]
    return {"alarm": alarm.name, "begins": alarm.begins, "text": alarm.text, "measurements": measured}


def measurement_document(one: Measurement) -> dict[str, Any]:
    """Return a measurement as JSON; a number that is not finite is null."""
    document = dataclasses.asdict(one)
    return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in document.items()}


def read_verdict(document: Mapping[str, Any]) -> Verdict:
    """Return the verdict that `Verdict.document` wrote, with NaN for numbers that were not finite."""
    alarms = tuple(
        Alarm(one["alarm"], _read_measurements(one["measurements"]), begins=one["begins"]) for one in document["alarms"]
    )
    return Verdict(
        monitor=document["monitor"],
        endpoint=document["endpoint"],
        start_utc=document["start_utc"],
        end_utc=document["end_utc"],
        measurements=_read_measurements(document["measurements"]),
        alarms=alarms,
    )


def _read_measurements(documents: Iterable[Mapping[str, Any]]) -> tuple[Measurement, ...]:
    return tuple(
        Measurement(**{**one, "value": math.nan if one["value"] is None else one["value"]}) for one in documents
    )
