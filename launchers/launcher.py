"""The Launcher protocol: where runs execute. It knows folders and states, and nothing of what a run does.

| name | what it is |
|---|---|
| `Launcher` | queues run folders and says where each stands; a context manager |
| `Handle`, `Progress`, `State` | a submitted run, and where it stands |
| `LAUNCHERS`, `open_launcher` | every launcher by the ``kind`` of its settings, and how one is made |
"""

from __future__ import annotations

import dataclasses
import enum
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from policylab.attempts import Failure
from policylab.registry import Registry

SAVE_S = 20.0
"""Time that runs get to save when they are to stop: on Ctrl-C, and when the process that started them is gone."""

N_NAMED = 3
"""How many of several runs a message names."""

logger = logging.getLogger(__name__)

LAUNCHERS = Registry(
    "launcher",
    {
        "inline": "policylab.launchers.inline:InlineLauncher",
        "local": "policylab.launchers.local:LocalLauncher",
        "ray": "policylab.launchers.ray_launcher:RayLauncher",
        "sagemaker": "policylab.launchers.sagemaker.launcher:SageMakerLauncher",
    },
)
"""Name -> class with a ``Settings`` model (a `LauncherSettings`) and ``make(settings, *, n_workers, folder)``."""


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
    """Where a run stands.

    Attributes:
        state: see `State`.
        steps: environment steps so far.
        value: the last reported value.
        error: why it failed.
        user_error: whether the user must change something.
        traceback: the stack where it failed, if that is known.
        failures: its earlier attempts, each of which was followed by another.
    """

    state: State
    steps: int = 0
    value: float | None = None
    error: str | None = None
    user_error: bool = False
    traceback: str | None = None
    failures: tuple[Failure, ...] = ()

    @property
    def failure(self) -> Failure | None:
        """Why it failed, or None."""
        return None if self.error is None else Failure(self.error, self.traceback)

    def failed(self, why: Failure) -> Progress:
        """Return the progress of the same run after it failed."""
        return dataclasses.replace(self, state=State.FAILED, error=why.error, traceback=why.traceback)


class Launcher(Protocol):
    """Executes run folders (each holds a ``spec.json``) somewhere."""

    def submit(self, folder: Path, *, n_failed: int = 0) -> Handle:
        """Queue the run in ``folder``; a run that has a checkpoint continues from it.

        Args:
            folder: of the run.
            n_failed: attempts at it that failed before, in a session that was cut off since; they count.
        """
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

    def wait(self, *, timeout_s: float) -> None:
        """Return when a run's progress has changed since the last call, or after ``timeout_s`` seconds."""
        ...

    def close(self, *, timeout_s: float) -> None:
        """Stop every run, let it save, and leave no process behind; kill what is left after ``timeout_s``.

        Raises:
            KeyboardInterrupt: it came while they saved; nothing is waited for then.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class LauncherSettings(Protocol):
    """What every launcher's settings tell."""

    kind: Any

    @property
    def n_workers(self) -> int:
        """How many runs execute at once."""
        ...


def tell_interrupt(left_by: type[BaseException] | None, *, n_runs: int, within_s: float) -> None:
    """Say on the log, which reaches standard error, what is done with runs under way when Ctrl-C ends their launcher.

    Args:
        left_by: the exception that leaves the launcher, if one does.
        n_runs: how many runs are under way.
        within_s: time that they get to save.
    """
    if n_runs and left_by is not None and issubclass(left_by, KeyboardInterrupt):
        save = "1 run saves" if n_runs == 1 else f"{n_runs} runs save"
        logger.warning("interrupted: %s, in at most %g s; press Ctrl-C again to stop at once", save, within_s)


def tell_unsaved(folders: Sequence[Path]) -> None:
    """Say on the log which runs were ended before they had saved."""
    if folders:
        names = ["/".join(folder.parts[-2:]) for folder in folders[:N_NAMED]]
        more = [f"and {len(folders) - N_NAMED} more"] if len(folders) > N_NAMED else []
        logger.warning(
            "ended before they had saved; they go on from their last checkpoint: %s", ", ".join([*names, *more])
        )


def open_launcher(settings: LauncherSettings, *, n_workers: int, folder: Path) -> Launcher:
    """Return the launcher that ``settings`` describe, ready to take runs; close it, or use it in a ``with``.

    Args:
        settings: the ``launcher`` section of an experiment file.
        n_workers: how many runs execute at once; at most what the settings offer.
        folder: holds the run folders; what workers write to standard error goes to its ``workers.log``.

    Raises:
        UserError: the place where runs execute cannot be reached or cannot run them.
    """
    launcher: Launcher = LAUNCHERS.load(settings.kind).make(settings, n_workers=n_workers, folder=folder)
    return launcher
