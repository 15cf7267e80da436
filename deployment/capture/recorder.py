"""`Recorder`: writes decisions and rewards to disk, and asks shadows, on a thread that requests never wait for.

What cannot be written in time is dropped and counted: the queue is bounded, a disk that is too full is left alone, and
a failed write costs the lines of that write only.
"""

from __future__ import annotations

import logging
import math
import queue
import shutil
import threading
import time
from typing import Any

import msgspec

from policylab.agents.space_json import value_to_json
from policylab.deployment.capture.format import (
    CAPTURED,
    CAPTURED_PARQUET,
    GROUND_TRUTH,
    EpisodeEnd,
    captured_line,
    reward_line,
)
from policylab.deployment.capture.line_file import LineFile
from policylab.deployment.capture.parquet import WRITE_S, ParquetFiles
from policylab.deployment.decision import Decision
from policylab.deployment.endpoint import CaptureSettings
from policylab.deployment.fleet import Candidate, Fleet, Shadow

FLUSH_S = 0.2
PAUSE_S = 0.01
"""Rest of the thread when nothing waits: requests that come meanwhile need not wake it, each of them, on their core."""
MOST_PER_S = 100_000
"""Decisions a second for which there must be room in the queue meanwhile."""
DISK_CHECK_S = 1.0
CHUNK_BYTES = 2**20
logger = logging.getLogger(__name__)


class Served(msgspec.Struct, frozen=True):
    """One decision to record: what it was about, what was answered, who else is asked, whether it is written."""

    fleet: Fleet
    decision: Decision
    observation: Any
    mask: Any
    shadows: tuple[Shadow, ...]
    candidate: Candidate | None
    written: bool


class Reported(msgspec.Struct, frozen=True):
    """One reward to record, and the end of its episode if it was told."""

    decision_id: str
    reward: float
    time_s: float
    end: EpisodeEnd | None = None


class Recorder:
    """Takes decisions and rewards from requests and brings them to disk.

    Args:
        endpoint: name of the endpoint.
        settings: where and how much; None asks shadows without writing.
    """

    def __init__(self, endpoint: str, settings: CaptureSettings | None) -> None:
        self.endpoint = endpoint
        self.settings = settings
        self.n_written = 0
        self._n_refused = 0  # counted by whoever offers
        self._n_lost = 0  # counted by the recorder's thread
        self._queue: queue.SimpleQueue[Served | Reported | None] = queue.SimpleQueue()
        self._room = settings.queue if settings else 10_000
        self._pause_s = min(PAUSE_S, self._room / MOST_PER_S)
        self._files: dict[str, LineFile | ParquetFiles] = {}
        if settings is not None and settings.format == "parquet":
            place = settings.folder / CAPTURED_PARQUET / endpoint
            self._files[CAPTURED_PARQUET] = ParquetFiles(place, write_s=settings.write_s or WRITE_S)
        self._disk_checked = -math.inf
        self._disk_full = False
        self._thread = threading.Thread(target=self._run, name=f"recorder-{endpoint}", daemon=True)
        self._thread.start()

    def offer(self, item: Served) -> None:
        """Take a decision, or drop it if too many wait."""
        if self._queue.qsize() < self._room:
            self._queue.put(item)
            return
        for shadow in item.shadows:
            shadow.n_dropped += 1
        self._n_refused += item.written

    def report(self, item: Reported) -> bool:
        """Take a reward; return whether there was room for it."""
        if self._queue.qsize() >= self._room:
            return False
        self._queue.put(item)
        return True

    @property
    def n_dropped(self) -> int:
        """Decisions and rewards that were to be recorded and are not."""
        return self._n_refused + self._n_lost

    @property
    def n_waiting(self) -> int:
        """Decisions and rewards on their way to the disk."""
        return self._queue.qsize()

    def close(self, *, timeout_s: float = 10.0) -> None:
        """Write what waits, then stop."""
        self._queue.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        flushed, open_ended = time.monotonic(), True
        while open_ended:
            try:
                item = self._queue.get(timeout=FLUSH_S)
            except queue.Empty:
                self._flush()
                continue
            if item is None:
                open_ended = False
            else:
                self._take(item)
            if time.monotonic() - flushed > FLUSH_S or self._waiting_bytes() > CHUNK_BYTES:
                self._flush()
                flushed = time.monotonic()
            if open_ended and self._queue.empty():
                time.sleep(self._pause_s)
        self._flush(last=True)

    def _waiting_bytes(self) -> int:
        return sum(file.n_waiting_bytes for file in self._files.values())

    def _take(self, item: Served | Reported) -> None:
        try:
            if isinstance(item, Reported):
                line = reward_line(item.decision_id, reward=item.reward, end=item.end)
                self._file(f"{GROUND_TRUTH}/{self.endpoint}").add(line, time_s=item.time_s)
            else:
                self._take_decision(item)
        except Exception:  # a thread that ends here would drop everything silently
            logger.exception("a decision or reward could not be recorded")
            self._n_lost += 1

    def _take_decision(self, item: Served) -> None:
        shadows = [_asked(shadow, item) for shadow in item.shadows]
        if item.candidate is not None:
            found = [_asked(shadow, item) for shadow in item.candidate.shadows]
            _weigh(item.candidate, item.decision, answers=found)
            shadows += found
        if not item.written or self.settings is None:
            return
        if self._too_full():
            self._n_lost += 1
            return
        decision, bundle = item.decision, item.fleet.bundle
        line = captured_line(
            decision_id=decision.decision_id,
            inference_id=decision.inference_id,
            time_s=decision.time_s,
            observation=value_to_json(bundle.observation_space, item.observation),
            action=value_to_json(bundle.action_space, decision.action),
            facts={
                **decision.facts(self.endpoint),
                "mask": None if item.mask is None else item.mask.tolist(),
                "shadows": [facts for facts in shadows if facts is not None],
                "sampling_probability": self.settings.sampling,
                "n_dropped": self.n_dropped,
            },
        )
        place = (
            CAPTURED_PARQUET if self.settings.format == "parquet" else f"{CAPTURED}/{self.endpoint}/{decision.variant}"
        )
        self._file(place).add(line, time_s=decision.time_s)

    def _file(self, name: str) -> LineFile | ParquetFiles:
        assert self.settings is not None
        if name not in self._files:
            self._files[name] = LineFile(self.settings.folder / name, max_bytes=self.settings.max_file_bytes)
        return self._files[name]

    def _flush(self, *, last: bool = False) -> None:
        for file in self._files.values():
            n_written, n_lost = file.flush(last=last) if isinstance(file, ParquetFiles) else file.flush()
            self.n_written += n_written
            self._n_lost += n_lost

    def _too_full(self) -> bool:
        assert self.settings is not None
        if time.monotonic() - self._disk_checked > DISK_CHECK_S:
            self._disk_checked = time.monotonic()
            existing = next(p for p in (self.settings.folder, *self.settings.folder.parents) if p.exists())
            usage = shutil.disk_usage(existing)
            self._disk_full = usage.used / usage.total > self.settings.max_disk_use
        return self._disk_full


