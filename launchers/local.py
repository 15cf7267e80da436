"""Runs on this machine, in a few long-lived worker processes.

Each worker is ``python -m policylab run-spec --serve``. Parent and worker speak JSON lines, one object
each, never pickles:

| to the worker | from the worker |
|---|---|
| ``{"run": FOLDER}`` | ``{"event": "progress", "steps": n, "value": x}`` |
| ``{"stop": FOLDER}`` | ``{"event": "finished"}``, ``{"event": "stopped"}`` |
| end of file: save and exit | ``{"event": "failed", "error": TEXT, "user_error": BOOL}`` |

A worker reads end of file when its parent ends in any way, kill -9 included, so none is left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Literal

from pydantic import Field

from policylab.config import Settings
from policylab.launchers.launcher import Handle, Progress, State

WORKER_COMMAND = (sys.executable, "-m", "policylab", "run-spec", "--serve")


class LocalSettings(Settings):
    """Run on this machine."""

    kind: Literal["local"] = "local"
    workers: int | None = Field(default=None, ge=1, le=1024, description="worker processes; default: one per core")

    @property
    def n_workers(self) -> int:
        """Worker processes to start: as set, else the cores this process may use."""
        return self.workers or len(os.sched_getaffinity(0))


class LocalLauncher:
    """A pool of worker processes on this machine; a context manager that ends them.

    Args:
        n_workers: how many runs execute at once.
        log: file that receives what the workers write to standard error.
        command: starts one worker; see the module docstring for what it must speak.
    """

    def __init__(self, *, n_workers: int, log: Path, command: Sequence[str] = WORKER_COMMAND) -> None:
        self._n_workers = n_workers
        self._log = log
        self._command = list(command)
        self._waiting: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._progress: dict[Path, Progress] = {}
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()
        self._changed = threading.Event()

    def submit(self, folder: Path) -> Handle:
        """Queue the run in ``folder``, starting one more worker if the pool is not full."""
        self._progress[folder] = Progress(State.WAITING)
        self._waiting.put(folder)
        with self._lock:
            if len(self._workers) < self._n_workers:
                worker = _Worker(self)
                self._workers.append(worker)
                worker.start()
        return Handle(folder)

    def poll(self, handle: Handle) -> Progress:
        """Return where the run stands."""
        return self._progress[handle.folder]

    def stop(self, handle: Handle) -> None:
        """Ask a running run to save and stop; a waiting one is not started."""
        if self._progress[handle.folder].state is State.WAITING:
            self._progress[handle.folder] = Progress(State.STOPPED)
        for worker in list(self._workers):
            if worker.folder == handle.folder:
                worker.send({"stop": str(handle.folder)})

    def wait(self, *, timeout_s: float) -> None:
        """Return when a run's progress has changed since the last call, or after ``timeout_s`` seconds."""
        self._changed.wait(timeout_s)
        self._changed.clear()

    def update(self, folder: Path, progress: Progress) -> None:
        """Record where a run stands; called by the workers' threads."""
        self._progress[folder] = progress
        self._changed.set()

    def attach(self, folder: Path) -> Handle | None:
        """Return the handle of a run submitted to this launcher; local runs never outlive it."""
        return Handle(folder) if folder in self._progress else None

    def __enter__(self) -> LocalLauncher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close(timeout_s=30.0)

    def close(self, *, timeout_s: float) -> None:
        """Stop every run, let the workers save, and end them; kill what is left after ``timeout_s``."""
        for folder in [folder for folder, progress in self._progress.items() if progress.state is State.WAITING]:
            self._progress[folder] = Progress(State.STOPPED)
        for worker in self._workers:
            self._waiting.put(None)
            worker.close_input()
        for worker in self._workers:
            worker.join(timeout_s)
            worker.kill()


class _Worker(threading.Thread):
    """One worker process and the thread that feeds it and reads its events."""

    def __init__(self, launcher: LocalLauncher) -> None:
        super().__init__(daemon=True)
        self.folder: Path | None = None
        self._launcher = launcher
        self._process: subprocess.Popen[str] | None = None
        self._closing = False

    def run(self) -> None:
        launcher = self._launcher
        while (folder := launcher._waiting.get()) is not None:
            if launcher._progress[folder].state is not State.WAITING:
                continue
            self.folder = folder
            launcher.update(folder, Progress(State.RUNNING))
            try:
                ended = self._execute(folder)
            except OSError as error:
                ended = Progress(State.FAILED, error=f"cannot start a worker process: {error}")
            self.folder = None
            launcher.update(folder, ended)
        self.close_input()

    def _execute(self, folder: Path) -> Progress:
        process = self._running()
        if self._closing:  # set before a process was there to be told
            self.close_input()
        self.send({"run": str(folder)})
        last = Progress(State.RUNNING)
        for line in _opened(process.stdout):
            event = json.loads(line)
            name = event.pop("event")
            if name == "progress":
                last = Progress(State.RUNNING, steps=event["steps"], value=event["value"])
                self._launcher.update(folder, last)
            else:
                return Progress(State(name), steps=last.steps, value=last.value, **event)
        code = self._discard(process)
        if self._closing:
            return Progress(State.STOPPED, steps=last.steps, value=last.value)
        return Progress(
            State.FAILED, steps=last.steps, error=f"its worker process died (exit {code}); see {self._launcher._log}"
        )

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
            with self._launcher._log.open("a") as log:
                self._process = subprocess.Popen(
                    self._launcher._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env={**os.environ, **threads},
                    start_new_session=True,  # Ctrl-C reaches the parent alone, which then asks workers to save
                )
        return self._process

    def _discard(self, process: subprocess.Popen[str]) -> int:
        """Reap a process that ended and close its pipes; return its exit code."""
        code = process.wait()
        self._process = None
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                _opened(pipe).close()
        return code

    def send(self, message: dict[str, str]) -> None:
        """Write one message; a worker that is gone is noticed by the reader."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError, ValueError):
                self._process.stdin.write(json.dumps(message) + "\n")
                self._process.stdin.flush()

    def close_input(self) -> None:
        """Tell the process to save and exit."""
        self._closing = True
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def kill(self) -> None:
        """End the process if it is still there."""
        process = self._process
        if process is not None:
            try:
                process.wait(timeout=5.0)
            except subprocess.TimeoutExpired:
                process.kill()
            self._discard(process)


def _opened(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
