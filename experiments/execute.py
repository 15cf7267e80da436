"""Execution of one run: train, evaluate at each mark, report, checkpoint; start or continue alike."""

from __future__ import annotations

import math
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from policylab.agents.agent import Agent, Report
from policylab.agents.build import make_agent
from policylab.envs.settings import EnvSettings
from policylab.errors import CheckpointError, RunDirectoryError, RunError
from policylab.experiments.evaluation import Evaluator, evaluation_kind, make_evaluator
from policylab.experiments.schema import EvaluationSettings
from policylab.files import append_line, drop_torn_tail, locked, read_lines, storage_errors, sync_folder, write_atomic
from policylab.runspec import ReportRow, RunResult, RunSpec, read_model

OnRow = Callable[[ReportRow], None]


class Stopped(Exception):
    """The run was asked to stop; its state is saved."""


def execute(folder: Path, *, on_row: OnRow | None = None, stop: threading.Event | None = None) -> RunResult:
    """Carry the run in ``folder`` (it holds a spec.json) to its end, from its last checkpoint if it has one.

    Interrupted anywhere and executed again, it leaves the same reports.jsonl, result.json and final
    checkpoint, to the last byte, as an uninterrupted run.

    Args:
        folder: the run's folder.
        on_row: called with every report as it is written.
        stop: when set, the run saves at the next mark and raises `Stopped`.

    Raises:
        Stopped: ``stop`` was set.
        RunDirectoryError, CheckpointError: the folder's files are damaged, or another process uses them.
        StorageError: a write failed.
    """
    with locked(folder / "run.lock", wait_s=10.0):
        if (folder / "result.json").exists():
            result: RunResult = read_model(RunResult, folder / "result.json")
            return result
        return _Run(folder).train(on_row or (lambda row: None), stop or threading.Event())


class _Run:
    """A run's agent, evaluator and files while it executes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spec: RunSpec = read_model(RunSpec, folder / "spec.json")
        self.environment = EnvSettings.model_validate(self.spec.environment)
        self.evaluation = EvaluationSettings.model_validate(self.spec.evaluation)
        self.agent: Agent = make_agent(
            self.spec.agent, self.environment, seed=self.spec.seed, budget_steps=self.spec.budget_steps
        )
        self.kind = evaluation_kind(self.evaluation.kind, self.agent)
        self.steps = self._restore()
        self.rows = self._keep_rows()
        self._saved_at = time.monotonic()

    def _restore(self) -> int:
        """Continue from the newest checkpoint; return its steps, or 0."""
        checkpoints = sorted((self.folder / "checkpoints").glob("[0-9]*"))
        if not checkpoints:
            return 0
        try:
            self.agent.restore(checkpoints[-1])
        except CheckpointError as error:
            raise CheckpointError(
                f"{error}; to train this run again from its start, delete {self.folder}/checkpoints"
            ) from None
        return int(checkpoints[-1].name)

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
        if self.steps and (not kept or kept[-1].step != self.steps):
            raise RunDirectoryError(
                f"{path}: the row of step {self.steps} is missing; restore the file from a copy, "
                f"or delete {self.folder} to train this run again from its start"
            )
        return kept

    def _marks(self) -> Iterator[int]:
        """The steps still to report at: multiples of the interval, then the end."""
        every, end = self.spec.report_every_steps, self.spec.stop_at_steps
        first = (self.steps // every + 1) * every
        yield from range(first, end, every)
        if self.steps < end:
            yield end

    def train(self, on_row: OnRow, stop: threading.Event) -> RunResult:
        for mark in self._marks():
            wall, cpu = time.monotonic(), time.process_time()
            row = self._row(self.agent.learn(mark - self.steps))
            append_line(self.folder / "reports.jsonl", row.model_dump(mode="json"))
            seconds = {"wall_s": time.monotonic() - wall, "cpu_s": time.process_time() - cpu}
            append_line(self.folder / "cost.jsonl", {"steps": mark - self.steps, **seconds})
            self.steps = mark
            self.rows.append(row)
            on_row(row)
            self._checkpoint_if_due(stopping=stop.is_set())
        return self._finish()

    def _row(self, report: Report) -> ReportRow:
        metrics = dict(report.metrics)
        if self.kind != "online":
            metrics["eval/return_mean"] = self.evaluator(self.agent.policy(), episodes=self.evaluation.episodes).value
        return ReportRow(step=report.steps, episodes=report.episodes, metrics=metrics)

    @property
    def evaluator(self) -> Evaluator:
        if not hasattr(self, "_evaluator"):
            self._evaluator = make_evaluator(
                self.environment, self.agent.policy(), kind=self.kind, seed=self.spec.evaluation_seed
            )
        return self._evaluator

    def _checkpoint_if_due(self, *, stopping: bool) -> None:
        ended = self.steps >= self.spec.stop_at_steps
        if ended or stopping or time.monotonic() - self._saved_at >= self.spec.checkpoint_every_s:
            save_checkpoint(self.agent, self.folder / "checkpoints", steps=self.steps)
            self._saved_at = time.monotonic()
        if stopping and not ended:
            raise Stopped(str(self.folder))

    def _finish(self) -> RunResult:
        if self.kind == "online":
            returns = [row.metrics["train/return_mean"] for row in self.rows if "train/return_mean" in row.metrics]
            if not returns:
                raise RunError(f"{self.folder}: no episode ended in {self.steps} steps; raise budget.steps")
            value, episodes = math.fsum(returns) / len(returns), []
            measure = "training return per episode, mean over the run"
        else:
            final = self.evaluator(self.agent.policy(), episodes=self.evaluation.final_episodes)
            value, episodes, measure = final.value, list(final.episode_returns), self.evaluator.measure
        result = RunResult(
            steps=self.steps,
            episodes=self.rows[-1].episodes,
            value=value,
            measure=measure,
            episode_returns=episodes,
            execution=dict(self.agent.execution_report),
        )
        write_atomic(self.folder / "result.json", result.model_dump_json(indent=1) + "\n")
        return result


def save_checkpoint(agent: Agent, folder: Path, *, steps: int) -> Path:
    """Save ``agent`` as ``folder/STEPS`` so that only complete checkpoints carry such a name; drop older ones."""
    target = folder / f"{steps:015d}"
    with storage_errors(target):
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".saving-*"):
            shutil.rmtree(leftover)
        fresh = Path(tempfile.mkdtemp(dir=folder, prefix=".saving-"))
        agent.save(fresh)
        sync_folder(fresh)
        fresh.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        fresh.rename(target)
        sync_folder(folder)
        for older in folder.glob("[0-9]*"):
            if older != target:
                shutil.rmtree(older)
    return target
