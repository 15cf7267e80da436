"""Tuning of an experiment: a study whose jobs are runs in the run directory.

| file | content |
|---|---|
| study/events.jsonl | the event log: see `policylab.tuning.log` |
| study/outcome.json | the `Outcome`, written when the study is over |
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from policylab.config import Settings
from policylab.errors import RunDirectoryError, RunError, UserError
from policylab.experiments.rundir import RunDirectory
from policylab.experiments.schema import CONFIGS, ExperimentConfig
from policylab.experiments.search import SearchSettings, with_default
from policylab.files import read_lines, write_atomic
from policylab.launchers import Handle, LocalLauncher, State
from policylab.runspec import ReportRow, RunSpec, read_model
from policylab.tuning.backend import Job
from policylab.tuning.history import History
from policylab.tuning.log import EventLog
from policylab.tuning.parents import find_parent, read_parent
from policylab.tuning.scheduler import SCHEDULERS
from policylab.tuning.searcher import SEARCHERS, Searcher
from policylab.tuning.space import Space
from policylab.tuning.study import Study, study_facts
from policylab.tuning.study_facts import experiment_facts
from policylab.tuning.warm_start import WarmStart, WarmStartedSearcher

WAIT_S = 0.5


class Outcome(Settings):
    """What a finished study decided."""

    schema_version: Literal[1] = 1
    reason: str = Field(description="why the study ended")
    winner: int = Field(description="trial selected on the tuning seeds")
    default: int = Field(description="trial of the default; only confirmed when the search has not tried it")
    n_trials: int
    n_runs: int
    n_failed: int
    spent_steps: int
    saved_by_resuming_steps: int
    saved_by_stopping_steps: int = Field(description="what the runs that were not taken to the full budget did not use")


class RunBackend:
    """Executes a study's jobs as runs of the experiment, through a launcher.

    Args:
        run: the run directory.
        config: the experiment.
        launcher: where runs execute.
        capacity: runs at once.
    """

    def __init__(self, run: RunDirectory, config: ExperimentConfig, *, launcher: LocalLauncher, capacity: int) -> None:
        assert config.search is not None
        self.capacity = capacity
        self._run = run
        self._config = config
        self._search: SearchSettings = config.search
        self._launcher = launcher
        self._jobs: dict[Handle, Job] = {}
        self._sent: dict[Handle, int] = {}

    def submit(self, job: Job) -> None:
        """Write the run's spec and queue it; it goes on from its checkpoint."""
        trial = self._config.trial(job.configuration)
        spec = trial.spec("tune", job.seed, trial=job.trial, stop_at_steps=job.until)
        spec = spec.model_copy(update={"config_hash": self._config.config_hash})
        handle = self._launcher.submit(self._run.folder(spec))
        self._jobs[handle] = job
        self._sent[handle] = job.resource

    def stop(self, trial: int, seed: int) -> None:
        """Ask a run to save and stop."""
        for handle, job in self._jobs.items():
            if (job.trial, job.seed) == (trial, seed):
                self._launcher.stop(handle)

    def wait(self) -> Sequence[Mapping[str, Any]]:
        """Return new report rows and ended runs, in the order the jobs were submitted."""
        while self._jobs:
            events: list[Mapping[str, Any]] = []
            for handle, job in list(self._jobs.items()):
                progress = self._launcher.poll(handle)  # before the rows: what is written later comes next time
                events += self._reports(handle, job)
                if progress.state.ended:
                    del self._jobs[handle]
                    events.append({"event": "end", "trial": job.trial, "seed": job.seed, "error": progress.error})
            if events:
                return events
            self._launcher.wait(timeout_s=WAIT_S)
        return []

    def _reports(self, handle: Handle, job: Job) -> list[Mapping[str, Any]]:
        if self._launcher.poll(handle).state is State.WAITING:
            return []
        found: list[Mapping[str, Any]] = []
        for row in map(ReportRow.model_validate, read_lines(handle.folder / "reports.jsonl")):
            value = row.metrics.get(self._search.metric)
            if row.step > self._sent[handle] and value is not None:
                value *= self._search.sign
                found.append(
                    {"event": "report", "trial": job.trial, "seed": job.seed, "resource": row.step, "value": value}
                )
        if found:
            self._sent[handle] = found[-1]["resource"]
        return found


