"""A checkpoint of arrays: ``state.npz``, and ``state.json`` (facts and hashes).

The facts are written last and name the SHA-256 of the arrays, so a pair that does not belong together, a
truncated file or an altered byte is noticed.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policylab.agents.checkpoint_facts import FactsFormat
from policylab.errors import CheckpointError
from policylab.files import write_synced

ARRAYS, FACTS = "state.npz", "state.json"


def write(folder: Path, arrays: Mapping[str, NDArray[Any]], *, facts: Mapping[str, Any], form: FactsFormat) -> None:
    """Write ``arrays`` and ``facts`` (JSON values) into ``folder``, in the form of their agent.

    Raises:
        StorageError: a write failed; an older checkpoint in the folder is refused by `read`, never mixed in.
    """
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    content = buffer.getvalue()
    write_synced(folder / ARRAYS, content)
    form.write(folder / FACTS, {"arrays_sha256": hashlib.sha256(content).hexdigest(), **facts})


def read(folder: Path, *, form: FactsFormat) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the arrays and facts that `write` left in ``folder``.

    Raises:
        CheckpointError: a file is missing, damaged, of another format or version, or the two do not belong
            together.
    """
    facts = form.read(folder / FACTS)
    path = folder / ARRAYS
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); use an older checkpoint") from error
    if hashlib.sha256(content).hexdigest() != facts.get("arrays_sha256"):
        raise CheckpointError(f"{path} is damaged: its sha256 is not the one in {FACTS}; use an older checkpoint")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}, facts
    except (ValueError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} does not hold plain arrays ({error}); use an older checkpoint") from error


def fill(target: NDArray[Any], arrays: Mapping[str, NDArray[Any]], *, name: str, folder: Path) -> None:
    """Copy the array called ``name`` into ``target``.

    Raises:
        CheckpointError: it is missing or has another shape or type.
    """
    stored = arrays.get(name)
    if stored is None or stored.shape != target.shape or stored.dtype != target.dtype:
        found = "missing" if stored is None else f"{stored.dtype}{stored.shape}"
        raise CheckpointError(
            f"{folder / ARRAYS}: array {name} must be {target.dtype}{target.shape}, it is {found}; "
            "the checkpoint belongs to another agent or environment"
        )
    target[...] = stored
