"""Where the configurations of a study stand: each with the evidence it has, the strongest first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from policylab.experiments.statistics import Interval, mean_interval
from policylab.seeding import generator
from policylab.tuning.history import History, RunState, Trial


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """The evidence on one configuration: its values at the furthest resource it reached.

    Attributes:
        trial: its number.
        resource: the furthest resource of its runs; 0 before the first report.
        values: seed -> value there, as in the history (larger is better); a run that is not as far is not in it.
        failed: whether a run failed, which rules the configuration out.
        running: how many of its runs are under way.
    """

    trial: int
    resource: int
    values: Mapping[int, float]
    failed: bool
    running: int

    @property
    def mean(self) -> float:
        """Mean of the values; NaN before the first."""
        return float(np.mean(list(self.values.values()))) if self.values else float("nan")

    def interval(self, *, sign: float = 1.0) -> Interval | None:
        """Return the mean in the metric's own direction with its 95 % interval; None without finite values.

        Args:
            sign: 1 for a metric that is maximised, -1 for one that is minimised.
        """
        values = sign * np.array(list(self.values.values()))
        if not values.size or not np.isfinite(values).all():
            return None
        return mean_interval(values, rng=generator(0, "standing", self.trial))


def standing(trial: Trial) -> Standing:
    """Return where ``trial`` stands."""
    furthest = max((run.resource for run in trial.runs.values()), default=0)
    return Standing(
        trial=trial.id,
        resource=furthest,
        values=dict(sorted(trial.values_at(furthest).items())),
        failed=trial.failed,
        running=sum(run.state is RunState.RUNNING for run in trial.runs.values()),
    )


def standings(history: History) -> list[Standing]:
    """Return where every trial stands: trained furthest first, then most seeds, then highest mean; failed ones last.

    A value at a tenth of the training and one at its end are no rivals, which is why resource comes before value.
    """
    found = [standing(trial) for trial in history.trials.values()]
    return sorted(found, key=_rank)


def _rank(one: Standing) -> tuple[bool, int, int, float, int]:
    mean = one.mean if np.isfinite(one.mean) else -np.inf
    return one.failed or not one.values, -one.resource, -len(one.values), -mean, one.trial


def schedule_document(history: History, trial: int | None) -> list[dict[str, Any]] | None:
    """Return the stages {until_steps, configuration} of a fork's training; None where one configuration held."""
    stages = [] if trial is None else history.schedule(trial)
    if len(stages) < 2:
        return None
    return [
        {"until_steps": stage.until or history.max_resource, "configuration": dict(stage.configuration)}
        for stage in stages
    ]


def saved_by_stopping(history: History) -> int:
    """Return what runs that were not taken to a full training have left unused; a fork uses what another left.

    Those that failed have saved nothing, nor have those that a limit cut off before they began.
    """
    runs = [run for _, run in history.runs() if run.curve or run.state is not RunState.STOPPED]
    ended = (run for run in runs if run.state not in (RunState.RUNNING, RunState.FAILED))
    left = sum(history.max_resource - run.resource for run in ended)
    return left - sum(history.max_resource - run.origin for run in runs if run.origin)
