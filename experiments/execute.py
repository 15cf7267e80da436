"""Execution of one run: train, evaluate at each mark, report, checkpoint; start or continue alike."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from policylab.agents.agent import Agent, Report, Stepwise
from policylab.agents.build import make_agent
from policylab.envs.settings import EnvSettings
from policylab.errors import CheckpointError, RunDirectoryError, RunError
from policylab.experiments.checkpoints import newest_checkpoint, save_checkpoint
from policylab.experiments.evaluation import (
    EvaluationSettings,
    Evaluator,
    ExactEvaluator,
    evaluation_kind,
    make_evaluator,
)
from policylab.experiments.objective import RETURN_METRIC
from policylab.experiments.plateau import EarlyStopping, plateau
from policylab.experiments.stretch import Pace, Stretch
from policylab.files import append_line, append_lines, drop_torn_tail, locked, read_lines, write_atomic
from policylab.launchers.launcher import SAVE_S
from policylab.runspec import ReportRow, RunResult, RunSpec, read_model

OnRows = Callable[[Sequence[ReportRow]], None]
LOCK_WAIT_S = SAVE_S + 10.0
"""How long to wait for a run's folder: the worker of a process that was killed holds it until it has saved, or ends."""

MAX_VALUES = 4_000_000
"""Most action values, marks times states times actions, that a run keeps until its policies are valued together."""

SAVING_SHARE = 20.0
"""Seconds of work for each second of saving."""


class Stopped(Exception):
    """The run was asked to stop; its state is saved."""


def execute(
    folder: Path, *, on_rows: OnRows | None = None, stop: threading.Event | None = None, pace: Pace | None = None
) -> RunResult:
    """Carry the run in ``folder`` (it holds a spec.json) to its end, from its last checkpoint if it has one.

    Interrupted anywhere and executed again, a run whose agent resumes exactly leaves the same reports.jsonl,
    result.json and final checkpoint, to the last byte, as an uninterrupted run. Others go on from their newest
    checkpoint, which is taken between two iterations of their learning at least every few seconds.

    Args:
        folder: the run's folder.
        on_rows: called with the reports that were written together.
        stop: when set, the run saves at the end of its stretch and raises `Stopped`.
        pace: of runs that this process executed before.

    Raises:
        Stopped: ``stop`` was set.
        RunDirectoryError, CheckpointError: the folder's files are damaged, or another process uses them.
        StorageError: a write failed.
    """
    with locked(folder / "run.lock", wait_s=LOCK_WAIT_S):
        if (folder / "result.json").exists():
            result: RunResult = read_model(RunResult, folder / "result.json")
            return result
        run = RunExecution(folder, stop=stop or threading.Event())
        with contextlib.closing(run):
            return run.train(on_rows or (lambda rows: None), pace=pace or Pace())


