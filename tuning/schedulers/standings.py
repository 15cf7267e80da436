"""`Standings`: where the runs of a search by halving stand, rung by rung, kept as its history goes on."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

import numpy as np

from policylab.tuning.history import History, Run, RunState, Trial
from policylab.tuning.schedulers.scores import best_agreement, normal_scores, standing

GUARD_PAIRS = 8
"""Promoted configurations before the guard judges a rung: with fewer, hardly any correlation is surely low."""


class Standings:
    """The runs on one seed, each with its result at every level that it has reached.

    What a run had reached at a level never changes, so that every event is looked at once, and a decision costs what
    happened since the last one.

    Args:
        levels: resources of the rungs, rising.
        seed: of the runs.
        n_seeds: seeds there are in all.
        window: share of a curve whose mean is the result; see `standing`.

    Attributes:
        sent: level -> how many runs were sent there or beyond.
        running: level -> how many runs are on their way there.
        waiting: level -> (-result, trial) of the runs that paused there: the best first, ties to the older.
        finals: results at the last level on every seed, shape (trials or more, seeds); NaN where there is none, and for
            trials with a failed run.
    """

    def __init__(self, levels: Sequence[int], *, seed: int, n_seeds: int, window: float) -> None:
        self.sent = dict.fromkeys(levels, 0)
        self.running = dict.fromkeys(levels, 0)
        self.waiting: dict[int, list[tuple[float, int]]] = {level: [] for level in levels}
        self.finals = np.full((0, n_seeds), math.nan)
        self._levels = levels
        self._seed = seed
        self._window = window
        self._results = np.full((len(levels), 0), math.nan)  # by rung and trial; NaN: it has not come so far
        self._n_arrived = dict.fromkeys(levels, 0)
        self._places: dict[int, tuple[RunState, int]] = {}
        self._agreements: dict[tuple[int, int, int], float] = {}
        self._n_seen = 0

    def follow(self, history: History) -> None:
        """Take in what happened in ``history`` since the last call; it is always the same history."""
        if len(history.trials) > len(self.finals):
            room = len(history.trials)  # twice as much as is needed: all is copied
            self._results = np.pad(self._results, ((0, 0), (0, room)), constant_values=math.nan)
            self.finals = np.pad(self.finals, ((0, room), (0, 0)), constant_values=math.nan)
        for number in dict.fromkeys(history.touched[self._n_seen :]):
            trial = history.trials[number]
            run = trial.runs[self._seed]
            for results, level in zip(self._results, self._levels, strict=True):
                if run.resource >= level and math.isnan(results[number]):
                    results[number] = self._result(run, level)
                    self._n_arrived[level] += 1
            if self._places.get(number) != (run.state, run.until):
                self._move(number, run)
            self._take_finals(trial)
        self._n_seen = len(history.touched)

    def _result(self, run: Run, level: int) -> float:
        return standing(run.curve, until=level, window=self._window)

    def _move(self, number: int, run: Run) -> None:
        """Take a run from where it was to where it is."""
        state, before = self._places.get(number, (None, 0))
        if state is RunState.RUNNING:
            self.running[before] -= 1
        elif state is RunState.PAUSED:
            del self.waiting[before][bisect.bisect_left(self.waiting[before], self._key(number, before))]
        for level in self._levels:
            self.sent[level] += before < level <= run.until
        if run.state is RunState.RUNNING:
            self.running[run.until] += 1
        elif run.state is RunState.PAUSED:
            bisect.insort(self.waiting[run.until], self._key(number, run.until))
        self._places[number] = run.state, run.until

    def _key(self, number: int, level: int) -> tuple[float, int]:
        return -float(self._results[self._levels.index(level), number]), number

    def _take_finals(self, trial: Trial) -> None:
        finals, full = self.finals[trial.id], self._levels[-1]
        if trial.failed:
            finals[:] = math.nan
        elif trial.runs[self._seed].resource >= full:
            for seed, run in trial.runs.items():
                if run.resource >= full and math.isnan(finals[seed]):
                    finals[seed] = self._result(run, full)

    def agreement(self, rung: int) -> float:
        """Return the upper bound of the correlation between the results at ``rung`` and the next; 1 from too few."""
        n_here, n_promoted = (self._n_arrived[level] for level in self._levels[rung : rung + 2])
        if n_promoted < GUARD_PAIRS:
            return 1.0
        key = (rung, n_here, n_promoted)
        if key not in self._agreements:
            low, high = self._results[rung : rung + 2, ~np.isnan(self._results[rung])]
            promoted = ~np.isnan(high)
            scores = normal_scores(low)
            self._agreements[key] = best_agreement(
                scores[promoted], normal_scores(high[promoted]), spread=float(scores.std())
            )
        return self._agreements[key]
