"""`StudyData`: what a report shows of a search, as plain data; part of `ReportData`.

Values are in the metric's own direction. Resources are environment steps.

| word | meaning |
|---|---|
| trial | one configuration |
| piece | what one run did from where it stood to where it was told to stop |
| level | a resource at which a run paused, stopped or ended: a rung |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from policylab.experiments.report.data import Estimate

Ending = Literal["full", "paused", "stopped", "failed", "running"]
"""How a run or a trial stands at the end: trained in full, not promoted, given up, failed, or cut off."""


@dataclasses.dataclass(frozen=True, slots=True)
class Axis:
    """One searched parameter.

    Attributes:
        path: dotted, as in the configuration.
        name: short, unique among the axes.
        scale: ``"linear"``, ``"logarithmic"``, ``"reverse_logarithmic"`` or ``"categorical"``.
        low: lower end of a range; 0 for categories.
        high: upper end of a range; number of categories - 1.
        categories: the values of a categorical parameter as text, in order; empty for a range.
    """

    path: str
    name: str
    scale: Literal["linear", "logarithmic", "reverse_logarithmic", "categorical"]
    low: float
    high: float
    categories: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Improvement:
    """By how much the winner is better than the default, seed by seed; positive where it is better.

    Attributes:
        value: mean over the confirmation seeds.
        low: lower end of its confidence interval, NaN where there is none.
        high: upper end.
        chance: probability that the winner is better in the mean; None from one seed.
    """

    value: float
    low: float
    high: float
    chance: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class TriedRun:
    """One configuration on one seed.

    Attributes:
        seed: number of the tuning seed.
        levels: where its pieces ended, rising; empty when the first never did.
        value: the last one reported, NaN if none.
        ending: how it stands.
    """

    seed: int
    levels: Sequence[int]
    value: float
    ending: Ending

    @property
    def resource(self) -> int:
        """How far it got."""
        return self.levels[-1] if self.levels else 0


@dataclasses.dataclass(frozen=True, slots=True)
class Tried:
    """One configuration and what became of it.

    Attributes:
        id: number of the trial.
        configuration: path -> value of its active parameters.
        places: position on every axis, in the axes' order: a number, the index of a category, or None if inactive.
        runs: by rising seed.
        estimate: mean over the seeds at the furthest resource, NaN without a value.
        resource: the furthest resource of its runs.
        entered: level it was first sent to: which bracket it belongs to.
        ending: how it stands.
        reason: why it was given up, or its error; ``""`` otherwise.
        parent: the trial whose checkpoint it began with, None unless it is a fork.
        origin: resource of that checkpoint.
    """

    id: int
    configuration: Mapping[str, Any]
    places: Sequence[float | None]
    runs: Sequence[TriedRun]
    estimate: Estimate
    resource: int
    entered: int
    ending: Ending
    reason: str = ""
    parent: int | None = None
    origin: int = 0

    @property
    def values(self) -> dict[int, float]:
        """Seed -> value of the runs that are behind the estimate."""
        return {run.seed: run.value for run in self.runs if run.resource == self.resource > 0}


@dataclasses.dataclass(frozen=True, slots=True)
class Moment:
    """The study when a piece had ended.

    Attributes:
        spent: resource used by then.
        trial: whose piece it was.
        resource: the furthest resource of that trial then.
        values: its values there, one per seed.
        leader: value of the trial that would have been selected then, NaN before there is one.
    """

    spent: int
    trial: int
    resource: int
    values: Sequence[float]
    leader: float


@dataclasses.dataclass(frozen=True, slots=True)
class Importances:
    """How much of the values' variance each parameter explains.

    Attributes:
        shares: path -> share, the largest first; they add up to 1.
        resource: level at which the values were compared.
        n_trials: configurations compared.
        warnings: what the shares do not tell, a sentence each.
    """

    shares: Mapping[str, float]
    resource: int
    n_trials: int
    warnings: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class StudyData:
    """One search, ready to be drawn.

    Attributes:
        metric: name of the metric searched on.
        maximise: whether larger is better.
        method: searcher and scheduler in words.
        reason: why the search ended.
        max_resource: environment steps of a full training.
        axes: the parameters.
        trials: by number.
        ranking: trial numbers, the selected one first, then by evidence.
        moments: in the order of time.
        winner: number of the selected trial.
        default: number of the default's trial; None if the search did not try it.
        default_configuration: path -> value of the configuration to beat.
        spent: resource used by the search.
        saved_by_resuming: resource that promoted runs and copies found in checkpoints.
        saved_by_stopping: resource left unused by runs that were not taken to a full training.
        optimism_gap: selected minus confirmed; None without confirmation.
        default_confirmed: the default on the confirmation seeds; None without confirmation.
        improvement: of the winner over the default on the same confirmation seeds; None without confirmation.
        beats_default: probability that a run of the winner beats one of the default; None without confirmation.
        importances: None when they cannot be told.
        no_importances: why they cannot.
        schedule: (resource until which it held, configuration) of the selected trial, one after the other; empty
            where one configuration held throughout.
        bests: of a warm start, the best of this study and of each parent: {study (None: this one), value, n_seeds,
            configuration}.
        comparable: whether they are of the same data and algorithm, best first.
        failed: (reason, how many) of the runs that failed in the end.
        retried: (reason, how often) of attempts that failed and were followed by another.
    """

    metric: str
    maximise: bool
    method: str
    reason: str
    max_resource: int
    axes: Sequence[Axis]
    trials: Sequence[Tried]
    ranking: Sequence[int]
    moments: Sequence[Moment]
    winner: int
    default: int | None
    default_configuration: Mapping[str, Any]
    spent: int
    saved_by_resuming: int
    saved_by_stopping: int
    optimism_gap: Estimate | None = None
    default_confirmed: Estimate | None = None
    improvement: Improvement | None = None
    beats_default: Estimate | None = None
    importances: Importances | None = None
    no_importances: str = ""
    schedule: Sequence[tuple[int, Mapping[str, Any]]] = ()
    bests: Sequence[Mapping[str, Any]] = ()
    comparable: bool = False
    failed: Sequence[tuple[str, int]] = ()
    retried: Sequence[tuple[str, int]] = ()

    @property
    def line(self) -> list[int]:
        """The selected trial and the trials it goes back to, the oldest last."""
        parents = {trial.id: trial.parent for trial in self.trials}
        found: list[int] = []
        at: int | None = self.winner
        while at is not None:
            found.append(at)
            at = parents.get(at)
        return found

    @property
    def levels(self) -> list[int]:
        """Every resource at which a run ended a piece, rising."""
        return sorted({level for trial in self.trials for run in trial.runs for level in run.levels})

    @property
    def best(self) -> Tried:
        """The selected trial."""
        return next(trial for trial in self.trials if trial.id == self.winner)
