"""`Median`: a run ends early when it does worse than the median of the others at the same step."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from policylab.config import Settings
from policylab.tuning.decisions import Decision, Resume, Start, Stop
from policylab.tuning.history import History, Run, RunState
from policylab.tuning.scheduler import Horizon, Propose
from policylab.tuning.schedulers.evidence import affordable, check_budget, leader

SEED = 0
"""One seed for every configuration, as these rules were published."""

MedianVariant = Literal["amt", "vizier", "azure", "optuna", "ray", "syne_tune"]
"""Which rule of that name; a run is stopped when its left side is below the median of the others' right sides.

| variant | left side | right side | of which others | source |
|---|---|---|---|---|
| amt | current value | mean of the values so far | earlier trials | SageMaker guide, "Stop Training Jobs Early" |
| vizier | best value so far | mean of the values so far | completed trials | Golovin et al. 2017, section 3.2.2 |
| azure | best value so far | mean of the values so far | all trials | Azure ML, `MedianStoppingPolicy` |
| optuna | best value so far | value | completed trials | Optuna, `MedianPruner` |
| ray | best value so far | mean of the finite values since ``grace`` | all trials | Ray Tune, `MedianStoppingRule` |
| syne_tune | mean of the values so far | the same | all trials | Syne Tune, `MedianStoppingRule` |

Others count once they have got as far as the run that is judged. Syne Tune counts ranks, its own among them: a run is
stopped when more than half of all are strictly better.
"""


class MedianSettings(Settings):
    """Settings of `Median`.

    With ``grace: 0`` and ``min_trials: 1`` the variants are the bare rules of their sources; the defaults keep the
    first trials, whose median says little, from deciding.
    """

    kind: Literal["median"] = "median"
    variant: MedianVariant = "amt"
    every: float = Field(default=0.1, gt=0, le=1, description="share of a full training between two looks")
    grace: float = Field(default=0.2, ge=0, le=1, description="share of a full training before the first look")
    min_trials: int = Field(default=5, ge=1, description="others needed at a step (Optuna's n_startup_trials)")

    def looks(self, max_resource: int) -> list[int]:
        """Return where runs are looked at, in the unit of ``max_resource``; the end is the last.

        >>> MedianSettings(every=0.25, grace=0.5).looks(100)
        [50, 75, 100]
        """
        step, grace = max(1, round(self.every * max_resource)), max(1, round(self.grace * max_resource))
        return [*(look for look in range(step, max_resource, step) if look >= grace), max_resource]


class Median:
    """Trains each configuration on one seed, piece by piece, and looks at it between two pieces.

    A run pauses at each look and resumes from its checkpoint, so that the rule sees it on every backend.
    """

    Settings = MedianSettings

    def __init__(self, settings: MedianSettings, horizon: Horizon) -> None:
        self._variant = settings.variant
        self._min_trials = settings.min_trials
        self._horizon = horizon
        self._grace = max(1, round(settings.grace * horizon.max_resource))
        self._looks = settings.looks(horizon.max_resource)

    @classmethod
    def make(cls, settings: MedianSettings, horizon: Horizon) -> Median:
        """Return the scheduler.

        Raises:
            ConfigError: the budget does not pay for one full training.
        """
        check_budget(horizon)
        return cls(settings, horizon)

    def next(self, history: History, *, propose: Propose, rng: np.random.Generator) -> Sequence[Decision]:
        """Stop or continue the oldest run that waits, or start a new configuration."""
        stops: list[Decision] = []
        full = self._horizon.max_resource
        owed = 0
        for trial in history.trials.values():
            run = trial.runs[SEED]
            if run.state is RunState.PAUSED and run.until < full:
                verdict = self._verdict(history, trial.id)
                if verdict is None:
                    until = next(look for look in self._looks if look > run.until)
                    reason = f"not below the median at {run.until}"
                    return [*stops, Resume(trial.id, SEED, until, reason, promotion=False)]
                stops.append(Stop(trial.id, None, verdict))
            elif run.state is RunState.RUNNING:
                owed += full - run.until
        if affordable(owed + full, history, horizon=self._horizon):
            configuration = propose()
            if configuration is not None:
                return [*stops, Start(len(history.trials), configuration, SEED, self._looks[0], "a new configuration")]
        return stops

    def best(self, history: History) -> int | None:
        """Return the trial with the highest final value."""
        return leader(history)

    def _verdict(self, history: History, judged: int) -> str | None:
        """Return why the trial ``judged`` should stop where it stands, or None."""
        run = history.trials[judged].runs[SEED]
        others = [
            value for other in self._others(history, judged) if (value := self._side(other, run.resource)) is not None
        ]
        if len(others) < self._min_trials:
            return None
        own, middle = self._own(run), statistics.median(others)
        n_better = sum(value > own for value in others)
        worse = 2 * n_better > len(others) + 1 if self._variant == "syne_tune" else own < middle
        if not worse:
            return None
        return (
            f"median rule ({self._variant}) at {run.resource}: {own:.6g} is below {middle:.6g} of {len(others)} trials"
        )

    def _own(self, run: Run) -> float:
        """Return the left side of the rule."""
        if self._variant == "amt":
            return _ranked(run.value)
        if self._variant == "syne_tune":
            return _ranked(_latest(run.averages, run.resource))
        return max(map(_ranked, run.curve.values()))

    def _side(self, other: Run, step: int) -> float | None:
        """Return what another run adds to the right side, or None if nothing."""
        if self._variant == "ray":
            values = [value for at, value in other.curve.items() if self._grace <= at <= step and math.isfinite(value)]
            return statistics.mean(values) if values else None
        return _ranked(_latest(other.curve if self._variant == "optuna" else other.averages, step))

    def _others(self, history: History, judged: int) -> Iterator[Run]:
        """Yield the runs to compare with: those that got as far, chosen by the variant."""
        step, full = history.trials[judged].runs[SEED].resource, self._horizon.max_resource
        for trial in history.trials.values():
            run = trial.runs[SEED]
            if self._variant == "amt":
                chosen = trial.id < judged
            elif self._variant in ("azure", "ray", "syne_tune"):
                chosen = trial.id != judged
            else:
                chosen = run.resource == full
            if chosen and run.resource >= step and run.state is not RunState.FAILED:
                yield run


def _ranked(value: float | None) -> float:
    """Return the value, the worst of all for NaN: with one NaN among them there would be no median."""
    return -math.inf if value is None or math.isnan(value) else value


def _latest(series: Mapping[int, float], step: int) -> float:
    """Return the entry at ``step``, or without one the last before it (the first of all if none is)."""
    if step in series:
        return series[step]
    before = [at for at in series if at < step]
    return series[before[-1] if before else next(iter(series))]