def is_power_of_two(n: int) -> bool:
    """Return whether the n-th failure is logged: what fails a thousand times a second must not fill the disk.

    >>> [n for n in range(1, 20) if is_power_of_two(n)]
    [1, 2, 4, 8, 16]
    """
    return n & (n - 1) == 0


def _weigh(candidate: Candidate, decision: Decision, *, answers: list[dict[str, Any] | None]) -> None:
    """Tell how likely a candidate is to do what was done, relative to how likely that was; nothing if it failed."""
    weight = 0.0
    for shadow, share, facts in zip(candidate.shadows, candidate.shares, answers, strict=True):
        if facts is None:
            return
        comparable = shadow.policy.propensity_kind == decision.propensity_kind  # a density against a density
        if comparable and facts["log_probability"] is not None:
            weight += share * math.exp(min(facts["log_probability"] - decision.log_propensity, 700.0))
    candidate.weighed(decision.decision_id, weight)


def _asked(shadow: Shadow, item: Served) -> dict[str, Any] | None:
    """Return what a shadow would have done, as `ShadowFacts`; None if it failed, which is counted."""
    from policylab.deployment.served_policy import Draw

    space, decision = item.fleet.bundle.action_space, item.decision
    try:
        masks = None if item.mask is None else [item.mask]
        # The draw of a shadow must not be that of the variant: with one number both would tend to the same actions.
        draw = Draw(shadow.name.encode(), decision.decision_id)
        (choice,) = shadow.policy.choose([item.observation], masks, draw=draw)
        log_probability = shadow.policy.log_probability(item.observation, decision.action, mask=item.mask)
    except Exception as error:
        shadow.n_failures += 1
        if is_power_of_two(shadow.n_failures):
            logger.warning("'%s', which is asked beside the variants, failed %d times: %s", shadow.name,
                           shadow.n_failures, error)  # fmt: skip
        return None
    action, taken = value_to_json(space, choice.action), value_to_json(space, decision.action)
    shadow.n_decisions += 1
    shadow.n_agreeing += action == taken
    return {
        "variant": shadow.name,
        "policy_version": shadow.policy.version,
        "action": action,
        "log_probability": log_probability if math.isfinite(log_probability) else None,
    }
