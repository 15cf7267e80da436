"""Limits on what clients send: how often, and how much that is not whole yet."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from policylab.deployment.decision import Refusal

MAX_BUFFERED_BYTES = 256 * 2**20
"""In all bodies together that are still arriving."""
DISCARDED_BYTES = 64 * 2**20
"""What is read beyond the limit of a body, so that its sender gets to read why it is refused."""


class RateLimit:
    """A token bucket that holds one second's requests.

    Args:
        per_s: requests a second.
        clock: monotonic seconds.
    """

    def __init__(self, per_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock = clock
        self._tokens = max(1.0, per_s)
        self._filled = clock()

    def take(self) -> None:
        """Count one request.

        Raises:
            Refusal: there were too many in the last second.
        """
        now = self._clock()
        self._tokens = min(max(1.0, self._per_s), self._tokens + (now - self._filled) * self._per_s)
        self._filled = now
        if self._tokens < 1.0:
            raise Refusal(
                f"more than {self._per_s:g} requests a second (limits.requests_per_s)",
                kind="throttled",
                retry_after_s=(1.0 - self._tokens) / self._per_s,
            )
        self._tokens -= 1.0


class BufferedBodies:
    """The bodies that arrive in pieces, of which a slow or hostile client may send many at a time.

    Args:
        body_bytes: largest body of one request.
    """

    def __init__(self, body_bytes: int) -> None:
        self._room = max(MAX_BUFFERED_BYTES, 2 * body_bytes)
        self._held = 0

    async def rest(
        self,
        first: bytes,
        receive: Callable[[], Awaitable[dict[str, Any]]],
        *,
        max_bytes: int,
        gone: type[Exception],
    ) -> bytes:
        """Return a whole body of which ``first`` has arrived.

        Raises:
            Refusal: it is too large, or too many bodies are arriving.
            Exception: ``gone``, if the client leaves.
        """
        body, size, more, held = bytearray(first), len(first), True, 0
        try:
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    raise gone
                piece, more = message.get("body", b""), message.get("more_body", False)
                size += len(piece)
                if size > max_bytes:
                    body.clear()  # read on, so that the sender gets to read the answer
                    if size > max_bytes + DISCARDED_BYTES:
                        break
                else:
                    body += piece
                    held += len(piece)
                    self._held += len(piece)
                    if self._held > self._room:
                        raise Refusal("too many large requests are arriving", kind="busy", retry_after_s=1.0)
        finally:
            self._held -= held
        if size > max_bytes:
            raise Refusal(f"the body has more than {max_bytes} bytes, which is the limit", kind="too_large")
        return bytes(body)
