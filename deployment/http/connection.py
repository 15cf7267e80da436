"""`BoundedProtocol`: one connection of the server, within limits.

uvicorn has no time limit on requests that do not become whole, and answers too many connections without a Retry-After.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

ANSWER_TIMEOUT_S = 75.0
"""From a whole request to the end of its answer: the longest deadline, and time for a slow reader."""
KEEP_ALIVE_S = 75.0
MAX_HEAD_BYTES = 64 * 2**10

_TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nx-amzn-errortype: ServiceUnavailable\r\n"
    b"content-type: application/json\r\ncontent-length: 48\r\nconnection: close\r\n\r\n"
    b'{"Message": "the endpoint has too many clients"}'
)
_TOO_SLOW = (
    b"HTTP/1.1 408 Request Timeout\r\nx-amzn-errortype: ValidationError\r\n"
    b"content-type: application/json\r\ncontent-length: 43\r\nconnection: close\r\n\r\n"
    b'{"Message": "the request took too long"}   '
)
_TOO_LONG = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nx-amzn-errortype: ValidationError\r\n"
    b"content-type: application/json\r\ncontent-length: 36\r\nconnection: close\r\n\r\n"
    b'{"Message": "headers are too long"} '
)


class BoundedProtocol(HttpToolsProtocol):  # type: ignore[misc, unused-ignore]
    """One connection, with a limit on their number and on the time of each request.

    Attributes:
        limit: most connections of the server.
        request_timeout_s: from the first byte of a request, or from the connection, to its last byte.
        head_bytes: of the request whose headers have not ended; None after that.
    """

    limit = 2048
    request_timeout_s = 10.0
    head_bytes: int | None = 0

    def data_received(self, data: bytes) -> None:
        """Read on, unless the headers of a request do not end."""
        if self.head_bytes is not None:
            self.head_bytes += len(data)
        super().data_received(data)
        if self.head_bytes is not None and self.head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.transport.write(_TOO_LONG)
            self.transport.close()

    def on_headers_complete(self) -> None:
        """Note that the headers have ended."""
        self.head_bytes = None
        super().on_headers_complete()

    def connection_made(self, transport: Any) -> None:
        """Begin a connection, or answer that there are too many."""
        super().connection_made(transport)
        self.closes_at = self.loop.time() + self.request_timeout_s
        if len(self.connections) > self.limit:
            transport.write(_TOO_MANY)
            transport.close()

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self.head_bytes = 0
        self.closes_at = self.loop.time() + self.request_timeout_s

    def on_message_complete(self) -> None:
        """Note that the request is whole: what takes longer now is the answer."""
        self.closes_at = self.loop.time() + ANSWER_TIMEOUT_S
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """End a request; uvicorn's own timer watches the connection until the next."""
        self.closes_at = self.loop.time() + KEEP_ALIVE_S + ANSWER_TIMEOUT_S
        super().on_response_complete()

    def close_if_late(self, now: float) -> None:
        """Close the connection if its request or its answer took too long."""
        if now <= self.closes_at or self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(_TOO_SLOW)
            self.transport.close()
        else:
            self.transport.abort()  # a reader that does not read would keep a closing connection open
