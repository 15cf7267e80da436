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
from policylab.tuning.history import History, RunState, Trial
from policylab.tuning.scheduler import Horizon, Propose
from policylab.tuning.schedulers.beliefs import Belief, Flags, believe
from policylab.tuning.schedulers.evidence import affordable, check_budget, committed, leader
from policylab.tuning.schedulers.rungs import Ladder
from policylab.tuning.schedulers.scores import best_agreement, normal_scores, standing

SEED = 0
"""The seed of the search; the race adds 1, 2, ... to everyone in this order, so that rivals share seeds."""

UNKNOWN = sys.maxsize
"""The budget while only a clock ends the study and its pace is not known: some enter, and none goes on before it is."""

GUARD_PAIRS = 8
"""Promoted configurations before the guard judges a rung: with fewer, hardly any correlation is surely low."""


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
        # What a run had reached at a level never changes: it is computed once per history, and so is what follows.
        self._results: WeakKeyDictionary[History, dict[tuple[int, int, int], float]] = WeakKeyDictionary()
        self._agreements: WeakKeyDictionary[History, dict[tuple[int, int, int], float]] = WeakKeyDictionary()

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

    def _search(self, history: History, propose: Propose) -> list[Decision] | None:
        """Return the next promotion or entry, ``[]`` while results are awaited, None when the search is over."""
        runs = [trial.runs[SEED] for trial in history.trials.values()]
        base = self._base(history)
        sent = [sum(run.until >= level for run in runs) for level in self._ladder.levels]
        lowest, entered = self._ladder.levels[base], sent[base]
        n_running = sum(run.state is RunState.RUNNING and run.until == lowest for run in runs)
        budget = self._search_budget(history)
        generation = max(1, round(self._ladder.width(budget, base=base) / self._settings.generations))
        settled = (entered - n_running) // generation * generation
        decision = self._promotion(history, sent, settled=settled, base=base)
        price = self._ladder.price(entered + 1, base=base, sent=sent)
        if decision is None and price <= budget - committed(history):
            decision = self._entry(history, propose, level=lowest)
        if decision is None and not n_running:
            decision = self._promotion(history, sent, settled=entered, base=base)
        if decision is not None:
            return [decision]
        return [] if any(run.state is RunState.RUNNING for run in runs) else None

    def _search_budget(self, history: History) -> int:
        """Return what the search may spend: its share of the budget, or of what the clock pays for if that is less."""
        clock = history.paid_by_clock if self._horizon.timed else None
        budget = min((one for one in (self._horizon.budget, clock) if one is not None), default=UNKNOWN)
        return self._settings.search_budget(budget, max_resource=self._full, n_seeds=self._horizon.n_seeds)

    def _entry(self, history: History, propose: Propose, *, level: int) -> Decision | None:
        for trial in history.trials.values():
            run = trial.runs[SEED]
            if run.state is RunState.PAUSED and run.until < level:  # left at a rung the guard dropped: cheaper than new
                return Resume(trial.id, SEED, level, f"enters at {level}: lower results say too little")
        configuration = propose()
        if configuration is None:
            return None
        return Start(len(history.trials), configuration, SEED, level, f"a new configuration up to {level}")

    def _promotion(self, history: History, sent: Sequence[int], *, settled: int, base: int) -> Decision | None:
        """Return the lowest promotion that is due when ``settled`` have entered and ended the lowest rung."""
        levels = self._ladder.levels
        for rung in range(base + 1, len(levels)):
            if sent[rung] >= self._ladder.quota(settled, rung=rung, base=base):
                continue
            waiting = self._waiting(history, levels[rung - 1])
            complete = rung - 1 == base or not any(
                run.state is RunState.RUNNING and run.until == levels[rung - 1] for _, run in history.runs()
            )
            pays = affordable(levels[rung] - levels[rung - 1], history, horizon=self._horizon)
            if waiting and complete and pays:
                reason = f"best of {len(waiting)} waiting at {levels[rung - 1]}"
                return Resume(waiting[0].id, SEED, levels[rung], reason)
        return None

    def _waiting(self, history: History, level: int) -> list[Trial]:
        """Return the trials that paused at ``level``, best first."""
        trials = history.trials.values()
        paused = [t for t in trials if t.runs[SEED].state is RunState.PAUSED and t.runs[SEED].until == level]
        return sorted(paused, key=lambda trial: self._result(history, trial, level=level), reverse=True)

    def _result(self, history: History, trial: Trial, *, level: int, seed: int = SEED) -> float:
        """Return the result of a run that reached ``level``, there."""
        known = self._results.setdefault(history, {})
        key = (trial.id, seed, level)
        if key not in known:
            known[key] = standing(trial.runs[seed].curve, until=level, window=self._settings.window)
        return known[key]

    def _base(self, history: History) -> int:
        """Return the lowest rung in use: the first above all that rank unlike the rung that follows, the end at last.

        The next rung is what each is held against: who is there was chosen by this rung alone, so that the correction
        for that choice is exact, and its results come early. Correlations are not multiplied up to the end: the noise
        of each rung between would count twice.
        """
        lower = range(len(self._ladder.levels) - 1)
        misleading = [rung for rung in lower if self._agreement(history, rung) < self._settings.guard]
        return max(misleading, default=-1) + 1

    def _agreement(self, history: History, rung: int) -> float:
        """Return the upper bound of the correlation between the results at ``rung`` and the next; 1 from too few."""
        level, above = self._ladder.levels[rung : rung + 2]
        here = [trial for trial in history.trials.values() if trial.runs[SEED].resource >= level]
        promoted = [trial for trial in here if trial.runs[SEED].resource >= above]
        if len(promoted) < GUARD_PAIRS:
            return 1.0
        known = self._agreements.setdefault(history, {})
        key = (rung, len(here), len(promoted))
        if key not in known:
            scores = normal_scores([self._result(history, trial, level=level) for trial in here])
            low = scores[[trial.runs[SEED].resource >= above for trial in here]]
            high = normal_scores([self._result(history, trial, level=above) for trial in promoted])
            known[key] = best_agreement(low, high, spread=float(scores.std()))
        return known[key]

    # --- race: which seed of which finalist

    def _finalists(self, history: History) -> list[Trial]:
        return [t for t in history.trials.values() if not t.failed and t.runs[SEED].resource >= self._full]

    def _seeds(self, trial: Trial) -> list[int]:
        """Return the seeds on which it was trained in full, the first of all first."""
        return sorted(seed for seed, run in trial.runs.items() if run.resource >= self._full)

    def _belief(self, history: History, finalists: Sequence[Trial]) -> Belief:
        results = np.full((len(finalists), self._horizon.n_seeds), np.nan)
        for i, trial in enumerate(finalists):
            for seed in self._seeds(trial):
                results[i, seed] = self._result(history, trial, level=self._full, seed=seed)
        return believe(results)

    def _race(self, history: History) -> list[Decision]:
        """Return one more seed for a finalist, and who is dropped on the evidence."""
        finalists = self._finalists(history)
        if len(finalists) < 2:
            return []
        belief = self._belief(history, finalists)
        first = int(np.argmax(belief.mean))
        begun = np.array([[seed in trial.runs for seed in range(self._horizon.n_seeds)] for trial in finalists])
        pending: Flags = begun & ~belief.seen
        awaited = np.asarray(pending.any(axis=1))
        chances = belief.chance_to_beat(first)
        decisions: list[Decision] = [
            Stop(trial.id, None, f"{chance:.1%} chance to beat trial {finalists[first].id}")
            for trial, chance, any_pending in zip(finalists, chances, awaited, strict=True)
            if chance < self._settings.drop and not any_pending and trial.stopped is None
        ]
        dropped = {decision.trial for decision in decisions}
        rivals = [t for t in finalists if t.stopped is None and t.id not in dropped]
        open_ = [i for i, t in enumerate(finalists) if t in rivals and len(t.runs) < self._horizon.n_seeds]
        if len(rivals) > 1 and open_ and affordable(self._full, history, horizon=self._horizon):
            gain = belief.knowledge_gradient(pending)
            trial = finalists[max(open_, key=lambda i: gain[i])]
            seed = min(set(range(self._horizon.n_seeds)) - set(trial.runs))
            decisions.append(AddSeed(trial.id, seed, self._full, f"seed {seed + 1} of {self._horizon.n_seeds}"))
        return decisions

    def _extend(self, history: History) -> list[Decision]:
        """Return one more candidate for the race when money is left: the best of the highest rung."""
        for level in reversed(self._ladder.levels[:-1]):
            waiting = self._waiting(history, level)
            if waiting and affordable(self._full - level, history, horizon=self._horizon):
                return [Resume(waiting[0].id, SEED, self._full, "the budget left pays for one more finalist")]
        return []
