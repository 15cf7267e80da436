"""Tuning of an experiment: a study whose jobs are runs in the run directory.

| file | content |
|---|---|
| study/events.jsonl | the event log: see `policylab.tuning.log` |
| study/parents.json | of a warm start: see `policylab.tuning.kept_parents` |
| study/outcome.json | the `policylab.experiments.study_outcome.Outcome`, written when the study is over |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from policylab.attempts import Failure
from policylab.experiments.checkpoints import inherit
from policylab.experiments.parents import parents_of
from policylab.experiments.rundir import RunDirectory
from policylab.experiments.schema import ExperimentConfig
from policylab.experiments.search import SearchSettings, with_default
from policylab.experiments.study_outcome import Outcome, study_outcome, with_bests, write_outcome
from policylab.files import read_lines
from policylab.launchers import Handle, Launcher, Progress, State, open_launcher
from policylab.runspec import ParentRun, RunSpec
from policylab.tuning.backend import Job, end_event, retry_event
from policylab.tuning.decisions import Configuration
from policylab.tuning.history import History
from policylab.tuning.log import EventLog
from policylab.tuning.scheduler import SCHEDULERS
from policylab.tuning.searcher import SEARCHERS, Searcher
from policylab.tuning.space import Space
from policylab.tuning.study import Study, study_facts
from policylab.tuning.study_facts import experiment_facts
from policylab.tuning.warm_start import WarmStart, WarmStartedSearcher, WarmStartSettings

WAIT_S = 0.5


class RunBackend:
    """Executes a study's jobs as runs of the experiment, through a launcher.

    Args:
        run: the run directory.
        config: the experiment.
        launcher: where runs execute.
        capacity: runs at once.
    """

    def __init__(self, run: RunDirectory, config: ExperimentConfig, *, launcher: Launcher, capacity: int) -> None:
        assert config.search is not None
        self.capacity = capacity
        self._run = run
        self._config, self._config_hash = config, config.config_hash
        self._search: SearchSettings = config.search
        self._launcher = launcher
        self._fresh: list[Job] = []
        self._jobs: dict[Handle, Job] = {}
        self._sent: dict[Handle, int] = {}
        self._n_read: dict[Handle, int] = {}
        self._seen: dict[Handle, Progress] = {}
        self._trials: dict[int, tuple[Configuration, ExperimentConfig]] = {}

    def submit(self, job: Job) -> None:
        """Keep the job until all that are decided now can be queued together; a fork copies its parent at once."""
        self._fresh.append(job)
        if job.parent is not None:
            self._queue()

    def _queue(self) -> None:
        """Write the specs of new jobs and queue them; each goes on from its checkpoint."""
        fresh, self._fresh = self._fresh, []
        specs = [self._spec(job) for job in fresh]
        folders = self._run.folders(specs)
        for folder, spec in zip(folders, specs, strict=True):
            if spec.parent is not None:
                source = self._run.path / spec.model_copy(update={"trial": spec.parent.trial}).path
                inherit(folder, source, steps=spec.parent.steps)
        for job, folder in zip(fresh, folders, strict=True):
            handle = self._launcher.submit(folder, n_failed=job.n_failed)
            self._jobs[handle] = job
            self._sent[handle], self._n_read[handle] = job.resource, 0

    def _spec(self, job: Job) -> RunSpec:
        known, trial = self._trials.get(job.trial, (None, self._config))
        if known != job.configuration:
            trial = self._config.trial(job.configuration)
            self._trials[job.trial] = job.configuration, trial
        spec = trial.spec("tune", job.seed, trial=job.trial, stop_at_steps=job.until, config_hash=self._config_hash)
        if job.parent is None:
            return spec
        return spec.model_copy(update={"parent": ParentRun(trial=job.parent.trial, steps=job.parent.resource)})

    def stop(self, trial: int, seed: int) -> None:
        """Ask a run to save and stop."""
        self._queue()
        for handle, job in self._jobs.items():
            if (job.trial, job.seed) == (trial, seed):
                self._launcher.stop(handle)

    def wait(self) -> Sequence[Mapping[str, Any]]:
        """Return new report rows and ended runs, in the order the jobs were submitted; nothing after a while.

        It does not wait for ever: the study has a limit of time to keep even while no run reports.
        """
        self._queue()
        events = self._news()
        if not events and self._jobs:
            self._launcher.wait(timeout_s=WAIT_S)
            events = self._news()
        return events

    def _news(self) -> list[Mapping[str, Any]]:
        events: list[Mapping[str, Any]] = []
        for handle, job in list(self._jobs.items()):
            progress = self._launcher.poll(handle)  # before the rows: what is written later comes next time
            last = self._seen.get(handle)
            if progress in (last, Progress(State.WAITING)):
                continue
            self._seen[handle] = progress
            events += self._reports(handle, job)
            events += [retry_event(job, why) for why in progress.failures[len(last.failures) if last else 0 :]]
            if progress.state.ended:
                del self._jobs[handle], self._seen[handle]
                events.append(end_event(job, progress.failure or self._valueless(handle, progress.state)))
        return events

    def _valueless(self, handle: Handle, state: State) -> Failure | None:
        """Return what to say of a run that has come to its step without one report that holds the metric."""
        if state is not State.FINISHED or self._sent[handle]:
            return None
        rows = read_lines(handle.folder / "reports.jsonl")
        held = sorted({name for row in rows for name in row["metrics"]})
        return Failure(
            f"{handle.folder / 'reports.jsonl'}: no report holds search.metric '{self._search.metric}', which is "
            f"misspelt, or absent where there is nothing to measure; there are {', '.join(held)}; search by one of "
            "them, or compare runs trained for longer"
        )

    def _reports(self, handle: Handle, job: Job) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        rows = read_lines(handle.folder / "reports.jsonl", known=self._n_read[handle])
        self._n_read[handle] += len(rows)
        for row in rows:
            step, value = row["step"], row["metrics"].get(self._search.metric)
            if step > self._sent[handle] and value is not None:
                value *= self._search.sign
                found.append(
                    {"event": "report", "trial": job.trial, "seed": job.seed, "resource": step, "value": value}
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
    log = EventLog(run.path / "study" / "events.jsonl")
    searcher = make_searcher(config, space, root=run.path.parent, log=log)
    capacity = settings.capacity(config)
    log.open(study_facts(settings.model_dump(mode="json", exclude={"storage"}), seed=config.seeds.root))
    n_workers = min(capacity, config.n_workers)
    with open_launcher(config.launcher, n_workers=n_workers, folder=run.path) as launcher:
        study = Study(
            searcher=searcher,
            scheduler=scheduler,
            backend=RunBackend(run, config, launcher=launcher, capacity=capacity),
            log=log,
            limits=settings.limits.signed(settings.sign),
            max_resource=config.budget.steps,
            seed=config.seeds.root,
        )
        with run.clock() as clock:
            reason = study.run(elapsed_s=clock.earlier_s, observe=clock.ticking(observe))
    outcome = study_outcome(study.history, winner=study.winner(reason), reason=reason, own=space.default)
    if isinstance(searcher, WarmStartedSearcher):
        outcome = with_bests(outcome, searcher.warm_start, history=study.history, sign=settings.sign)
    write_outcome(run, outcome)
    return outcome


def make_searcher(config: ExperimentConfig, space: Space, *, root: Path, log: EventLog | None = None) -> Searcher:
    """Return the searcher of an experiment, warm-started from its parents if it names any.

    Args:
        config: an experiment with a search.
        space: its space, with the default point.
        root: folder whose run directories can be parents; shipped studies are found without it.
        log: of the study, which goes on from the parents it began with; None takes them as they are now.

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
    warm = warm_start_of(config, settings.warm_start, space=space, root=root, log=log)
    return WarmStartedSearcher(
        warm,
        space,
        build=lambda prior: kind.make(settings.searcher, space, prior=prior),
        box=settings.searcher.kind == "random",
    )


