"""The far end of the Ray launcher: an actor that executes run folders, one at a time, by the worker's own code.

Runs execute in the actor's process, so a run that uses Ray itself finds the connection it is to use. The code is named
by the launcher (``module:function``) and speaks the JSON lines of `policylab.launchers.local` over pipes.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import logging
import logging.handlers
import os
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from policylab.errors import PolicylabError, UserError
from policylab.launchers.snapshots import SnapshotStore
from policylab.stacks import MAX_BYTES


class RayWorker:
    """Executes runs. Its methods may be called while `run` is under way.

    Args:
        serve: ``module:function`` that executes the runs named on one stream and writes events to another.
        storage: URL of the store that carries run folders between nodes; None when every node sees the same folders.
        sync_every_s: how often the state of a run under way is stored.
    """

    def __init__(self, serve: str, *, storage: str | None, sync_every_s: float) -> None:
        self._store = SnapshotStore(storage) if storage else None
        self._sync_every_s = sync_every_s
        self._current: str | None = None
        self._lock = threading.Lock()
        self._records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
        logging.getLogger().addHandler(logging.handlers.QueueHandler(self._records))
        module, _, function = serve.partition(":")
        entry = getattr(importlib.import_module(module), function)
        commands, to_worker = os.pipe()
        from_worker, events = os.pipe()
        self._commands = os.fdopen(to_worker, "w")
        self._events = os.fdopen(from_worker)
        threading.Thread(target=_serve, args=(entry, commands), kwargs={"events": events}, daemon=True).start()

    def ready(self) -> None:
        """Return once the worker can execute."""

    def run(self, folder: str, key: str) -> Iterator[dict[str, Any]]:
        """Execute a run and yield its events; ``stored`` marks those after which the store holds the run.

        Args:
            folder: the run's folder, as the launcher sees it.
            key: the run's name in the store.
        """
        if self._store is None:
            yield from self._run_in_place(folder)
            return
        scratch = Path(tempfile.mkdtemp(prefix="policylab-run-"))
        try:
            self._store.pull(key, into=scratch)
            yield from self._stored(self._store, self._execute(folder, scratch), scratch=scratch, key=key)
        except PolicylabError as error:
            self.stop(folder)
            for _ in self._execute_rest():
                pass
            yield {"event": "failed", "error": str(error), "user_error": isinstance(error, UserError)}
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _run_in_place(self, folder: str) -> Iterator[dict[str, Any]]:
        if (Path(folder) / "spec.json").exists():
            yield from self._execute(folder, Path(folder))
        else:
            error = (
                f"node {os.uname().nodename} does not see {folder}; choose a folder that every node sees with --out, "
                "or set launcher.storage to a place that every node reaches"
            )
            yield {"event": "failed", "error": error, "user_error": True}

    def _stored(
        self, store: SnapshotStore, events: Iterator[dict[str, Any]], *, scratch: Path, key: str
    ) -> Iterator[dict[str, Any]]:
        """Store the run every so often and at its end, before its event is passed on."""
        stored_at = time.monotonic()
        for event in events:
            ended = event["event"] not in ("progress", "log")
            if ended or time.monotonic() - stored_at >= self._sync_every_s:
                store.push(scratch, key)
                stored_at = time.monotonic()
                event["stored"] = True
            yield event

    def _execute(self, folder: str, path: Path) -> Iterator[dict[str, Any]]:
        with self._lock:
            self._current = folder
            self._tell({"run": str(path)})
        yield from self._execute_rest()

    def _execute_rest(self) -> Iterator[dict[str, Any]]:
        """Yield the events of the run under way, to its end."""
        ended = self._current is None
        while not ended:  # not a look at _current: the next run may have begun when this one's last event is sent
            line = self._events.readline()
            event = json.loads(line) if line else self._no_more()
            while not self._records.empty():
                yield {"event": "log", "text": self._records.get().getMessage()}
            ended = event["event"] != "progress"
            if ended:
                with self._lock:
                    self._current = None
            yield event

    def _no_more(self) -> dict[str, Any]:
        """Return the end of a run that never began: the worker was closed, or its code ended by a defect."""
        if self._commands.closed:
            return {"event": "stopped"}
        return {"event": "failed", "error": "the worker's code ended; its log on the node tells why"}

    def stacks(self) -> str:
        """Return where every thread of this process is, most recent call first."""
        with tempfile.TemporaryFile() as file:  # faulthandler writes to a file descriptor only
            faulthandler.dump_traceback(file, all_threads=True)
            file.seek(0)
            return file.read(MAX_BYTES).decode(errors="replace")

    def stop(self, folder: str) -> None:
        """Ask the run in ``folder`` to save and stop; another run is not disturbed."""
        with self._lock:
            if self._current == folder:
                self._tell({"stop": folder})

    def close(self) -> None:
        """Let the run under way save and stop; execute no more."""
        with self._lock:
            self._commands.close()

    def _tell(self, command: dict[str, str]) -> None:
        if not self._commands.closed:
            self._commands.write(json.dumps(command) + "\n")
            self._commands.flush()


def _serve(entry: Any, commands: int, *, events: int) -> None:
    """Execute runs until the commands end; the end of the events tells that there will be no more."""
    with os.fdopen(commands) as source, os.fdopen(events, "w") as sink:
        entry(source, sink)
