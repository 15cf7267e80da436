"""`Period`: which decisions a check is about, when their rewards need time to arrive."""

from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime, timedelta

from policylab.errors import UserError

_DURATION = re.compile(
    r"(?P<sign>-?)P(?:(?P<days>\d+)D)?(?:T(?=\d)(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)S)?)?"
)
MAX_DAYS = 36_500


@dataclasses.dataclass(frozen=True, slots=True)
class Period:
    """Decisions made from ``start`` on and before ``end``; None is open."""

    start: datetime | None = None
    end: datetime | None = None

    def place(self, time_utc: datetime) -> str | None:
        """Return why a decision is left out: ``before the period`` or ``after the period``; None if it is not."""
        time = time_utc if time_utc.tzinfo is not None else time_utc.replace(tzinfo=UTC)
        if self.start is not None and time < self.start:
            return "before the period"
        return "after the period" if self.end is not None and time >= self.end else None

    @property
    def bounded(self) -> bool:
        """Whether any end is given."""
        return self.start is not None or self.end is not None


def offset(text: str) -> timedelta:
    """Return an ISO 8601 duration of days, hours, minutes and seconds, as SageMaker writes offsets.

    >>> offset("-P8D"), offset("PT1H30M")
    (datetime.timedelta(days=-8), datetime.timedelta(seconds=5400))

    Raises:
        UserError: it is none.
    """
    found = _DURATION.fullmatch(text)
    parts = {} if found is None else {name: int(n) for name, n in found.groupdict("0").items() if name != "sign"}
    if found is None or text.lstrip("-") in ("P", "PT") or parts["days"] > MAX_DAYS:
        raise UserError(f"an offset must be a duration such as -P1D or -PT6H, got {text[:40]!r}")
    return timedelta(**parts) * (-1 if found["sign"] else 1)


def period(at: datetime, *, start_offset: str | None = None, end_offset: str | None = None) -> Period:
    """Return the period between two offsets from a moment.

    Raises:
        UserError: an offset is none, or the end is not after the start.
    """
    start, end = (None if text is None else at + offset(text) for text in (start_offset, end_offset))
    if start is not None and end is not None and start >= end:
        raise UserError(f"the period must end after it starts, got the offsets {start_offset} and {end_offset}")
    return Period(start, end)
