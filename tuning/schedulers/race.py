"""`Race`: fidelity finds candidates, seeds pick among them.

1. *Search*: configurations enter the lowest rung on seed 0 in generations; of each rung the better half goes on from
   its checkpoint to the next (successive halving, Jamieson and Talwalkar 2016).
2. *Race*: whoever reached the end gets more seeds, one at a time, where one more is expected to change the choice most
   (knowledge gradient); who has hardly a chance to beat the leader is dropped.
3. *Guard*: a rung that ranks configurations unlike the next, the end at last, is no longer used, nor those below.

A result is the mean of a curve's tail, or of less of it while the run still climbs. Rungs are compared by ranks,
finalists by values, seed by seed, outliers drawn in. The winner is the finalist with the highest posterior mean, not
the one with the highest value: best-of-many on one seed mostly picks luck.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
from pydantic import Field, field_validator

from policylab.config import Settings
from policylab.errors import ConfigError
from policylab.tuning.decisions import AddSeed, Decision, Resume, Start, Stop
from policylab.tuning.history import History, Trial
from policylab.tuning.scheduler import Horizon, Propose
from policylab.tuning.schedulers.beliefs import Belief, Flags, believe
from policylab.tuning.schedulers.evidence import affordable, check_budget, committed, leader
from policylab.tuning.schedulers.rungs import Ladder
from policylab.tuning.schedulers.standings import Standings

SEED = 0
"""The seed of the search; the race adds 1, 2, ... to everyone in this order, so that rivals share seeds."""

UNKNOWN = sys.maxsize
"""The budget while only a clock ends the study and its pace is not known: some enter, and none goes on before it is."""


class RaceSettings(Settings):
    """Settings of `Race`."""

    kind: Literal["race"] = "race"
    rungs: tuple[float, ...] = Field(
        default=(0.2, 0.5, 1.0),
        description="shares of a full training; on ARLBench 20 % ranks like the end with ρ = .61, 10 % with .46",
    )
    eta: int = Field(default=2, ge=2, description="one in eta goes on; with 3 the first rung drops good learners")
    race: float = Field(default=0.25, ge=0, lt=1, description="share of the budget kept for seeds: that of each rung")
    window: float = Field(
        default=0.3,
        gt=0,
        le=1,
        description="share of a curve, from its end, whose mean is the result, or less if it climbs",
    )
    generations: int = Field(default=8, ge=1, description="how often promotion catches up while the search goes on")
    guard: float = Field(default=0.3, ge=-1, le=1, description="a rung surely less correlated with the next is dropped")
    drop: float = Field(default=0.01, ge=0, lt=0.5, description="chance to beat the leader below which one is dropped")

    @field_validator("rungs")
    @classmethod
    def _rising(cls, rungs: tuple[float, ...]) -> tuple[float, ...]:
        if not rungs or rungs[-1] != 1.0 or any(low >= high for low, high in zip((0.0, *rungs), rungs, strict=False)):
            raise ValueError("rungs must rise from above 0 to 1, such as [0.2, 0.5, 1.0]")
        return rungs

    def ladder(self, max_resource: int) -> Ladder:
        """Return the rungs in the unit of ``max_resource``."""
        return Ladder(tuple(sorted({max(1, round(share * max_resource)) for share in self.rungs})), self.eta)

    def search_budget(self, budget: int, *, max_resource: int, n_seeds: int) -> int:
        """Return what of ``budget`` is for the search: all of it where there is one seed and nothing to race."""
        return max(max_resource, int(budget * (1 - (self.race if n_seeds > 1 else 0.0))))


class Race:
    """Halving over configurations, then a race over seeds."""

    Settings = RaceSettings

    def __init__(self, settings: RaceSettings, horizon: Horizon) -> None:
        self._settings = settings
        self._full = full = horizon.max_resource
        self._ladder = settings.ladder(full)
        budget = horizon.budget
        if budget is None and horizon.n_trials is not None:
            share = settings.race if horizon.n_seeds > 1 else 0.0
            budget = math.ceil(max(full, self._ladder.price(horizon.n_trials)) / (1 - share))
        self._horizon = dataclasses.replace(horizon, budget=budget)
        self._followed: WeakKeyDictionary[History, Standings] = WeakKeyDictionary()

    @classmethod
    def make(cls, settings: RaceSettings, horizon: Horizon) -> Race:
        """Return the scheduler.

        Raises:
            ConfigError: neither a budget nor trials nor a clock to plan with, or less than one full training.
        """
        if horizon.budget is None and horizon.n_trials is None and not horizon.timed:
            raise ConfigError("the scheduler `race` divides a budget: set limits.steps, cost, trials or wall_clock_s")
        check_budget(horizon)
        return cls(settings, horizon)

    def next(self, history: History, *, propose: Propose, rng: np.random.Generator) -> Sequence[Decision]:
        """Return a step of the search, or of the race when the search's share is used, or of what is left."""
        return self._search(history, propose) or self._race(history) or self._extend(history)

    def best(self, history: History) -> int | None:
        """Return the finalist with the highest posterior mean; before there is one, the best of the highest rung."""
        finalists = self._finalists(history)
        if not finalists:
            return leader(history)
        return finalists[int(np.argmax(self._belief(history, finalists).mean))].id

    # --- search: which configuration, how far

    def _standings(self, history: History) -> Standings:
        """Return where the runs of the search stand, as of now."""
        standings = self._followed.get(history)
        if standings is None:
            standings = self._followed[history] = Standings(
                self._ladder.levels, seed=SEED, n_seeds=self._horizon.n_seeds, window=self._settings.window
            )
        standings.follow(history)
        return standings

    def _search(self, history: History, propose: Propose) -> list[Decision] | None:
        """Return the next promotion or entry, ``[]`` while results are awaited, None when the search is over."""
        standings = self._standings(history)
        base = self._base(standings)
        sent = list(standings.sent.values())
        lowest, entered = self._ladder.levels[base], sent[base]
        n_running = standings.running[lowest]
        budget = self._search_budget(history)
        generation = max(1, round(self._ladder.width(budget, base=base) / self._settings.generations))
        settled = (entered - n_running) // generation * generation
        decision = self._promotion(history, standings, settled=settled, base=base)
        price = self._ladder.price(entered + 1, base=base, sent=sent)
        if decision is None and price <= budget - committed(history):
            decision = self._entry(history, propose, level=lowest)
        if decision is None and not n_running:
            decision = self._promotion(history, standings, settled=entered, base=base)
        if decision is not None:
            return [decision]
        return [] if any(standings.running.values()) else None

    def _search_budget(self, history: History) -> int:
        """Return what the search may spend: its share of the budget, or of what the clock pays for if that is less."""
        clock = history.paid_by_clock if self._horizon.timed else None
        budget = min((one for one in (self._horizon.budget, clock) if one is not None), default=UNKNOWN)
        return self._settings.search_budget(budget, max_resource=self._full, n_seeds=self._horizon.n_seeds)

    def _entry(self, history: History, propose: Propose, *, level: int) -> Decision | None:
        waiting = self._standings(history).waiting
        left = [trial for below in self._ladder.levels if below < level for _, trial in waiting[below]]
        if left:  # at a rung the guard dropped: cheaper than new
            return Resume(min(left), SEED, level, f"enters at {level}: lower results say too little")
        configuration = propose()
        if configuration is None:
            return None
        return Start(len(history.trials), configuration, SEED, level, f"a new configuration up to {level}")

    def _promotion(self, history: History, standings: Standings, *, settled: int, base: int) -> Decision | None:
        """Return the lowest promotion that is due when ``settled`` have entered and ended the lowest rung."""
        levels = self._ladder.levels
        for rung in range(base + 1, len(levels)):
            below, level = levels[rung - 1], levels[rung]
            if standings.sent[level] >= self._ladder.quota(settled, rung=rung, base=base):
                continue
            waiting = standings.waiting[below]
            complete = rung - 1 == base or not standings.running[below]
            if waiting and complete and affordable(level - below, history, horizon=self._horizon):
                return Resume(waiting[0][1], SEED, level, f"best of {len(waiting)} waiting at {below}")
        return None

    def _base(self, standings: Standings) -> int:
        """Return the lowest rung in use: the first above all that rank unlike the rung that follows, the end at last.

        The next rung is what each is held against: who is there was chosen by this rung alone, so that the correction
        for that choice is exact, and its results come early. Correlations are not multiplied up to the end: the noise
        of each rung between would count twice.
        """
        lower = range(len(self._ladder.levels) - 1)
        misleading = [rung for rung in lower if standings.agreement(rung) < self._settings.guard]
        return max(misleading, default=-1) + 1

    # --- race: which seed of which finalist

    def _finalists(self, history: History) -> list[Trial]:
        reached = ~np.isnan(self._standings(history).finals[:, SEED])
        return [history.trials[number] for number in np.flatnonzero(reached).tolist()]

    def _belief(self, history: History, finalists: Sequence[Trial]) -> Belief:
        return believe(self._standings(history).finals[[trial.id for trial in finalists]])

    def _race(self, history: History) -> list[Decision]:
        """Return one more seed for a finalist, and who is dropped on the evidence."""
        finalists = self._finalists(history)
        if len(finalists) < 2:
            return []
        belief = self._belief(history, finalists)
        first = int(np.argmax(belief.mean))
        in_race = np.array([trial.stopped is None for trial in finalists])
        pending = _begun(finalists, in_race, n_seeds=self._horizon.n_seeds) & ~belief.seen
        judged = np.flatnonzero(in_race & ~pending.any(axis=1))
        chances = zip(judged, belief.chance_to_beat(first, among=judged), strict=True)
        dropped = {i: chance for i, chance in chances if chance < self._settings.drop}
        in_race[list(dropped)] = False
        decisions: list[Decision] = [
            Stop(finalists[i].id, None, f"{chance:.1%} chance to beat trial {finalists[first].id}")
            for i, chance in dropped.items()
        ]
        open_ = [i for i in np.flatnonzero(in_race) if len(finalists[i].runs) < self._horizon.n_seeds]
        if in_race.sum() > 1 and open_ and affordable(self._full, history, horizon=self._horizon):
            gain = belief.knowledge_gradient(pending)
            trial = finalists[max(open_, key=lambda i: gain[i])]
            seed = min(set(range(self._horizon.n_seeds)) - set(trial.runs))
            decisions.append(AddSeed(trial.id, seed, self._full, f"seed {seed + 1} of {self._horizon.n_seeds}"))
        return decisions

    def _extend(self, history: History) -> list[Decision]:
        """Return one more candidate for the race when money is left: the best of the highest rung."""
        for level in reversed(self._ladder.levels[:-1]):
            waiting = self._standings(history).waiting[level]
            if waiting and affordable(self._full - level, history, horizon=self._horizon):
                return [Resume(waiting[0][1], SEED, self._full, "the budget left pays for one more finalist")]
        return []


def _begun(finalists: Sequence[Trial], in_race: Flags, *, n_seeds: int) -> Flags:
    """Return the seeds that those still in the race have begun, shape (n, seeds); none of the others is under way."""
    begun = np.zeros((len(finalists), n_seeds), dtype=bool)
    for i in np.flatnonzero(in_race).tolist():
        begun[i, list(finalists[i].runs)] = True
    return begun
