"""Execution of many runs together, in one process: what `policylab.launchers.inline` executes with.

A few threads take the runs in turn, each one run at a time: they open it, train it some marks further, value its
policies and write its files. Compiled training and the disk leave the interpreter to the other threads. A turn lasts so
long that training outweighs writing; a short run comes to its end in one. Each run leaves the bytes that
`policylab.experiments.execute.execute` leaves, ``cost.jsonl`` aside.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import math
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from policylab.agents.agent import Report
from policylab.errors import PolicylabError, UserError
from policylab.experiments.evaluation import ExactEvaluator
from policylab.experiments.execute import LOCK_WAIT_S, VALUE, RunExecution, Stopped
from policylab.experiments.worker import failure, progress
from policylab.files import locked
from policylab.runspec import ReportRow

PIECE_S = 0.02
"""Processor time that a run should train for in a turn; to write what it did takes a few milliseconds."""

TELL_S = 0.25
"""While runs wait for their turn, what happened is told together, after so long."""

MAX_ACTIONS = 10_000_000
"""Most actions, policies times states, that a run keeps until they are valued together."""

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
        self._n_marks = 1
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
            member.train(self._n_marks)
            if row := member.record():
                events.append((folder, progress(row)))
            self._pace(member)
            if member.error is not None:
                raise member.error
            if member.settle():
                events.append((folder, {"event": "finished"}))
        except Stopped:
            events.append((folder, {"event": "stopped"}))
        except Exception as error:  # an environment or agent of the user's may raise anything
            events.append((folder, self._failure(folder, error)))
        return events

    def _pace(self, member: _Member) -> None:
        """Choose how many marks the next turn takes."""
        if member.reports:
            fitting = math.ceil(PIECE_S * len(member.reports) / max(member.seconds[1], 1e-6))
            self._n_marks = min(fitting, 4 * self._n_marks)

    def _failure(self, folder: Path, error: Exception) -> dict[str, Any]:
        if not isinstance(error, PolicylabError):
            with contextlib.suppress(OSError), self._log.open("a") as log:
                log.write(f"run {folder} failed\n{''.join(traceback.format_exception(error))}")
        return failure(error)


class _Member:
    """A run of a batch, and what it did in its last turn.

    Args:
        folder: the run's folder.
        interpreter: held while an environment is made or stepped: more threads would gain nothing, and an environment
            need not bear them.

    Attributes:
        folder: the run's folder.
        stop: when set, the run saves and stops.
        run: the run, from its first turn.
        ended: whether it had its result already.
        reports: (mark, report) of every mark of the turn.
        evaluated: for each of them the metrics of the policy.
        error: what ended the run in this turn.
        seconds: elapsed and processor seconds that training took.
    """

    def __init__(self, folder: Path, interpreter: threading.Lock) -> None:
        self.folder = folder
        self.stop = threading.Event()
        self.run: RunExecution | None = None
        self.ended = False
        self.reports: list[tuple[int, Report]] = []
        self.evaluated: list[dict[str, float]] = []
        self.error: Exception | None = None
        self.seconds = (0.0, 0.0)
        self._interpreter = interpreter
        self._exact: ExactEvaluator | None = None
        self._held = contextlib.ExitStack()

    def _open(self) -> None:
        """Take the run's lock and make its agent; both are let go by `close`.

        Raises:
            UserError: its agent brings processes of its own.
        """
        self._held.enter_context(locked(self.folder / "run.lock", wait_s=LOCK_WAIT_S))
        if (self.folder / "result.json").exists():
            self.ended = True
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
            evaluator = None if run.kind == "online" else run.evaluator
        self._exact = evaluator if isinstance(evaluator, ExactEvaluator) else None
        self.run = run

    def _alone(self, run: RunExecution) -> contextlib.AbstractContextManager[Any]:
        """Return what to hold while the run learns, is valued and gets other settings."""
        compiled = run.agent.execution_report["kind"] == "compiled"
        return contextlib.nullcontext() if compiled and (self._exact or run.kind == "online") else self._interpreter

    def close(self) -> None:
        """Let the run's folder go."""
        self._held.close()

    def train(self, n_marks: int) -> None:
        """Let the agent learn up to the next marks, unless it is to stop; an error is kept."""
        self.reports = []
        try:
            if self.run is None:
                if self.stop.is_set():
                    raise Stopped(str(self.folder))
                self._open()
            if self.run is not None and not self.stop.is_set():
                with self._alone(self.run):
                    self._learn(self.run, n_marks)
        except Exception as error:  # told when what came before it is written
            self.error = error

    def _learn(self, run: RunExecution, n_marks: int) -> None:
        wall, cpu, exact = time.monotonic(), time.thread_time(), self._exact
        reports: list[tuple[int, Report]] = []
        metrics: list[dict[str, float]] = []
        actions: list[NDArray[np.int64]] = []
        try:
            for mark in itertools.islice(run.marks(), self._fitting(n_marks)):
                report = run.agent.learn(mark - run.agent.steps)
                if exact is None:
                    metrics.append(run.evaluate())
                else:
                    actions.append(exact.actions(run.agent.policy()))
                reports.append((mark, report))
                if mark in run.spec.changes:
                    break  # `settle` goes on with other settings
        finally:
            if exact is not None and actions:
                metrics = [{VALUE: value} for value in exact.values(np.array(actions))]
            self.reports, self.evaluated = reports, metrics
            self.seconds = time.monotonic() - wall, time.thread_time() - cpu

    def _fitting(self, n_marks: int) -> int:
        return n_marks if self._exact is None else min(n_marks, max(1, MAX_ACTIONS // self._exact.mdp.n_states))

    def record(self) -> ReportRow | None:
        """Write the turn's rows; return the last."""
        if self.run is None or not self.reports:
            return None
        rows = [
            self.run.row(mark, report, evaluated=metrics)
            for (mark, report), metrics in zip(self.reports, self.evaluated, strict=True)
        ]
        self.run.record(rows, seconds=self.seconds)
        return rows[-1]

    def settle(self) -> bool:
        """Save if that is due; return whether the run has reached its end, with its result written.

        Raises:
            Stopped: it was told to stop, and has saved.
        """
        if self.run is None:
            return self.ended
        with self._alone(self.run):
            if self.reports or self.stop.is_set():
                self.run.settle()
            if self.run.steps < self.run.spec.stop_at_steps:
                return False
            self.run.finish()
        return True
