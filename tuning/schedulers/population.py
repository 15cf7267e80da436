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

from collections.abc import Sequence
from typing import Literal, Self
from weakref import WeakKeyDictionary

import numpy as np
from pydantic import Field, model_validator

from policylab.config import Settings
from policylab.errors import ConfigError, did_you_mean
from policylab.tuning.decisions import AddSeed, Decision, Fork, Start, Stop
from policylab.tuning.explore import explore
from policylab.tuning.history import History, Trial
from policylab.tuning.scheduler import Horizon, Propose
from policylab.tuning.schedulers.evidence import check_budget, leader
from policylab.tuning.schedulers.generations import Generation, Generations
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
        self._known: WeakKeyDictionary[History, Generations] = WeakKeyDictionary()

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
        generations = self._followed(history)
        if founding := self._founding(history, generations.founders, propose=propose):
            return [founding]
        while (generation := generations.due(history)) is not None:
            copies = generations.copies[generation.level]
            # Copies first: their parents still stand where they are to be copied.
            if len(copies) < len(generation.ranking.losers):
                return self._replacement(history, generation, number=len(copies), rng=rng)
            step = self._seed_of_copy(copies, generation.until) or generation.continuation()
            if step is not None:
                return [step]
            generations.settle()
        return []

    def best(self, history: History) -> int | None:
        """Return the trial that got furthest and has the highest mean there: the end of the winning schedule."""
        return leader(history)

    def _followed(self, history: History) -> Generations:
        generations = self._known.get(history)
        if generations is None:
            generations = self._known[history] = Generations(self._levels, quantile=self._settings.quantile)
        generations.follow(history)
        return generations

    def _founding(self, history: History, members: Sequence[Trial], *, propose: Propose) -> Decision | None:
        """Return the next member of the first generation, or the next seed of the last one: the others have all."""
        level = self._levels[0]
        if members and (seed := len(members[-1].runs)) < self._settings.seeds:
            return AddSeed(members[-1].id, seed, level, f"seed {seed + 1} of {self._settings.seeds}")
        if len(members) < self._members:
            configuration = propose()
            if configuration is not None:
                reason = f"member {len(members) + 1} of {self._members}"
                return Start(len(history.trials), configuration, 0, level, reason)
        return None

    def _replacement(
        self, history: History, generation: Generation, *, number: int, rng: np.random.Generator
    ) -> list[Decision]:
        """Return the end of loser ``number`` and the copy that takes its place."""
        ranking = generation.ranking
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
            until=generation.until,
            parent=parent.id,
            origin=generation.level,
            reason=f"in place of trial {loser.id}",
        )
        return [fork] if loser.stopped is not None else [Stop(loser.id, None, reason), fork]

    def _seed_of_copy(self, copies: Sequence[Trial], above: int) -> Decision | None:
        """Return the next seed of a copy that is not on all of them."""
        if not copies or len(copies[-1].runs) == self._settings.seeds:  # they got theirs in order
            return None
        for trial in copies:
            seed = len(trial.runs)
            if seed < self._settings.seeds and trial.parent is not None:
                reason = f"seed {seed + 1} of {self._settings.seeds}"
                return Fork(trial.id, trial.configuration, seed, above, trial.parent, trial.origin, reason)
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
