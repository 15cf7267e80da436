"""`Cron`: when windows end, by a cron expression in UTC.

Five fields (minute, hour, day of month, month, day of week from 0 = Sunday) as crontab(5) reads them, or AWS's
``cron(minute hour day month weekday year)`` with weekdays from 1 = Sunday, in which one of the days is ``?``. A field
is ``*``, ``a``, ``a-b``, a list of those, each with a step ``/n``; names of days and months are understood. Where both
days are restricted, crontab takes either, as here.

Source: crontab(5); EventBridge User Guide, "Cron expressions".
"""

from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime, timedelta
from typing import Self

from policylab.errors import UserError

DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
MAX_YEARS = 8
"""Between two leap days there are at most so many years."""
MINUTE = timedelta(minutes=1)


@dataclasses.dataclass(frozen=True, slots=True)
class Cron:
    """The moments of an expression: sets of minutes, hours, days, months and weekdays (0 = Sunday).

    Attributes:
        either_day: both days are restricted, so that either is enough.
    """

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the moments of an expression.

        Raises:
            UserError: it is none, or there is no such moment.
        """
        aws = re.fullmatch(r"\s*cron\((.*)\)\s*", text)
        fields = (aws[1] if aws else text).split()
        if len(fields) != (6 if aws else 5):
            raise UserError(
                f"a schedule is five fields, such as '0 * * * *', or cron(0 * ? * * *) with six; got {text[:60]!r}"
            )
        if aws and fields[5] != "*":
            raise UserError(f"the year of a schedule must be *, got {fields[5][:20]!r}")
        minute, hour, day, month, weekday = (field.lower() for field in fields[:5])
        weekdays = _values(weekday, low=1 if aws else 0, high=7, names=DAYS)
        found = cls(
            _values(minute, low=0, high=59),
            _values(hour, low=0, high=23),
            _values(day, low=1, high=31),
            _values(month, low=1, high=12, names=MONTHS),
            frozenset((one - 1 if aws else one) % 7 for one in weekdays),
            either_day=day[0] not in "*?" and weekday[0] not in "*?",
        )
        found.after(datetime(2024, 1, 1, tzinfo=UTC))
        return found

    def after(self, moment: datetime) -> datetime:
        """Return the first moment after ``moment``.

        Raises:
            UserError: there is none, as on the 30th of February.
        """
        return self._found(moment.replace(second=0, microsecond=0) + MINUTE, step=1)

    def before(self, moment: datetime) -> datetime:
        """Return the last moment at or before ``moment``."""
        return self._found(moment.replace(second=0, microsecond=0), step=-1)

    def _found(self, moment: datetime, *, step: int) -> datetime:
        for _ in range(366 * MAX_YEARS):
            if self._on(moment):
                times = [(hour, minute) for hour in sorted(self.hours) for minute in sorted(self.minutes)]
                here = (moment.hour, moment.minute)
                fitting = [one for one in times if (one >= here if step > 0 else one <= here)]
                if fitting:
                    hour, minute = fitting[0] if step > 0 else fitting[-1]
                    return moment.replace(hour=hour, minute=minute)
            edge = (0, 0) if step > 0 else (23, 59)
            moment = (moment + timedelta(days=step)).replace(hour=edge[0], minute=edge[1])
        raise UserError("the schedule has no moment within eight years; look at its day and month")

    def _on(self, moment: datetime) -> bool:
        day, weekday = moment.day in self.days, (moment.weekday() + 1) % 7 in self.weekdays
        return moment.month in self.months and (day or weekday if self.either_day else day and weekday)


def _values(field: str, *, low: int, high: int, names: tuple[str, ...] = ()) -> frozenset[int]:
    first = 1 if names is MONTHS else low
    known = {name: i + first for i, name in enumerate(names)}
    found: set[int] = set()
    for part in field.split(","):
        match = re.fullmatch(r"(\*|\?|\w+)(?:-(\w+))?(?:/(\d+))?", part)
        if match is None:
            raise _wrong(field)
        start, end, step = match.groups()
        whole = start in ("*", "?")
        begin = low if whole else _number(start, known=known, field=field)
        last = high if whole or (step and not end) else begin
        last = _number(end, known=known, field=field) if end else last
        every = int(step) if step else 1
        if not low <= begin <= last <= high or every < 1:
            raise _wrong(field)
        found.update(range(begin, last + 1, every))
    return frozenset(found)


def _number(text: str, *, known: dict[str, int], field: str) -> int:
    if text in known:
        return known[text]
    if not text.isdecimal():
        raise _wrong(field)
    return int(text)


def _wrong(field: str) -> UserError:
    return UserError(f"{field[:40]!r} is no field of a schedule; write *, a number, a-b, a list, or one with a step /n")
