"""Where a process hangs: the stacks of its threads, written by faulthandler when a signal asks for them.

Source: Python's `faulthandler.register`; it also answers for code that never comes back to the interpreter.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import tempfile
import time

ANSWER_S = 1.0
"""How long a process gets to write its stacks."""

MAX_BYTES = 65_536


class Stacks:
    """An anonymous file, shared with a child process, for its stacks."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`

    @property
    def fileno(self) -> int:
        """The open file that the child inherits."""
        return self._file.fileno()

    def ask(self, pid: int) -> str | None:
        """Return the stacks of the child ``pid``, most recent call first, or None if it does not answer."""
        deadline, size = time.monotonic() + ANSWER_S, 0
        with contextlib.suppress(ProcessLookupError, ValueError):  # it ended by itself, and its file was closed
            os.kill(pid, signal.SIGUSR1)
            while time.monotonic() < deadline:
                time.sleep(0.05)
                before, size = size, os.fstat(self.fileno).st_size
                if size and size == before:
                    break
            return os.pread(self.fileno, MAX_BYTES, 0).decode(errors="replace") or None
        return None

    def close(self) -> None:
        """Let the file go."""
        self._file.close()


def answer(fileno: int) -> None:
    """In the child: write the stacks to the open file ``fileno`` when they are asked for."""
    faulthandler.register(signal.SIGUSR1, file=fileno, all_threads=True)
