"""The one loop that drives a study: ask, log, execute, observe; from the start or from a log.

scheduler + searcher --decision--> log --> backend --report, end--> log --> history --> scheduler ...
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from policylab.seeding import generator
from policylab.tuning.backend import Backend, Job, Parent
from policylab.tuning.decisions import Configuration, Decision, Stop
from policylab.tuning.history import DECISIONS, History, RunState
from policylab.tuning.limits import TARGET, Limits, reached_by
from policylab.tuning.log import EventLog, decision_event
from policylab.tuning.pace import Pace, differs
from policylab.tuning.scheduler import Scheduler
from policylab.tuning.searcher import Searcher

Observer = Callable[[History], None]

WORKS = DECISIONS.keys() - {"stop"}
"""Names of the decisions that begin work."""


class Study:
    """A scheduler and a searcher spending a budget on a backend, with a log as its only state.

    Args:
        searcher: proposes configurations.
        scheduler: decides what to spend on.
        backend: executes.
        log: empty, or of an interrupted study with the same settings.
        limits: when it is over; ``target`` in the direction of larger is better.
        max_resource: resource of a full training.
        seed: root of the searcher's and the scheduler's streams.

    Attributes:
        history: everything that happened; larger values are better there.
    """

    def __init__(
        self,
        *,
        searcher: Searcher,
        scheduler: Scheduler,
        backend: Backend,
        log: EventLog,
        limits: Limits,
        max_resource: int,
        seed: int,
    ) -> None:
        self._searcher = searcher
        self._scheduler = scheduler
        self._backend = backend
        self._log = log
        self.history = History(max_resource=max_resource)
        self._limits = limits
        self._seed = seed
        self._pace = Pace(limits.wall_clock_s)

    def run(
        self,
        *,
        elapsed_s: float = 0.0,
        observe: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> str:
        """Carry the study to its end; return why it ended.

        Args:
            elapsed_s: seconds used by earlier sessions, for the wall-clock limit.
            observe: called after every change.
            clock: tells the seconds that the limit counts.
        """
        over: str | None = None  # a limit that was met stays met, whatever runs tell that were asked to stop
        for event in self._log.replay(self.history):
            self._n_works += event["event"] in WORKS
            if event["event"] == "stop" and event["reason"].startswith("limits."):
                over = event["reason"]
        if self._log.completed is not None:
            return self._log.completed
        started = clock() - elapsed_s
        self._resubmit()
        while True:
            elapsed_s = clock() - started
            over = over or self._limits.met(self.history, elapsed_s=elapsed_s)
            if over is None:
                self._take_pace(elapsed_s)
                self._fill()
            else:
                self._stop_all(over)
            if not self._pending and not self.history.running:
                break
            for event in self._log.extend(self._backend.wait()):
                self._pending -= event["event"] == "end"
                self.history.apply(event)
            if observe is not None:
                observe(self.history)
        reason = over or self._exhausted()
        self._log.append({"event": "complete", "reason": reason})
        return reason

    def winner(self, reason: str) -> int | None:
        """Return the trial to select when the study has ended for ``reason``: who met the target, or the best."""
        return selected(self.history, reason, scheduler=self._scheduler)

    def _exhausted(self) -> str:
        """Return why there was nothing left to decide."""
        started, budget = self.history.proposed, self._limits.budget
        told = f"{self.history.spent} of {budget} steps spent"
        if self._limits.trials is not None and started >= self._limits.trials:
            return f"limits.trials: {started} configurations tried"
        if budget is not None and budget - self.history.spent < self.history.max_resource:
            return f"limits.{self._limits.budget_name}: {told}, the rest pays for no full training"
        if budget is not None and self._propose() is not None:
            return f"limits.{self._limits.budget_name}: {told}, the scheduler has no use for the rest"
        return "nothing left to try"

    _n_works = 0
    """Decisions in the log that begin work: all but stops."""

    _pending = 0
    """Jobs whose end has not come yet."""

    def _resubmit(self) -> None:
        """Continue the runs that were under way when the last session was cut off."""
        for trial, run in self.history.runs():
            if run.state is RunState.RUNNING:
                self._submit(trial.id, run.seed)

    def _take_pace(self, elapsed_s: float) -> None:
        """Log what the clock pays for, if that has changed: who plans with it decides by the log alone."""
        paid = self._pace.paid(self.history.spent, elapsed_s=elapsed_s)
        if paid is not None and differs(paid, self.history.paid_by_clock):
            self.history.apply(self._log.append({"event": "pace", "steps": paid}))

    def _fill(self) -> None:
        """Ask for decisions until the backend is full or there is nothing to do."""
        while self._pending < self._backend.capacity:
            # The stream depends on how much work was begun, not on how often was asked or on stops: a log that was
            # cut between the stops and the work of one answer goes on as it would have.
            rng = generator(self._seed, "scheduler", self._n_works)
            decisions = self._scheduler.next(self.history, propose=self._propose, rng=rng)
            if not decisions:
                return
            self._carry_out(decisions)

    def _propose(self) -> Configuration | None:
        n_started = self.history.proposed
        if self._limits.trials is not None and n_started >= self._limits.trials:
            return None
        return self._searcher.suggest(self.history, rng=generator(self._seed, "searcher", n_started))

    def _carry_out(self, decisions: Sequence[Decision]) -> None:
        """Log the decisions in one write, then do what they say."""
        self._log.extend([decision_event(decision) for decision in decisions])
        for decision in decisions:
            if isinstance(decision, Stop):
                self._stop(decision)
                continue
            self._n_works += 1
            self.history.decide(decision)
            self._submit(decision.trial, decision.seed)

    def _stop(self, decision: Stop) -> None:
        runs = self.history.trials[decision.trial].runs.values()
        running = [run.seed for run in runs if run.state is RunState.RUNNING]
        self.history.decide(decision)
        for seed in running:
            if decision.seed in (None, seed):
                self._backend.stop(decision.trial, seed)

    def _submit(self, trial: int, seed: int) -> None:
        held = self.history.trials[trial]
        run = held.runs[seed]
        parent = None if held.parent is None else Parent(held.parent, run.origin)
        self._backend.submit(Job(trial, held.configuration, seed, run.resource, run.until, parent, run.n_failed))
        self._pending += 1

    def _stop_all(self, reason: str) -> None:
        """Stop what runs; a run that has reported all it was to train is about to end by itself."""
        running = [(trial, run) for trial, run in self.history.runs() if run.state is RunState.RUNNING]
        unfinished = [Stop(trial.id, run.seed, reason) for trial, run in running if run.resource < run.until]
        if unfinished:
            self._carry_out(unfinished)


def selected(history: History, reason: str | None, *, scheduler: Scheduler) -> int | None:
    """Return the trial to select: who met the target that ended the study, else the scheduler's best so far.

    Args:
        history: of the study.
        reason: why it ended, None while it has not.
        scheduler: of the study.
    """
    met = reached_by(history) if reason is not None and reason.startswith(TARGET) else None
    return scheduler.best(history) if met is None else met


def study_facts(settings: Mapping[str, Any], *, seed: int) -> dict[str, Any]:
    """Return the first line of a study's log: everything that determines its decisions."""
    return {"seed": seed, "settings": dict(settings)}
