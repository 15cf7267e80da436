"""tracking.json: what the run directory knows about its own upload, and the outcome of a sync."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from policylab.experiments.tracking.settings import redacted
from policylab.files import write_atomic

STATE = "tracking.json"


@dataclasses.dataclass(frozen=True, slots=True)
class SyncResult:
    """Where a run was tracked, and how completely.

    Attributes:
        kind: ``mlflow`` or ``none``.
        uri: the tracking URI without passwords.
        experiment_id: the tracker's id of the experiment.
        run_id: the tracker's id of the parent run.
        model_uri: address of the registered policy.
        synced: report lines in the tracker, by trial path.
        complete: the run has ended and all of it is in the tracker.
        error: why the last upload failed, in one sentence with the remedy; None when it did not.
        new_runs: trial runs that this sync added.
        new_reports: report lines that this sync added.
    """

    kind: str
    uri: str | None = None
    experiment_id: str | None = None
    run_id: str | None = None
    model_uri: str | None = None
    synced: dict[str, int] = dataclasses.field(default_factory=dict)
    complete: bool = False
    error: str | None = None
    new_runs: int = 0
    new_reports: int = 0

    def summary(self) -> dict[str, Any]:
        """Return the JSON that commands print: everything but the count of every trial."""
        document = dataclasses.asdict(self)
        del document["synced"]
        return {**document, "open_with": self.open_with}

    @property
    def open_with(self) -> str | None:
        """How to look at the run: a command, or an address."""
        if self.uri is None or self.run_id is None:
            return None
        if self.uri.startswith(("http:", "https:")):
            return f"{self.uri.rstrip('/')}/#/experiments/{self.experiment_id}/runs/{self.run_id}"
        return f"mlflow ui --backend-store-uri {self.uri}"


def read_state(run_dir: Path) -> SyncResult | None:
    """Return what tracking.json says; None when there is none or it is damaged (a sync rewrites it)."""
    try:
        document = json.loads((run_dir / STATE).read_bytes())
        known = {field.name for field in dataclasses.fields(SyncResult)}
        return SyncResult(**{name: value for name, value in document.items() if name in known})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def write_state(run_dir: Path, state: SyncResult) -> None:
    """Replace tracking.json, without passwords.

    Raises:
        StorageError: the run directory cannot be written.
    """
    document = dataclasses.asdict(state)
    for counter in ("new_runs", "new_reports"):
        del document[counter]
    document |= {name: redacted(value) for name, value in document.items() if isinstance(value, str)}
    write_atomic(run_dir / STATE, json.dumps({"schema_version": 1, **document}, indent=1) + "\n")
