"""What a history says, in the terms schedulers decide by: money left, values at a resource, the leader."""

from __future__ import annotations

import math

from policylab.errors import ConfigError
from policylab.tuning.history import History, Run, RunState
from policylab.tuning.scheduler import Horizon


def committed(history: History) -> int:
    """Return the resource spent, plus what the runs under way may still spend."""
    return history.spent + sum(run.until - run.resource for _, run in history.runs() if run.state is RunState.RUNNING)


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
            f"the budget must pay for at least {trainings}, {needed} in all, got {horizon.budget}; raise limits.steps"
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
