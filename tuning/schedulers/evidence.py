"""What a history says, in the terms schedulers decide by: money left, values at a resource, the leader."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable

from policylab.errors import ConfigError
from policylab.tuning.history import History, Run, RunState, Trial
from policylab.tuning.scheduler import Horizon


def committed(history: History) -> int:
    """Return the resource spent, plus what the runs under way may still spend."""
    return history.spent + sum(run.until - run.resource for run in history.under_way.values())


def affordable(cost: int, history: History, *, horizon: Horizon) -> bool:
    """Whether work that costs ``cost`` keeps the study within its budget, whatever happens to the runs under way."""
    return horizon.budget is None or committed(history) + cost <= horizon.budget


def check_budget(horizon: Horizon, *, n_trainings: int = 1) -> None:
    """Refuse a budget that is too small for ``n_trainings`` full trainings.

    Raises:
        ConfigError: it is.
    """
    needed = n_trainings * horizon.max_resource
    if horizon.budget is not None and horizon.budget < needed:
        trainings = "one full training" if n_trainings == 1 else f"{n_trainings} full trainings"
        raise ConfigError(
            f"the budget must pay for at least {trainings}, {needed} in all, got {horizon.budget}; "
            "raise limits.steps or cost"
        )


def value_at(run: Run, resource: int) -> float | None:
    """Return the value ``run`` had at ``resource``, or None while it has not come so far.

    A value that is not a number is the worst of all. Without a report at exactly ``resource`` the next one counts.
    """
    if run.resource < resource:
        return None
    value = run.curve.get(resource)
    if value is None:
        value = next(value for at, value in run.curve.items() if at >= resource)
    return -math.inf if math.isnan(value) else value


def leader(history: History) -> int | None:
    """Return the trial that was trained furthest, on the most seeds, and among equals has the highest mean value.

    A trial with a failed run is never the leader; None when no other has a value. Ties go to the older trial.
    """
    best: tuple[int, int, float] | None = None
    found = None
    for trial in history.trials.values():
        furthest = max((run.resource for run in trial.runs.values()), default=0)
        if furthest == 0 or trial.failed:
            continue
        values = [value for run in trial.runs.values() if (value := value_at(run, furthest)) is not None]
        rank = (furthest, len(values), sum(values) / len(values))
        if best is None or rank > best:
            best, found = rank, trial.id
    return found


class Ranks:
    """Trials by their value at ``level`` on ``seed``, best first and ties to the older one, as a history goes on.

    A value at a level does not change any more once a run has come so far, so every report is looked at once and the
    ranks need not be made anew for each decision.

    Args:
        level: the resource.
        seed: the seed of the runs that are compared.
        belongs: whether a trial, by its number, takes part.
    """

    def __init__(self, level: int, *, seed: int, belongs: Callable[[int], bool]) -> None:
        self._level = level
        self._seed = seed
        self._belongs = belongs
        self._seen = 0
        self._ranked: list[tuple[float, int]] = []
        self._placed: set[int] = set()
        self._candidates: list[tuple[float, int]] = []

    def follow(self, history: History) -> None:
        """Take in what ``history`` reported since the last call; it is always the same history."""
        for number, seed in history.reported[self._seen :]:
            if seed == self._seed and number not in self._placed and self._belongs(number):
                value = value_at(history.trials[number].runs[seed], self._level)
                if value is not None:
                    self._placed.add(number)
                    bisect.insort(self._ranked, (-value, number))
                    bisect.insort(self._candidates, (-value, number))
        self._seen = len(history.reported)

    def __len__(self) -> int:
        return len(self._ranked)

    def best_waiting(self, history: History) -> tuple[int, Trial] | None:
        """Return the place, from 1, and the trial of the best whose run paused at this level; None if none did."""
        gone, waiting = [], None
        for key in self._candidates:
            run = history.trials[key[1]].runs[self._seed]
            if run.until > self._level or run.state in (RunState.STOPPED, RunState.FAILED):
                gone.append(key)
                if run.until <= self._level and run.state is RunState.FAILED:  # it takes no one's place
                    del self._ranked[bisect.bisect_left(self._ranked, key)]
            elif run.state is RunState.PAUSED:
                waiting = key
                break
        for key in gone:
            del self._candidates[bisect.bisect_left(self._candidates, key)]
        if waiting is None:
            return None
        return bisect.bisect_left(self._ranked, waiting) + 1, history.trials[waiting[1]]
