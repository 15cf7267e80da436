"""`SessionClock`: the seconds that all calls of run or resume on one folder have taken together."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

from policylab.files import append_line, drop_torn_tail, read_lines

Told = TypeVar("Told")

EVERY_S = 5.0
EVERY_SHARE = 0.01
"""A session notes its time every so many seconds, or every so large a share of what it has taken: a killed one loses
no more than that, and a long one writes few lines."""


class SessionClock:
    """Measures one session and adds it to a file, line by line while it goes on, so that a killed one counts too.

    Args:
        path: the file, JSON lines {wall_s}: seconds to add up.

    Attributes:
        earlier_s: seconds of the sessions before this one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "sessions.jsonl"
    ...     with SessionClock(file) as clock:
    ...         pass
    ...     clock.earlier_s, elapsed_s(file) < 1
    (0.0, True)
    """

    def __init__(self, path: Path) -> None:
        drop_torn_tail(path)
        self._path = path
        self.earlier_s = elapsed_s(path)
        self._started = self._noted = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._note(time.monotonic())

    def tick(self) -> None:
        """Note the time if that is due; cheap enough to be called several times a second."""
        now = time.monotonic()
        if now - self._noted >= max(EVERY_S, EVERY_SHARE * (now - self._started)):
            self._note(now)

    def ticking(self, observe: Callable[[Told], None] | None) -> Callable[[Told], None]:
        """Return ``observe`` so that each call of it also ticks."""

        def told(what: Told) -> None:
            self.tick()
            if observe is not None:
                observe(what)

        return told

    def _note(self, now: float) -> None:
        append_line(self._path, {"wall_s": round(now - self._noted, 3)})
        self._noted = now


def elapsed_s(path: Path) -> float:
    """Return the seconds in a clock's file."""
    lines: list[dict[str, Any]] = read_lines(path)
    return float(sum(line.get("wall_s", line.get("elapsed_s", 0)) for line in lines))  # elapsed_s: in older studies
