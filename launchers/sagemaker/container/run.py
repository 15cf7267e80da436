"""The job's run: its folder between snapshots, the process that executes it, and the metric lines it leaves in the log.

The run executes in a child, `python -m policylab run-spec --serve` (see `policylab.launchers.local`), in a temporary
folder, which is also where its libraries leave what they do not clean up. /opt/ml/checkpoints holds snapshots of the
run's own folder and nothing else.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import queue
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policylab.aws.metrics import metric_line
from policylab.errors import RunDirectoryError
from policylab.files import read_json
from policylab.launchers.local import WorkerProcess
from policylab.launchers.pool import EXIT_S, WorkerLost
from policylab.launchers.sagemaker.container.layout import RUN_CHANNEL, Layout
from policylab.launchers.sagemaker.run_snapshot import restore_snapshot, save_snapshot
from policylab.launchers.sagemaker.tuning_definition import EXPERIMENT
from policylab.runspec import RunSpec, place_spec, read_model

SPEC_OF = "policylab.experiments.tuning_jobs:spec_of"
"""Makes a run of an experiment and hyperparameters; named here and imported there."""

FOLLOWER = "policylab.experiments.tracking.from_job:JobFollower"
"""Tracks the run, if the job is told to; named here and imported there."""

TRACKING_S = 15.0
"""How long the end of a job waits for the last upload; a stopped job has two minutes in all."""

SAVING_SHARE = 20.0
"""Seconds between snapshots for each second that one takes."""

logger = logging.getLogger(__name__)


class JobRun:
    """The run of one job.

    Args:
        layout: the container's folders.
        events: receives what happens to the run: the events of `policylab.launchers.local`, as dicts.
        save_every_s: shortest time between two snapshots of a run under way.
        tracking: what the sender tells of the tracker, if the job is to track its run.

    Attributes:
        spec: what is run.
    """

    def __init__(
        self, layout: Layout, *, events: queue.SimpleQueue[Any], save_every_s: float, tracking: str | None = None
    ) -> None:
        self.spec = _spec(layout)
        self._layout = layout
        self._events = events
        self._save_every_s = save_every_s
        self._scratch = Path(tempfile.mkdtemp(prefix="run-"))
        self._folder = self._scratch / self.spec.path
        self._tracking = tracking
        self._follower: Any = None
        self._process: WorkerProcess | None = None
        self._thread: threading.Thread | None = None
        self._saved: tuple[str, ...] = ()
        self._saved_at, self._saving_s = time.monotonic(), 0.0
        self._lines = MetricLines(self._folder / "reports.jsonl")

    def restore(self) -> None:
        """Bring the run's folder to where an earlier job, or this one before an interruption, left it.

        Raises:
            RunDirectoryError: the checkpoints are another run's, or damaged.
            StorageError: a write failed.
        """
        try:
            restored = restore_snapshot(self._layout.checkpoints, into=self._folder)
            place_spec(self._folder, self.spec, source=str(self._layout.spec))
        except RunDirectoryError as error:
            remedy = "give the job another checkpoint prefix"
            raise RunDirectoryError(f"checkpoints of another or a damaged run: {error}; or {remedy}") from None
        self._lines.skip_until(self.steps or 0)
        logger.info(f"goes on after {self.steps or 0:,} steps" if restored else "starts from the beginning")

    @property
    def steps(self) -> int | None:
        """Environment steps at the newest checkpoint; None before the first."""
        return max((int(path.name) for path in (self._folder / "checkpoints").glob("[0-9]*")), default=None)

    @property
    def pid(self) -> int | None:
        """The process that executes the run, while there is one."""
        return None if self._process is None else self._process.pid

    @property
    def pids(self) -> list[int]:
        """That process, and the one that tracks the run."""
        return [part.pid for part in (self, self._follower) if part is not None and part.pid is not None]

    def start(self, environment: Mapping[str, str]) -> None:
        """Execute the run in a process with ``environment`` beside this one's, and package its policy at its end.

        Raises:
            UserError: what the job was told of the tracker is not readable.
        """
        if self._tracking is not None:
            module, _, name = FOLLOWER.partition(":")
            follower = getattr(importlib.import_module(module), name)
            self._follower = follower(self._tracking, self._folder, path=self.spec.path)
        self._process = WorkerProcess(log=None, environment={"TMPDIR": str(self._scratch), **environment})
        self._thread = threading.Thread(target=self._execute, args=(self._process,), daemon=True)
        self._thread.start()

    def _execute(self, process: WorkerProcess) -> None:
        try:
            for event in process.execute(self._folder, bundle=str(self._layout.model)):
                self._events.put(event)
                if event["event"] != "progress":
                    return
        except WorkerLost as lost:
            self._events.put({"event": "failed", "error": str(lost)})

    def stop(self) -> None:
        """Ask the run to save and stop."""
        if self._process is not None:
            self._process.stop(self._folder)

    def kill(self) -> None:
        """End the run's process now; what it saved last counts."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def report(self) -> None:
        """Print the metric lines of the rows that the run has written since the last call."""
        for line in self._lines.new():
            sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def save_if_due(self) -> None:
        """Take a snapshot if the last one is old enough, and there is a new checkpoint."""
        rest = max(self._save_every_s, SAVING_SHARE * self._saving_s)
        if time.monotonic() - self._saved_at >= rest and self._checkpoints() != self._saved:
            self.save()

    def save(self) -> None:
        """Take a snapshot.

        Raises:
            StorageError: a write failed; earlier snapshots are intact.
        """
        began, checkpoints = time.monotonic(), self._checkpoints()
        if self._folder.exists():
            save_snapshot(self._folder, into=self._layout.checkpoints)
        self._saved, self._saved_at = checkpoints, time.monotonic()
        self._saving_s = self._saved_at - began

    def _checkpoints(self) -> tuple[str, ...]:
        return tuple(sorted(path.name for path in (self._folder / "checkpoints").glob("[0-9]*")))

    def facts(self) -> list[str]:
        """Return what a failure tells of the run."""
        run = f"run {self.spec.experiment}, trial {self.spec.trial}, {self.spec.role} {self.spec.index}"
        kept = f"after {self.steps:,} steps in {self._layout.checkpoints}" if self.steps else "none"
        return [f"{run}, seed {self.spec.seed}", f"last checkpoint: {kept}"]

    def discard(self) -> None:
        """End the processes and remove the run's temporary folder, which also makes room on a full disk."""
        if self._process is not None and self._thread is not None:
            self._process.close()
            if self._thread.is_alive():
                self.kill()
                self._thread.join()
            self._process.kill(after_s=EXIT_S)
        if self._follower is not None:
            self._follower.finish(TRACKING_S)
            self._follower = None
        shutil.rmtree(self._scratch, ignore_errors=True)


