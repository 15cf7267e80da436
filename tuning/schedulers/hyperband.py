"""`Hyperband`: brackets of synchronous successive halving (Li et al. 2018, JMLR 18-185, algorithm 1)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
from pydantic import Field, model_validator

from policylab.config import Settings
from policylab.tuning.decisions import Decision, Resume, Start, Stop
from policylab.tuning.history import History, RunState, Trial
from policylab.tuning.scheduler import Horizon, Propose
from policylab.tuning.schedulers.evidence import affordable, check_budget, leader, value_at
from policylab.tuning.schedulers.rungs import Bracket, BracketRule, hyperband_brackets, plan

SEED = 0
"""Every configuration trains on this seed: rivals in a rung are compared on common randomness."""


class HalvingSettings(Settings):
    """What `hyperband` and `asha` share."""

    eta: int = Field(default=3, ge=2, description="one in eta goes on; 3 as in Li et al. 2018, section 3.6")
    min_resource: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="least share of a full training before a comparison; less ranks learners unlike their end",
    )
    bracket_rule: BracketRule = Field(default="formula", description="width of the brackets; see `BracketRule`")

    @model_validator(mode="before")
    @classmethod
    def _stops_by_its_rungs(cls, data: Any) -> Any:
        if isinstance(data, dict) and "early_stopping" in data:
            raise ValueError(
                "early stopping must be off with hyperband and asha, whose rungs decide (SageMaker has the same rule); "
                "remove `early_stopping`, or choose scheduler kind: median"
            )
        return data

    def brackets(self, max_resource: int) -> list[Bracket]:
        """Return one round of brackets in the unit of ``max_resource``."""
        lowest = max(1, min(max_resource, round(self.min_resource * max_resource)))
        return hyperband_brackets(max_resource=max_resource, min_resource=lowest, eta=self.eta, rule=self.bracket_rule)


class HyperbandSettings(HalvingSettings):
    """Settings of `Hyperband`."""

    kind: Literal["hyperband"] = "hyperband"


class Hyperband:
    """Fills one bracket after the other; a rung is ranked when all of it has ended, and promotion resumes.

    Free places start the next bracket while a rung waits for its last run. Rounds repeat until the budget, the searcher
    or the limit of trials ends them; the last bracket is narrowed to what is left of the budget. What runs that failed
    have left of it pays for further brackets, once all are over. Who fails after a promotion is replaced by the next of
    its rung, so that others are stopped only when their bracket has ended.
    """

    Settings = HyperbandSettings

    def __init__(self, horizon: Horizon, *, brackets: list[Bracket], eta: int) -> None:
        self._horizon = horizon
        self._brackets = brackets
        self._eta = eta
        # A bracket in which nobody can go on stays as it is: it need not be looked at for every decision.
        self._over: WeakKeyDictionary[History, set[int]] = WeakKeyDictionary()

    @classmethod
    def make(cls, settings: HyperbandSettings, horizon: Horizon) -> Hyperband:
        """Return the scheduler.

        Raises:
            ConfigError: the budget does not pay for one full training.
        """
        check_budget(horizon)
        return cls(horizon, brackets=settings.brackets(horizon.max_resource), eta=settings.eta)

    def next(self, history: History, *, propose: Propose, rng: np.random.Generator) -> Sequence[Decision]:
        """Promote in the oldest bracket that has a ranked rung, else fill the first that is not full."""
        over = self._over.setdefault(history, set())
        first = 0
        for number, bracket in enumerate(self._plan(history)):
            start, first = first, first + bracket.counts[0]
            if number in over:
                continue
            members = [history.trials[trial] for trial in range(start, min(first, len(history.trials)))]
            filled = len(members) == bracket.counts[0]
            if not filled:
                configuration = propose() if affordable(bracket.levels[0], history, horizon=self._horizon) else None
                if configuration is not None:
                    reason = f"bracket of {bracket.counts[0]} from {bracket.levels[0]}"
                    return [Start(len(history.trials), configuration, SEED, bracket.levels[0], reason)]
            if members:
                actual = bracket.narrowed(len(members), eta=self._eta)
                promotion = self._promotion(actual, members, history=history)
                if promotion:
                    return promotion
                if filled and not any(_may_go_on(trial, bracket.levels[-1]) for trial in members):
                    over.add(number)
            if not filled:
                break
        return []

    def best(self, history: History) -> int | None:
        """Return the trial with the highest value at the highest rung."""
        return leader(history)

    def _plan(self, history: History) -> Iterator[Bracket]:
        """Yield the brackets that the budget pays for, then those that pay for what these left when they are over."""
        budget, planned = self._horizon.budget, 0
        while True:
            before = planned
            for bracket in plan(self._brackets, budget=budget, eta=self._eta):
                planned += bracket.counts[0]
                yield bracket
            if planned == before or len(history.trials) < planned or history.running:
                return
            assert self._horizon.budget is not None  # without one the plan has no end
            used = itertools.islice(history.trials.values(), planned)
            budget = self._horizon.budget - sum(trial.runs[SEED].resource for trial in used)

    def _promotion(self, bracket: Bracket, members: list[Trial], *, history: History) -> list[Decision]:
        """Return the next promotion of a bracket whose members have all started, and who stays behind."""
        stops: list[Decision] = []
        for rung, level in enumerate(bracket.levels[:-1]):
            if any(_heads_for(trial, level) for trial in members):
                return []
            ranked = rank(members, level)
            members, losers = ranked[: bracket.counts[rung + 1]], ranked[bracket.counts[rung + 1] :]
            above = bracket.levels[rung + 1]
            for place, trial in enumerate(members, start=1):
                run = trial.runs[SEED]
                waits = run.state is RunState.PAUSED and run.until == level
                if waits and affordable(above - level, history, horizon=self._horizon):
                    return [Resume(trial.id, SEED, above, f"rank {place} of {len(ranked)} at {level}")]
            stops += [
                Stop(trial.id, None, f"rank {place} of {len(ranked)} at {level}")
                for place, trial in enumerate(losers, start=len(members) + 1)
                if trial.stopped is None
            ]
        return [] if any(_heads_for(trial, bracket.levels[-1]) for trial in members) else stops


def rank(trials: Sequence[Trial], level: int) -> list[Trial]:
    """Return the trials that reached ``level`` and have not failed, best value there first, ties to the older trial."""
    healthy = [trial for trial in trials if not trial.failed]
    reached = [(value, trial) for trial in healthy if (value := value_at(trial.runs[SEED], level)) is not None]
    return [trial for _, trial in sorted(reached, key=lambda pair: pair[0], reverse=True)]


def _may_go_on(trial: Trial, end: int) -> bool:
    run = trial.runs[SEED]
    return run.state is RunState.RUNNING or (run.state is RunState.PAUSED and run.until < end)


def _heads_for(trial: Trial, level: int) -> bool:
    run = trial.runs[SEED]
    return run.state is RunState.RUNNING and run.until <= level
