"""Files that a job's own code wrote: read without following a link out of the tree."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

MAX_TEXT = 65_536


def place_inside(ml: Path, below: str) -> Path | None:
    """Return the folder ``below`` a host's /opt/ml, or None if it is gone or a link leads it out of the tree."""
    place = ml / below
    return place if place.is_dir() and place.resolve().is_relative_to(ml.resolve()) else None


def regular_files(folder: Path) -> Iterator[Path]:
    """Yield every regular file below ``folder``, sorted; links, pipes and devices are left out."""
    for current, names, files in os.walk(folder):
        names.sort()
        for name in sorted(files):
            path = Path(current, name)
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:  # removed meanwhile
                continue
            if stat.S_ISREG(mode):
                yield path


def read_text(path: Path) -> str:
    """Return the beginning of a text file; empty if it is missing or no regular file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return ""
        return file.read(MAX_TEXT).decode(errors="replace")
