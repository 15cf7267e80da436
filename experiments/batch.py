"""Execution of many runs together, in one process: what `policylab.launchers.inline` executes with.

A round takes some runs, in turn, some marks further: compiled training on several threads at once, then all policies of
the round in one exact evaluation, then the files. A run goes so far in a round that its training outweighs its writing;
a short one goes to its end. A few threads write the files of different runs and wait for the disk side by side; more of
them only wait for the one interpreter. Each run leaves the bytes that `policylab.experiments.execute.execute` leaves,
``cost.jsonl`` aside.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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

ROUND_S = 0.5
"""How long a round should take: runs stop, save and tell of their progress between rounds."""

PIECE_S = 0.02
"""Processor time that a run should train for in a round; to write what it did takes a few milliseconds."""

MAX_ACTIONS = 20_000_000
"""Most actions, policies times states, that one round keeps."""

N_WRITERS = 4
"""Threads that write files; more of them gain nothing."""

Event = tuple[Path, dict[str, Any]]


class Batch:
    """Runs that are advanced together; a context manager that frees them.

    Args:
        n_threads: threads that train compiled agents.
        log: receives the traceback of what is no error of policylab's.
    """

    def __init__(self, *, n_threads: int, log: Path) -> None:
        self._log = log
        self._members: dict[Path, _Member] = {}
        self._n_marks = 1
        self._n_runs = n_threads
        self._n_threads = n_threads
        self._trainers = ThreadPoolExecutor(n_threads)
        self._writers = ThreadPoolExecutor(N_WRITERS)
        self._round: _Round | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._trainers.shutdown()
        self._writers.shutdown()
        for member in self._members.values():
            member.close()

    def add(self, folders: Collection[Path]) -> list[Event]:
        """Open runs; return the events of those that have a result already or cannot be opened."""
        events: list[Event] = []
        for folder in folders:
            try:
                member = _Member.open(folder)
            except Exception as error:
                events.append((folder, self._failure(folder, error)))
                continue
            if member is None:
                events.append((folder, {"event": "finished"}))
            else:
                self._members[folder] = member
        return events

    def advance(self, stopping: Callable[[], Collection[Path]]) -> list[Event]:
        """Take the runs whose turn it is some marks further, and save and stop those of ``stopping``.

        Returns:
            What happened.
        """
        started = time.monotonic()
        round_ = self._round if self._round and self._round.members else self._begin(busy=())
        round_.join()
        self._round = self._begin(busy=round_.members)  # they train while this round's files are written
        _evaluate(round_.members)
        for folder in stopping():
            if folder in self._members:
                self._members[folder].run.stop.set()
        events = [event for found in self._writers.map(self._write, self._due(round_)) for event in found]
        for folder, event in events:
            if event["event"] != "progress":
                self._members.pop(folder).close()
        self._pace(round_.members, took_s=time.monotonic() - started)
        return events

    def _begin(self, *, busy: Collection[_Member]) -> _Round:
        """Let the runs whose turn it is, but none of ``busy``, train."""
        busy = set(busy)
        others = (member for member in self._members.values() if member not in busy)
        members = list(itertools.islice(others, self._n_runs))
        for member in members:  # the others' turn comes first
            self._members[member.run.folder] = self._members.pop(member.run.folder)
        n_actions = sum(member.exact.mdp.n_states for member in members if member.exact is not None)
        n_marks = min(self._n_marks, max(1, MAX_ACTIONS // max(1, n_actions)))
        compiled = [member for member in members if member.compiled]
        shares = [compiled[first :: self._n_threads] for first in range(self._n_threads)]
        return _Round(members, n_marks, [self._trainers.submit(_train, share, n_marks=n_marks) for share in shares])

    def _due(self, round_: _Round) -> list[_Member]:
        """Return the members of a round, and those to stop that wait for their turn."""
        under_way = {*round_.members, *(self._round.members if self._round else ())}
        waiting = (member for member in self._members.values() if member not in under_way)
        return [*round_.members, *(member for member in waiting if member.run.stop.is_set())]

    def _write(self, member: _Member) -> list[Event]:
        folder, events = member.run.folder, []
        try:
            if row := member.record():
                events.append((folder, progress(row)))
            if member.error is not None:
                raise member.error
            if member.settle():
                events.append((folder, {"event": "finished"}))
        except Stopped:
            events.append((folder, {"event": "stopped"}))
        except Exception as error:  # an environment or agent of the user's may raise anything
            events.append((folder, self._failure(folder, error)))
        member.n_marks, member.reports = len(member.reports), []
        return events

    def _pace(self, round_: Sequence[_Member], *, took_s: float) -> None:
        """Choose how many runs the next round takes how many marks further."""
        n_marks, trained_s = sum(member.n_marks for member in round_), sum(member.seconds[1] for member in round_)
        fitting = math.ceil(PIECE_S * n_marks / max(trained_s, 1e-6))
        self._n_marks = min(max(1, fitting), 4 * self._n_marks)
        fitting = round(len(round_) * ROUND_S / max(took_s, 1e-3))
        self._n_runs = max(self._n_threads, min(fitting, 4 * len(round_)))

    def _failure(self, folder: Path, error: Exception) -> dict[str, Any]:
        if not isinstance(error, PolicylabError):
            with contextlib.suppress(OSError), self._log.open("a") as log:
                log.write(f"run {folder} failed\n{''.join(traceback.format_exception(error))}")
        return failure(error)


@dataclasses.dataclass(slots=True, eq=False)
class _Member:
    """A run of a batch, and what it did in the round under way.

    Attributes:
        run: the run.
        exact: values its policies, if that is done exactly.
        held: its lock and its agent, let go by `close`.
        reports: (mark, report) of every mark of the round.
        actions: for each of them the policy's actions, where these are valued later, all together.
        evaluated: for each of them the metrics of the policy.
        error: what ended the run in this round.
        seconds: elapsed and processor seconds that training took.
        n_marks: marks of the last round that was written.
    """

    run: RunExecution
    exact: ExactEvaluator | None
    held: contextlib.ExitStack
    reports: list[tuple[int, Report]] = dataclasses.field(default_factory=list)
    actions: list[NDArray[np.int64]] = dataclasses.field(default_factory=list)
    evaluated: list[dict[str, float]] = dataclasses.field(default_factory=list)
    error: Exception | None = None
    seconds: tuple[float, float] = (0.0, 0.0)
    n_marks: int = 0

    @classmethod
    def open(cls, folder: Path) -> Self | None:
        """Return the run in ``folder``, or None when it has its result already.

        Raises:
            UserError: its agent brings processes of its own.
        """
        with contextlib.ExitStack() as held:
            held.enter_context(locked(folder / "run.lock", wait_s=LOCK_WAIT_S))
            if (folder / "result.json").exists():
                return None
            run = RunExecution(folder, stop=threading.Event())
            held.enter_context(contextlib.closing(run))
            kind = run.agent.execution_report["kind"]
            if kind not in ("compiled", "plain"):
                raise UserError(
                    f"launcher.kind 'inline' executes tabular agents and bandits in this process, but agent.kind "
                    f"'{run.spec.agent.get('kind')}' executes by {kind}; use launcher.kind 'local'"
                )
            evaluator = None if run.kind == "online" else run.evaluator
            return cls(run, evaluator if isinstance(evaluator, ExactEvaluator) else None, held.pop_all())
        raise AssertionError  # an ExitStack of these contexts swallows nothing

    def close(self) -> None:
        """Let the run's folder go."""
        self.held.close()

    @property
    def compiled(self) -> bool:
        """Whether training leaves the interpreter to other threads."""
        return self.run.agent.execution_report["kind"] == "compiled"

    def train(self, n_marks: int) -> None:
        """Let the agent learn up to the next marks; an error is kept."""
        agent, wall, cpu = self.run.agent, time.monotonic(), time.thread_time()
        self.reports, self.actions, self.evaluated = [], [], []
        try:
            for mark in itertools.islice(self.run.marks(), n_marks):
                report = agent.learn(mark - agent.steps)
                if self.exact is not None:
                    self.actions.append(self.exact.actions(agent.policy()))
                else:
                    self.evaluated.append(self.run.evaluate())
                self.reports.append((mark, report))
                if mark in self.run.spec.changes:
                    break  # `settle` goes on with other settings
        except Exception as error:  # told when what came before it is written
            self.error = error
        self.seconds = time.monotonic() - wall, time.thread_time() - cpu

    def record(self) -> ReportRow | None:
        """Write the round's rows; return the last."""
        rows = [
            self.run.row(mark, report, evaluated=metrics)
            for (mark, report), metrics in zip(self.reports, self.evaluated, strict=True)
        ]
        if not rows:
            return None
        self.run.record(rows, seconds=self.seconds)
        return rows[-1]

    def settle(self) -> bool:
        """Save if that is due; return whether the run has reached its end, with its result written.

        Raises:
            Stopped: it was told to stop, and has saved.
        """
        if self.reports or self.run.stop.is_set():
            self.run.settle()
        if self.run.steps < self.run.spec.stop_at_steps:
            return False
        self.run.finish()
        return True


@dataclasses.dataclass(slots=True)
class _Round:
    """Runs that train, some marks further each, in other threads."""

    members: list[_Member]
    n_marks: int
    training: list[Future[None]]

    def join(self) -> None:
        """Wait until all have; what is plain Python is trained here: it gains nothing from threads."""
        _train([member for member in self.members if not member.compiled], n_marks=self.n_marks)
        for share in self.training:
            share.result()


def _train(members: Iterable[_Member], *, n_marks: int) -> None:
    for member in members:
        member.train(n_marks)


def _evaluate(members: Iterable[_Member]) -> None:
    """Value the policies of a round: one evaluation for all that act in one table."""
    tables: dict[int, list[_Member]] = {}
    for member in members:
        if member.exact is not None and member.actions:
            tables.setdefault(id(member.exact.mdp), []).append(member)
    for group in tables.values():
        assert group[0].exact is not None
        values = iter(group[0].exact.values(np.concatenate([member.actions for member in group])))
        for member in group:
            member.evaluated = [{VALUE: value} for value in itertools.islice(values, len(member.actions))]