def warm_start_of(
    config: ExperimentConfig, chosen: WarmStartSettings, *, space: Space, root: Path, log: EventLog | None = None
) -> WarmStart:
    """Return what the parents of an experiment's search know; arguments and errors are those of `make_searcher`."""
    data = config.model_dump(mode="json")
    child = experiment_facts(data, {**data["search"], "space": space.model_dump(mode="json")}, name=config.name)
    return WarmStart.make(chosen, child, parents=parents_of(chosen.parents, root=root, log=log))


def read_history(run: RunDirectory) -> History:
    """Return everything that happened in the study of ``run``, from its log."""
    history = History(max_resource=run.config.budget.steps)
    for _ in EventLog(run.path / "study" / "events.jsonl").replay(history):
        pass
    return history


def confirmation(config: ExperimentConfig, *, outcome: Outcome, history: History) -> list[RunSpec]:
    """Return the runs that confirm winner and default on fresh seeds, with the full budget.

    A winner that is a schedule, the end of a line of forks, is trained anew through all of its configurations.
    """
    specs: list[RunSpec] = []
    for trial in dict.fromkeys([outcome.winner, outcome.default]):
        experiment = trial_experiment(config, history, trial=trial) if trial in history.trials else config.trial({})
        specs += experiment.specs(("confirm",), trial=trial, config_hash=config.config_hash)
    return specs


def trial_experiment(config: ExperimentConfig, history: History, *, trial: int) -> ExperimentConfig:
    """Return the experiment that trains, from the start, as the run of ``trial`` was trained."""
    *earlier, last = history.schedule(trial)
    return config.trial(
        last.configuration, earlier=[(stage.until, stage.configuration) for stage in earlier if stage.until is not None]
    )
