"""`Comparison`: an A/B test of the variants of an endpoint by their rewards, while the traffic is divided as declared.

Without a sample size the intervals are confidence sequences (`MeanSequence`): they may be looked at all the time.
With one, each variant's first so many rewards give Welch's interval, once, when all variants have them; looking earlier
shows no verdict, so that nobody stops where chance was kind. Intervals of several variants against the baseline share
the probability of error (Bonferroni). Whatever changes the traffic begins it anew.

Source of the fixed interval: Welch (1947), "The generalization of 'Student's' problem when several different population
variances are involved", Biometrika 34.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from policylab.config import Settings
from policylab.deployment.capture.pending_rewards import Counted, PendingRewards
from policylab.deployment.decision import Answer
from policylab.deployment.guardrails.mean_sequence import MeanSequence, MeanState
from policylab.deployment.guardrails.settings import ComparisonSettings
from policylab.errors import PolicylabError
from policylab.files import content_hash, read_json, write_atomic

if TYPE_CHECKING:
    from policylab.deployment.policy_server import Begun, PolicyServer

FILE = "comparison.json"
SAVE_S = 1.0


class VariantRewards(Settings):
    """The rewards of one variant: all of them, and the sum and sum of squares of those within the sample size."""

    all: MeanState = MeanState()
    total: float = 0.0
    squares: float = Field(default=0.0, ge=0.0)


class ComparisonState(Settings):
    """What is stored: of which division of the traffic, and the rewards by variant."""

    traffic: str
    variants: dict[str, VariantRewards]


class Comparison:
    """Observes a server and compares its variants.

    Args:
        server: whose variants are compared.
        settings: how.
        folder: where what was observed is kept; None keeps it in memory alone.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        server: PolicyServer,
        settings: ComparisonSettings,
        *,
        folder: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self._server = server
        self._file = None if folder is None else folder / FILE
        self._clock = clock
        self._lock = threading.RLock()
        self._saved = clock()
        self._begin(self._stored())
        server.observers.append(self._decided)
        server.rewards.observers = [*server.rewards.observers, self._rewarded]

    def _begin(self, state: dict[str, VariantRewards]) -> None:
        rules, self._traffic = self.settings, self._server.traffic
        self._rewards = {name: state.get(name, VariantRewards()) for name in self._server.fleet.variants}
        v_opt = rules.min_decisions * (rules.reward_high - rules.reward_low) ** 2 / 16.0
        self._sequences = {
            name: MeanSequence(rules.reward_low, rules.reward_high, v_opt=v_opt, state=found.all)
            for name, found in self._rewards.items()
        }
        self._pending = PendingRewards(rules, clock=self._clock, weighted=False, count=self._counted)

    def _decided(self, begun: Begun, answer: Answer) -> None:
        traffic = self._server.traffic
        with self._lock:
            if traffic is not self._traffic:
                self._begin({})
            pending = self._pending
        if len(traffic.fleets) == 1 and (begun.session is None or begun.session.traffic is traffic):
            pending.decided(begun.route.variant.name, answer)  # not under the lock: it counts under its own

    def _rewarded(self, decision_id: str, reward: float) -> None:
        self._pending.rewarded(decision_id, reward)

    def _counted(self, one: Counted) -> None:
        with self._lock:
            if one.side not in self._sequences:
                return
            sequence, found, size = self._sequences[one.side], self._rewards[one.side], self.settings.sample_size
            sequence.observe(one.reward)
            within = size is not None and sequence.n <= size
            self._rewards[one.side] = VariantRewards(
                all=sequence.state,
                total=found.total + one.reward * within,
                squares=found.squares + one.reward**2 * within,
            )

    # ------------------------------------------------------------------ what is known

    def document(self) -> dict[str, Any]:
        """Return means, differences from the baseline with their intervals, and verdicts, as JSON."""
        self._pending.mature()
        with self._lock:
            names = list(self._sequences)
            baseline = self.settings.baseline or names[0]
            if baseline not in names:  # another version has other variants
                baseline = names[0]
            size = self.settings.sample_size
            variants = [
                {"name": name, "n": one.n, "mean": one.mean, "share": self._share(name)}
                for name, one in self._sequences.items()
            ]
            against = [self._against(baseline, name) for name in names if name != baseline]
        kind = "always valid" if size is None else "fixed size"
        return {"kind": kind, "sample_size": size, "baseline": baseline, "confidence": self.settings.confidence,
                "variants": variants, "against_baseline": against}  # fmt: skip

    def _share(self, name: str) -> float:
        return sum(route.share for route in self._server.traffic.routes if route.variant.name == name)

    def _against(self, baseline: str, name: str) -> dict[str, Any]:
        alpha = (1.0 - self.settings.confidence) / max(1, len(self._sequences) - 1)
        a, b = self._sequences[baseline], self._sequences[name]
        size = self.settings.sample_size
        enough = min(a.n, b.n) >= (self.settings.min_decisions if size is None else size)
        if size is None:
            (low_a, high_a), (low_b, high_b) = a.interval(alpha / 2.0), b.interval(alpha / 2.0)
            interval: tuple[float, float] | None = (low_b - high_a, high_b - low_a)
            difference = None if a.mean is None or b.mean is None else b.mean - a.mean
        else:
            old, new = self._rewards[baseline], self._rewards[name]
            interval = welch_interval(old, new, n=size, alpha=alpha) if enough else None
            difference = (new.total - old.total) / size if enough else None
        verdict = "inconclusive"
        if enough and interval is not None:
            verdict = "better" if interval[0] > 0.0 else "worse" if interval[1] < 0.0 else "inconclusive"
        return {"name": name, "difference": difference, "interval": interval and list(interval), "verdict": verdict}

    # ------------------------------------------------------------------ from start to start

    def tick(self) -> None:
        """Store what was observed, now and then."""
        if self._file is None or self._clock() - self._saved < SAVE_S:
            return
        self._saved = self._clock()
        with self._lock:
            state = ComparisonState(traffic=self._division(), variants=dict(self._rewards))
        write_atomic(self._file, state.model_dump_json())

    def _division(self) -> str:
        """Return what tells one division of the traffic from another, from start to start."""
        routes = self._traffic.routes
        return content_hash([[one.variant.name, one.variant.policy.version, one.share] for one in routes])

    def _stored(self) -> dict[str, VariantRewards]:
        self._traffic = self._server.traffic
        if self._file is None or not self._file.exists():
            return {}
        try:
            state = ComparisonState.model_validate(read_json(self._file))
        except (ValidationError, PolicylabError):
            return {}
        return state.variants if state.traffic == self._division() else {}


def welch_interval(a: VariantRewards, b: VariantRewards, *, n: int, alpha: float) -> tuple[float, float]:
    """Return Welch's two-sided interval of mean b minus mean a, of n rewards each.

    >>> ones, zeros = VariantRewards(total=9.0, squares=9.0), VariantRewards(total=1.0, squares=1.0)
    >>> low, high = welch_interval(zeros, ones, n=10, alpha=0.05)
    >>> 0.0 < low < 0.8 < high
    True
    """
    from scipy.stats import t

    parts = [max(0.0, one.squares - one.total**2 / n) / (n - 1) / n for one in (a, b)]
    difference, variance = (b.total - a.total) / n, sum(parts)
    if variance == 0.0:
        return difference, difference
    freedom = variance**2 / sum(part**2 / (n - 1) for part in parts)
    half = float(t.ppf(1.0 - alpha / 2.0, freedom)) * math.sqrt(variance)
    return difference - half, difference + half
