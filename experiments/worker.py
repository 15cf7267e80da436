"""The worker process: executes run folders named on its input, one at a time; see `launchers.local`."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import queue
import threading
import time
from pathlib import Path
from typing import IO, Any

from policylab.attempts import Failure
from policylab.errors import PolicylabError, UserError
from policylab.experiments.checkpoints import newest_checkpoint
from policylab.experiments.execute import Stopped, execute
from policylab.experiments.packaging import package_run
from policylab.experiments.stretch import Pace
from policylab.launchers.launcher import SAVE_S
from policylab.runspec import ReportRow

LEAVE_S = SAVE_S
"""From the end of the input to the end of the process, whatever the run does: its parent may be gone."""
logger = logging.getLogger(__name__)


def serve(commands: IO[str], events: IO[str]) -> None:
    """Execute the runs that ``commands`` names until it ends; write what happens to ``events``.

    The end of ``commands`` (the parent closed it, or died) makes the current run save and stop. One that has not within
    `LEAVE_S` seconds, as it hangs, ends with the process.
    """
    inbox, pace = _Inbox(commands), Pace()
    while (command := inbox.runs.get()) is not None:
        inbox.begin()
        _send(events, **_outcome(command, events, stop=inbox.stop, pace=pace))


class _Inbox(threading.Thread):
    """Reads commands while a run executes."""

    def __init__(self, commands: IO[str]) -> None:
        super().__init__(daemon=True)
        self.runs: queue.SimpleQueue[dict[str, str] | None] = queue.SimpleQueue()
        self.stop = threading.Event()
        self._commands = commands
        self._closed = False
        self.start()

    def run(self) -> None:
        for line in self._commands:
            command = json.loads(line)
            if "run" in command:
                self.runs.put(command)
            else:
                self.stop.set()
        self._closed = True
        self.stop.set()
        self.runs.put(None)
        time.sleep(LEAVE_S)  # a daemon thread: a worker that can leaves meanwhile
        os._exit(1)

    def begin(self) -> None:
        """Forget a stop meant for an earlier run, but never the end of the input."""
        if not self._closed:
            self.stop.clear()


def _outcome(command: dict[str, str], events: IO[str], *, stop: threading.Event, pace: Pace) -> dict[str, Any]:
    folder = Path(command["run"])
    newest = newest_checkpoint(folder)
    _send(events, event="progress", steps=0 if newest is None else int(newest.name), value=None)
    try:
        execute(folder, on_rows=lambda rows: _send(events, **progress(rows[-1])), stop=stop, pace=pace)
        if "bundle" in command:
            package_run(folder, into=Path(command["bundle"]))
    except Stopped:
        return {"event": "stopped"}
    except Exception as error:  # an environment or agent of the user's may raise anything
        if not isinstance(error, PolicylabError):
            logger.exception("run %s failed", folder)
        return failure(error)
    return {"event": "finished"}


def progress(row: ReportRow) -> dict[str, Any]:
    """Return the event that tells of a report."""
    value = row.metrics.get("eval/return_mean", row.metrics.get("train/return_mean"))
    return {"event": "progress", "steps": row.step, "value": value}


def failure(error: Exception) -> dict[str, Any]:
    """Return the event that tells why a run failed; a mistake of the user's needs no traceback."""
    if isinstance(error, UserError):
        return {"event": "failed", "error": str(error), "user_error": True}
    why = dataclasses.asdict(Failure.of(error))
    return {"event": "failed", **why, **({"error": str(error)} if isinstance(error, PolicylabError) else {})}


def _send(events: IO[str], **event: Any) -> None:
    events.write(json.dumps(event) + "\n")
    events.flush()
