"""`Population`: population-based training (Jaderberg et al. 2017, arXiv 1711.09846).

All members train side by side. At the end of each generation the worst go on as copies of the best (*exploit*, by
truncation selection, section 4.1.1 there) with changed hyperparameters (*explore*, see `policylab.tuning.explore`).
Nothing is trained again: a copy begins with its parent's checkpoint. The winner is therefore no configuration but a
*schedule*, the configurations of its ancestors one after the other: `History.schedule`.

Generations are synchronous, so that what is decided does not depend on how fast members train.

Cautions: selection is greedy, what pays off late loses to what pays off at once, and on some tasks
the result can fall behind random search of the same budget (MF-PBT, arXiv 2506.03225); a small population only
follows its first leaders.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Literal, Self
from weakref import WeakKeyDictionary

import numpy as np
from pydantic import Field, model_validator

from policylab.config import Settings
from policylab.errors import ConfigError, did_you_mean
from policylab.tuning.decisions import AddSeed, Decision, Fork, Resume, Start, Stop
from policylab.tuning.explore import explore
from policylab.tuning.history import History, Run, RunState, Trial
from policylab.tuning.scheduler import Horizon, Propose
from policylab.tuning.schedulers.evidence import check_budget, leader, value_at
from policylab.tuning.space import Space

DEFAULT_MEMBERS = 20
"""Members when neither a budget nor a number of trials says how many."""


class PopulationSettings(Settings):
    """Settings of `Population`."""

    kind: Literal["population"] = "population"
    members: int | None = Field(default=None, ge=2, description="default: as many as the limits pay for, in full")
    every: float = Field(default=0.1, gt=0, lt=1, description="share of a full training in one generation")
    quantile: float = Field(
        default=0.2, gt=0, le=0.5, description="share of the members that is replaced, and that is copied; as published"
    )
    factors: tuple[float, float] = Field(default=(0.8, 1.2), description="a number is multiplied by one; as published")
    resample: float = Field(
        default=0.25, ge=0, le=1, description="chance that a value is drawn anew instead (Ray Tune's default)"
    )
    explore: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="paths that a copy changes; it inherits the others; default: all"
    )
    seeds: int = Field(default=1, ge=1, description="tuning seeds that every member is trained on, and judged by")

    @model_validator(mode="after")
    def _factors_differ(self) -> Self:
        low, high = self.factors
        if not 0 < low < 1 < high:
            raise ValueError(f"factors must be one below 1 and one above, such as [0.8, 1.2], got [{low:g}, {high:g}]")
        return self


class Population:
    """Members that train side by side; the worst are replaced by changed copies of the best.

    The budget must pay for all members in full. It then pays for whatever happens: a copy begins where the generation
    ended, so that every place of the population uses one full training at most.
    """

    Settings = PopulationSettings

    def __init__(self, settings: PopulationSettings, horizon: Horizon, *, space: Space, members: int) -> None:
        self._settings = settings
        self._horizon = horizon
        self._space = space
        self._paths = frozenset(settings.explore or space.paths)
        self._members = members
        step = max(1, round(settings.every * horizon.max_resource))
        self._levels = [*range(step, horizon.max_resource, step), horizon.max_resource]
        self._rankings: WeakKeyDictionary[History, dict[int, Ranking]] = WeakKeyDictionary()

    @classmethod
    def make(cls, settings: PopulationSettings, horizon: Horizon) -> Population:
        """Return the scheduler.

        Raises:
            ConfigError: a budget, seeds or trials for fewer members, or a path to explore that is not searched.
        """
        if horizon.space is None:
            raise ConfigError("the scheduler `population` changes configurations: give its horizon their space")
        if settings.seeds > horizon.n_seeds:
            raise ConfigError(
                f"scheduler.seeds must be at most the number of tuning seeds, {horizon.n_seeds}, got {settings.seeds}; "
                "lower it or add tuning seeds"
            )
        for path in settings.explore or ():
            if path not in horizon.space.parameters:
                hint = did_you_mean(path, horizon.space.paths)
                raise ConfigError(f"scheduler.explore: '{path}' is not in the search space{hint}")
        members = _affordable_members(settings, horizon)
        check_budget(horizon, n_trainings=members * settings.seeds)
        return cls(settings, horizon, space=horizon.space, members=members)

    def next(self, history: History, *, propose: Propose, rng: np.random.Generator) -> Sequence[Decision]:
        """Return the next founder, copy or continuation; ``[]`` while a generation is under way."""
        members = [trial for trial in history.trials.values() if trial.parent is None]
        if founding := self._founding(history, members, propose=propose):
            return [founding]
        for below, above in itertools.pairwise(self._levels):
            if any(run.state is RunState.RUNNING and run.until <= below for t in members for run in t.runs.values()):
                return []
            ranking = self._ranking(history, members, level=below)
            copies = [trial for trial in history.trials.values() if trial.parent is not None and trial.origin == below]
            # Copies first: their parents still stand where they are to be copied.
            if len(copies) < len(ranking.losers):
                return self._replacement(history, ranking, number=len(copies), until=above, rng=rng)
            step = self._seed_of_copy(copies, above) or _continuation(ranking.survivors, below, until=above)
            if step is not None:
                return [step]
            members = [*ranking.survivors, *copies]
        return []

    def best(self, history: History) -> int | None:
        """Return the trial that got furthest and has the highest mean there: the end of the winning schedule."""
        return leader(history)

    def _founding(self, history: History, members: Sequence[Trial], *, propose: Propose) -> Decision | None:
        """Return the next member of the first generation, or the next seed of one."""
        level = self._levels[0]
        for trial in members:
            seed = len(trial.runs)
            if seed < self._settings.seeds:
                return AddSeed(trial.id, seed, level, f"seed {seed + 1} of {self._settings.seeds}")
        if len(members) < self._members:
            configuration = propose()
            if configuration is not None:
                reason = f"member {len(members) + 1} of {self._members}"
                return Start(len(history.trials), configuration, 0, level, reason)
        return None

    def _ranking(self, history: History, members: Sequence[Trial], *, level: int) -> Ranking:
        """Return who is copied and who is replaced at ``level``, which all ``members`` have reached or failed before.

        What happens later has no say, so it is computed once.
        """
        known = self._rankings.setdefault(history, {})
        if level not in known:
            known[level] = rank(members, level, quantile=self._settings.quantile)
        return known[level]

    def _replacement(
        self, history: History, ranking: Ranking, *, number: int, until: int, rng: np.random.Generator
    ) -> list[Decision]:
        """Return the end of loser ``number`` and the copy that takes its place."""
        loser = ranking.losers[number]
        parent = ranking.winners[int(rng.integers(len(ranking.winners)))]
        configuration = explore(
            self._space,
            parent.configuration,
            paths=self._paths,
            factors=self._settings.factors,
            resample=self._settings.resample,
            rng=rng,
        )
        reason = f"{ranking.place(loser)}: a copy of trial {parent.id} takes its place"
        fork = Fork(
            trial=len(history.trials),
            configuration=configuration,
            seed=0,
            until=until,
            parent=parent.id,
            origin=ranking.level,
            reason=f"in place of trial {loser.id}",
        )
        return [fork] if loser.stopped is not None else [Stop(loser.id, None, reason), fork]

    def _seed_of_copy(self, copies: Sequence[Trial], above: int) -> Decision | None:
        """Return the next seed of a copy that is not on all of them."""
        for trial in copies:
            seed = len(trial.runs)
            if seed < self._settings.seeds and trial.parent is not None:
                reason = f"seed {seed + 1} of {self._settings.seeds}"
                return Fork(trial.id, trial.configuration, seed, above, trial.parent, trial.origin, reason)
        return None


@dataclasses.dataclass(frozen=True, slots=True)
class Ranking:
    """The end of a generation.

    Attributes:
        level: resource it ended at.
        ranked: members, best first.
        winners: who is copied.
        losers: who is replaced.
        survivors: who goes on, copied or not.
    """

    level: int
    ranked: Sequence[Trial]
    winners: Sequence[Trial]
    losers: Sequence[Trial]
    survivors: Sequence[Trial]

    def place(self, trial: Trial) -> str:
        """Return where a member stands, in words."""
        place = next(place for place, one in enumerate(self.ranked, start=1) if one.id == trial.id)
        return f"rank {place} of {len(self.ranked)} at {self.level}"


def rank(members: Sequence[Trial], level: int, *, quantile: float) -> Ranking:
    """Return the ranking of a generation: replaced are those that failed, and the lowest quantile of the others.

    Who is as good as the winners is not replaced: before anything is learned, copies would only cost variety. Without
    a winner nobody is replaced, and the study ends with those that failed.
    """
    scores = {trial.id: _score(trial, level) for trial in members}
    ranked = sorted(members, key=lambda trial: scores[trial.id], reverse=True)
    alive = [trial for trial in ranked if scores[trial.id] > -math.inf]
    n_cut = min(max(1, int(quantile * len(ranked))), len(ranked) // 2)
    winners = alive[: max(1, n_cut)]
    rest = alive[len(winners) :]
    worst = [trial for trial in rest[len(rest) - n_cut :] if scores[trial.id] < scores[winners[-1].id]]
    losers = [*worst, *(trial for trial in ranked if scores[trial.id] == -math.inf)] if winners else []
    lost = {trial.id for trial in losers}
    return Ranking(level, ranked, winners, losers, survivors=[trial for trial in members if trial.id not in lost])


def _continuation(survivors: Sequence[Trial], level: int, *, until: int) -> Decision | None:
    """Return the next run that goes on as it is."""
    for trial in survivors:
        for run in trial.runs.values():
            if run.state is RunState.PAUSED and run.until == level:
                return Resume(trial.id, run.seed, until, f"goes on from {level}", promotion=False)
    return None


def _affordable_members(settings: PopulationSettings, horizon: Horizon) -> int:
    """Return how many members there are.

    Raises:
        ConfigError: ``limits.trials`` allows fewer than asked for.
    """
    if settings.members is not None:
        if horizon.n_trials is not None and horizon.n_trials < settings.members:
            raise ConfigError(
                f"scheduler.members is {settings.members}, but limits.trials allows {horizon.n_trials} configurations; "
                "make them equal: copies do not count"
            )
        return settings.members
    price = settings.seeds * horizon.max_resource
    paid = None if horizon.budget is None else horizon.budget // price
    return max(1, min((count for count in (paid, horizon.n_trials) if count is not None), default=DEFAULT_MEMBERS))


def _score(trial: Trial, level: int) -> float:
    """Return the mean over the seeds at ``level``; the worst value of all for a member that did not get on from there.

    What happened after ``level`` has no say: the ranking of a past generation never changes.
    """
    values = [_value(run, level) for run in trial.runs.values()]
    return math.fsum(values) / len(values)


def _value(run: Run, level: int) -> float:
    value = value_at(run, level)
    broke_there = run.state is RunState.FAILED and run.until <= level
    return -math.inf if value is None or broke_there else value
