"""Evidence: what the rewards of decisions prove of a new version, side by side with the old one or before it acts.

| symbol | meaning |
|---|---|
| r in [low, high] | reward of a decision |
| w = pi_new(a given x)/propensity | weight of a decision of the old version, cut off at M |
| V_old, V_new | mean reward per decision |

Side by side, each version has rewards of its own. Before it acts, the new version is valued on the decisions of the
old one: E[w (r - low)] = V_new - low (importance sampling). Weights that are cut off, and actions that the old version
never takes, lower that mean, by at most (1 - E[w]) (high - low). The lower end of the interval holds all the same,
since r - low is not negative; to its upper end that much is added.
"""

from __future__ import annotations

import abc
import threading
from collections.abc import Callable
from typing import Literal

from pydantic import Field

from policylab.config import Settings
from policylab.deployment.capture.pending_rewards import Counted, PendingRewards, Side
from policylab.deployment.decision import Answer
from policylab.deployment.guardrails.mean_sequence import MeanSequence, MeanState
from policylab.deployment.guardrails.settings import PromotionTest

Verdict = Literal["better", "worse", "inconclusive"]


class EvidenceState(Settings):
    """What has been observed at one step, as it is stored."""

    old: MeanState = MeanState()
    new: MeanState = MeanState()
    weights: MeanState = MeanState()
    squared_weights: float = Field(default=0.0, ge=0.0)
    n_cut: int = Field(default=0, ge=0)


class Evidence(abc.ABC):
    """What is common to both kinds: rewards that are waited for, and an interval that may be looked at all the time.

    Args:
        test: the rules.
        n_steps: at how many steps of one update there is such a test; they share its error probability.
        clock: monotonic seconds.
        state: to go on from.
    """

    weighted: bool

    def __init__(
        self, test: PromotionTest, *, n_steps: int, clock: Callable[[], float], state: EvidenceState | None = None
    ) -> None:
        self.test = test
        self.alpha = (1.0 - test.confidence) / n_steps
        self.pending = PendingRewards(test, clock=clock, weighted=self.weighted, count=self._counted)
        self._lock = threading.Lock()
        start = state or EvidenceState()
        self._width = test.reward_high - test.reward_low
        self._v_opt = test.min_decisions * self._width**2 / 16.0
        self._old = MeanSequence(test.reward_low, test.reward_high, v_opt=self._v_opt, state=start.old)
        self._begin(start)

    @abc.abstractmethod
    def _begin(self, state: EvidenceState) -> None:
        """Make the sequences of the new version."""

    @abc.abstractmethod
    def _counted(self, one: Counted) -> None:
        """Take one decision that counts."""

    @property
    @abc.abstractmethod
    def state(self) -> EvidenceState:
        """What to go on from after a restart; decisions whose reward had not come are lost."""

    @abc.abstractmethod
    def difference(self) -> tuple[float, float]:
        """Return the interval of V_new - V_old."""

    @abc.abstractmethod
    def enough(self) -> bool:
        """Return whether there are so many decisions that a verdict may be given."""

    def decided(self, side: Side, answer: Answer) -> None:
        """Take the decisions of one request."""
        self.pending.decided(side, answer)

    def verdict(self) -> Verdict:
        """Return what is proven: the difference is above minus the margin, below it, or neither yet."""
        if not self.enough():
            return "inconclusive"
        low, high = self.difference()
        if low > -self.test.margin:
            return "better"
        return "worse" if high < -self.test.margin else "inconclusive"

    def document(self) -> dict[str, object]:
        """Return the numbers as JSON."""
        return {
            "old": {"n": self._old.n, "mean": self._old.mean},
            "difference": list(self.difference()),
            "margin": self.test.margin,
            "confidence": 1.0 - self.alpha,
            "verdict": self.verdict(),
            "n_pending": len(self.pending),
            "n_forgotten": self.pending.n_forgotten,
            "n_outside": self.pending.n_outside,
        }


class SideBySide(Evidence):
    """Rewards of both versions, while each has a constant share of the traffic."""

    weighted = False

    def _begin(self, state: EvidenceState) -> None:
        low, high = self.test.reward_low, self.test.reward_high
        self._new = MeanSequence(low, high, v_opt=self._v_opt, state=state.new)

    def _counted(self, one: Counted) -> None:
        with self._lock:
            (self._new if one.side == "new" else self._old).observe(one.reward)

    @property
    def state(self) -> EvidenceState:
        """What to go on from after a restart."""
        with self._lock:
            return EvidenceState(old=self._old.state, new=self._new.state)

    def difference(self) -> tuple[float, float]:
        """Return the interval of V_new - V_old; each side may err with half the probability."""
        with self._lock:
            old, new = self._old.interval(self.alpha / 2.0), self._new.interval(self.alpha / 2.0)
        return new[0] - old[1], new[1] - old[0]

    def enough(self) -> bool:
        """Return whether both versions have enough decisions with a reward."""
        return min(self._old.n, self._new.n) >= self.test.min_decisions

    def document(self) -> dict[str, object]:
        """Return the numbers as JSON."""
        return {**super().document(), "kind": "side by side", "new": {"n": self._new.n, "mean": self._new.mean}}


class BeforeActing(Evidence):
    """Rewards of the old version alone, weighted by how likely the new one is to do the same."""

    weighted = True

    def _begin(self, state: EvidenceState) -> None:
        most = self.test.max_weight
        self._new = MeanSequence(0.0, most * self._width, v_opt=self._v_opt, state=state.new)
        self._weights = MeanSequence(0.0, most, v_opt=float(self.test.min_decisions), state=state.weights)
        self._squared, self._n_cut = state.squared_weights, state.n_cut

    def _counted(self, one: Counted) -> None:
        with self._lock:
            self._n_cut += one.weight > self.test.max_weight
            weight = min(one.weight, self.test.max_weight)
            self._old.observe(one.reward)
            self._new.observe(weight * (one.reward - self.test.reward_low))
            self._weights.observe(weight)
            self._squared += weight**2

    @property
    def state(self) -> EvidenceState:
        """What to go on from after a restart."""
        with self._lock:
            return EvidenceState(
                old=self._old.state,
                new=self._new.state,
                weights=self._weights.state,
                squared_weights=self._squared,
                n_cut=self._n_cut,
            )

    def difference(self) -> tuple[float, float]:
        """Return the interval of V_new - V_old; the three sequences share the probability of error."""
        with self._lock:
            old, new = self._old.interval(self.alpha / 2.0), self._new.interval(self.alpha / 4.0)
            weight = self._weights.interval(self.alpha / 4.0)
        unseen = max(0.0, 1.0 - weight[0])
        highest = self.test.reward_low + new[1] + unseen * self._width
        return self.test.reward_low + new[0] - old[1], min(highest, self.test.reward_high) - old[0]

    @property
    def effective_n(self) -> float:
        """Effective sample size, (sum w)^2 / sum w^2: decisions that the new version would not make count little."""
        total = self._weights.state.total
        return total**2 / self._squared if self._squared else 0.0

    def enough(self) -> bool:
        """Return whether the effective sample is large enough."""
        return self.effective_n >= self.test.min_decisions

    def document(self) -> dict[str, object]:
        """Return the numbers as JSON."""
        mean = self._new.mean
        value = None if mean is None else self.test.reward_low + mean
        return {
            **super().document(),
            "kind": "before acting",
            "new": {"n": self._new.n, "mean": value, "effective_n": self.effective_n},
            "weights": {"mean": self._weights.mean, "cut_off": self._n_cut},
        }
