"""`AlarmWatch`: whether a new version errs too often, is too slow or is worth too little, or nobody can tell."""

from __future__ import annotations

import threading
from collections.abc import Callable

from policylab.deployment.capture.pending_rewards import Counted, PendingRewards
from policylab.deployment.decision import Answer
from policylab.deployment.fleet import Candidate, Fleet, VariantCounts
from policylab.deployment.guardrails.mean_sequence import MeanSequence, MeanState
from policylab.deployment.guardrails.settings import Alarms, ValueAlarm


class ValueWatch:
    """The mean reward of a new version, with an interval that may be looked at all the time.

    Args:
        alarm: the rules.
        clock: monotonic seconds.
        state: to go on from.
    """

    def __init__(self, alarm: ValueAlarm, *, clock: Callable[[], float], state: MeanState | None) -> None:
        self.alarm = alarm
        self.pending = PendingRewards(alarm, clock=clock, weighted=False, count=self._counted)
        width = alarm.reward_high - alarm.reward_low
        v_opt = alarm.min_decisions * width**2 / 16.0
        self._rewards = MeanSequence(alarm.reward_low, alarm.reward_high, v_opt=v_opt, state=state)
        self._lock = threading.Lock()

    @property
    def state(self) -> MeanState:
        """What to go on from after a restart."""
        with self._lock:
            return self._rewards.state

    def interval(self) -> tuple[float, float]:
        """Return the ends of the interval of the mean reward per decision."""
        with self._lock:
            return self._rewards.interval(1.0 - self.alarm.confidence)

    def _counted(self, one: Counted) -> None:
        with self._lock:
            self._rewards.observe(one.reward)


class AlarmWatch:
    """The alarms of one update.

    Args:
        settings: when they go off.
        clock: monotonic seconds.
        value: what was known of the new version's value before a restart.
    """

    def __init__(self, settings: Alarms, *, clock: Callable[[], float], value: MeanState | None = None) -> None:
        self.settings = settings
        self.value = None if settings.value is None else ValueWatch(settings.value, clock=clock, state=value)
        self._n_answers, self._n_rewards = 0, 0

    def begin_step(self, new: Fleet) -> None:
        """Count from here what a step has seen."""
        self._n_answers = n_answers(total_counts(new))
        self._n_rewards = self.value.state.n if self.value else 0

    def decided(self, answer: Answer) -> None:
        """Take the decisions of one request that the new version answered."""
        if self.value is not None:
            self.value.pending.decided("new", answer)

    def tripped(self, new: Fleet, candidate: Candidate | None) -> str | None:
        """Return why the new version must give way, if it must."""
        if candidate is not None:
            return self._before_acting(candidate)
        counts = total_counts(new)
        return self._errors(counts) or self._latency(counts) or self._low_value()

    def silent(self, new: Fleet) -> str | None:
        """Return which alarm has seen too little in this step to be judged, where that counts as an alarm."""
        if self.settings.missing_data == "not_breaching":
            return None
        n, n_least = n_answers(total_counts(new)) - self._n_answers, self.settings.min_requests
        if n < n_least:
            return f"silent: {n} answers in this step, at least {n_least} are needed"
        if self.value is not None:
            n, n_least = self.value.state.n - self._n_rewards, self.value.alarm.min_decisions
            if n < n_least:
                return f"silent: {n} rewards in this step, at least {n_least} are needed"
        return None

    def _before_acting(self, candidate: Candidate) -> str | None:
        n_asked = sum(shadow.n_decisions + shadow.n_failures for shadow in candidate.shadows)
        n_failed = sum(shadow.n_failures for shadow in candidate.shadows)
        if n_asked >= self.settings.min_requests and n_failed / n_asked > self.settings.error_rate:
            return f"errors: {n_failed} of {n_asked} decisions that it was asked about"
        return None

    def _errors(self, counts: VariantCounts) -> str | None:
        n = n_answers(counts)
        n_errors = counts.n_failures - counts.n_covered + counts.n_fallbacks
        if n >= self.settings.min_requests and n_errors / n > self.settings.error_rate:
            return f"errors: {n_errors} of {n} requests, more than {self.settings.error_rate:.2%}"
        return None

    def _latency(self, counts: VariantCounts) -> str | None:
        limit, quantile = self.settings.latency_ms, counts.latency_quantile_s(0.99)
        if limit is None or quantile is None or n_answers(counts) < self.settings.min_requests:
            return None
        if quantile * 1000.0 > limit:
            return f"latency: the 99th percentile is {quantile * 1000.0:.3g} ms, more than {limit:g} ms"
        return None

    def _low_value(self) -> str | None:
        if self.value is None:
            return None
        self.value.pending.mature()
        low, high = self.value.interval()
        if self.value.state.n >= self.value.alarm.min_decisions and high < self.value.alarm.at_least:
            return f"value: the mean reward is in [{low:.4g}, {high:.4g}], below {self.value.alarm.at_least:g}"
        return None


def n_answers(counts: VariantCounts) -> int:
    """Return how often a version answered or failed to."""
    return counts.n_requests + counts.n_failures - counts.n_covered


def total_counts(fleet: Fleet) -> VariantCounts:
    """Return the counts of all variants of a fleet together."""
    total = VariantCounts()
    for variant in fleet.variants.values():
        total.add(variant.counts)
    return total
