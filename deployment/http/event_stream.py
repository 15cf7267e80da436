"""Amazon's event stream (application/vnd.amazon.eventstream): messages with headers and checksums, one after another.

    total length, length of the headers, CRC-32 of both | headers | payload | CRC-32 of all before

Numbers are big endian. Source: https://smithy.io/2.0/aws/amazon-eventstream.html
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator

from policylab.deployment.decision import NEW_SESSION, Refusal
from policylab.deployment.http import wire

CONTENT_TYPE = b"application/vnd.amazon.eventstream"
PART = ((b":message-type", b"event"), (b":event-type", b"PayloadPart"))
_ACCEPT, _CONTENT_TYPE = b"x-amzn-sagemaker-accept", b"x-amzn-sagemaker-content-type"
_TEXT = 7


def message(payload: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return one message; all its headers are texts.

    >>> message(b"", []).hex()
    '000000100000000005c248eb7d98c8ff'
    """
    head = b"".join(
        struct.pack(">B", len(name)) + name + struct.pack(">BH", _TEXT, len(value)) + value for name, value in headers
    )
    sizes = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    content = sizes + struct.pack(">I", zlib.crc32(sizes)) + head + payload
    return content + struct.pack(">I", zlib.crc32(content))


def plain_headers(headers: wire.Headers) -> dict[bytes, bytes]:
    """Return the headers of InvokeEndpointWithResponseStream as those of InvokeEndpoint, which prefixes one less.

    Raises:
        Refusal: it begins a session, which a stream cannot.
    """
    if headers.get(wire.SESSION_ID) == NEW_SESSION.encode():
        raise Refusal("a stream cannot begin a session; name one", kind="invalid")
    found = {name: value for name, value in headers.items() if name not in (b"accept", _ACCEPT)}
    return found if (accept := headers.get(_ACCEPT)) is None else {**found, b"accept": accept}


def streamed(parts: Iterable[bytes], *, headers: list[tuple[bytes, bytes]]) -> wire.Streamed:
    """Return the response that tells ``parts`` as events; ``headers`` are those of the whole answer as one response."""

    def messages() -> Iterator[bytes]:
        for part in parts:
            yield message(part, PART)

    told = [(_CONTENT_TYPE if name == b"content-type" else name, value) for name, value in headers]
    return 200, [(b"content-type", CONTENT_TYPE), *told], messages()
