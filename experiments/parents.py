"""The parents that a warm-started search names, read once: see `policylab.tuning.kept_parents`.

A name means a study's newest run in the folder of the search's own, or else a study that comes with the package.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from policylab.errors import RunDirectoryError
from policylab.experiments.schema import CONFIGS
from policylab.tuning.kept_parents import found_parents
from policylab.tuning.log import EventLog
from policylab.tuning.parents import find_parent
from policylab.tuning.study_facts import Parent

SHIPPED = "shipped:"
"""Before the name of a study that comes with the package."""


def parent_path(source: str, *, root: Path, besides: Path | None = None) -> Path:
    """Return where a parent lies: what ``source`` names, or a shipped study of that name.

    Args:
        source: a path, a run directory below ``root``, or the name of a study.
        root: folder of run directories.
        besides: a run directory that is not its own parent.

    Raises:
        RunDirectoryError: nothing of that name.
    """
    shipped = CONFIGS / "parents" / source.removeprefix(SHIPPED)
    if source.startswith(SHIPPED):
        return shipped
    try:
        return find_parent(source, root=root, besides=besides)
    except RunDirectoryError:
        if shipped.is_dir():
            return shipped
        raise


def parents_of(sources: Sequence[str], *, root: Path, log: EventLog | None = None) -> list[Parent]:
    """Return the parents that a search began with, or, if it has not begun, those that it names now.

    Args:
        sources: the parents in its settings.
        root: folder of run directories.
        log: of its study, in its run directory; None keeps nothing.

    Raises:
        RunDirectoryError: what was kept is damaged, or a parent cannot be found or read.
        StorageError: what was found cannot be kept.
    """
    log = log or EventLog(None)
    own = None if log.path is None else log.path.parents[1]
    find = functools.partial(parent_path, root=root, besides=own)
    return [found.parent for found in found_parents(sources, log=log, find=find)]
