"""What a finished study found, in the metric's own direction."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from policylab.errors import RunError
from policylab.tuning.history import History, RunState, Trial


@dataclasses.dataclass(frozen=True, slots=True)
class TrialResult:
    """One configuration and what became of it.

    Attributes:
        id: number of the trial, in the order they were started.
        configuration: dotted parameter path -> value.
        resource: how far it was trained.
        values: seed -> value at that resource; seeds that did not come so far are left out.
        failed: the error that ended it, or None.
        traceback: where that was raised, or None.
        stopped: why it was given up, or None.
        schedule: what it was trained with: (resource until which it held, configuration), one after the other. More
            than one stage only under the `population` scheduler; training anew with ``configuration`` alone is then
            not what gave ``values``.
    """

    id: int
    configuration: Mapping[str, Any]
    resource: int
    values: Mapping[int, float]
    failed: str | None = None
    traceback: str | None = None
    stopped: str | None = None
    schedule: tuple[tuple[int, Mapping[str, Any]], ...] = ()

    @property
    def value(self) -> float:
        """Mean over the seeds; NaN without a value."""
        return sum(self.values.values()) / len(self.values) if self.values else math.nan


@dataclasses.dataclass(frozen=True, slots=True)
class StudyResult:
    """What a study found.

    Attributes:
        trials: every configuration, in the order they were started.
        reason: why the study ended.
        spent: resource used in all.
        selected: number of the winning trial, or None when none has a value.
    """

    trials: tuple[TrialResult, ...]
    reason: str
    spent: int
    selected: int | None

    @property
    def best(self) -> TrialResult:
        """The winner.

        Raises:
            RunError: no trial has a value.
        """
        if self.selected is None:
            errors = [trial.failed for trial in self.trials if trial.failed]
            first = f"; the first error: {errors[0]}" if errors else ""
            raise RunError(f"none of {len(self.trials)} trials has a value{first}")
        return next(trial for trial in self.trials if trial.id == self.selected)


def study_result(history: History, *, reason: str, selected: int | None, sign: float) -> StudyResult:
    """Return the result of a study whose history holds larger-is-better values: ``sign`` times the metric."""
    trials = tuple(_trial_result(trial, sign, history=history) for trial in history.trials.values())
    return StudyResult(trials, reason=reason, spent=history.spent, selected=selected)


def _trial_result(trial: Trial, sign: float, *, history: History) -> TrialResult:
    resource = max((run.resource for run in trial.runs.values()), default=0)
    failed = next((run for run in trial.runs.values() if run.state is RunState.FAILED), None)
    return TrialResult(
        id=trial.id,
        configuration=dict(trial.configuration),
        resource=resource,
        values={seed: sign * value for seed, value in sorted(trial.values_at(resource).items())},
        failed=failed.error if failed else None,
        traceback=failed.traceback if failed else None,
        stopped=trial.stopped,
        schedule=tuple((stage.until or resource, dict(stage.configuration)) for stage in history.schedule(trial.id)),
    )
