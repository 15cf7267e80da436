"""The parents that a warm-started search names, found once: what a name stood for when the study began, it stands for.

A name means a study's newest run. A run that is made later, or the search's own, does not change what a search that is
resumed starts from: ``study/parents.json`` in the run directory holds what was found.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from policylab.errors import RunDirectoryError
from policylab.experiments.rundir import RunDirectory
from policylab.experiments.schema import CONFIGS, ExperimentConfig
from policylab.files import read_json, write_atomic
from policylab.tuning.parents import find_parent

FILE = "study/parents.json"
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


def with_found_parents(run: RunDirectory) -> ExperimentConfig:
    """Return the run's experiment, with the parents of its search as they were found when the study began.

    Raises:
        RunDirectoryError: a parent cannot be found.
        StorageError: what was found cannot be written.
    """
    config, path = run.config, run.path / FILE
    search = config.search
    if search is None or search.warm_start is None:
        return config
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, json.dumps(_found(search.warm_start.parents, run)) + "\n")
    chosen = search.warm_start.model_copy(update={"parents": tuple(read_json(path))})
    return config.model_copy(update={"search": search.model_copy(update={"warm_start": chosen})})


def _found(sources: Sequence[str], run: RunDirectory) -> list[str]:
    root, found = run.path.parent, []
    for source in sources:
        path = parent_path(source, root=root, besides=run.path).resolve()
        if path.parent == (CONFIGS / "parents").resolve():
            found.append(f"{SHIPPED}{path.name}")
        else:  # a name goes along when the folder of the runs is moved
            found.append(path.name if path.parent == root.resolve() else str(path))
    return found
