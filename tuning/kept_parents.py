"""What a warm-started study learned from when it began, kept beside its log: resumed, it reads this and nothing else.

Meanwhile a parent may have gone on, been deleted, or have got a newer run of its name.

| key of ``parents.json`` | content |
|---|---|
| parents | one `FoundParent` as plain data for each that the settings name, in their order |
| sha256 | of that list |

A study whose file is a list of paths instead, or absent, began before more was kept; its parents are read where they
are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from policylab.errors import RunDirectoryError
from policylab.files import read_json, write_atomic
from policylab.tuning.log import EventLog
from policylab.tuning.parents import read_parent
from policylab.tuning.study_facts import Parent

FILE = "parents.json"


@dataclasses.dataclass(frozen=True, slots=True)
class FoundParent:
    """A parent as it was when a study began.

    Attributes:
        source: what the settings name.
        name: of the file or folder that was found.
        parent: what was read there.
    """

    source: str
    name: str
    parent: Parent


_FORM = TypeAdapter(list[FoundParent], config=ConfigDict(ser_json_inf_nan="constants"))


def found_parents(sources: Sequence[str], *, log: EventLog, find: Callable[[str], Path]) -> list[FoundParent]:
    """Return the parents that the study of ``log`` began with; if it has not begun, those of now, which are kept.

    Args:
        sources: the parents in the settings.
        log: of the study; one in memory keeps nothing.
        find: where a source lies.

    Raises:
        RunDirectoryError: what was kept is damaged, or a parent cannot be found or read.
        ConfigError: a SageMaker record that lacks something.
        StorageError: what was found cannot be written.
    """

    def found(names: Sequence[str]) -> list[FoundParent]:
        places = [find(name) for name in names]
        return [
            FoundParent(name, place.resolve().name, read_parent(place))
            for name, place in zip(names, places, strict=True)
        ]

    if log.path is None:
        return found(sources)
    path = log.path.with_name(FILE)
    if not log.events:
        _keep(path, found(sources))
    # What was just kept is read, too: the first session starts from the very same as those that resume.
    kept = read_json(path) if path.exists() else list(sources)
    if isinstance(kept, list) and kept and all(isinstance(name, str) for name in kept):
        return found(kept)
    return _restored(kept, path)


def digest(parents: Any) -> str:
    """Return the sha256 hex digest of plain data, whose order counts: that of a space's parameters does."""
    return hashlib.sha256(json.dumps(parents).encode()).hexdigest()


def _keep(path: Path, found: list[FoundParent]) -> None:
    parents = _FORM.dump_python(found, mode="json")
    write_atomic(path, json.dumps({"sha256": digest(parents), "parents": parents}) + "\n")


def _restored(kept: Any, path: Path) -> list[FoundParent]:
    try:
        if kept["sha256"] == digest(kept["parents"]):
            return _FORM.validate_python(kept["parents"])
    except (KeyError, TypeError, RecursionError, ValidationError):
        pass
    raise RunDirectoryError(f"{path}: not what this study kept of its parents when it began; restore it from a copy")
