"""The relay between the processes of one endpoint: workers speak HTTP with clients, one keeper decides.

    client --HTTP--> worker 1..n (`RelayApp`) --frames on a Unix socket--> keeper (`answer_frames`)

Everything that is remembered (weights, sessions, retries, rollout, rewards, capture) is in the keeper, once, so that
it is right whichever worker a request came to. Reading and writing HTTP, which takes most of the time, is divided. When
the keeper dies, workers hold what it has not answered and send it again to the next one: decisions and pages are
repeated, changes are refused with 503, since they may have been made.

A frame is its length (4 bytes, big endian) and a msgpack array: ``[id, method, path, query, headers, body]`` to the
keeper, ``[id, message]`` back, one for each ASGI message of the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from pathlib import Path
from typing import Any

import msgspec

from policylab.deployment.decision import Refusal
from policylab.deployment.endpoint import Limits
from policylab.deployment.http import wire
from policylab.deployment.http.http_app import INVOKED, MAX_ADMIN_BYTES, Disconnected, Receive, Scope, Send
from policylab.deployment.http.limits import BufferedBodies

RESTART_S = 30.0
"""How long a worker holds requests while there is no keeper."""
RECONNECT_S = 0.02
Frame = tuple[int, str, str, bytes, list[tuple[bytes, bytes]], bytes]
logger = logging.getLogger(__name__)
_pack = msgspec.msgpack.encode
_unpack_frame = msgspec.msgpack.Decoder(Frame).decode
_unpack_answer = msgspec.msgpack.Decoder(tuple[int, dict[str, Any]]).decode


async def _read(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))


def _framed(document: Any) -> bytes:
    content = _pack(document)
    return len(content).to_bytes(4, "big") + content


class Keeper:
    """A worker's line to the keeper; it is mended when the keeper is started again.

    Args:
        path: of the keeper's socket.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers = itertools.count()
        self._asked: dict[int, tuple[Frame, asyncio.Queue[dict[str, Any] | None]]] = {}
        self._begun: set[int] = set()
        self._writer: asyncio.StreamWriter | None = None
        self._watching: asyncio.Task[None] | None = None

    async def ask(self, request: tuple[str, str, bytes, list[tuple[bytes, bytes]], bytes], send: Send) -> None:
        """Pass one request on and its answer back.

        Raises:
            Refusal: the keeper was lost, and the request may not be repeated, or no keeper came.
            Disconnected: the keeper was lost in the middle of the answer.
        """
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        number = next(self._numbers)
        answer: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        frame = (number, *request)
        self._asked[number] = frame, answer
        start: dict[str, Any] = {}
        try:
            if self._writer is not None:
                self._writer.write(_framed(frame))
            while True:
                message = await asyncio.wait_for(answer.get(), None if number in self._begun else 2.0 * RESTART_S)
                if message is None:
                    if number in self._begun:
                        raise Disconnected
                    raise Refusal("the endpoint is starting again; whether this was done is not known",
                                  kind="busy", retry_after_s=1.0)  # fmt: skip
                if message["type"] == "http.response.start":
                    start = message  # held back: until the body is here too, the request can be repeated
                    continue
                if number not in self._begun:
                    self._begun.add(number)
                    await send(start)
                await send(message)
                if message["type"] == "http.response.body" and not message.get("more_body", False):
                    return
        except TimeoutError:
            raise Refusal("the endpoint is starting again", kind="busy", retry_after_s=1.0) from None
        finally:
            del self._asked[number]
            self._begun.discard(number)

    async def _watch(self) -> None:
        """Keep a line to the keeper as long as the worker lives."""
        while True:
            try:
                reader, self._writer = await asyncio.open_unix_connection(str(self._path))
            except OSError:
                await asyncio.sleep(RECONNECT_S)
                continue
            for frame, _ in list(self._asked.values()):
                self._writer.write(_framed(frame))
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while True:
                    number, message = _unpack_answer(await _read(reader))
                    if number in self._asked:
                        self._asked[number][1].put_nowait(message)
            self._writer.close()
            self._writer = None
            for number, (frame, answer) in list(self._asked.items()):
                if number in self._begun or not _repeatable(frame):
                    answer.put_nowait(None)


def _repeatable(frame: Frame) -> bool:
    return frame[1] in ("GET", "HEAD") or frame[2].endswith(("/invocations", "/invoke", "/invocations-response-stream"))


class RelayApp:
    """The ASGI application of a worker.

    Args:
        keeper: decides.
        limits: of the endpoint.
    """

    def __init__(self, keeper: Keeper, limits: Limits) -> None:
        self.draining = False
        self._keeper = keeper
        self._max_body = max(limits.body_bytes, MAX_ADMIN_BYTES)
        self._bodies = BufferedBodies(self._max_body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: PLR0917 - ASGI
        """Answer one request of the ASGI server."""
        if scope["type"] != "http":
            return

        async def pass_on(message: dict[str, Any]) -> None:
            if self.draining and message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        path = scope["path"]
        try:
            if self.draining and path == "/ping":
                raise Refusal("the endpoint is stopping", kind="busy")
            body = await self._body(receive)
            await self._keeper.ask((scope["method"], path, scope["query_string"], scope["headers"], body), pass_on)
        except Disconnected:
            return
        except Refusal as refusal:
            wrapped = path.startswith("/endpoints/") and path.endswith(INVOKED)
            status, headers, content = wire.refused(refusal, wrapped=wrapped)
            headers.append((b"content-length", b"%d" % len(content)))
            await pass_on({"type": "http.response.start", "status": status, "headers": headers})
            await pass_on({"type": "http.response.body", "body": content})

    async def _body(self, receive: Receive) -> bytes:
        message = await receive()
        if message["type"] != "http.request":
            raise Disconnected
        body: bytes = message.get("body", b"")
        if message.get("more_body", False):
            return await self._bodies.rest(body, receive, max_bytes=self._max_body, gone=Disconnected)
        if len(body) > self._max_body:
            raise Refusal(f"the body has {len(body)} bytes, at most {self._max_body} are read", kind="too_large")
        return body


async def answer_frames(app: Any, path: Path) -> asyncio.Server:
    """Answer the workers' requests with an ASGI application; return the server, which listens."""

    async def answer(frame: Frame, writer: asyncio.StreamWriter) -> None:
        number, method, place, query, headers, body = frame
        scope = {"type": "http", "method": method, "path": place, "query_string": query, "headers": headers}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            writer.write(_framed((number, message)))
            await writer.drain()

        with contextlib.suppress(ConnectionError):  # that worker is gone, and its clients with it
            await app(scope, receive, send)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering: set[asyncio.Task[None]] = set()
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), contextlib.closing(writer):
            while True:
                task = asyncio.create_task(answer(_unpack_frame(await _read(reader)), writer))
                answering.add(task)
                task.add_done_callback(answering.discard)

    path.unlink(missing_ok=True)  # of a keeper that was killed
    return await asyncio.start_unix_server(connected, str(path), limit=2**20)
