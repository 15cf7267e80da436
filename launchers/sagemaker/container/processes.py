"""Processes below this one, to the last: orphans come here, are reaped, and end with the container.

Process 1 of a container inherits every orphan and must reap it. A process that is not number 1 becomes a "subreaper",
so that the same holds where a job is emulated without a process namespace.

Source: https://man7.org/linux/man-pages/man2/PR_SET_CHILD_SUBREAPER.2const.html, proc_pid_stat(5), waitid(2)
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

KILL_S = 5.0
"""How long killed processes are waited for: one that hangs in the kernel may never end."""

_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Make this process the parent of its descendants' orphans."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans(own: Collection[int]) -> None:
    """Collect children that have ended, but those in ``own``, whose makers collect them."""
    with contextlib.suppress(ChildProcessError):  # there is no child
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid in own:
                return
            os.waitpid(ended.si_pid, os.WNOHANG)


def descendants() -> list[int]:
    """Return the processes below this one, parents first."""
    children, found, waiting = _children(), [], [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def end_descendants(*, timeout_s: float) -> None:
    """Ask every process below this one to end; kill and collect what is left after ``timeout_s`` seconds."""
    _signal(descendants(), signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while descendants() and time.monotonic() < deadline:
        reap_orphans(())
        time.sleep(0.02)
    while (left := descendants()) and time.monotonic() < deadline + KILL_S:  # an end brings its children here
        _signal(left, signal.SIGKILL)
        reap_orphans(())
        time.sleep(0.02)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                found[int(fields[1])].append(int(entry.name))
    return found
