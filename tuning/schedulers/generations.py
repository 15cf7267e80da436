"""`Generations`: how far a population has come, kept as its history goes on."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict, deque
from collections.abc import Sequence

from policylab.tuning.decisions import Resume
from policylab.tuning.history import History, Run, RunState, Trial
from policylab.tuning.schedulers.evidence import value_at


class Generations:
    """The generations of a population, one after the other; what is settled in one stays so, and is left behind.

    Args:
        levels: resources at which they end, rising.
        quantile: share of the members that is replaced.

    Attributes:
        founders: members of the first generation.
        copies: level -> copies that were made there.
    """

    def __init__(self, levels: Sequence[int], *, quantile: float) -> None:
        self.founders: list[Trial] = []
        self.copies: defaultdict[int, list[Trial]] = defaultdict(list)
        self._levels = levels
        self._quantile = quantile
        self._members: Sequence[Trial] = self.founders
        self._due: Generation | None = None
        self._n_settled = 0
        self._n_trials = 0

    def follow(self, history: History) -> None:
        """Take in the trials of ``history`` that are new since the last call; it is always the same history."""
        for number in range(self._n_trials, len(history.trials)):
            trial = history.trials[number]
            (self.founders if trial.parent is None else self.copies[trial.origin]).append(trial)
        self._n_trials = len(history.trials)

    def due(self, history: History) -> Generation | None:
        """Return the generation that has ended and is not settled; None while it is under way, and after the last."""
        if self._due is None and self._n_settled < len(self._levels) - 1:
            level, until = self._levels[self._n_settled : self._n_settled + 2]
            if not any(run.until <= level for run in history.under_way.values()):
                ranking = rank(self._members, level, quantile=self._quantile)
                self._due = Generation(ranking, until=until)
        return self._due

    def settle(self) -> None:
        """Go on to the next generation: of the one that was due all copies are made, and all survivors go on."""
        assert self._due is not None
        self._members = [*self._due.ranking.survivors, *self.copies[self._due.level]]
        self._due = None
        self._n_settled += 1


class Generation:
    """Members that have all come to a level, or failed before, and what is left to do for them to go on.

    Args:
        ranking: of its members; what happens later has no say.
        until: resource that they go on to.

    Attributes:
        level: resource that it ended at.
    """

    def __init__(self, ranking: Ranking, *, until: int) -> None:
        self.ranking = ranking
        self.until = until
        self.level = ranking.level
        self._left = deque((trial, run) for trial in ranking.survivors for run in trial.runs.values())

    def continuation(self) -> Resume | None:
        """Return the next run that goes on as it is."""
        while self._left:
            trial, run = self._left[0]
            if run.state is RunState.PAUSED and run.until == self.level:
                return Resume(trial.id, run.seed, self.until, f"goes on from {self.level}", promotion=False)
            self._left.popleft()  # it has gone on, or failed
        return None


@dataclasses.dataclass(frozen=True, slots=True)
class Ranking:
    """The end of a generation.

    Attributes:
        level: resource it ended at.
        ranked: members, best first.
        winners: who is copied.
        losers: who is replaced.
        survivors: who goes on, copied or not.
    """

    level: int
    ranked: Sequence[Trial]
    winners: Sequence[Trial]
    losers: Sequence[Trial]
    survivors: Sequence[Trial]

    def place(self, trial: Trial) -> str:
        """Return where a member stands, in words."""
        place = next(place for place, one in enumerate(self.ranked, start=1) if one.id == trial.id)
        return f"rank {place} of {len(self.ranked)} at {self.level}"


def rank(members: Sequence[Trial], level: int, *, quantile: float) -> Ranking:
    """Return the ranking of a generation: replaced are those that failed, and the lowest quantile of the others.

    Who is as good as the winners is not replaced: before anything is learned, copies would only cost variety. Without
    a winner nobody is replaced, and the study ends with those that failed.
    """
    scores = {trial.id: _score(trial, level) for trial in members}
    ranked = sorted(members, key=lambda trial: scores[trial.id], reverse=True)
    alive = [trial for trial in ranked if scores[trial.id] > -math.inf]
    n_cut = min(max(1, int(quantile * len(ranked))), len(ranked) // 2)
    winners = alive[: max(1, n_cut)]
    rest = alive[len(winners) :]
    worst = [trial for trial in rest[max(0, len(rest) - n_cut) :] if scores[trial.id] < scores[winners[-1].id]]
    losers = [*worst, *(trial for trial in ranked if scores[trial.id] == -math.inf)] if winners else []
    lost = {trial.id for trial in losers}
    return Ranking(level, ranked, winners, losers, survivors=[trial for trial in members if trial.id not in lost])


def _score(trial: Trial, level: int) -> float:
    """Return the mean over the seeds at ``level``; the worst value of all for a member that did not get on from there.

    What happened after ``level`` has no say: the ranking of a past generation never changes.
    """
    values = [_value(run, level) for run in trial.runs.values()]
    return math.fsum(values) / len(values)


def _value(run: Run, level: int) -> float:
    value = value_at(run, level)
    broke_there = run.state is RunState.FAILED and run.until <= level
    return -math.inf if value is None or broke_there else value
