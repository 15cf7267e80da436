"""What a searcher learns from: one comparable observation per trial, whatever was trained how far on how many seeds.

- Level: values are compared at one resource, the highest one reached by enough trials to fit a model (BOHB's rule).
- A trial that was stopped below the level takes the median final value of the trials that were no better at the
  resource it reached, or the worst final value where there is none: being stopped is evidence, not a gap.
- A failed trial, or one whose value is no number or beyond `HUGE`, counts as the worst observed.
- A fork teaches nothing: most of its training was with its ancestors' configurations.
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

HUGE = 1e100
"""A value of this size comes from an overflow, and its square would be one."""


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
    own = [trial for trial in history.trials.values() if trial.parent is None]
    usable = [trial for trial in own if not trial.failed]
    reached = {trial.id: max((run.resource for run in trial.runs.values()), default=0) for trial in usable}
    level = _level(reached.values(), n_parameters + 2)
    finals = {trial.id: _values_from(trial, level) for trial in usable if reached[trial.id] >= level > 0}
    broken = {trial.id for trial in own if trial.failed}
    broken |= {trial for trial, values in finals.items() if any(not abs(value) < HUGE for value in values)}
    finals = {trial: values for trial, values in finals.items() if trial not in broken}
    finals |= _stand_ins(usable, finals, reached={trial: at for trial, at in reached.items() if 0 < at < level})
    if finals:
        finals |= dict.fromkeys(broken, (min(sum(values) / len(values) for values in finals.values()),))
    observed = [
        Observation(trial.configuration, finals[trial.id], trial=trial.id) for trial in own if trial.id in finals
    ]
    pending = tuple(trial.configuration for trial in usable if trial.id not in finals and trial.id not in broken)
    return Evidence((*prior, *observed), pending)


def _level(reached: Iterable[int], n_enough: int) -> int:
    """Return the highest resource reached by ``n_enough`` trials, or by all that have reached any."""
    descending = sorted((resource for resource in reached if resource > 0), reverse=True)
    if len(descending) < n_enough:
        return descending[-1] if descending else 0
    return descending[n_enough - 1]


def _value_from(run: Run, resource: int) -> float | None:
    """Return the first value reported at ``resource`` or later."""
    return next((value for at, value in run.curve.items() if at >= resource), None)


def _values_from(trial: Trial, resource: int) -> tuple[float, ...]:
    found = (_value_from(run, resource) for _, run in sorted(trial.runs.items()))
    return tuple(value for value in found if value is not None)


def _stand_ins(
    trials: Sequence[Trial], finals: dict[int, tuple[float, ...]], *, reached: dict[int, int]
) -> dict[int, tuple[float, ...]]:
    """Return a value for every trial that ``reached`` some resource below the level."""
    known = [trial for trial in trials if trial.id in finals]
    means = np.array([sum(finals[trial.id]) / len(finals[trial.id]) for trial in known])
    peers = {
        resource: np.array([_mean(_values_at(other, resource)) for other in known])
        for resource in set(reached.values())
    }
    stand_ins: dict[int, tuple[float, ...]] = {}
    for trial in trials:
        if trial.id in reached and len(known):
            resource = reached[trial.id]
            # NaN, for nothing reported there, is never "no better".
            no_better = peers[resource] <= _mean(_values_at(trial, resource))
            stand_ins[trial.id] = (float(np.median(means[no_better]) if no_better.any() else means.min()),)
    return stand_ins


def _values_at(trial: Trial, resource: int) -> tuple[float, ...]:
    return tuple(trial.values_at(resource).values())


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values) if values else math.nan
