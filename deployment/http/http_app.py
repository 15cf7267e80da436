"""`HttpApp`: what the raw ASGI applications of endpoints have in common: routes, bodies, errors, and their end.

The specification is ASGI 3 (asgi.readthedocs.io).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from policylab.deployment.decision import Refusal
from policylab.deployment.endpoint import Limits
from policylab.deployment.http import wire
from policylab.deployment.http.access import Access
from policylab.deployment.http.limits import BufferedBodies, RateLimit

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Handler = Callable[[wire.Headers, Receive], Awaitable[wire.Response | wire.Streamed]]

INVOKED = ("/invocations", "/async-invocations", "/invocations-response-stream")
"""Ends of the paths of SageMaker's runtime."""
MAX_ADMIN_BYTES = 2**20
logger = logging.getLogger(__name__)


class Disconnected(Exception):
    """The client has gone before its request was whole."""


class HttpApp:
    """Answers by routes.

    Args:
        limits: on what clients send.
        access: who may ask, and who may change.

    Attributes:
        handlers: path -> method -> what answers.
        draining: whether it is about to end.
        refused: refusals by kind.
    """

    def __init__(self, limits: Limits, *, access: Access) -> None:
        self.draining = False
        self.refused: dict[str, int] = {}
        self.handlers: dict[str, dict[str, Handler]] = {}
        self.access = access
        self.rate = None if limits.requests_per_s is None else RateLimit(limits.requests_per_s)
        self.max_body = limits.body_bytes
        self._bodies = BufferedBodies(limits.body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: PLR0917 - ASGI
        """Answer one request of the ASGI server."""
        if scope["type"] != "http":
            return
        path = scope["path"]
        body: bytes | Iterator[bytes]
        try:
            methods = self.handlers.get(path)
            handler = None if methods is None else methods.get(scope["method"])
            status, headers, body = await (handler or self.found(scope))(dict(scope["headers"]), receive)
        except Refusal as refusal:
            wrapped = path.startswith("/endpoints/") and path.endswith(INVOKED)
            self.refused[refusal.kind] = self.refused.get(refusal.kind, 0) + 1
            status, headers, body = wire.refused(refusal, wrapped=wrapped)
        except Disconnected:
            return
        except Exception:
            logger.exception("a request failed")
            self.refused["internal"] = self.refused.get("internal", 0) + 1
            status, headers, body = wire.json_response(
                {"Message": "the server failed; its log says why"},
                status=500,
                headers=[(wire.ERROR_TYPE, b"InternalFailure")],
            )
        if isinstance(body, bytes):
            headers.append((b"content-length", b"%d" % len(body)))
        if self.draining:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if not isinstance(body, bytes):
            for piece in body:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                await asyncio.sleep(0)  # others are answered in between
            body = b""
        await send({"type": "http.response.body", "body": body})

    def found(self, scope: Scope) -> Handler:
        """Return what answers a request.

        Raises:
            Refusal: nothing does.
        """
        path, method = scope["path"], scope["method"]
        methods = self.handlers.get(path)
        if methods is None:
            if path.startswith("/endpoints/") and path.endswith(INVOKED):
                raise Refusal(f"Endpoint {path.split('/')[2][:63]} not found.", kind="invalid")
            raise Refusal(f"no such page; there are {', '.join(self.handlers)}", kind="missing")
        if method not in methods:
            raise Refusal(f"this page takes {' or '.join(methods)}", kind="method")
        return methods[method]

    async def ping(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        """Say whether it serves."""
        if self.draining:
            raise Refusal("the endpoint is stopping", kind="busy")
        return 200, [], b""

    async def body(self, headers: wire.Headers, receive: Receive, *, max_bytes: int) -> bytes:
        """Return the whole body of a request."""
        message = await receive()
        if message["type"] != "http.request":
            raise Disconnected
        body: bytes = message.get("body", b"")
        if message.get("more_body", False):
            return await self._bodies.rest(body, receive, max_bytes=max_bytes, gone=Disconnected)
        if len(body) > max_bytes:
            raise Refusal(f"the body has {len(body)} bytes, at most {max_bytes} are read", kind="too_large")
        return body

    async def document(self, headers: wire.Headers, receive: Receive) -> dict[str, Any]:
        """Return the JSON object of an admin request; JSON alone, which a page of another site cannot send."""
        body = await self.body(headers, receive, max_bytes=MAX_ADMIN_BYTES)
        if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != b"application/json":
            raise Refusal("this page takes application/json", kind="unsupported")
        try:
            document = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Refusal(f"the body is no JSON: {str(error)[:120]}", kind="invalid") from None
        if not isinstance(document, dict):
            raise Refusal("the body must be a JSON object", kind="invalid")
        return document
