"""`Asha`: asynchronous successive halving by promotion (Li et al. 2020, MLSys, arXiv 1810.05934, algorithm 2)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
from pydantic import Field

from policylab.errors import ConfigError
from policylab.tuning.decisions import Decision, Resume, Start
from policylab.tuning.history import History, RunState, Trial
from policylab.tuning.scheduler import Horizon, Propose
from policylab.tuning.schedulers.evidence import Ranks, affordable, check_budget, leader
from policylab.tuning.schedulers.hyperband import SEED, HalvingSettings
from policylab.tuning.schedulers.rungs import Bracket


class AshaSettings(HalvingSettings):
    """Settings of `Asha`."""

    kind: Literal["asha"] = "asha"
    brackets_used: int = Field(
        default=1,
        ge=1,
        description="brackets, from the widest; one is what pays (Syne Tune documentation, NAS-Bench-201)",
    )


class Asha:
    """Promotes whoever is in the best 1/η of a rung as it stands, else starts a new configuration; never waits.

    With several brackets, configurations are dealt to them in Hyperband's proportions, by their number. When nothing
    new can start, the best of the highest rung goes on until one has been trained in full.
    """

    Settings = AshaSettings

    def __init__(self, horizon: Horizon, *, brackets: list[Bracket], eta: int) -> None:
        self._horizon = horizon
        self._brackets = brackets
        self._eta = eta
        self._deal = [index for index, bracket in enumerate(brackets) for _ in range(bracket.counts[0])]
        self._ranks: WeakKeyDictionary[History, list[list[Ranks]]] = WeakKeyDictionary()

    @classmethod
    def make(cls, settings: AshaSettings, horizon: Horizon) -> Asha:
        """Return the scheduler.

        Raises:
            ConfigError: the budget does not pay for one full training, or there are fewer brackets than asked for.
        """
        check_budget(horizon)
        brackets = settings.brackets(horizon.max_resource)
        if settings.brackets_used > len(brackets):
            raise ConfigError(
                f"scheduler.brackets_used must be at most {len(brackets)}, the brackets from min_resource to a full "
                f"training with eta {settings.eta}, got {settings.brackets_used}"
            )
        return cls(horizon, brackets=brackets[: settings.brackets_used], eta=settings.eta)

    def next(self, history: History, *, propose: Propose, rng: np.random.Generator) -> Sequence[Decision]:
        """Return a promotion from the highest rung that has one, or a new configuration."""
        for bracket, rungs in zip(self._brackets, self._followed(history), strict=True):
            for (below, above), ranks in reversed(list(zip(itertools.pairwise(bracket.levels), rungs, strict=True))):
                place, trial = ranks.best_waiting(history) or (len(ranks), None)
                good = place <= len(ranks) // self._eta
                if trial is not None and good and self._pays(below, above, history=history):
                    return [Resume(trial.id, SEED, above, f"rank {place} of {len(ranks)} at {below}")]
        lowest = self._brackets[self._bracket_of(len(history.trials))].levels[0]
        if self._pays(0, lowest, history=history):
            configuration = propose()
            if configuration is not None:
                return [Start(len(history.trials), configuration, SEED, lowest, f"a new configuration up to {lowest}")]
        return [] if history.running else self._crown(history)

    def best(self, history: History) -> int | None:
        """Return the trial with the highest value at the highest rung."""
        return leader(history)

    def _followed(self, history: History) -> list[list[Ranks]]:
        """Return the ranks of each bracket at each of its rungs but the last, as of now."""
        if history not in self._ranks:
            self._ranks[history] = [
                [Ranks(level, seed=SEED, belongs=partial(self._dealt_to, index)) for level in bracket.levels[:-1]]
                for index, bracket in enumerate(self._brackets)
            ]
        for rungs in self._ranks[history]:
            for ranks in rungs:
                ranks.follow(history)
        return self._ranks[history]

    def _dealt_to(self, bracket: int, trial: int) -> bool:
        return self._bracket_of(trial) == bracket

    def _bracket_of(self, trial: int) -> int:
        return self._deal[trial % len(self._deal)]

    def _crowned(self, history: History) -> bool:
        """Whether a run has got, or is on its way to, the full resource."""
        full = self._horizon.max_resource
        return any(run.until == full and run.state is not RunState.FAILED for _, run in history.runs())

    def _pays(self, below: int, above: int, *, history: History) -> bool:
        """Whether a run may go from ``below`` to ``above``; until one is crowned, its way to the end is kept."""
        goal = above if self._crowned(history) else self._horizon.max_resource
        return affordable(goal - below, history, horizon=self._horizon)

    def _crown(self, history: History) -> list[Decision]:
        trial = leader(history)
        if trial is None or self._crowned(history):
            return []
        reached = history.trials[trial].runs[SEED].until
        above = next(level for level in self._brackets[self._bracket_of(trial)].levels if level > reached)
        if not _waits(history.trials[trial], reached) or not self._pays(reached, above, history=history):
            return []
        return [Resume(trial, SEED, above, "the best when nothing new can start")]


def _waits(trial: Trial, level: int) -> bool:
    run = trial.runs[SEED]
    return run.state is RunState.PAUSED and run.until == level
