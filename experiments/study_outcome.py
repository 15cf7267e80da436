"""What a finished study decided: ``study/outcome.json`` in the run directory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from policylab.config import Settings
from policylab.errors import RunDirectoryError, RunError, UserError
from policylab.experiments.rundir import RunDirectory
from policylab.experiments.standing import saved_by_stopping
from policylab.files import write_atomic
from policylab.runspec import read_model
from policylab.tuning.history import History
from policylab.tuning.searchers.observations import Observation
from policylab.tuning.warm_start import WarmStart

FILE = "study/outcome.json"


class StudyBest(Settings):
    """The best configuration that one study trained in full."""

    study: str | None = Field(description="name of the parent, None for this study")
    value: float = Field(description="mean over its seeds, in the metric's own direction")
    n_seeds: int
    configuration: dict[str, Any]


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
    bests: list[StudyBest] = Field(
        default=[], description="of a warm start: this study's winner and the best of each parent"
    )
    comparable: bool = Field(
        default=False, description="whether `bests` are of the same data and algorithm; the best of all is then first"
    )


def study_outcome(history: History, *, winner: int | None, reason: str, own: Mapping[str, Any] | None) -> Outcome:
    """Return what is told of a study that is over.

    Args:
        history: of the study.
        winner: the trial that its scheduler selected.
        reason: why it ended.
        own: the default configuration, if it lies in the space.

    Raises:
        RunError: the search ended before any configuration was trained, or trained in full.
        UserError: nothing could be trained because runs failed; what made them fail is to be mended.
    """
    failed = [run for _, run in history.runs() if run.error is not None]
    if winner is None:
        first = f"; the first failed with: {failed[0].error}" if failed else ""
        raise (UserError if failed else RunError)(f"no configuration could be trained ({reason}){first}")
    if not history.trials[winner].values_at(history.max_resource):
        reached = max(run.resource for run in history.trials[winner].runs.values())
        failures = f" {_runs(len(failed))} failed, the first with: {failed[0].error};" if failed else ""
        raise RunError(
            f"the search ended before any configuration was trained in full ({reason});{failures} the best, trial "
            f"{winner}, stands at {reached:,} of {history.max_resource:,} steps: set a higher limit in a new run, or "
            "train what `policylab study best RUN_DIR` prints"
        )
    founders = (trial for trial in history.trials.values() if trial.parent is None)
    same = [trial.id for trial in founders if own is not None and dict(trial.configuration) == dict(own)]
    return Outcome(
        reason=reason,
        winner=winner,
        default=same[0] if same else len(history.trials),
        n_trials=len(history.trials),
        n_runs=sum(1 for _ in history.runs()),
        n_failed=len(failed),
        spent_steps=history.spent,
        saved_by_resuming_steps=history.saved,
        saved_by_stopping_steps=saved_by_stopping(history),
    )


def with_bests(outcome: Outcome, warm_start: WarmStart, *, history: History, sign: float) -> Outcome:
    """Return the outcome of a warm-started study beside what its parents found.

    Args:
        outcome: of the study.
        warm_start: what it started from.
        history: of the study; its values, and the parents', are larger-is-better.
        sign: 1 to maximise, -1 to minimise.
    """
    winner = history.trials[outcome.winner]
    values = tuple(winner.values_at(history.max_resource).values())
    own = Observation(winner.configuration, values) if values else None
    bests = [
        StudyBest(
            study=name, value=sign * found.mean, n_seeds=len(found.values), configuration=dict(found.configuration)
        )
        for name, found in warm_start.bests(own)
    ]
    return outcome.model_copy(update={"bests": bests, "comparable": warm_start.comparable})


def write_outcome(run: RunDirectory, outcome: Outcome) -> None:
    """Write what the study of ``run`` decided."""
    write_atomic(run.path / FILE, outcome.model_dump_json(indent=1) + "\n")


def _runs(n: int) -> str:
    return "1 run" if n == 1 else f"{n} runs"


def read_outcome(run: RunDirectory) -> Outcome:
    """Read what the study of ``run`` decided.

    Raises:
        RunDirectoryError: it is not over yet, or the file is damaged.
    """
    if not (run.path / FILE).exists():
        raise RunDirectoryError(
            f"the search of {run.path} is not over: finish it with `policylab resume {run.path}`; "
            f"`policylab study show {run.path}` tells where it stands"
        )
    outcome: Outcome = read_model(Outcome, run.path / FILE)
    return outcome
