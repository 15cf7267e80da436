"""An experiment from start to finish: launch its runs, summarise them, package, report and track."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from policylab.errors import PolicylabError, RunError, UserError
from policylab.experiments.failures import record_failures
from policylab.experiments.finish import finish
from policylab.experiments.optuna_live import LiveView
from policylab.experiments.rundir import RunDirectory
from policylab.experiments.study import confirmation, read_history, search
from policylab.experiments.tracking import open_tracker
from policylab.files import locked
from policylab.launchers import Handle, Launcher, Progress, open_launcher
from policylab.runspec import RunSpec
from policylab.tuning.history import History


@dataclasses.dataclass(frozen=True, slots=True)
class Observer:
    """What is told how an experiment goes on, several times a second.

    Attributes:
        runs: the progress of every run now submitted.
        study: everything that has happened in the study.
    """

    runs: Callable[[Sequence[Progress]], None] = lambda progress: None
    study: Callable[[History], None] = lambda history: None


POLL_S = 0.1


def drive(run: RunDirectory, *, observer: Observer | None = None) -> dict[str, Any]:
    """Carry the experiment in ``run`` to its end, from wherever it stands; return its result document.

    Runs that finished are kept, interrupted ones continue from their checkpoint. The document is also
    written as result.json.

    Args:
        run: a new, interrupted or finished run directory.
        observer: told how it goes on.

    Raises:
        KeyboardInterrupt: asked to stop; every run is saved and the status is ``interrupted``.
        UserError, RunError: a run failed; the others finished and are kept.
    """
    run.refuse_import()
    with locked(run.path / "run.lock"):
        config = run.config
        run.set_status("running")
        storage = config.search.storage if config.search else "none"
        with open_tracker(run.path, config.tracking) as tracker, LiveView(run.path, storage=storage) as view:
            try:
                _train(run, observer or Observer())
                document = finish(run)
                run.set_status("finished")
            except KeyboardInterrupt:
                run.set_status("interrupted")
                raise
            except BaseException as error:
                text = str(error) if isinstance(error, PolicylabError) else f"{type(error).__name__}: {error}"
                run.set_status("failed", error=text)
                raise
        warnings = [*document["warnings"], *tracker.warnings, *view.warnings]
        return {**document, "tracking": tracker.summary(), "warnings": warnings}


def _train(run: RunDirectory, observer: Observer) -> None:
    """Execute the experiment's runs: the search if there is one, then what confirms it."""
    config = run.config
    specs = config.specs()
    if config.search is not None:
        outcome = search(run, observe=observer.study)
        specs = confirmation(config, outcome=outcome, history=read_history(run))
    with run.clock() as clock:
        _launch(run, specs, observe=clock.ticking(observer.runs))


def _launch(run: RunDirectory, specs: Sequence[RunSpec], *, observe: Callable[[Sequence[Progress]], None]) -> None:
    """Execute every run that has no result yet."""
    folders = run.folders(specs)
    waiting = [folder for folder in folders if not (folder / "result.json").exists()]
    if not waiting:
        return
    n_workers = min(run.config.n_workers, len(waiting))
    with open_launcher(run.config.launcher, n_workers=n_workers, folder=run.path) as launcher:
        handles = [launcher.submit(folder) for folder in waiting]
        try:
            progress = _watch(launcher, handles, observe=observe)
        finally:  # an interrupt leaves behind what was tried again
            known = zip(waiting, map(launcher.poll, handles), strict=True)
            record_failures(run.path, {folder.relative_to(run.path).as_posix(): one for folder, one in known})
    _raise_failures(run, waiting, progress=progress)


def _watch(
    launcher: Launcher, handles: Sequence[Handle], *, observe: Callable[[Sequence[Progress]], None]
) -> list[Progress]:
    """Return where the runs stand when all have ended."""
    while True:
        progress = [launcher.poll(handle) for handle in handles]
        observe(progress)
        if all(one.state.ended for one in progress):
            return progress
        launcher.wait(timeout_s=POLL_S)


def _raise_failures(run: RunDirectory, folders: Sequence[Path], *, progress: Sequence[Progress]) -> None:
    failed = [(folder, one) for folder, one in zip(folders, progress, strict=True) if one.error is not None]
    if failed:
        folder, first = failed[0]
        kind = UserError if first.user_error else RunError
        text = f"{len(failed)} of {len(folders)} runs failed; {folder.parent.name}/{folder.name}: {first.error}"
        if run.config.search is not None:  # a mean without the seeds that failed would be of the lucky ones
            text += (
                f"; the search is over, `policylab study best {run.path}` prints its winner; "
                f"`policylab resume {run.path}` tries again what failed to confirm it"
            )
        raise kind(text)