def search(run: RunDirectory, *, observe: Callable[[History], None] | None = None) -> Outcome:
    """Carry the study of ``run`` to its end, from wherever its log stands; return what it decided.

    Raises:
        RunError: no configuration could be trained.
        UserError: every run failed by a mistake of the user's.
    """
    config = run.config
    settings = config.search
    assert settings is not None
    space = with_default(config)
    horizon = settings.horizon(budget_steps=config.budget.steps, n_seeds=config.seeds.tune)
    scheduler = SCHEDULERS.load(settings.scheduler.kind).make(settings.scheduler, horizon)
    searcher = make_searcher(config, space, root=run.path.parent)
    log = EventLog(run.path / "study" / "events.jsonl")
    capacity = settings.parallel or config.launcher.n_workers
    log.open(study_facts(settings.model_dump(mode="json", exclude={"storage"}), seed=config.seeds.root))
    limits = settings.limits
    if limits.target is not None:
        limits = limits.model_copy(update={"target": settings.sign * limits.target})
    with LocalLauncher(n_workers=min(capacity, config.launcher.n_workers), log=run.path / "workers.log") as launcher:
        study = Study(
            searcher=searcher,
            scheduler=scheduler,
            backend=RunBackend(run, config, launcher=launcher, capacity=capacity),
            log=log,
            limits=limits,
            max_resource=config.budget.steps,
            seed=config.seeds.root,
        )
        started = time.monotonic()
        try:
            reason = study.run(elapsed_s=run.elapsed_s(), observe=observe)
        finally:
            run.record_session(time.monotonic() - started)
    outcome = _outcome(study.history, winner=scheduler.best(study.history), reason=reason, own=space.default)
    write_atomic(run.path / "study" / "outcome.json", outcome.model_dump_json(indent=1) + "\n")
    return outcome


def make_searcher(config: ExperimentConfig, space: Space, *, root: Path) -> Searcher:
    """Return the searcher of an experiment, warm-started from its parents if it names any.

    Args:
        config: an experiment with a search.
        space: its space, with the default point.
        root: folder whose run directories can be parents; shipped studies are found without it.

    Raises:
        ConfigError: a parent breaks a restriction.
        RunDirectoryError: a parent cannot be found or read.
    """
    settings = config.search
    assert settings is not None
    kind = SEARCHERS.load(settings.searcher.kind)
    if settings.warm_start is None:
        plain: Searcher = kind.make(settings.searcher, space)
        return plain
    data = config.model_dump(mode="json")
    child = experiment_facts(data, {**data["search"], "space": space.model_dump(mode="json")}, name=config.name)
    parents = [read_parent(_parent(source, root=root)) for source in settings.warm_start.parents]
    warm = WarmStart.make(settings.warm_start, child, parents=parents)
    return WarmStartedSearcher(
        warm,
        space,
        build=lambda prior: kind.make(settings.searcher, space, prior=prior),
        box=settings.searcher.kind == "random",
    )


def _parent(source: str, *, root: Path) -> Path:
    shipped = CONFIGS / "parents" / source
    try:
        return find_parent(source, root=root)
    except RunDirectoryError:
        if shipped.is_dir():
            return shipped
        raise


def read_outcome(run: RunDirectory) -> Outcome:
    """Read what the study of ``run`` decided.

    Raises:
        RunDirectoryError: it is not over yet, or the file is damaged.
    """
    outcome: Outcome = read_model(Outcome, run.path / "study" / "outcome.json")
    return outcome


def read_history(run: RunDirectory) -> History:
    """Return everything that happened in the study of ``run``, from its log."""
    history = History(max_resource=run.config.budget.steps)
    for _ in EventLog(run.path / "study" / "events.jsonl").replay(history):
        pass
    return history


def confirmation(config: ExperimentConfig, *, outcome: Outcome, history: History) -> list[RunSpec]:
    """Return the runs that confirm winner and default on fresh seeds, with the full budget."""
    specs = []
    for trial in dict.fromkeys([outcome.winner, outcome.default]):
        configuration = history.trials[trial].configuration if trial in history.trials else {}
        for spec in config.trial(configuration).specs(("confirm",), trial=trial):
            specs.append(spec.model_copy(update={"config_hash": config.config_hash}))
    return specs


def _outcome(history: History, *, winner: int | None, reason: str, own: Mapping[str, Any] | None) -> Outcome:
    failed = [run for _, run in history.runs() if run.error is not None]
    if winner is None:
        first = f"; the first failed with: {failed[0].error}" if failed else ""
        raise (UserError if failed else RunError)(f"no configuration could be trained ({reason}){first}")
    same = [trial.id for trial in history.trials.values() if own is not None and dict(trial.configuration) == dict(own)]
    runs = [run for _, run in history.runs()]
    return Outcome(
        reason=reason,
        winner=winner,
        default=same[0] if same else len(history.trials),
        n_trials=len(history.trials),
        n_runs=len(runs),
        n_failed=len(failed),
        spent_steps=history.spent,
        saved_by_resuming_steps=history.saved,
        saved_by_stopping_steps=sum(history.max_resource - run.resource for run in runs),
    )
