"""The checkpoint of an RLlib agent: RLlib's own files below ``rllib/``, and ``state.json`` with our facts and hashes.

RLlib writes pickles. They are read back only when every file has the hash that ``state.json`` names, written by this
run; a folder from elsewhere must not be restored, since whoever can write both can run code. What leaves a run is the
policy bundle, which holds none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policylab.agents.checkpoint_facts import FactsFormat
from policylab.errors import CheckpointError

FORMAT = FactsFormat("policylab rllib agent", 1, "an RLlib agent")
FACTS, FOLDER = "state.json", "rllib"


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write ``facts`` (JSON values) and the hashes of every file below ``folder/rllib``, last of all."""
    FORMAT.write(folder / FACTS, {"files": _hashes(folder / FOLDER), **facts})


def read_facts(folder: Path) -> dict[str, Any]:
    """Return the facts, once every file is as it was written.

    Raises:
        CheckpointError: a file is missing, added, altered or of another format or version.
    """
    facts = FORMAT.read(folder / FACTS)
    found, written = _hashes(folder / FOLDER), facts["files"]
    for name in sorted(found.keys() | written.keys()):
        if found.get(name) != written.get(name):
            what = "missing" if name not in found else "not part of it" if name not in written else "damaged"
            raise CheckpointError(f"{folder / FOLDER / name} is {what}; use an older checkpoint")
    return facts


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
