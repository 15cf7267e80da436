"""`Means`: what the trials of a history that ended were worth, kept as it goes on."""

from __future__ import annotations

import math
from weakref import WeakKeyDictionary

from policylab.tuning.history import History, RunState, Trial

Ended = tuple[int, float, bool]
"""When a trial ended, as a place among the reports; its mean over the seeds; whether it was trained in full on one."""


class Means:
    """The mean of each trial that was trained in full on a seed, and what those that were given up last reported.

    Where few are trained in full, the others are what shows that none improves. A mean that is no number is the worst;
    trials with a failed run are left out. A look costs what happened since the last one, not what did in all.

    Attributes:
        values: of all, in the order in which they ended first.
        best: highest of those trained in full; minus infinity before there is one.
    """

    def __init__(self) -> None:
        self.values: list[float] = []
        self.best = -math.inf
        self._ended: dict[int, Ended | None] = {}
        self._n_seen = 0

    @classmethod
    def of(cls, history: History) -> Means:
        """Return the means of ``history`` as of now."""
        means = _KNOWN.setdefault(history, cls())
        means._follow(history)
        return means

    def _follow(self, history: History) -> None:
        found = {
            number: _ended(history.trials[number], full=history.max_resource)
            for number in dict.fromkeys(history.touched[self._n_seen :])
        }
        self._n_seen = len(history.touched)
        if all(ended == self._ended.get(number) for number, ended in found.items()):
            return
        self._ended |= found
        ends = sorted(ended for ended in self._ended.values() if ended is not None)
        self.values = [mean for _, mean, _ in ends]
        self.best = max((mean for _, mean, in_full in ends if in_full), default=-math.inf)


_KNOWN: WeakKeyDictionary[History, Means] = WeakKeyDictionary()


def _ended(trial: Trial, *, full: int) -> Ended | None:
    """Return how a trial ended, None while it has not or if a run of it failed."""
    if trial.failed:
        return None
    values = trial.values_at(full)
    in_full = bool(values)
    if not in_full and _given_up(trial):
        values = {seed: run.value for seed, run in trial.runs.items() if run.value is not None}
    if not values:
        return None
    mean = sum(values.values()) / len(values)
    return min(trial.runs[seed].place for seed in values), -math.inf if math.isnan(mean) else mean, in_full


def _given_up(trial: Trial) -> bool:
    return trial.stopped is not None or all(run.state is RunState.STOPPED for run in trial.runs.values())
