"""Calls of an objective in processes of their own: several at once, killed when they take too long.

A call is forked from this process, so any callable will do, and what it does to memory is not seen here. It writes its
events to a pipe as JSON. Linux kills it when this process ends in any way, kill -9 included.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path

from policylab.attempts import Attempts, Failure
from policylab.stacks import Stacks, answer
from policylab.tuning.backend import Caller, Event, Job, Objective, end_event, retry_event

WAIT_S = 0.5
"""How long to wait for news: a study has a limit of time to keep even while no call ends."""

_PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclasses.dataclass(slots=True)
class _Call:
    """A job under way; what it has reported is held back until it ends, for it can be repeated only as a whole."""

    job: Job
    process: ForkProcess
    events: Connection
    stacks: Stacks
    deadline: float
    found: list[Event] = dataclasses.field(default_factory=list)
    failed: Failure | None = None
    lost: bool = False
    ended: bool = False


class ProcessBackend:
    """Calls an objective in forked processes.

    Args:
        objective: called.
        folder: holds the checkpoints.
        attempts: how long a call may take, and how often a job is tried again.
        workers: calls at once.
    """

    def __init__(self, objective: Objective, *, folder: Path, attempts: Attempts, workers: int) -> None:
        self.capacity = workers
        self._caller = Caller(objective, folder=folder)
        self._attempts = attempts
        self._calls: list[_Call] = []

    def submit(self, job: Job) -> None:
        """Begin a job."""
        self._caller.inherit(job)
        self._begin(job)

    def _begin(self, job: Job) -> None:
        events, theirs = multiprocessing.Pipe(duplex=False)
        stacks = Stacks()
        process = multiprocessing.get_context("fork").Process(
            target=_serve, args=(self._caller, job), kwargs={"events": theirs, "stacks": stacks, "parent": os.getpid()}
        )
        process.start()
        theirs.close()
        limit = self._attempts.max_runtime_s
        deadline = float("inf") if limit is None else time.monotonic() + limit
        self._calls.append(_Call(job, process, events, stacks, deadline))

    def stop(self, trial: int, seed: int) -> None:
        """End a job where it stands; what it has not finished is lost."""
        for call in self._calls:
            if (call.job.trial, call.job.seed) == (trial, seed):
                call.found.clear()
                call.ended = True

    def close(self) -> None:
        """End every call."""
        for call in self._calls:
            _end(call)
        self._calls.clear()

    def wait(self) -> Sequence[Event]:
        """Return the events of the jobs that have ended, in the order in which they began; none after a while."""
        due = min((call.deadline for call in self._calls), default=0.0) - time.monotonic()
        news = [call.events for call in self._calls if not call.ended]
        if news and len(news) == len(self._calls):
            multiprocessing.connection.wait(news, timeout=max(0.0, min(WAIT_S, due)))
        for call in self._calls:
            self._read(call)
        over = [call for call in self._calls if call.ended]
        self._calls = [call for call in self._calls if not call.ended]
        return [event for call in over for event in self._settle(call)]

    def _read(self, call: _Call) -> None:
        """Take in what a call has written, and end it if its time is over."""
        try:
            while not call.ended and call.events.poll():
                event = json.loads(call.events.recv_bytes())
                if event["event"] == "report":
                    call.found.append(event)
                else:
                    call.failed = None if event["error"] is None else Failure(event["error"], event.get("traceback"))
                    call.ended = True
        except (EOFError, OSError):  # it ended, perhaps in the middle of a message
            call.process.join(timeout=1.0)
            code = call.process.exitcode
            how = f"exit {code}" if code is None or code >= 0 else f"killed by signal {-code}"
            call.failed, call.lost, call.ended = Failure(f"its process died ({how})"), True, True
        if not call.ended and time.monotonic() >= call.deadline:
            assert call.process.pid is not None
            call.failed = Failure(self._attempts.overdue, call.stacks.ask(call.process.pid))
            call.lost = call.ended = True

    def _settle(self, call: _Call) -> list[Event]:
        """Return the events of a call that ended, and repeat it if it may be."""
        _end(call)
        job = call.job
        if call.failed is None or not self._attempts.again(job.n_failed + 1, lost=call.lost):
            return [*call.found, end_event(job, call.failed)]
        self._begin(dataclasses.replace(job, n_failed=job.n_failed + 1))
        return [retry_event(job, call.failed)]


def _end(call: _Call) -> None:
    """Kill a call, with all it started, and free what it held."""
    assert call.process.pid is not None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(call.process.pid, signal.SIGKILL)
    call.process.kill()
    call.process.join()
    call.process.close()
    call.events.close()
    call.stacks.close()


def _serve(caller: Caller, job: Job, *, events: Connection, stacks: Stacks, parent: int) -> None:
    """In the child: call the objective and write down what it answers."""
    os.setsid()  # Ctrl-C reaches the parent alone, and what the objective starts can be killed with it
    if sys.platform == "linux":  # elsewhere nothing but the end of its call ends it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    answer(stacks.fileno)
    failed = None
    for event in caller.call(job):
        if isinstance(event, Failure):
            failed = event
        else:
            events.send_bytes(json.dumps(event).encode())
    events.send_bytes(json.dumps(end_event(job, failed)).encode())
