"""`Rewards`: what is reported, sooner or later, of the decisions of an endpoint."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from policylab.deployment.capture.format import EpisodeEnd
from policylab.deployment.capture.recorder import Recorder, Reported
from policylab.deployment.decision import Refusal


class Rewards:
    """Takes rewards by decision id, writes them beside the captured decisions and tells observers.

    Args:
        recorder: writes them, if it captures at all.
        n_remembered: most reports whose id is remembered, so that sending one again changes nothing.
        wall_clock: seconds since 1970.
    """

    def __init__(self, recorder: Recorder, *, n_remembered: int, wall_clock: Callable[[], float]) -> None:
        self.observers: list[Callable[[str, float], None]] = []
        self.n_taken = 0
        self._recorder = recorder
        self._n_remembered = n_remembered
        self._wall_clock = wall_clock
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def recorded(self) -> bool:
        """Whether rewards are written; without capture they serve a promotion test alone, if there is one."""
        return self._recorder.settings is not None

    def take(
        self, decision_id: str, *, reward: float, reward_id: str | None = None, end: EpisodeEnd | None = None
    ) -> bool:
        """Take one reward; return whether it is new.

        Args:
            decision_id: of the decision, or the inference id that the client gave.
            reward: finite.
            reward_id: names the report, so that sending it again changes nothing; without it rewards add up.
            end: how the episode ended with the decision; None if it did not, or the client does not tell.

        Raises:
            Refusal: rewards arrive faster than they can be written.
        """
        with self._lock:
            if reward_id is not None and (decision_id, reward_id) in self._seen:
                return False
            if self.recorded and not self._recorder.report(Reported(decision_id, reward, self._wall_clock(), end)):
                raise Refusal("rewards arrive faster than they can be written", kind="busy", retry_after_s=1.0)
            if reward_id is not None and self._n_remembered:
                while len(self._seen) >= self._n_remembered:
                    self._seen.popitem(last=False)
                self._seen[decision_id, reward_id] = None
            self.n_taken += 1
        for observe in self.observers:
            observe(decision_id, reward)
        return True
