"""`Fixed`: every configuration is trained in full on the same seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
from pydantic import Field

from policylab.config import Settings
from policylab.errors import ConfigError
from policylab.tuning.decisions import AddSeed, Decision, Start
from policylab.tuning.history import History, Trial
from policylab.tuning.scheduler import Horizon, Propose
from policylab.tuning.schedulers.evidence import affordable, check_budget, leader


class FixedSettings(Settings):
    """Settings of `Fixed`."""

    kind: Literal["fixed"] = "fixed"
    seeds: int | None = Field(default=None, ge=1, description="tuning seeds of each configuration; default: all")


class Fixed:
    """Trains each configuration on seeds 0 .. ``n_seeds`` - 1 to the full resource; nothing is stopped.

    A configuration is started only when the budget pays for all of its seeds. One that failed on a seed gets no more.
    """

    Settings = FixedSettings

    def __init__(self, horizon: Horizon, *, n_seeds: int) -> None:
        self._horizon = horizon
        self._n_seeds = n_seeds
        self._lacking: WeakKeyDictionary[History, tuple[int, list[int]]] = WeakKeyDictionary()

    @classmethod
    def make(cls, settings: FixedSettings, horizon: Horizon) -> Fixed:
        """Return the scheduler.

        Raises:
            ConfigError: more seeds than there are, or a budget for less than one configuration.
        """
        n_seeds = settings.seeds or horizon.n_seeds
        if n_seeds > horizon.n_seeds:
            raise ConfigError(
                f"scheduler.seeds must be at most the number of tuning seeds, {horizon.n_seeds}, got {n_seeds}; "
                "lower it or add tuning seeds"
            )
        check_budget(horizon, n_trainings=n_seeds)
        return cls(horizon, n_seeds=n_seeds)

    def next(self, history: History, *, propose: Propose, rng: np.random.Generator) -> Sequence[Decision]:
        """Return the next seed of the oldest unfinished configuration, or start a new one."""
        full = self._horizon.max_resource
        missing = self._still_missing(history)
        for trial_id, n_missing in missing.items():
            seed = self._n_seeds - n_missing
            if affordable(full, history, horizon=self._horizon):
                return [AddSeed(trial_id, seed, full, f"seed {seed + 1} of {self._n_seeds}")]
        reserved = sum(missing.values()) + self._n_seeds
        if affordable(reserved * full, history, horizon=self._horizon):
            configuration = propose()
            if configuration is not None:
                return [Start(len(history.trials), configuration, 0, full, "a new configuration")]
        return []

    def best(self, history: History) -> int | None:
        """Return the trial with the highest mean over its seeds."""
        return leader(history)

    def _still_missing(self, history: History) -> dict[int, int]:
        """Return trial -> seeds it lacks, of the trials that lack any; one that lacks none never does again."""
        seen, lacking = self._lacking.get(history, (0, []))
        n_trials = len(history.trials)
        missing = {trial: self._missing(history.trials[trial]) for trial in (*lacking, *range(seen, n_trials))}
        missing = {trial: n for trial, n in missing.items() if n}
        self._lacking[history] = (n_trials, list(missing))
        return missing

    def _missing(self, trial: Trial) -> int:
        missing = self._n_seeds - len(trial.runs)
        return 0 if missing <= 0 or trial.failed or trial.stopped is not None else missing
