"""What a searcher learns from: one comparable observation per trial, whatever was trained how far on how many seeds.

- Level: values are compared at one resource, the highest one reached by enough trials to fit a model (BOHB's rule).
- A trial that was stopped below the level takes the median final value of the trials that were no better at the
  resource it reached, or the worst final value where there is none: being stopped is evidence, not a gap.
- A failed trial, or one with a value that is not finite, counts as the worst observed.
- Trials without any value are *pending*; searchers keep away from where they run.

Source: Falkner, Klein and Hutter (2018), "BOHB", section 3.2: the largest budget with at least d + 2 observations.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

from policylab.tuning.decisions import Configuration
from policylab.tuning.history import History, Run, Trial


@dataclasses.dataclass(frozen=True, slots=True)
class Observation:
    """What is known of one configuration.

    Attributes:
        configuration: dotted parameter path -> value.
        values: one value per seed, larger is better.
        group: 0 for values on the study's own scale; values of another group, such as another task's, are
            compared within their group only.
        weight: evidence one of its values is worth, 1 for the study's own.
        trial: the study's trial, or None for an observation from elsewhere.
    """

    configuration: Configuration
    values: tuple[float, ...]
    group: int = 0
    weight: float = 1.0
    trial: int | None = None

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return sum(self.values) / len(self.values)


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """A history as a searcher sees it: what was observed, and what is still on its way."""

    observed: tuple[Observation, ...]
    pending: tuple[Configuration, ...]


def gather(history: History, *, n_parameters: int, prior: Sequence[Observation] = ()) -> Evidence:
    """Return the evidence of ``history``, after that of ``prior``.

    Args:
        history: of the study.
        n_parameters: dimensions of the space; a level needs two trials more.
        prior: observations from elsewhere.
    """
    usable = [trial for trial in history.trials.values() if not _broken(trial)]
    broken = [trial for trial in history.trials.values() if _broken(trial)]
    level = _level(usable, n_parameters + 2)
    finals = {trial.id: values for trial in usable if (values := _values_from(trial, level))}
    finals |= _stand_ins(usable, finals)
    worst = min((sum(values) / len(values) for values in finals.values()), default=None)
    if worst is not None:
        finals |= {trial.id: (worst,) for trial in broken}
    observed = [
        Observation(trial.configuration, finals[trial.id], trial=trial.id)
        for trial in history.trials.values()
        if trial.id in finals
    ]
    pending = tuple(trial.configuration for trial in usable if trial.id not in finals)
    return Evidence((*prior, *observed), pending)


def _broken(trial: Trial) -> bool:
    return trial.failed or any(not math.isfinite(value) for run in trial.runs.values() for value in run.curve.values())


def _level(trials: Iterable[Trial], n_enough: int) -> int:
    """Return the highest resource reached by ``n_enough`` trials, or by as many trials as reached any."""
    reached = sorted((max(run.resource for run in trial.runs.values()) for trial in trials), reverse=True)
    reached = [resource for resource in reached if resource > 0]
    if len(reached) < n_enough:
        return reached[-1] if reached else 0
    return reached[n_enough - 1]


def _value_from(run: Run, resource: int) -> float | None:
    """Return the first value reported at ``resource`` or later."""
    return next((value for at, value in run.curve.items() if at >= resource), None)


def _values_from(trial: Trial, resource: int) -> tuple[float, ...]:
    found = (_value_from(run, resource) for _, run in sorted(trial.runs.items()))
    return tuple(value for value in found if value is not None)


def _stand_ins(trials: Sequence[Trial], finals: dict[int, tuple[float, ...]]) -> dict[int, tuple[float, ...]]:
    """Return a value for every trial that has some, but none at the level."""
    short = [trial for trial in trials if trial.id not in finals and any(run.curve for run in trial.runs.values())]
    known = [trial for trial in trials if trial.id in finals]
    means = np.array([sum(finals[trial.id]) / len(finals[trial.id]) for trial in known])
    peers: dict[int, np.ndarray] = {}
    stand_ins: dict[int, tuple[float, ...]] = {}
    for trial in short:
        resource = max(run.resource for run in trial.runs.values())
        if resource not in peers:
            peers[resource] = np.array([_mean(_values_at(other, resource)) for other in known])
        no_better = peers[resource] <= _mean(_values_at(trial, resource))  # NaN, nothing reported there, is not
        stand_ins[trial.id] = (float(np.median(means[no_better]) if no_better.any() else means.min()),)
    return stand_ins


def _values_at(trial: Trial, resource: int) -> tuple[float, ...]:
    return tuple(trial.values_at(resource).values())


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values) if values else math.nan
