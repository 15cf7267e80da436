"""What a tracker must offer, and the loop that projects a run directory into one.

The run directory is the truth and the tracker tells how far it has got, so that one idempotent,
incremental `Projection.push` serves live tracking, the end of a run and a later `policylab sync` alike.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from policylab.experiments.tracking.run_view import RUNNING, RunView, TrialView, document_hash, read_run
from policylab.experiments.tracking.study_rows import ConfigurationView, Row, read_configurations


@dataclasses.dataclass(slots=True)
class Progress:
    """How much of one run below the parent run a tracker holds.

    Attributes:
        lines: report lines uploaded; rows for a configuration of a search.
        result_hash: hash of the uploaded result or state, None before it is uploaded.
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

    def configuration(self, view: ConfigurationView, rows: Sequence[Row], *, first: int, status: str) -> None:
        """Find or create the run of a search's configuration below the run; add rows, state and status."""
        ...

    def seed(
        self, trial: TrialView, reports: Sequence[Mapping[str, Any]], *, first: int, result: Mapping[str, Any] | None
    ) -> None:
        """Find or create the run of one seed below its configuration; add report lines and its outcome, if any."""
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
        self._stamps: dict[str, Any] = {}

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
        trials = run.trials()  # before the event log, which then holds the start of each
        configurations = read_configurations(run)
        if configurations is None:
            for trial in trials:
                self._if_changed(trial, trial.stamp(), push=self._push_trial)
        else:
            self._push_study(run, trials, configurations=configurations)
        if run.status != RUNNING:
            self._tracker.publish(run)
            self.complete = True

    def _if_changed(self, trial: TrialView, stamp: Any, *, push: Callable[[TrialView], None]) -> None:
        if self._stamps.get(trial.path) != stamp:
            push(trial)
            self._stamps[trial.path] = stamp

    def _push_study(
        self, run: RunView, trials: Sequence[TrialView], *, configurations: dict[str, ConfigurationView]
    ) -> None:
        for trial in trials:  # a default that the search did not try is in no event
            path = trial.path.rpartition("/")[0]
            configurations.setdefault(path, ConfigurationView(path, {}))
        for view in configurations.values():
            self._push_configuration(view, status=view.status(run))
        for trial in trials:
            error = configurations[trial.path.rpartition("/")[0]].error_of(trial)
            stamp = (trial.stamp(), error, run.status)
            self._if_changed(trial, stamp, push=functools.partial(self._push_seed, run=run, error=error))

    def _push_configuration(self, view: ConfigurationView, *, status: str) -> None:
        done = self.progress.get(view.path, Progress())
        new = view.rows[done.lines :]
        if new or done.result_hash != view.digest(status):
            self._tracker.configuration(view, new, first=done.lines, status=status)
            self.uploaded.runs += view.path not in self.progress
            self.progress[view.path] = Progress(done.lines + len(new), view.digest(status))

    def _push_seed(self, trial: TrialView, *, run: RunView, error: str | None) -> None:
        """Upload a seed's run once a piece of its training has ended, or the experiment has."""
        result = trial.result() or (None if error is None else {"status": "failed", "error": error})
        if result is None and run.status == RUNNING:
            return
        done = self.progress.get(trial.path, Progress())
        new, digest = trial.reports()[done.lines :], document_hash(result)
        if new or done.result_hash != digest:
            self._tracker.seed(trial, new, first=done.lines, result=result)
            self.uploaded.runs += trial.path not in self.progress
            self.uploaded.reports += len(new)
            self.progress[trial.path] = Progress(done.lines + len(new), digest)

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
