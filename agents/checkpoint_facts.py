"""``state.json`` of every agent's checkpoint: JSON facts under a format, a version and a digest of their own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policylab.errors import CheckpointError
from policylab.files import canonical_json, content_hash, write_synced


@dataclasses.dataclass(frozen=True, slots=True)
class FactsFormat:
    """Whose facts they are.

    Attributes:
        name: what the file calls its format.
        version: what is written and read.
        owner: the agent in a message, with its article.
    """

    name: str
    version: int
    owner: str

    def write(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Write ``facts`` (JSON values); to be done last, when all that they tell of is there.

        Raises:
            StorageError: the write failed.
        """
        body = {"format": self.name, "version": self.version, **facts}
        write_synced(path, canonical_json({**body, "sha256": content_hash(body)}) + "\n")

    def read(self, path: Path) -> dict[str, Any]:
        """Return the facts that `write` left.

        Raises:
            CheckpointError: the file is missing, damaged, or of another format or version.
        """
        try:
            facts = json.loads(path.read_bytes())
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read ({error.strerror}); is this a checkpoint folder?") from error
        except ValueError as error:
            raise CheckpointError(f"{path} is damaged: it is not JSON ({error}); use an older checkpoint") from error
        if not isinstance(facts, dict) or facts.get("format") != self.name:
            raise CheckpointError(f"{path} is not the checkpoint of {self.owner}; give the folder of one")
        if facts.get("version") != self.version:
            raise CheckpointError(
                f"{path} has version {facts.get('version')!r}, this policylab reads version {self.version}; "
                "continue with the policylab that wrote it"
            )
        if facts.pop("sha256", None) != content_hash(facts):
            raise CheckpointError(f"{path} is damaged: its digest does not match; use an older checkpoint")
        return facts
