"""`LiveWatch`: an endpoint's traffic watched as it is captured, by cumulative sums.

The columns are ``reward`` (per decision, as rewards arrive), ``propensity``, and each number of the observation. What
they are like while nothing is wrong is taken from captured traffic of another time. A detector of
`policylab.monitoring.sequential` goes on from value to value; all together have one false alarm in ``run_length``
values on average.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, deque
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from policylab.agents.bundle import Bundle
from policylab.agents.space_json import value_from_json
from policylab.agents.transitions import stored
from policylab.deployment.capture.format import MAX_REWARD, CapturedDecision, Reward
from policylab.deployment.capture.reading import read_captured, read_rewards
from policylab.errors import UserError
from policylab.monitoring.alarms.measurement import Measurement
from policylab.monitoring.sequential.cusum import HALF_SHIFT, limit_for
from policylab.monitoring.sequential.reference import Reference
from policylab.seeding import generator

Floats = NDArray[np.float64]
N_RECENT = 20
"""Batches whose mean is told."""
LATEST, LATEST_NUMBERS = 200_000, 4_000_000
"""Decisions and rewards of the baseline that are kept, the latest; of wide observations only so many numbers."""
MAX_PENDING = 100_000
"""Decisions whose reward may still come; the oldest are forgotten."""


class Detector:
    """Both cumulative sums of one column, value by value.

    Args:
        name: of the column.
        reference: what it is like while nothing is wrong.
        limit: h, of `limit_for`.
    """

    def __init__(self, name: str, reference: Reference, *, limit: float) -> None:
        self.name = name
        self.limit = limit
        self.n = 0
        self._reference = reference
        self._batch: list[float] = []
        self._up = self._down = 0.0
        self.since: datetime | None = None
        self._recent: deque[float] = deque(maxlen=N_RECENT)

    @property
    def largest(self) -> float:
        """The larger of both sums, as a share of the limit: an alarm from 1 on."""
        return max(self._up, self._down) / self.limit

    @property
    def mean(self) -> float | None:
        """Mean of the latest batches, in the column's units; None before the first."""
        recent = self._recent
        return self._reference.mean + self._reference.std * sum(recent) / len(recent) if recent else None

    @property
    def usual(self) -> float:
        """Mean while nothing is wrong."""
        return self._reference.mean

    def observe(self, value: float, time_utc: datetime) -> bool:
        """Take a value and its time; return whether it makes an alarm. `since` is when the sum last began to grow."""
        if self.since is None or (self._up == 0.0 and self._down == 0.0 and not self._batch):
            self.since = time_utc
        self.n += 1
        self._batch.append(value)
        if len(self._batch) < self._reference.batch:
            return False
        z = (sum(self._batch) / len(self._batch) - self._reference.mean) / self._reference.std
        self._batch.clear()
        self._recent.append(z)
        self._up, self._down = (max(0.0, s + sign * z - HALF_SHIFT) for s, sign in ((self._up, 1), (self._down, -1)))
        return self.largest >= 1.0

    def begin_anew(self) -> None:
        """Forget what was summed up, after an alarm."""
        self._up = self._down = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class LiveSettings:
    """How a live watch is set up.

    Attributes:
        run_length: expected values of a column before a false alarm of any column.
        seed: of the streams that set the limits.
    """

    run_length: float = 100_000.0
    seed: int = 0


