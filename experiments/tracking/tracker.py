"""What a tracker must offer, and the loop that projects a run directory into one.

The run directory is the truth and the tracker tells how far it has got, so that one idempotent,
incremental `Projection.push` serves live tracking, the end of a run and a later `policylab sync` alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from policylab.experiments.tracking.run_view import RUNNING, RunView, TrialView, document_hash, read_run


@dataclasses.dataclass(slots=True)
class Progress:
    """How much of one trial run a tracker holds.

    Attributes:
        lines: report lines uploaded.
        result_hash: hash of the uploaded result, None before it is uploaded.
    """

    lines: int = 0
    result_hash: str | None = None


class Tracker(Protocol):
    """A place runs are projected to. Every call may be repeated after a failure without doubling anything.

    Each method raises whatever the tracker's library raises; the caller turns that into one TrackingError.
    """

    def open(self, run: RunView) -> Mapping[str, Progress]:
        """Find or create the run; return what is there already, by trial path."""
        ...

    def start(self, trial: TrialView) -> None:
        """Find or create one trial run below the run, with its parameters and tags."""
        ...

    def log(self, trial: TrialView, reports: Sequence[Mapping[str, Any]], *, first: int) -> None:
        """Add the report lines number ``first`` (from 0) and following to a trial run."""
        ...

    def end(self, trial: TrialView, result: Mapping[str, Any]) -> None:
        """Close a trial run with its outcome."""
        ...

    def publish(self, run: RunView) -> None:
        """Add aggregates, artifacts and the policy to the run, and give it its final status."""
        ...


@dataclasses.dataclass(slots=True)
class Uploaded:
    """What one or more pushes added to the tracker: trial runs started and report lines."""

    runs: int = 0
    reports: int = 0


class Projection:
    """A run directory on its way into one tracker.

    Attributes:
        progress: what the tracker holds, by trial path.
        uploaded: what this projection added.
        complete: the run has ended and all of it is in the tracker.
    """

    def __init__(self, run_dir: Path, tracker: Tracker) -> None:
        self.progress: dict[str, Progress] = {}
        self.uploaded = Uploaded()
        self.complete = False
        self._run_dir = run_dir
        self._tracker = tracker
        self._opened = False
        self._stamps: dict[str, tuple[tuple[int, int], ...]] = {}

    def open(self) -> None:
        """Find or create the run in the tracker, and learn what it holds; once."""
        if not self._opened:
            self.progress.update(self._tracker.open(read_run(self._run_dir)))
            self._opened = True

    def push(self) -> None:
        """Upload what the run directory holds and the tracker does not.

        Raises:
            RunDirectoryError: the run directory is damaged.
        """
        run = read_run(self._run_dir)
        for trial in run.trials():
            stamp = trial.stamp()
            if self._stamps.get(trial.path) != stamp:
                self._push_trial(trial)
                self._stamps[trial.path] = stamp
        if run.status != RUNNING:
            self._tracker.publish(run)
            self.complete = True

    def _push_trial(self, trial: TrialView) -> None:
        if trial.path not in self.progress:
            self._tracker.start(trial)
            self.progress[trial.path] = Progress()
            self.uploaded.runs += 1
        done = self.progress[trial.path]
        new = trial.reports()[done.lines :]
        if new:
            self._tracker.log(trial, new, first=done.lines)
            done.lines += len(new)
            self.uploaded.reports += len(new)
        result = trial.result()
        if result is not None and done.result_hash != (digest := document_hash(result)):
            self._tracker.end(trial, result)
            done.result_hash = digest
