"""Watching a live endpoint: detectors of its traffic, and all checks over what came since the change they found."""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from policylab.agents.bundle import load_bundle
from policylab.errors import UserError
from policylab.monitoring.alarms.alarm import Verdict
from policylab.monitoring.alarms.dispatch import dispatch, raised
from policylab.monitoring.alarms.measurement import Measurement
from policylab.monitoring.schedule.checks import endpoint_of
from policylab.monitoring.schedule.live import LiveSettings, LiveWatch
from policylab.monitoring.schedule.monitor_file import CauseCheck, MonitorConfig
from policylab.monitoring.schedule.scheduler import Window, do_window
from policylab.monitoring.schedule.tail import Tail

LOOK_S = 0.25
CHECKED_DECISIONS = 300
"""Decisions since a change after which all checks look at them: fewer say little of the cause."""


@dataclasses.dataclass(frozen=True, slots=True)
class LiveStatus:
    """How a live watch stands.

    Attributes:
        n_decisions: decisions that were seen.
        n_rewards: rewards.
        shares: of each column, how far its sums are on the way to an alarm.
    """

    n_decisions: int
    n_rewards: int
    shares: dict[str, float]


def watch_live(
    config: MonitorConfig,
    *,
    stop: threading.Event,
    alarmed: Callable[[dict[str, Any]], None],
    status: Callable[[LiveStatus], None] = lambda _: None,
    ready: Callable[[], None] = lambda: None,
    settings: LiveSettings | None = None,
) -> None:
    """Watch until told to stop.

    Args:
        config: the monitor; its check of causes names the traffic to compare with.
        stop: ends it.
        alarmed: is given every alarm of a detector, and what the checks found afterwards, as JSON.
        status: is told how it stands, four times a second.
        ready: is called when whatever is captured from then on is seen.
        settings: how seldom a false alarm may be.

    Raises:
        UserError: no check names captured traffic, a line of it is damaged, or it is too short.
    """
    causes = next((check for check in config.checks if isinstance(check, CauseCheck)), None)
    if causes is None or not causes.baseline.is_dir():
        raise UserError("watching needs a check {kind: causes} whose baseline is a folder of captured traffic")
    endpoint = endpoint_of(config)
    bundle = None if config.policy is None else load_bundle(config.policy)
    live = LiveWatch(causes.baseline, endpoint=endpoint, bundle=bundle, settings=settings)
    tail = Tail(config.data, endpoint=endpoint)
    ready()
    n_decisions = n_rewards = 0
    times: deque[datetime] = deque(maxlen=10 * CHECKED_DECISIONS)
    while not stop.is_set():
        found: list[Measurement] = []
        for decision in tail.decisions():
            n_decisions += 1
            times.append(decision.time_utc)
            try:
                found += live.decided(decision)
            except UserError as error:  # its observation is of another task
                tail.damage.append(f"decision {decision.decision_id[:60]}: {error}")
        for reward in tail.rewards():
            n_rewards += 1
            found += live.rewarded(reward)
        if tail.damage:
            text = f"{tail.damage[0]}; {len(tail.damage):,} such lines are left out"
            found.append(Measurement("live.damaged", float(len(tail.damage)), None, True, text))
            tail.damage.clear()
        if found:
            alarmed(_told(config, found, endpoint=endpoint))
        change = live.change_utc
        if change is not None and sum(change <= time < times[-1] for time in times) >= CHECKED_DECISIONS:
            live.begin_anew()
            alarmed(do_window(config, Window(change, times[-1])))  # the second that goes on is left out
        shares = {name: one.largest for name, one in live.detectors.items()}
        status(LiveStatus(n_decisions, n_rewards, shares))
        stop.wait(LOOK_S)


def _told(config: MonitorConfig, found: list[Measurement], *, endpoint: str) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat()
    alarms = raised(config.alarms, found)
    verdict = Verdict(config.name, endpoint, now, now, tuple(found), alarms)
    done = dispatch(verdict, alarms=config.alarms, targets=config.targets)
    return {**verdict.document(), "checks": [], "done": [dataclasses.asdict(one) for one in done]}
