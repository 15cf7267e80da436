"""The state of a study, rebuilt from its events alone; searchers and schedulers see nothing else."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterator, Mapping
from typing import Any

from policylab.attempts import Failure
from policylab.tuning.decisions import AddSeed, Configuration, Decision, Fork, Resume, Start, Stop


class RunState(enum.Enum):
    """Where one (trial, seed) run stands."""

    RUNNING = "running"
    PAUSED = "paused"  # reached the resource it was given; can be resumed
    STOPPED = "stopped"
    FAILED = "failed"


@dataclasses.dataclass(slots=True)
class Run:
    """One configuration on one seed.

    Attributes:
        seed: index of the tuning seed.
        until: resource it may use, in the study's unit (environment steps for agents).
        state: see `RunState`.
        curve: resource -> reported value, larger is better, in the order reported; of a fork with what it inherited.
        averages: resource -> mean of the values reported until then.
        error: why it failed.
        traceback: the stack where it did, if that is known.
        retries: attempts that failed and were followed by another.
        n_failed: how many of them at the work it was given last.
        origin: resource of the parent's checkpoint that it began with; 0 unless it is a fork.
        place: of its last report, in `History.reported`.
    """

    seed: int
    until: int
    state: RunState = RunState.RUNNING
    curve: dict[int, float] = dataclasses.field(default_factory=dict)
    averages: dict[int, float] = dataclasses.field(default_factory=dict)
    error: str | None = None
    traceback: str | None = None
    retries: list[Failure] = dataclasses.field(default_factory=list)
    n_failed: int = 0
    origin: int = 0
    place: int = -1

    @property
    def resource(self) -> int:
        """How far it is trained, inherited training included."""
        return next(reversed(self.curve), self.origin)

    @property
    def value(self) -> float | None:
        """The last reported value."""
        return self.curve[self.resource] if self.curve else None


@dataclasses.dataclass(slots=True)
class Trial:
    """One configuration and its runs by seed.

    ``stopped`` holds the reason once it is given up; ``parent`` is the trial that a fork goes on from, at ``origin``.
    """

    id: int
    configuration: Configuration
    runs: dict[int, Run] = dataclasses.field(default_factory=dict)
    stopped: str | None = None
    parent: int | None = None
    origin: int = 0

    def values_at(self, resource: int) -> dict[int, float]:
        """Return seed -> value reported at exactly ``resource``."""
        return {seed: run.curve[resource] for seed, run in self.runs.items() if resource in run.curve}

    def mean_curve(self) -> dict[int, float]:
        """Return resource -> mean over its runs, where all that have come so far have reported.

        A seed that paused between two reports of the others is no mean of theirs.

        >>> curves = {0: {50: 0.1, 60: 0.9, 100: 0.3}, 1: {50: 0.3, 100: 0.5}}
        >>> runs = {seed: Run(seed, 100, curve=curve) for seed, curve in curves.items()}
        >>> Trial(0, {}, runs).mean_curve()
        {50: 0.2, 100: 0.4}
        """
        found = {}
        for resource in sorted({at for run in self.runs.values() for at in run.curve}):
            values = self.values_at(resource).values()
            if len(values) == sum(run.resource >= resource for run in self.runs.values()):
                found[resource] = math.fsum(values) / len(values)
        return found

    @property
    def failed(self) -> bool:
        """Whether a run of it failed: the configuration is then never proposed as best."""
        return any(run.state is RunState.FAILED for run in self.runs.values())


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """A configuration and the resource until which it held, None to the end."""

    until: int | None
    configuration: Configuration


class History:
    """Every trial of a study and what it cost, as of the last event applied.

    Values are *larger is better*: the study turns the sign of a metric to be minimised once, where it enters.

    Attributes:
        max_resource: the resource of a full training.
        trials: by id.
        proposed: configurations that came from the searcher; the others are forks.
        under_way: the runs that are executing, by (trial, seed).
        reported: (trial, seed) of every report that advanced a run, in order; forks begin with one.
        touched: the trial of every event that changed one, in order: who follows a history looks at these alone.
        spent: resource used in all.
        saved: resource that promoted runs and copies found in their checkpoints and did not have to spend again.
        failures: runs that failed since the last report of any.
        paid_by_clock: resource that the study's clock pays for in all, at its pace when that was last taken; or None.
    """

    def __init__(self, *, max_resource: int) -> None:
        self.max_resource = max_resource
        self.trials: dict[int, Trial] = {}
        self.proposed = 0
        self.under_way: dict[tuple[int, int], Run] = {}
        self.reported: list[tuple[int, int]] = []
        self.touched: list[int] = []
        self.spent = 0
        self.saved = 0
        self.failures = 0
        self.paid_by_clock: int | None = None

    def decide(self, decision: Decision) -> None:
        """Apply a decision."""
        self.touched.append(decision.trial)
        if isinstance(decision, Start):
            self.trials[decision.trial] = Trial(decision.trial, decision.configuration)
            self.proposed += 1
        elif isinstance(decision, Fork):
            self._fork(decision)
            return
        trial = self.trials[decision.trial]
        if isinstance(decision, Start | AddSeed):
            trial.runs[decision.seed] = run = Run(decision.seed, decision.until)
            self.under_way[trial.id, run.seed] = run
        elif isinstance(decision, Resume):
            run = trial.runs[decision.seed]
            run.until, run.state, run.n_failed = decision.until, RunState.RUNNING, 0
            self.under_way[trial.id, run.seed] = run
            self.saved += run.resource * decision.promotion
        elif isinstance(decision, Stop):
            self._stop(trial, decision)

    def _fork(self, decision: Fork) -> None:
        fresh = Trial(decision.trial, decision.configuration, parent=decision.parent, origin=decision.origin)
        trial = self.trials.setdefault(decision.trial, fresh)
        inherited = self.trials[decision.parent].runs[decision.seed]
        trial.runs[decision.seed] = run = Run(
            decision.seed,
            decision.until,
            curve={at: value for at, value in inherited.curve.items() if at <= decision.origin},
            averages={at: value for at, value in inherited.averages.items() if at <= decision.origin},
            origin=decision.origin,
            place=len(self.reported),
        )
        self.under_way[trial.id, run.seed] = run
        self.reported.append((trial.id, run.seed))
        self.saved += decision.origin

    def _stop(self, trial: Trial, decision: Stop) -> None:
        if decision.seed is None:
            trial.stopped = decision.reason
        for run in trial.runs.values():
            if decision.seed in (None, run.seed) and run.state in (RunState.RUNNING, RunState.PAUSED):
                run.state = RunState.STOPPED
                self.under_way.pop((trial.id, run.seed), None)

    def report(self, trial: int, seed: int, *, resource: int, value: float) -> None:
        """Apply one report; a repeated one (after a resume) changes nothing.

        A report from beyond ``until``, of an objective that works in larger pieces, counts as one at ``until``.
        """
        run = self.trials[trial].runs[seed]
        before, resource = run.resource, min(resource, run.until)
        if resource > before:
            self.spent += resource - before
            self.failures = 0
            run.place = len(self.reported)
            self.reported.append((trial, seed))
            self.touched.append(trial)
            run.curve[resource] = value
            n = len(run.curve)
            run.averages[resource] = value if n == 1 else run.averages[before] + (value - run.averages[before]) / n

    def end(self, trial: int, seed: int, *, error: str | None = None, traceback: str | None = None) -> None:
        """Apply the end of a run's piece of work: it reached ``until``, was stopped, or failed.

        The last value stands for the end when the last report came before it; an end without any value is a failure.
        """
        run = self.trials[trial].runs[seed]
        if error is None and run.state is RunState.RUNNING:
            if run.value is None:
                error = "ended without reporting a value"
            else:
                self.report(trial, seed, resource=run.until, value=run.value)
        self.touched.append(trial)
        run.error, run.traceback = error, traceback
        self.under_way.pop((trial, seed), None)
        if error is not None:
            run.state = RunState.FAILED
            self.failures += 1
        elif run.state is RunState.RUNNING:
            run.state = RunState.PAUSED

    def lineage(self, trial: int) -> list[Trial]:
        """Return ``trial`` and those it goes back to through forks, the oldest first."""
        found = [self.trials[trial]]
        while (parent := found[0].parent) is not None:
            found.insert(0, self.trials[parent])
        return found

    def schedule(self, trial: int) -> list[Stage]:
        """Return what the run of ``trial`` was trained with, from its start: one stage unless it is a fork.

        The last stage has no end of its own. Neighbours that are equal are one stage.
        """
        line = self.lineage(trial)
        stages: list[Stage] = []
        for member, following in zip(line, [*line[1:], None], strict=True):
            if stages and stages[-1].configuration == member.configuration:
                stages.pop()
            stages.append(Stage(None if following is None else following.origin, member.configuration))
        return stages

    def runs(self) -> Iterator[tuple[Trial, Run]]:
        """Every run with its trial, in the order they were started."""
        return ((trial, run) for trial in self.trials.values() for run in trial.runs.values())

    @property
    def running(self) -> int:
        """How many runs are executing."""
        return len(self.under_way)

    def apply(self, event: Mapping[str, Any]) -> None:
        """Apply one event of the log; see `policylab.tuning.log`."""
        kind = event["event"]
        if kind == "report":
            self.report(event["trial"], event["seed"], resource=event["resource"], value=event["value"])
        elif kind == "end":
            self.end(event["trial"], event["seed"], error=event.get("error"), traceback=event.get("traceback"))
        elif kind == "retry":
            run = self.trials[event["trial"]].runs[event["seed"]]
            run.retries.append(Failure(event["error"], event.get("traceback")))
            run.n_failed += 1
        elif kind == "pace":
            self.paid_by_clock = int(event["steps"])
        elif kind in DECISIONS:
            fields = {name: value for name, value in event.items() if name not in ("event", "number")}
            self.decide(DECISIONS[kind](**fields))


DECISIONS: dict[str, type[Any]] = {
    "start": Start,
    "resume": Resume,
    "add_seed": AddSeed,
    "fork": Fork,
    "stop": Stop,
}
"""Name of each decision in the log."""