class LiveWatch:
    """Detectors of all columns of an endpoint's traffic.

    Args:
        baseline: folder of captured traffic while nothing was wrong.
        endpoint: whose traffic.
        bundle: a policy of the task, whose observations are watched number by number; None watches no observations.
        settings: how seldom a false alarm may be.

    Attributes:
        change_utc: when what alarmed first began; None before an alarm.

    Raises:
        UserError: the baseline is too short.
    """

    def __init__(
        self, baseline: Path, *, endpoint: str, bundle: Bundle | None, settings: LiveSettings | None = None
    ) -> None:
        chosen = settings or LiveSettings()
        self.change_utc: datetime | None = None
        self._alarmed: set[str] = set()
        self._bundle = bundle
        self._made: OrderedDict[str, datetime] = OrderedDict()
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._early: OrderedDict[str, list[float]] = OrderedDict()
        columns = self._columns(baseline, endpoint=endpoint)
        references = {name: _reference(values, name=name) for name, values in columns.items() if len(values)}
        usable = {name: one for name, one in references.items() if one is not None}
        if not usable:
            raise UserError(f"{baseline}: all columns of the baseline are constant; there is nothing to watch")
        self.detectors = {
            name: Detector(
                name,
                one,
                limit=limit_for(
                    one, chosen.run_length * len(usable), rng=generator(chosen.seed, "live", name), k=HALF_SHIFT
                ),
            )
            for name, one in usable.items()
        }

    def _columns(self, baseline: Path, *, endpoint: str) -> dict[str, Floats]:
        """Return the latest values of each column in the order of time; older ones are not kept."""
        latest: deque[tuple[datetime, Floats]] = deque()
        names: tuple[str, ...] = ()
        for one in read_captured(baseline, endpoint=endpoint):  # hour by hour, within one in any order
            names, values = zip(*self._values(one), strict=True)
            latest.append((one.time_utc, np.array(values)))
            if len(latest) > min(LATEST, max(1, LATEST_NUMBERS // len(names))):
                latest.popleft()
        table = np.array([values for _, values in sorted(latest, key=lambda one: one[0])]).reshape(-1, len(names))
        rewards = deque((one.reward for one in read_rewards(baseline, endpoint=endpoint)), maxlen=LATEST)
        columns = {**{name: table[:, i] for i, name in enumerate(names)}, "reward": np.array(rewards)}
        return {name: values[np.abs(values) <= MAX_REWARD] for name, values in columns.items()}

    def decided(self, decision: CapturedDecision) -> list[Measurement]:
        """Take a decision, with the rewards that were read before it; return the alarms it makes. A copy makes none."""
        if decision.decision_id in self._seen:
            return []
        self._seen[decision.decision_id] = None
        if len(self._seen) > MAX_PENDING:
            self._seen.popitem(last=False)
        self._made[decision.reward_id] = decision.time_utc
        if len(self._made) > MAX_PENDING:
            self._made.popitem(last=False)
        values = [*self._values(decision), *(("reward", one) for one in self._early.pop(decision.reward_id, ()))]
        return self._observed(values, decision.time_utc)

    def rewarded(self, reward: Reward) -> list[Measurement]:
        """Take a reward; return the alarms it makes. It waits for its decision; one that is not finite is ignored."""
        made = self._made.get(reward.decision_id)
        if made is not None:
            return self._observed([("reward", reward.reward)], made)
        self._early.setdefault(reward.decision_id, []).append(reward.reward)
        if len(self._early) > MAX_PENDING:
            self._early.popitem(last=False)
        return []

    def begin_anew(self) -> None:
        """Forget the change that alarmed; each column alarms once until then."""
        self.change_utc = None
        self._alarmed.clear()

    def _observed(self, values: Iterable[tuple[str, float]], time_utc: datetime) -> list[Measurement]:
        alarms = []
        for name, value in values:
            detector = self.detectors.get(name)
            if detector is None or not abs(value) <= MAX_REWARD or not detector.observe(value, time_utc):
                continue
            if name not in self._alarmed:
                mean = detector.usual if detector.mean is None else detector.mean
                detail = f"mean {mean:.4g} instead of {detector.usual:.4g}, since about {detector.since:%H:%M:%S} UTC"
                alarms.append(Measurement(f"live.{name}", mean, None, True, detail))
                since = detector.since or time_utc
                self.change_utc = since if self.change_utc is None else min(self.change_utc, since)
                self._alarmed.add(name)
            detector.begin_anew()
        return alarms

    def _values(self, decision: CapturedDecision) -> Iterable[tuple[str, float]]:
        yield "propensity", decision.facts.propensity
        if self._bundle is None or isinstance(self._bundle.observation_space, spaces.Discrete):
            return
        space: Any = self._bundle.observation_space
        flat = np.ravel(stored(space, value_from_json(space, decision.observation)))
        yield from ((f"observation_{i}", float(value)) for i, value in enumerate(flat))


def _reference(values: Floats, *, name: str) -> Reference | None:
    """Return the reference of a column; None of one that is constant."""
    if np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())):
        return None
    return Reference.of(values, name=name)
