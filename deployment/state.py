"""What an endpoint remembers from one start to the next: its secret, the version it serves, and an update under way."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError

from policylab.config import Settings
from policylab.deployment.endpoint import EndpointConfig
from policylab.deployment.guardrails.evidence import EvidenceState
from policylab.deployment.guardrails.mean_sequence import MeanState
from policylab.errors import UserError
from policylab.files import locked, read_json, storage_errors, write_atomic

STATE, SECRET, LOCK = "state.json", "secret", "lock"


class Event(Settings):
    """Something that happened to an endpoint."""

    time_s: float = Field(description="seconds since 1970")
    what: str
    text: str


class Return(Settings):
    """A way back in batches: the share that the new version still has, and why it must go."""

    share: float = Field(gt=0.0, lt=1.0)
    reason: str


class Update(Settings):
    """An update under way: to which version, at which step, with which evidence."""

    config: EndpointConfig
    step: int = Field(default=0, ge=0)
    evidence: EvidenceState | None = None
    value: MeanState | None = Field(default=None, description="rewards of the new version, for the alarm on its value")
    returning: Return | None = None

    def changed(self, **values: Any) -> Self:
        """Return the same with other values."""
        return self.model_copy(update=values)


class EndpointState(Settings):
    """The state of one endpoint.

    Attributes:
        file_hash: of the endpoint file it was last started with; another one begins anew.
        config: the version that serves.
        generation: counts the versions.
        weights: of the variants, as they were changed last.
        update: the update under way.
        events: the latest, the oldest first.
    """

    schema_version: Literal[1] = 1
    file_hash: str
    config: EndpointConfig
    generation: int = Field(default=1, ge=1)
    weights: dict[str, float] = Field(default_factory=dict)
    update: Update | None = None
    events: tuple[Event, ...] = ()

    def changed(self, **values: Any) -> Self:
        """Return the same with other values."""
        return self.model_copy(update=values)


class StateFile:
    """The folder in which one running endpoint keeps its state.

    Args:
        folder: made if needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from the folder.

        Raises:
            RunDirectoryError: one has it.
        """
        with locked(self.folder / LOCK):
            yield

    def secret(self) -> bytes:
        """Return the endpoint's secret, made on the first call."""
        path = self.folder / SECRET
        if not path.exists():
            with storage_errors(path):
                self.folder.mkdir(parents=True, exist_ok=True)
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(handle, "wb") as file:
                    file.write(secrets.token_bytes(32))
        content = path.read_bytes()
        if len(content) != 32:
            raise UserError(f"{path} does not hold 32 bytes; remove it, and decisions are drawn anew")
        return content

    def read(self) -> EndpointState | None:
        """Return the stored state, if there is any.

        Raises:
            UserError: it is damaged, or of another version of policylab.
        """
        path = self.folder / STATE
        if not path.exists():
            return None
        try:
            return EndpointState.model_validate(read_json(path))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise UserError(f"{path}: {place}: {first['msg']}; remove the file to begin anew") from error

    def write(self, state: EndpointState) -> None:
        """Store the state; it is whole before or after, whatever happens in between.

        Raises:
            StorageError: the disk is full or not writable.
        """
        write_atomic(self.folder / STATE, state.model_dump_json(indent=1))
