"""`Race`: fidelity finds candidates, seeds pick among them.

1. *Search*: configurations enter the lowest rung on seed 0 in generations; of each rung the better half goes on from
   its checkpoint to the next (successive halving, Jamieson and Talwalkar 2016).
2. *Race*: whoever reached the end gets more seeds, one at a time, where one more is expected to change the choice most
   (knowledge gradient); who has hardly a chance to beat the leader is dropped.
3. *Guard*: a rung that ranks configurations unlike the end is no longer used.

A result is the mean of a curve's tail, and results are compared by their normal scores. The winner is the finalist
with the highest posterior mean, not the one with the highest value: best-of-many on one seed mostly picks luck.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from policylab.config import Settings
from policylab.errors import ConfigError
from policylab.tuning.decisions import AddSeed, Decision, Resume, Start, Stop
from policylab.tuning.history import History, Run, RunState, Trial
from policylab.tuning.scheduler import Horizon, Propose
from policylab.tuning.schedulers.evidence import affordable, check_budget, committed, leader
from policylab.tuning.schedulers.scores import Belief, believe, best_agreement, normal_scores, tail_mean

SEED = 0
"""The seed of the search; the race adds 1, 2, ... to everyone in this order, so that rivals share seeds."""

GUARD_ENDS = 8
"""Results at the end before the guard judges a rung: with fewer, the bound of a correlation is above any threshold."""


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
        default=0.3, gt=0, le=1, description="share of a curve, from its end, whose mean is the result"
    )
    generations: int = Field(default=8, ge=1, description="how often promotion catches up while the search goes on")
    guard: float = Field(default=0.3, ge=-1, le=1, description="a rung surely less correlated with the end is dropped")
    drop: float = Field(default=0.01, ge=0, lt=0.5, description="chance to beat the leader below which one is dropped")

    @field_validator("rungs")
    @classmethod
    def _rising(cls, rungs: tuple[float, ...]) -> tuple[float, ...]:
        if not rungs or rungs[-1] != 1.0 or any(low >= high for low, high in zip((0.0, *rungs), rungs, strict=False)):
            raise ValueError("rungs must rise from above 0 to 1, such as [0.2, 0.5, 1.0]")
        return rungs


class Race:
    """Halving over configurations, then a race over seeds."""

    Settings = RaceSettings

    def __init__(self, settings: RaceSettings, horizon: Horizon) -> None:
        self._settings = settings
        full = horizon.max_resource
        self._levels = tuple(sorted({max(1, round(share * full)) for share in settings.rungs}))
        share = settings.race if horizon.n_seeds > 1 else 0.0
        if horizon.budget is None:
            assert horizon.n_trials is not None
            needed = self._price(horizon.n_trials, base=0, done=[0] * len(self._levels))
            horizon = dataclasses.replace(horizon, budget=math.ceil(max(full, needed) / (1 - share)))
        self._horizon = horizon
        self._full = full
        assert horizon.budget is not None
        self._search_budget = max(full, int(horizon.budget * (1 - share)))

    @classmethod
    def make(cls, settings: RaceSettings, horizon: Horizon) -> Race:
        """Return the scheduler.

        Raises:
            ConfigError: neither a budget nor a number of trials to plan with, or less than one full training.
        """
        if horizon.budget is None and horizon.n_trials is None:
            raise ConfigError("the scheduler `race` divides a budget: set limits.steps or limits.trials")
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
        return finalists[int(np.argmax(self._belief(finalists).mean))].id

    # --- search: which configuration, how far

    def _search(self, history: History, propose: Propose) -> list[Decision] | None:
        """Return the next promotion or entry, ``[]`` while results are awaited, None when the search is over."""
        trials = list(history.trials.values())
        base = self._base(trials)
        heading = [sum(_first(trial).until >= level for trial in trials) for level in self._levels]
        entered = heading[base]
        lowest = self._levels[base]
        n_running = sum(_first(t).until == lowest and _first(t).state is RunState.RUNNING for t in trials)
        generation = self._generation(base)
        settled = (entered - n_running) // generation * generation
        promotion = self._promotion(trials, heading, settled=settled, base=base)
        if promotion is None and self._price(entered + 1, base=base, done=heading) <= self._room(history):
            entry = self._entry(trials, propose, level=lowest)
            if entry is not None:
                return [entry]
        if promotion is None and not n_running:
            promotion = self._promotion(trials, heading, settled=entered, base=base)
        if promotion is not None:
            return [promotion]
        searching = any(_first(trial).state is RunState.RUNNING for trial in trials)
        return [] if searching else None

    def _room(self, history: History) -> int:
        return self._search_budget - committed(history)

    def _quota(self, entered: int, *, rung: int, base: int) -> int:
        """Return how many of those that entered at rung ``base`` go on to ``rung``."""
        one_in: int = self._settings.eta ** (rung - base)
        return -(-entered // one_in)

    def _price(self, entered: int, *, base: int, done: Sequence[int]) -> int:
        """Return what it costs that ``entered`` have entered and their better ones were promoted to the end.

        Args:
            entered: how many.
            base: rung they enter at.
            done: how many have been sent to each rung so far.
        """
        below, cost = 0, 0
        for rung, level in enumerate(self._levels[base:], start=base):
            cost += (level - below) * max(0, self._quota(entered, rung=rung, base=base) - done[rung])
            below = level
        return cost

    def _generation(self, base: int) -> int:
        """Return how many configurations enter between two rounds of promotions."""
        many = 1000
        n = many * self._search_budget / self._price(many, base=base, done=[0] * len(self._levels))
        return max(1, round(n / self._settings.generations))

    def _entry(self, trials: Sequence[Trial], propose: Propose, *, level: int) -> Decision | None:
        for trial in trials:  # left behind at a rung that the guard dropped: as good as new, and cheaper
            run = _first(trial)
            if run.state is RunState.PAUSED and run.until < level:
                return Resume(trial.id, SEED, level, f"enters at {level}: lower results do not rank like the end")
        configuration = propose()
        if configuration is None:
            return None
        return Start(len(trials), configuration, SEED, level, f"a new configuration up to {level}")

    def _promotion(
        self, trials: Sequence[Trial], heading: Sequence[int], *, settled: int, base: int
    ) -> Decision | None:
        """Return the promotion that is due at the lowest rung, once those of ``settled`` entries are ranked."""
        for rung in range(base + 1, len(self._levels)):
            below, above = self._levels[rung - 1], self._levels[rung]
            quota = self._quota(settled, rung=rung, base=base)
            ranked_later = rung - 1 > base and any(
                _first(trial).until == below and _first(trial).state is RunState.RUNNING for trial in trials
            )
            waiting = self._waiting(trials, below)
            if heading[rung] < quota and waiting and not ranked_later:
                return Resume(waiting[0].id, SEED, above, f"best of {len(waiting)} waiting at {below}")
        return None

    def _waiting(self, trials: Sequence[Trial], level: int) -> list[Trial]:
        """Return the trials that paused at ``level``, best first."""
        paused = [t for t in trials if _first(t).state is RunState.PAUSED and _first(t).until == level]
        return sorted(paused, key=lambda trial: self._result(_first(trial), level), reverse=True)

    def _result(self, run: Run, level: int) -> float:
        return tail_mean(run.curve, until=level, window=self._settings.window)

    def _base(self, trials: Sequence[Trial]) -> int:
        """Return the lowest rung in use: the first that may rank like the end."""
        base = 0
        ends = [trial for trial in trials if _first(trial).resource >= self._full]
        while base < len(self._levels) - 2 and len(ends) >= GUARD_ENDS:
            level = self._levels[base]
            there = [trial for trial in trials if _first(trial).resource >= level]
            scores = normal_scores([self._result(_first(trial), level) for trial in there])
            low = dict(zip((trial.id for trial in there), scores, strict=True))
            end = normal_scores([self._result(_first(trial), self._full) for trial in ends])
            agreement = best_agreement(np.array([low[t.id] for t in ends]), end, spread=float(scores.std()))
            if agreement >= self._settings.guard:
                break
            base += 1
        return base

    # --- race: which seed of which finalist

    def _finalists(self, history: History) -> list[Trial]:
        return [t for t in history.trials.values() if not t.failed and _first(t).resource >= self._full]

    def _belief(self, finalists: Sequence[Trial]) -> Belief:
        return believe([[self._result(run, self._full) for run in self._complete(trial)] for trial in finalists])

    def _complete(self, trial: Trial) -> list[Run]:
        return [run for _, run in sorted(trial.runs.items()) if run.resource >= self._full]

    def _race(self, history: History) -> list[Decision]:
        """Return one more seed for a finalist, and who is dropped on the evidence."""
        finalists = self._finalists(history)
        if len(finalists) < 2:
            return []
        belief = self._belief(finalists)
        first = int(np.argmax(belief.mean))
        pending = np.array([len(trial.runs) - len(self._complete(trial)) for trial in finalists], dtype=float)
        chances = belief.chance_to_beat(first)
        decisions: list[Decision] = [
            Stop(trial.id, None, f"{chance:.1%} chance to beat trial {finalists[first].id}")
            for trial, chance, n_pending in zip(finalists, chances, pending, strict=True)
            if chance < self._settings.drop and not n_pending and trial.stopped is None
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
        for level in reversed(self._levels[:-1]):
            waiting = self._waiting(list(history.trials.values()), level)
            if waiting and affordable(self._full - level, history, horizon=self._horizon):
                return [Resume(waiting[0].id, SEED, self._full, "the budget left pays for one more finalist")]
        return []


def _first(trial: Trial) -> Run:
    return trial.runs[SEED]
