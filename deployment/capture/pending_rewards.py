"""`PendingRewards`: the latest decisions, each until it counts with the rewards that were reported for it."""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from policylab.deployment.decision import Answer
from policylab.deployment.guardrails.settings import RewardRules

MAX_PENDING = 100_000
"""Decisions whose reward may still come; beyond that the oldest are forgotten, and counted."""
Side = str
"""Who made a decision: the old or the new version, or a variant."""


@dataclasses.dataclass(slots=True)
class Pending:
    """A decision that waits to be counted.

    Attributes:
        side: which version made it.
        made: monotonic seconds.
        reward: sum of what was reported so far.
        weight: probability of its action under the new version, divided by its propensity.
        name: its inference id, if the client gave one.
    """

    side: Side
    made: float
    name: str | None = None
    reward: float | None = None
    weight: float | None = None


class Counted(NamedTuple):
    """A decision that counts: which version made it, its reward, and its weight (1 without weights)."""

    side: Side
    reward: float
    weight: float


class PendingRewards:
    """Joins decisions with their rewards, and with weights if so asked.

    A decision counts once: when its first reward arrives, or with ``reward_wait_s`` so long after it was made, with the
    sum of its rewards by then. Rewards outside the stated range are taken as its nearest end.

    Args:
        test: the rules.
        clock: monotonic seconds.
        weighted: a decision counts with its weight or not at all.
        count: is called with every decision that counts.
    """

    def __init__(
        self,
        test: RewardRules,
        *,
        clock: Callable[[], float],
        weighted: bool,
        count: Callable[[Counted], None],
    ) -> None:
        self.n_forgotten = 0
        self.n_outside = 0
        self._test = test
        self._clock = clock
        self._weighted = weighted
        self._count = count
        self._held: OrderedDict[str, Pending] = OrderedDict()
        self._names: dict[str, str] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def decided(self, side: Side, answer: Answer) -> None:
        """Take the decisions of one request; those a client aimed at a variant are left out."""
        now = self._clock()
        with self._lock:
            for decision in answer.decisions:
                if decision.assignment == "target" or (self._weighted and decision.source == "fallback"):
                    continue
                self._held[decision.decision_id] = Pending(side, now, decision.inference_id)
                if decision.inference_id is not None:
                    self._names[decision.inference_id] = decision.decision_id
            while len(self._held) > MAX_PENDING:
                self._removed(next(iter(self._held)))
                self.n_forgotten += 1

    def rewarded(self, decision_id: str, reward: float) -> None:
        """Take one reward, by decision id or inference id; one of another time or endpoint is passed over."""
        with self._lock:
            decision_id = self._names.get(decision_id, decision_id)
            if (pending := self._held.get(decision_id)) is not None:
                pending.reward = reward + (pending.reward or 0.0)
                self._count_if_whole(decision_id, pending)

    def weighed(self, decision_id: str, weight: float) -> None:
        """Take the weight of one decision."""
        with self._lock:
            if (pending := self._held.get(decision_id)) is not None:
                pending.weight = weight
                self._count_if_whole(decision_id, pending)

    def mature(self) -> None:
        """Count the decisions whose time for rewards is over."""
        if self._test.reward_wait_s == 0.0:
            return
        until = self._clock() - self._test.reward_wait_s
        with self._lock:
            while self._held and next(iter(self._held.values())).made <= until:
                self._take(self._removed(next(iter(self._held))))

    def _count_if_whole(self, decision_id: str, pending: Pending) -> None:
        known = pending.reward is not None and (pending.weight is not None or not self._weighted)
        if known and self._test.reward_wait_s == 0.0:
            self._take(self._removed(decision_id))

    def _removed(self, decision_id: str) -> Pending:
        pending = self._held.pop(decision_id)
        if pending.name is not None and self._names.get(pending.name) == decision_id:
            del self._names[pending.name]
        return pending

    def _take(self, pending: Pending) -> None:
        reward = self._test.missing_reward if pending.reward is None else pending.reward
        weight = pending.weight if self._weighted else 1.0
        if reward is None or weight is None:
            return
        within = min(max(reward, self._test.reward_low), self._test.reward_high)
        self.n_outside += within != reward
        self._count(Counted(pending.side, within, weight))
