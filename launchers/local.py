"""Runs on this machine, in a few long-lived worker processes.

Each worker is ``python -m policylab run-spec --serve``. Parent and worker speak JSON lines, one object
each, never pickles:

| to the worker | from the worker |
|---|---|
| ``{"run": FOLDER}`` | ``{"event": "progress", "steps": n, "value": x}``, first as it begins, without a value |
| ``{"run": FOLDER, "bundle": TARGET}``: also packages its policy | |
| ``{"stop": FOLDER}`` | ``{"event": "finished"}``, ``{"event": "stopped"}`` |
| end of file: save and exit | ``{"event": "failed", "error": TEXT, "user_error": BOOL, "traceback": TEXT}`` |

A worker reads end of file when its parent ends in any way, kill -9 included, so none is left behind. One whose run
takes too long is asked for its stack (`policylab.stacks`) and killed with all it started.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar, Literal

from pydantic import Field

from policylab.attempts import Attempts
from policylab.launchers.pool import WorkerLost, WorkerPool
from policylab.stacks import Stacks

WORKER_LOG = "workers.log"
STACKS = "POLICYLAB_STACKS"
"""Variable that names the open file in which a worker writes its stacks when it is asked for them."""

WORKER_COMMAND = (sys.executable, "-m", "policylab", "run-spec", "--serve")


class LocalSettings(Attempts):
    """Run on this machine."""

    queued_per_worker: ClassVar[int] = 4
    """Runs to hand over for each worker where no decision waits for a result: none waits for its next run then."""

    kind: Literal["local"] = "local"
    workers: int | None = Field(default=None, ge=1, le=1024, description="worker processes; default: one per core")

    @property
    def n_workers(self) -> int:
        """Worker processes to start: as set, else the cores this process may use."""
        return self.workers or len(os.sched_getaffinity(0))


class LocalLauncher(WorkerPool):
    """A pool of worker processes on this machine; a context manager that ends them.

    Args:
        n_workers: how many runs execute at once.
        log: file that receives what the workers write to standard error.
        command: starts one worker; see the module docstring for what it must speak.
        attempts: how long a run may execute, and how often it is tried again.
    """

    Settings = LocalSettings

    def __init__(
        self, *, n_workers: int, log: Path, command: Sequence[str] = WORKER_COMMAND, attempts: Attempts | None = None
    ) -> None:
        super().__init__(n_workers=n_workers, make_worker=lambda: WorkerProcess(command, log=log), attempts=attempts)

    @classmethod
    def make(cls, settings: LocalSettings, *, n_workers: int, folder: Path) -> LocalLauncher:
        """Return the launcher that ``settings`` describe."""
        return cls(n_workers=n_workers, log=folder / WORKER_LOG, attempts=settings)


class WorkerProcess:
    """One worker process.

    Args:
        log: receives what it writes to standard error; None: it goes where this process's own goes.
        command: starts it.
        environment: variables it gets beside this process's own.
    """

    def __init__(
        self, command: Sequence[str] = WORKER_COMMAND, *, log: Path | None, environment: Mapping[str, str] | None = None
    ) -> None:
        self._command = list(command)
        self._log = log
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[str] | None = None
        self._stacks: Stacks | None = None
        self._closing = False

    @property
    def pid(self) -> int | None:
        """The process; None before the start and after the end."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process unless it is there.

        Raises:
            WorkerLost: it could not be started.
        """
        if self._process is not None:
            if self._process.poll() is None:
                return
            self._discard(self._process)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._stacks = Stacks()
        try:
            with self._log.open("a") if self._log else contextlib.nullcontext() as log:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env={**os.environ, **threads, **self._environment, STACKS: str(self._stacks.fileno)},
                    pass_fds=[self._stacks.fileno],
                    start_new_session=True,  # Ctrl-C reaches the parent alone, which then asks workers to save
                )
        except OSError as error:
            self._stacks.close()
            raise WorkerLost(f"cannot start a worker process: {error}") from None
        if self._closing:  # set before a process was there to be told
            self.close()

    def execute(self, folder: Path, **options: str) -> Iterator[dict[str, Any]]:
        """Execute a run and yield its events; ``options`` are sent with its folder.

        Raises:
            WorkerLost: the process ended before the run did.
        """
        self.start()
        assert self._process is not None
        self._send({"run": str(folder), **options})
        for line in _opened(self._process.stdout):
            yield json.loads(line)
        see = f"; see {self._log}" if self._log else ""
        raise WorkerLost(f"its worker process died (exit {self._discard(self._process)}){see}")

    def stop(self, folder: Path) -> None:
        """Ask the run to save and stop."""
        self._send({"stop": str(folder)})

    def _send(self, message: dict[str, str]) -> None:
        """Write one message; a worker that is gone is noticed by the reader."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError, ValueError):
                self._process.stdin.write(json.dumps(message) + "\n")
                self._process.stdin.flush()

    def abort(self) -> str | None:
        """Kill it and all it started; return where it was, or None if it did not answer."""
        process, stacks = self._process, self._stacks
        if process is None or stacks is None:
            return None
        found = stacks.ask(process.pid)
        _kill_group(process)
        return found

    def close(self) -> None:
        """Close its input: it saves and ends."""
        self._closing = True
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def _discard(self, process: subprocess.Popen[str]) -> int:
        """Reap a process that ended and close its pipes; return its exit code."""
        code = process.wait()
        self._process = None
        if self._stacks is not None:
            self._stacks.close()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                _opened(pipe).close()
        return code

    def kill(self, *, after_s: float) -> None:
        """Wait so long for its end, then kill it and all it started."""
        process = self._process
        if process is not None:
            try:
                process.wait(timeout=after_s)
            except subprocess.TimeoutExpired:
                _kill_group(process)
            self._discard(process)


def _kill_group(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _opened(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
