"""`Retries`: the latest answers by the id of their request, so that a client that asks again gets the same answer."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable

import numpy as np

from policylab.deployment.decision import Answer, DecisionRequest, Refusal


@dataclasses.dataclass(frozen=True, slots=True)
class _Remembered:
    answer: Answer
    fingerprint: int
    until: float


class Retries:
    """Answers that a second request of the same id gets again.

    Args:
        n_most: most answers to remember; the oldest make room.
        remember_s: how long.
        clock: monotonic seconds.
    """

    def __init__(self, *, n_most: int, remember_s: float, clock: Callable[[], float]) -> None:
        self.n_most = n_most
        self.remember_s = remember_s
        self.n_repeated = 0
        self._clock = clock
        self._held: OrderedDict[str, _Remembered] = OrderedDict()

    def recall(self, request_id: str, *, fingerprint: int) -> Answer | None:
        """Return the answer that a request of this id got.

        Raises:
            Refusal: that request was about something else.
        """
        now = self._clock()
        while self._held and next(iter(self._held.values())).until <= now:
            self._held.popitem(last=False)
        found = self._held.get(request_id)
        if found is None:
            return None
        if found.fingerprint != fingerprint:
            raise Refusal(f"the {request_id[:80]} was used for another request; give each its own", kind="invalid")
        self.n_repeated += 1
        return found.answer

    def remember(self, request_id: str, answer: Answer, *, fingerprint: int) -> None:
        """Keep an answer."""
        if self.n_most == 0:
            return
        while len(self._held) >= self.n_most:
            self._held.popitem(last=False)
        self._held[request_id] = _Remembered(answer, fingerprint, self._clock() + self.remember_s)


def fingerprint(request: DecisionRequest) -> int:
    """Return a number that tells requests apart that are not about the same thing."""
    masks = None if request.masks is None else tuple(None if mask is None else mask.tobytes() for mask in request.masks)
    seen = tuple(one.tobytes() if isinstance(one, np.ndarray) else repr(one) for one in request.observations)
    return hash((seen, masks, request.target_variant, request.session_id))
