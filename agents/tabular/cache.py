"""Where compiled loops are kept between processes.

Numba notices a change of the file that holds a compiled loop, but not of the rules it was compiled from;
so each state of the sources has its own folder.
"""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from pathlib import Path

AGENTS = Path(__file__).resolve().parent.parent


@functools.cache
def cache_folder() -> Path:
    """Return the folder of compiled loops for these sources: writable, made if need be.

    It lies below ``$POLICYLAB_CACHE_DIR``, or else ``$XDG_CACHE_HOME/policylab``, or else
    ``~/.cache/policylab``; below the system's temporary folder when that cannot be written or belongs to
    somebody else, whose code must not be run.
    """
    for root in (_chosen(), Path(tempfile.gettempdir()) / f"policylab-{os.getuid()}"):
        folder = root / "numba" / _sources_hash()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK) and folder.stat().st_uid == os.getuid():
            return folder
    return Path(tempfile.mkdtemp(prefix="policylab-"))


def _chosen() -> Path:
    if chosen := os.environ.get("POLICYLAB_CACHE_DIR"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "policylab"


def _sources_hash() -> str:
    digest = hashlib.sha256()
    rules = [AGENTS / name for name in ("rule.py", "schedules.py", "exploration.py")]
    for path in [*sorted(AGENTS.glob("tabular/*.py")), *rules]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
