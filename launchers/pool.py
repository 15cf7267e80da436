"""A launcher that keeps a few long-lived workers, each executing one run at a time: the part that launchers share.

What a worker is (a process here, an actor on a cluster) is the business of the launcher that passes it in. A worker
answers a run with events, the objects of the table in `policylab.launchers.local`. A worker that is lost while it
executes, or is killed because its run takes too long, gives its run back: the run is queued again as often as
`policylab.attempts.Attempts` say, ahead of the others, and goes on from its checkpoint.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from policylab.attempts import Attempts, Failure
from policylab.launchers.deadline import Deadline
from policylab.launchers.launcher import SAVE_S, Handle, Progress, State, tell_interrupt, tell_unsaved

EXIT_S = 5.0
"""Time that a worker without a run gets to end by itself."""


class WorkerLost(Exception):
    """A worker ended that should not have; the message says how."""


class Worker(Protocol):
    """Executes runs, one at a time. Its methods are called by one thread, except `stop`, `abort` and `close`."""

    def start(self) -> None:
        """Be ready to execute, waiting for a place if need be; nothing to do when ready.

        Raises:
            WorkerLost: it could not be started.
        """
        ...

    def execute(self, folder: Path) -> Iterator[dict[str, Any]]:
        """Execute a run and yield its events; the last is finished, stopped or failed.

        Raises:
            WorkerLost: it ended before the run did.
        """
        ...

    def stop(self, folder: Path) -> None:
        """Ask the run in ``folder`` to save and stop."""
        ...

    def abort(self) -> str | None:
        """End it in the middle of a run, whatever it does: `execute` raises; return where it was, if that is known."""
        ...

    def close(self) -> None:
        """Ask for the end: a run that executes saves and stops; one that has not started does not start."""
        ...

    def kill(self, *, after_s: float) -> None:
        """End whatever is left of it, unless it ends by itself within ``after_s`` seconds."""
        ...


class WorkerPool:
    """A queue of runs and the workers that execute them; a context manager that ends them.

    Args:
        n_workers: how many runs execute at once.
        make_worker: makes one worker; workers are made as runs come in.
        attempts: how long a run may execute, and how often it is queued again.
    """

    def __init__(self, *, n_workers: int, make_worker: Callable[[], Worker], attempts: Attempts | None = None) -> None:
        self._n_workers = n_workers
        self._make_worker = make_worker
        self.attempts = attempts or Attempts()
        self._queue: collections.deque[Path] = collections.deque()
        self._progress: dict[Path, Progress] = {}
        self._failures: collections.defaultdict[Path, list[Failure]] = collections.defaultdict(list)
        self._n_failed: dict[Path, int] = {}
        self._stopping: set[Path] = set()
        self._threads: list[_WorkerThread] = []
        self._lock = threading.Condition()
        self._changed = threading.Event()
        self._closing = False

    def submit(self, folder: Path, *, n_failed: int = 0) -> Handle:
        """Queue the run in ``folder``, starting one more worker if the pool is not full."""
        with self._lock:
            self._progress[folder] = Progress(State.WAITING)
            self._failures.pop(folder, None)
            self._n_failed[folder] = n_failed
            self._stopping.discard(folder)
            self._queue.append(folder)
            if len(self._threads) < self._n_workers:
                thread = _WorkerThread(self, self._make_worker())
                self._threads.append(thread)
                thread.start()
            self._lock.notify()
        return Handle(folder)

    def poll(self, handle: Handle) -> Progress:
        """Return where the run stands."""
        return self._progress[handle.folder]

    def stop(self, handle: Handle) -> None:
        """Ask a running run to save and stop; a waiting one is not started."""
        with self._lock:
            if self._progress[handle.folder].state is State.WAITING:
                self._end_waiting(handle.folder, Progress(State.STOPPED))
                return
            self._stopping.add(handle.folder)
            workers = [thread.worker for thread in self._threads if thread.folder == handle.folder]
        for worker in workers:
            worker.stop(handle.folder)

    def attach(self, folder: Path) -> Handle | None:
        """Return the handle of a run submitted to this launcher; its runs never outlive it."""
        return Handle(folder) if folder in self._progress else None

    def wait(self, *, timeout_s: float) -> None:
        """Return when a run's progress has changed since the last call, or after ``timeout_s`` seconds."""
        self._changed.wait(timeout_s)
        self._changed.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, left_by: type[BaseException] | None, *_: object) -> None:
        tell_interrupt(left_by, n_runs=len(self._under_way(self._threads)), within_s=SAVE_S)
        self.close(timeout_s=SAVE_S)

    def close(self, *, timeout_s: float) -> None:
        """Stop every run, let the workers save, and end them; kill what is left after ``timeout_s``.

        Raises:
            KeyboardInterrupt: it came while they saved; all have been killed.
        """
        threads, deadline = list(self._threads), time.monotonic() + timeout_s
        try:
            self._ask_to_leave(threads)
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
        except KeyboardInterrupt:
            deadline = time.monotonic()
            raise
        finally:
            tell_unsaved(self._under_way(threads))
            for thread in threads:
                thread.worker.kill(after_s=max(0.0, min(EXIT_S, deadline - time.monotonic())))

    def _ask_to_leave(self, threads: Sequence[_WorkerThread]) -> None:
        with self._lock:
            self._closing = True
            for folder in list(self._queue):
                self._end_waiting(folder, Progress(State.STOPPED))
            self._lock.notify_all()
        for thread in threads:
            thread.worker.close()

    @staticmethod
    def _under_way(threads: Sequence[_WorkerThread]) -> list[Path]:
        return [folder for thread in threads if (folder := thread.folder) is not None]

    def _end_waiting(self, folder: Path, progress: Progress) -> None:
        self._queue.remove(folder)
        self._set(folder, progress)

    def _set(self, folder: Path, progress: Progress) -> None:
        self._progress[folder] = dataclasses.replace(progress, failures=tuple(self._failures[folder]))
        self._changed.set()

    def take(self, thread: _WorkerThread) -> Path | None:
        """Return the next run for the worker of ``thread``, waiting for one; None when the pool closes."""
        with self._lock:
            while not self._queue and not self._closing:
                self._lock.wait()
            if self._closing:
                return None
            thread.folder = self._queue.popleft()
            self._set(thread.folder, Progress(State.RUNNING))
            return thread.folder

    def advance(self, thread: _WorkerThread, progress: Progress) -> None:
        """Record where a run that executes stands; ask it again to stop if it had not begun when it was asked."""
        assert thread.folder is not None
        with self._lock:
            self._set(thread.folder, progress)
            stopping = thread.folder in self._stopping
        if stopping:
            thread.worker.stop(thread.folder)

    def end(self, thread: _WorkerThread, progress: Progress) -> None:
        """Record how the run of ``thread`` ended."""
        with self._lock:
            folder, thread.folder = thread.folder, None
            assert folder is not None
            self._set(folder, progress)

    def fail(self, thread: _WorkerThread, failed: Progress, *, lost: bool) -> None:
        """Queue a run that failed again, or end it: it was to be stopped, or has failed too often.

        Args:
            thread: executed it.
            failed: how it ended.
            lost: whether its worker was lost; False: it raised an exception.
        """
        with self._lock:
            folder, thread.folder = thread.folder, None
            assert folder is not None
            assert failed.failure is not None
            self._n_failed[folder] += 1
            n_failed, stopping = self._n_failed[folder], self._closing or folder in self._stopping
            often = f"failed {n_failed} times; the last time: " if n_failed > 1 else ""
            if stopping and lost:
                self._set(folder, Progress(State.STOPPED, steps=failed.steps))
            elif stopping or failed.user_error or not self.attempts.again(n_failed, lost=lost):
                self._set(folder, dataclasses.replace(failed, error=often + failed.failure.error))
            else:
                self._failures[folder].append(failed.failure)
                self._queue.appendleft(folder)
                self._set(folder, Progress(State.WAITING, steps=failed.steps))
                self._lock.notify()

    def give_up(self, thread: _WorkerThread, reason: str) -> None:
        """Do without a worker that cannot be started; without any, nothing that waits can be executed."""
        with self._lock:
            self._threads.remove(thread)
            if not self._threads:
                for folder in list(self._queue):
                    self._end_waiting(folder, Progress(State.FAILED, error=reason))

    @property
    def closing(self) -> bool:
        """Whether the pool is being closed."""
        return self._closing