def _spec(layout: Layout) -> RunSpec:
    """Return the run of the job: spec.json, or of a tuning job's experiment with the hyperparameters drawn."""
    experiment = layout.channel(RUN_CHANNEL) / EXPERIMENT
    if layout.spec.exists() or not experiment.exists():
        spec: RunSpec = read_model(RunSpec, layout.spec)
        return spec
    module, _, function = SPEC_OF.partition(":")
    drawn = read_json(layout.config("hyperparameters"))
    found: RunSpec = getattr(importlib.import_module(module), function)(experiment, drawn)
    return found


class MetricLines:
    """The metrics in a growing reports.jsonl, as lines that the job's patterns find."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._step = 0

    def skip_until(self, step: int) -> None:
        """Leave out rows up to ``step``, which an earlier job has printed."""
        self._step = step

    def new(self) -> list[str]:
        """Return the lines of the rows that are complete and have not been returned."""
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._offset)
            content = file.read()
            whole = content[: content.rfind(b"\n") + 1]
            self._offset += len(whole)
            rows = [row for row in map(json.loads, whole.splitlines()) if row["step"] > self._step]
            return [line for row in rows for line in _lines(row)]
        return []


def _lines(row: Mapping[str, Any]) -> list[str]:
    return [metric_line("step", row["step"]), *(metric_line(name, value) for name, value in row["metrics"].items())]
