"""Why a job failed: its exit code and the few lines that the service shows as FailureReason."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator
from pathlib import Path

MAX_CHARACTERS = 1000
"""Of the failure file; the service takes the first 1024."""

ROOM_BYTES = 4 * MAX_CHARACTERS
"""What they take at most."""


class ExitCode(enum.IntEnum):
    """How a container ended; 0 also after a stop, which the service knows of."""

    DONE = 0
    FAILED = 1
    BAD_INPUT = 2
    RAY_FAILED = 3
    HOSTS_MISSING = 4
    WORKER_LOST = 5
    HEAD_LOST = 6


class JobFailure(Exception):
    """The job failed; the message is the cause."""

    def __init__(self, cause: str, *, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(cause)
        self.code = code


def failure_text(cause: str, *, facts: list[str]) -> str:
    r"""Return the cause, cut where the facts would not fit, and the facts, one a line.

    >>> failure_text("ValueError: boom", facts=["host algo-1"])
    'ValueError: boom\nhost algo-1'
    """
    tail = "".join(f"\n{fact}" for fact in facts)[:MAX_CHARACTERS]
    room = MAX_CHARACTERS - len(tail)
    return (cause if len(cause) <= room else cause[: max(room - 3, 0)] + "..."[:room]) + tail


def write_failure(file: Path, text: str) -> None:
    """Write the failure file unless there is one already: the first cause counts.

    Raises:
        OSError: it cannot be written.
    """
    with contextlib.suppress(FileNotFoundError):
        if file.read_text(errors="replace").strip():
            return
    file.parent.mkdir(parents=True, exist_ok=True)
    _room(file).unlink(missing_ok=True)
    file.write_text(text)


@contextlib.contextmanager
def room_for_failure(file: Path) -> Iterator[None]:
    """Keep room for the failure file meanwhile, on a disk that the run may fill to the last byte."""
    room = _room(file)
    with contextlib.suppress(OSError):
        room.parent.mkdir(parents=True, exist_ok=True)
        room.write_bytes(bytes(ROOM_BYTES))
    try:
        yield
    finally:
        room.unlink(missing_ok=True)


def _room(file: Path) -> Path:
    return file.with_name(".room-for-failure")
