"""Execution of many runs together, in one process: what `policylab.launchers.inline` executes with.

A few threads take the runs in turn, each one run at a time: they open it, train it for a stretch
(`policylab.experiments.stretch`) and write its files; a short run comes to its end in one turn. Compiled training and
the disk leave the interpreter to the other threads. Each run leaves the bytes that
`policylab.experiments.execute.execute` leaves, ``cost.jsonl`` aside.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import traceback
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, Self

from policylab.errors import PolicylabError, UserError
from policylab.experiments.execute import LOCK_WAIT_S, RunExecution, Stopped
from policylab.experiments.stretch import Pace, Stretch
from policylab.experiments.worker import failure, progress
from policylab.files import locked

TELL_S = 0.25
"""While runs wait for their turn, what happened is told together, after so long."""

Event = tuple[Path, dict[str, Any]]


class Batch:
    """Runs that are advanced together; a context manager that frees them.

    Args:
        n_threads: how many runs are advanced at the same time.
        log: receives the traceback of what is no error of policylab's.
    """

    def __init__(self, *, n_threads: int, log: Path) -> None:
        self._log = log
        self._members: dict[Path, _Member] = {}
        self._waiting: collections.deque[_Member] = collections.deque()
        self._events: list[Event] = []
        self._pace = Pace()
        self._closing = False
        self._changed = threading.Condition()
        self._interpreter = threading.Lock()
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(n_threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for member in self._members.values():
            member.close()

    def add(self, folders: Iterable[Path]) -> None:
        """Let runs join."""
        fresh = {folder: _Member(folder, self._interpreter) for folder in folders}
        with self._changed:
            self._members.update(fresh)
            self._waiting.extend(fresh.values())
            self._changed.notify_all()

    def advance(self, stopping: Callable[[], Collection[Path]]) -> list[Event]:
        """Return what happened to the runs since the last call; those of ``stopping`` save and stop next."""
        with self._changed:
            for member in [self._members[folder] for folder in stopping() if folder in self._members]:
                if not member.stop.is_set() and member in self._waiting:
                    self._waiting.remove(member)
                    self._waiting.appendleft(member)
                member.stop.set()
            self._changed.wait_for(lambda: self._events and not self._waiting, TELL_S)
            events, self._events = self._events, []
        for folder, event in events:
            if event["event"] != "progress":
                self._members.pop(folder).close()
        return events

    def _serve(self) -> None:
        while (member := self._next()) is not None:
            events = self._turn(member)
            with self._changed:
                self._events += events
                if all(event["event"] == "progress" for _, event in events):
                    self._waiting.append(member)
                self._changed.notify_all()

    def _next(self) -> _Member | None:
        """Return the run whose turn it is, once there is one; None when there are to be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            return None if self._closing else self._waiting.popleft()

    def _turn(self, member: _Member) -> list[Event]:
        """Take a run some marks further; return what happened to it, the end of it last."""
        folder, events = member.folder, []
        try:
            if stretch := member.learn(self._pace.n_marks):
                if stretch.rows:
                    member.record(stretch)
                    events.append((folder, progress(stretch.rows[-1])))
                if stretch.error is not None:
                    raise stretch.error
                self._pace.follow(stretch)
            if member.settle(trained=stretch is not None):
                events.append((folder, {"event": "finished"}))
        except Stopped:
            events.append((folder, {"event": "stopped"}))
        except Exception as error:  # an environment or agent of the user's may raise anything
            events.append((folder, self._failure(folder, error)))
        return events

    def _failure(self, folder: Path, error: Exception) -> dict[str, Any]:
        if not isinstance(error, PolicylabError):
            with contextlib.suppress(OSError), self._log.open("a") as log:
                log.write(f"run {folder} failed\n{''.join(traceback.format_exception(error))}")
        return failure(error)


class _Member:
    """A run of a batch.

    Args:
        folder: the run's folder.
        interpreter: held while an environment is made or stepped: more threads would gain nothing, and an environment
            need not bear them.

    Attributes:
        folder: the run's folder.
        stop: when set, the run saves and stops.
        run: the run, from its first turn; None then if it had its result already.
    """

    def __init__(self, folder: Path, interpreter: threading.Lock) -> None:
        self.folder = folder
        self.stop = threading.Event()
        self.run: RunExecution | None = None
        self._interpreter = interpreter
        self._held = contextlib.ExitStack()

    def _open(self) -> None:
        """Take the run's lock and make its agent; both are let go by `close`.

        Raises:
            UserError: its agent brings processes of its own.
        """
        self._held.enter_context(locked(self.folder / "run.lock", wait_s=LOCK_WAIT_S))
        if (self.folder / "result.json").exists():
            return
        with self._interpreter:
            run = RunExecution(self.folder, stop=self.stop)
            self._held.enter_context(contextlib.closing(run))
            kind = run.agent.execution_report["kind"]
            if kind not in ("compiled", "plain"):
                raise UserError(
                    f"launcher.kind 'inline' executes tabular agents and bandits in this process, but agent.kind "
                    f"'{run.spec.agent.get('kind')}' executes by {kind}; use launcher.kind 'local'"
                )
            if run.kind != "online":
                _ = run.evaluator  # made, with its environment, while no other is
        self.run = run

    def _alone(self, run: RunExecution) -> contextlib.AbstractContextManager[Any]:
        """Return what to hold while the run learns, is valued and gets other settings."""
        compiled = run.agent.execution_report["kind"] == "compiled" and (run.kind == "online" or run.evaluator.exact)
        return contextlib.nullcontext() if compiled else self._interpreter

    def close(self) -> None:
        """Let the run's folder go."""
        self._held.close()

    def learn(self, n_marks: int) -> Stretch | None:
        """Let the agent learn up to the next marks; None if it is to stop or has ended.

        Raises:
            Stopped: it was told to before its first turn.
        """
        if self.run is None:
            if self.stop.is_set():
                raise Stopped(str(self.folder))
            self._open()
        if self.run is None or self.stop.is_set():
            return None
        with self._alone(self.run):
            return self.run.learn(n_marks)

    def record(self, stretch: Stretch) -> None:
        """Write the rows of a stretch."""
        assert self.run is not None
        self.run.record(stretch.rows, seconds=stretch.seconds)

    def settle(self, *, trained: bool) -> bool:
        """Save if that is due; return whether the run has reached its end, with its result written.

        Raises:
            Stopped: it was told to stop, and has saved.
        """
        if self.run is None:
            return True
        with self._alone(self.run):
            if trained or self.stop.is_set():
                self.run.settle()
            if not self.run.ended:
                return False
            self.run.finish()
        return True