class _WorkerThread(threading.Thread):
    """Feeds one worker."""

    def __init__(self, pool: WorkerPool, worker: Worker) -> None:
        super().__init__(daemon=True)
        self.worker = worker
        self.folder: Path | None = None
        self._pool = pool

    def run(self) -> None:
        failures = 0
        while not self._pool.closing:
            try:
                self.worker.start()
            except WorkerLost as lost:
                failures += 1
                if failures > self._pool.attempts.retries:
                    self._pool.give_up(self, str(lost))
                    return
                continue
            failures = 0
            folder = self._pool.take(self)
            if folder is not None:
                self._execute(folder)

    def _execute(self, folder: Path) -> None:
        last, deadline = Progress(State.RUNNING), Deadline(self._pool.attempts, abort=self.worker.abort)
        try:
            with deadline:
                for event in self.worker.execute(folder):
                    deadline.begin()
                    name = event.pop("event")
                    if name != "progress":
                        self._end(Progress(State(name), steps=last.steps, value=last.value, **event))
                        return
                    last = Progress(State.RUNNING, steps=event["steps"], value=event["value"])
                    self._pool.advance(self, last)
                raise WorkerLost("its worker stopped in the middle of the run")
        except WorkerLost as lost:
            self._pool.fail(self, last.failed(deadline.missed or Failure(str(lost))), lost=True)
        except Exception as error:  # a defect of a worker's must not leave its run under way for ever
            self._pool.end(self, last.failed(Failure.of(error)))

    def _end(self, ended: Progress) -> None:
        if ended.state is State.FAILED:
            self._pool.fail(self, ended, lost=False)
        else:
            self._pool.end(self, ended)
