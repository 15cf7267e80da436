"""Processes that belong to an emulated host, found by their environment: what namespaces do by themselves elsewhere."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

MARK = "POLICYLAB_ML_ROOT"
"""Variable that names the host's tree in place of /opt/ml."""

_GIVE_UP_S = 10.0


def marked(folder: Path) -> dict[int, Path]:
    """Return the processes whose environment names a tree at or below ``folder``, and the tree."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # ended meanwhile, or somebody else's
            tree = _tree((entry / "environ").read_bytes()) if entry.name.isdigit() else None
            if tree is not None and tree.is_relative_to(folder):
                found[int(entry.name)] = tree
    return found


def _tree(environment: bytes) -> Path | None:
    prefix = f"{MARK}=".encode()
    return next(
        (Path(os.fsdecode(one[len(prefix) :])) for one in environment.split(b"\0") if one.startswith(prefix)), None
    )


def kill_marked(folder: Path) -> None:
    """Kill every process that belongs to ``folder``, also those that appear meanwhile."""
    deadline = time.monotonic() + _GIVE_UP_S
    while (pids := [pid for pid in marked(folder) if pid != os.getpid()]) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
