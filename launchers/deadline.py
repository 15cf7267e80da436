"""`Deadline`: what aborts a worker whose run takes too long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self

from policylab.attempts import Attempts, Failure

START_S = 120.0
"""Time that a worker gets to tell of the beginning of its run, beside what the run may take."""


class Deadline:
    """Calls ``abort`` when the block takes longer than a run may; its clock starts anew when the run has begun.

    Args:
        attempts: how long a run may take.
        abort: ends the worker; returns where it was, if that is known.

    Attributes:
        missed: why the worker was aborted, or None.
    """

    def __init__(self, attempts: Attempts, *, abort: Callable[[], str | None]) -> None:
        self.missed: Failure | None = None
        self._attempts = attempts
        self._abort = abort
        self._timers: list[threading.Timer] = []

    def __enter__(self) -> Self:
        self._start(extra_s=START_S)
        return self

    def begin(self) -> None:
        """Start the clock of the run; again and again that changes nothing."""
        if len(self._timers) == 1:
            self._timers[0].cancel()
            self._start(extra_s=0.0)

    def __exit__(self, *_: object) -> None:
        for timer in self._timers:
            timer.cancel()
            timer.join()  # the next run must not find a worker that is about to be killed

    def _start(self, *, extra_s: float) -> None:
        if self._attempts.max_runtime_s is not None:
            timer = threading.Timer(self._attempts.max_runtime_s + extra_s, self._end)
            timer.daemon = True
            self._timers.append(timer)
            timer.start()

    def _end(self) -> None:
        self.missed = Failure(self._attempts.overdue, self._abort())
