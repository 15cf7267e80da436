"""The Launcher protocol: where runs execute. It knows folders and states, and nothing of what a run does."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path
from typing import Protocol


class State(enum.Enum):
    """Where a submitted run stands."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether the state can no longer change."""
        return self in (State.FINISHED, State.STOPPED, State.FAILED)


@dataclasses.dataclass(frozen=True, slots=True)
class Handle:
    """A submitted run, known by its folder; valid across processes."""

    folder: Path


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """A run's state, environment steps so far, last reported value and, when failed, the reason."""

    state: State
    steps: int = 0
    value: float | None = None
    error: str | None = None
    user_error: bool = False


class Launcher(Protocol):
    """Executes run folders (each holds a ``spec.json``) somewhere."""

    def submit(self, folder: Path) -> Handle:
        """Queue the run in ``folder``; a run that has a checkpoint continues from it."""
        ...

    def poll(self, handle: Handle) -> Progress:
        """Return where the run stands, without waiting."""
        ...

    def stop(self, handle: Handle) -> None:
        """Ask the run to save and stop; returns at once."""
        ...

    def attach(self, folder: Path) -> Handle | None:
        """Return the handle of a run submitted earlier and still known, or None."""
        ...