class RunExecution:
    """A run's agent, evaluator and files while it executes; the caller holds the folder's ``run.lock``.

    `train` does it all. Whoever advances many runs together does its steps: `learn` to some mark, `record`, `settle`;
    after the last mark `finish`.

    Args:
        folder: the run's folder; the run continues from its newest checkpoint if it has one.
        stop: when set, the run saves and stops at the next mark.

    Attributes:
        steps: the mark, or the checkpoint, that was written last.
    """

    def __init__(self, folder: Path, *, stop: threading.Event) -> None:
        self.folder = folder
        self.stop = stop
        self.spec: RunSpec = read_model(RunSpec, folder / "spec.json")
        self.environment = EnvSettings.model_validate(self.spec.environment)
        self.evaluation = EvaluationSettings.model_validate(self.spec.evaluation)
        self.steps = 0
        self.agent = self._continued()
        self.kind = evaluation_kind(self.evaluation.kind, self.agent)
        self.rows = self._keep_rows()
        self._saved_at, self._saving_s = time.monotonic(), 0.0
        self._accounted = self._spent()

    def _continued(self) -> Agent:
        """Return the agent as of the newest checkpoint, or a fresh one, and count its steps."""
        newest = newest_checkpoint(self.folder)
        self.steps = 0 if newest is None else int(newest.name)
        parent = self.spec.parent
        if parent is not None and self.steps < parent.steps:
            raise RunDirectoryError(
                f"{self.folder}: its parent's checkpoint, of trial {parent.trial} after {parent.steps} steps, is "
                "missing; restore the folder from a copy"
            )
        agent = make_agent(
            self.spec.agent_at(self.steps), self.environment, seed=self.spec.seed, budget_steps=self.spec.budget_steps
        )
        if newest is not None:
            try:
                if self.steps in self.spec.changes:
                    agent.restore(newest, retuned=True)
                else:
                    agent.restore(newest)
            except CheckpointError as error:
                remedy = f"to train this run again from its start, delete {self.folder}/checkpoints"
                raise CheckpointError(str(error) if parent else f"{error}; {remedy}") from None
        return agent

    def _retune(self) -> None:
        """Go on from the checkpoint just taken with the settings of the next stage."""
        self.agent.close()
        self.agent = self._continued()
        self._accounted = self._spent()

    def close(self) -> None:
        """End what the agent runs."""
        self.agent.close()

    def _keep_rows(self) -> list[ReportRow]:
        """Drop the rows past the checkpoint (they will be written again, equal) and torn lines."""
        path = self.folder / "reports.jsonl"
        drop_torn_tail(path)
        drop_torn_tail(self.folder / "cost.jsonl")
        rows = [ReportRow.model_validate(row) for row in read_lines(path)]
        kept = [row for row in rows if row.step <= self.steps]
        if len(kept) < len(rows):
            lines = path.read_bytes().splitlines(keepends=True)[: len(kept)]
            write_atomic(path, b"".join(lines))
        due = self._last_mark()
        if due and (not kept or kept[-1].step < due):
            raise RunDirectoryError(
                f"{path}: the row of step {due} is missing; restore the file from a copy, "
                f"or delete {self.folder} to train this run again from its start"
            )
        return kept

    def marks(self) -> Iterator[int]:
        """The steps still to report at: multiples of the interval, changes of the settings, then the end.

        None follows a plateau that the rows written meanwhile have reached.
        """
        every, end = self.spec.report_every_steps, self.spec.stop_at_steps
        first = (self.steps // every + 1) * every
        changes = (change for change in self.spec.changes if self.steps < change < end)
        following = sorted({*range(first, end, every), *changes, *({end} if self.steps < end else ())})
        yield from itertools.takewhile(lambda mark: self.plateau is None, following)

    @property
    def plateau(self) -> str | None:
        """Why the run ends here, before its budget is used up; None if it goes on."""
        asked = self.spec.early_stopping
        return plateau(self.rows, EarlyStopping.model_validate(asked)) if asked else None

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to learn."""
        return self.steps >= self.spec.stop_at_steps or self.plateau is not None

    def _last_mark(self) -> int:
        """The mark that has been reported at least; the checkpoint of an agent that pauses may lie between two.

        Where a run paused or changed its settings is a mark too, even if it is no multiple of the interval.
        """
        every = self.spec.report_every_steps
        return self.steps if self.agent.exact_resume else self.steps // every * every

    def train(self, on_rows: OnRows, *, pace: Pace) -> RunResult:
        """Carry the run to its end; tell the rows of every stretch.

        Raises:
            Stopped: ``stop`` was set.
        """
        while stretch := self.learn(pace.n_marks):
            self.record(stretch.rows)
            if stretch.rows:
                on_rows(stretch.rows)
            if stretch.error is not None:
                raise stretch.error
            pace.follow(stretch)
            self.settle()
        return self.finish()

    def learn(self, n_marks: int) -> Stretch | None:
        """Let the agent learn up to the next marks, ``n_marks`` of them at most; None after the last one.

        An error is kept, for what came before it is to be written first.
        """
        marks = self._next_marks(n_marks)
        if not marks:
            return None
        wall, cpu = time.monotonic(), time.thread_time()
        rows: list[ReportRow] = []
        error = None
        try:
            for row in self._rows_of(marks):
                rows.append(row)
        except Exception as raised:  # an environment or agent of the user's may raise anything
            error = raised
        return Stretch(rows, (time.monotonic() - wall, time.thread_time() - cpu), error)

    def _next_marks(self, n_marks: int) -> list[int]:
        """Return the next marks, up to a change of the settings; one if the run saves, may pause or may end at each."""
        spec = self.spec
        if self._together is None or spec.early_stopping is not None or not spec.checkpoint_every_s:
            n_marks = 1
        else:
            mdp = self._together.mdp
            n_marks = min(n_marks, max(1, MAX_VALUES // (mdp.n_states * mdp.n_actions)))
        marks = list(itertools.islice(self.marks(), n_marks))
        change = next((place for place, mark in enumerate(marks, start=1) if mark in spec.changes), None)
        return marks[:change]

    def _rows_of(self, marks: Sequence[int]) -> Iterator[ReportRow]:
        """Train up to each mark, value the policy there, and yield what is recorded of it."""
        if self._together is None or not isinstance(self.agent, Stepwise):
            for mark in marks:
                report = self.agent.learn(max(mark - self.agent.steps, 0), pause=self._pause)
                yield self.row(mark, report, evaluated=self.evaluate())
            return
        error, reports, actions = None, [], []
        steps = [mark - before for before, mark in itertools.pairwise((self.agent.steps, *marks))]
        try:
            for report, policy in self.agent.learn_each(steps):
                actions.append(self._together.actions(policy))
                reports.append(report)
        except Exception as raised:  # as in `learn`
            error = raised
        values = self._together.values(np.array(actions)) if actions else []
        for mark, report, value in zip(marks, reports, values, strict=False):
            yield self.row(mark, report, evaluated={RETURN_METRIC: value})
        if error is not None:
            raise error

    @functools.cached_property
    def _together(self) -> ExactEvaluator | None:
        """What values the policies of several marks together, if the agent can learn up to several at once."""
        if self.kind == "online" or self.agent.stochastic or not isinstance(self.agent, Stepwise):
            return None
        return self.evaluator if isinstance(self.evaluator, ExactEvaluator) else None

    def settle(self) -> None:
        """At a mark: save if that is due, stop if told to, and change the settings if they change here.

        Raises:
            Stopped: ``stop`` is set and this is not the end.
            StorageError: a write failed.
        """
        self._checkpoint_if_due()
        if self.steps in self.spec.changes:
            self._retune()

    def _pause(self) -> None:
        """Between two iterations of an agent on its way to a mark: save and stop if that is due."""
        if self.stop.is_set() or self._save_is_due():
            self.steps = self.agent.steps
            self._account()
            self._checkpoint_if_due()

    def _spent(self) -> tuple[int, float, float]:
        return self.agent.steps, time.monotonic(), time.process_time()

    def _account(self, seconds: tuple[float, float] | None = None) -> None:
        """Write down what the last stretch of work cost: elapsed and processor seconds, as measured if not given."""
        before, self._accounted = self._accounted, self._spent()
        steps, wall, cpu = (now - then for now, then in zip(self._accounted, before, strict=True))
        if seconds is not None:
            wall, cpu = seconds
        append_line(self.folder / "cost.jsonl", {"steps": steps, "wall_s": wall, "cpu_s": cpu})

    def evaluate(self) -> dict[str, float]:
        """Return the metrics of the present policy; none where a run is judged by what it earns."""
        if self.kind == "online":
            return {}
        policy, episodes = self.agent.policy(), self.evaluation.episodes
        metrics = {RETURN_METRIC: self.evaluator(policy, episodes=episodes).value}
        if self.agent.stochastic:
            drawn = self.evaluator(policy, episodes=episodes, stochastic=True)
            metrics["eval/stochastic_return_mean"] = drawn.value
        return metrics

    @staticmethod
    def row(mark: int, report: Report, *, evaluated: Mapping[str, float]) -> ReportRow:
        """Return what is recorded of a mark.

        Raises:
            RunError: a metric is no finite number.
        """
        env_steps = None if report.steps == mark else report.steps
        metrics = {**report.metrics, **evaluated}
        if odd := [f"{name} is {value}" for name, value in metrics.items() if not math.isfinite(value)]:
            raise RunError(f"after {mark} steps {', '.join(odd)}; the environment's rewards, or the agent, diverged")
        return ReportRow(
            step=mark,
            episodes=report.episodes,
            metrics=metrics,
            env_steps=env_steps,
            warnings=report.warnings or None,
        )

    def record(self, rows: Sequence[ReportRow], *, seconds: tuple[float, float] | None = None) -> None:
        """Write rows, and what they cost: elapsed and processor seconds, since the last ones if not given.

        Raises:
            StorageError: a write failed.
        """
        if not rows:
            return
        lines = [row.model_dump(mode="json", exclude_none=True) for row in rows]
        append_lines(self.folder / "reports.jsonl", lines)
        self._account(seconds)
        self.steps = rows[-1].step
        self.rows.extend(rows)

    @functools.cached_property
    def evaluator(self) -> Evaluator:
        """What values this run's policies."""
        return make_evaluator(self.environment, self.agent.policy(), kind=self.kind, seed=self.spec.evaluation_seed)

    def _save_is_due(self) -> bool:
        """Every few seconds, but never so often that saving takes more than a few percent of the time."""
        rest = max(self.spec.checkpoint_every_s, SAVING_SHARE * self._saving_s if self.spec.checkpoint_every_s else 0.0)
        return time.monotonic() - self._saved_at >= rest

    def _checkpoint_if_due(self) -> None:
        stopping = self.stop.is_set()
        if self.ended or stopping or self._save_is_due() or self.steps in self.spec.changes:
            began = time.monotonic()
            save_checkpoint(self.agent, self.folder / "checkpoints", steps=self.steps)
            self._saved_at = time.monotonic()
            self._saving_s = self._saved_at - began
        if stopping and not self.ended:
            raise Stopped(str(self.folder))

    def finish(self) -> RunResult:
        """Value the final policy and write result.json, the last file of a run.

        Raises:
            RunError: no episode ended although the run is judged by its episodes.
            StorageError: the write failed.
        """
        drawn: float | None = None
        episodes: list[float] = []
        if self.kind == "online":
            returns = [row.metrics["train/return_mean"] for row in self.rows if "train/return_mean" in row.metrics]
            if not returns:
                raise RunError(f"{self.folder}: no episode ended in {self.steps} steps; raise budget.steps")
            value = math.fsum(returns) / len(returns)
            measure = "training return per episode, mean over the run"
        elif self.evaluator.exact and not self.agent.stochastic:  # the policy of the last mark is the final one
            value, measure = self.rows[-1].metrics[RETURN_METRIC], self.evaluator.measure
        else:
            policy, n_episodes = self.agent.policy(), self.evaluation.final_episodes
            final = self.evaluator(policy, episodes=n_episodes)
            value, episodes, measure = final.value, list(final.episode_returns), self.evaluator.measure
            if self.agent.stochastic:
                drawn = self.evaluator(policy, episodes=n_episodes, stochastic=True).value
        if odd := [one for one in (value, drawn, *(episodes or ())) if one is not None and not math.isfinite(one)]:
            raise RunError(
                f"{self.folder}: a return is {odd[0]}; the environment gave a reward that is no finite number"
            )
        result = RunResult(
            steps=self.agent.steps,
            episodes=self.rows[-1].episodes,
            value=value,
            measure=measure,
            episode_returns=episodes,
            stochastic_value=drawn,
            execution=dict(self.agent.execution_report),
            ended=self.plateau if self.steps < self.spec.budget_steps else None,
            warnings=tuple(dict.fromkeys(text for row in self.rows for text in row.warnings or ())) or None,
        )
        write_atomic(self.folder / "result.json", result.model_dump_json(indent=1, exclude_none=True) + "\n")
        return result
