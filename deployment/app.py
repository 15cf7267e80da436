"""The endpoint as one raw ASGI application: SageMaker's runtime protocol, the container contract, and the admin verbs.

| route | what |
|---|---|
| POST /endpoints/NAME/invocations | InvokeEndpoint, as an unmodified boto3 client calls it |
| POST /invocations, GET /ping | what a container answers |
| POST /endpoints/NAME/rewards | rewards by decision id |
| GET /endpoints/NAME | status |
| POST /endpoints/NAME/weights, /update, /promote, /rollback | admin verbs |
| GET /metrics, /openapi.json | Prometheus; a description of all this |

The specification is ASGI 3 (asgi.readthedocs.io). Decisions are made on the event loop: a policy takes microseconds, a
thread would cost more. Only with a deadline are they computed on other threads, since nothing else can be interrupted.
The admin verbs, which write to disk, have threads too.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from policylab.deployment import wire
from policylab.deployment.access import Access
from policylab.deployment.admin import Admin
from policylab.deployment.answers import AnswerWriter
from policylab.deployment.bodies import BodyReader, decompressed
from policylab.deployment.decision import Answer, DecisionRequest, Refusal
from policylab.deployment.limits import BufferedBodies, RateLimit
from policylab.deployment.policy_server import PolicyServer

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Handler = Callable[[wire.Headers, Receive], Awaitable[wire.Response]]

MAX_ADMIN_BYTES = 2**20
logger = logging.getLogger(__name__)


class Disconnected(Exception):
    """The client has gone before its request was whole."""


class EndpointApp:
    """Serves one endpoint.

    Args:
        server: decides.
        access: who may ask, and who may change.
        admin: the verbs behind the other routes.
    """

    def __init__(self, server: PolicyServer, *, access: Access, admin: Admin) -> None:
        self.server = server
        self.draining = False
        self.refused: dict[str, int] = {}
        self._access = access
        self._admin = admin
        limits = server.config.limits
        self._reader = BodyReader(server.fleet.bundle, max_batch=limits.batch)
        self._writer = AnswerWriter(server.fleet.bundle)
        self._rate = None if limits.requests_per_s is None else RateLimit(limits.requests_per_s)
        self._bodies = BufferedBodies(limits.body_bytes)
        self._max_body = limits.body_bytes
        place = f"/endpoints/{server.config.name}"
        self._handlers: dict[str, dict[str, Handler]] = {
            f"{place}/invocations": {"POST": self._invoke},
            "/invocations": {"POST": self._invoke},
            "/ping": {"GET": self._ping, "HEAD": self._ping},
            f"{place}/rewards": {"POST": self._rewards},
            place: {"GET": self._status},
            f"{place}/weights": {"POST": self._weights},
            f"{place}/update": {"POST": self._update},
            f"{place}/promote": {"POST": self._promote},
            f"{place}/rollback": {"POST": self._rollback},
            "/metrics": {"GET": self._metrics},
            "/openapi.json": {"GET": self._openapi},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: PLR0917 - ASGI
        """Answer one request of the ASGI server."""
        if scope["type"] != "http":
            return
        path = scope["path"]
        wrapped = path.startswith("/endpoints/") and path.endswith("/invocations")
        try:
            handler = self._found(path, scope["method"])
            status, headers, body = await handler(dict(scope["headers"]), receive)
        except Refusal as refusal:
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
        headers.append((b"content-length", b"%d" % len(body)))
        if self.draining:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _found(self, path: str, method: str) -> Handler:
        methods = self._handlers.get(path)
        if methods is None:
            if path.startswith("/endpoints/") and path.endswith("/invocations"):
                raise Refusal(f"Endpoint {path.split('/')[2][:63]} not found.", kind="invalid")
            raise Refusal(f"no such page; there are {', '.join(self._handlers)}", kind="missing")
        if method not in methods:
            raise Refusal(f"this page takes {' or '.join(methods)}", kind="method")
        return methods[method]

    # ------------------------------------------------------------------ decisions

    async def _invoke(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self._access.check_client(headers)
        if self._rate is not None:
            self._rate.take()
        body = await self._body(headers, receive, max_bytes=self._max_body)
        encoding = headers.get(b"content-encoding")
        if encoding is not None:
            body = decompressed(body, encoding.decode("latin-1").strip().lower(), max_bytes=self._max_body)
        wire.check_offered(headers)
        session_id = wire.checked_session_id(headers)
        if session_id is not None and (kind := _session_request(body)):
            return self._session(kind, session_id)
        asked = self._reader.read(body, headers.get(b"content-type", b"").decode("latin-1"))
        target, retried = headers.get(wire.TARGET_VARIANT), headers.get(wire.INVOCATION_ID)
        answer = await self._decided(
            DecisionRequest(
                asked.observations,
                asked.masks,
                wire.checked_inference_id(headers),
                None if retried is None else retried[:256].decode("latin-1"),
                session_id,
                None if target is None else target.decode("latin-1"),
                asked.episode,
                asked.step,
            )
        )
        accept = headers.get(b"accept", b"").decode("latin-1")
        content, content_type = self._writer.write(answer, single=asked.single, accept=accept)
        first = answer.decisions[0]
        found = [
            (b"content-type", content_type.encode()),
            (wire.INVOKED_VARIANT, first.variant.encode()),
            (wire.REQUEST_ID, first.decision_id[:32].encode()),
        ]
        if answer.new_session is not None:
            found.append(wire.session_header(answer.new_session))
        return 200, found, content

    async def _decided(self, request: DecisionRequest) -> Answer:
        server = self.server
        if server.deadline_s is None:
            return server.decide(request)
        begun = server.begin(request)
        if isinstance(begun, Answer):
            return begun
        future = server.start(begun)
        if future is None:
            return server.finish(begun, None)
        try:
            return server.finish(begun, await asyncio.wait_for(asyncio.wrap_future(future), server.deadline_s))
        except TimeoutError:
            return server.finish(begun, None)

    def _session(self, kind: str, session_id: str) -> wire.Response:
        if kind == "CLOSE":
            if not self.server.close_session(session_id):
                raise Refusal(f"no session {session_id[:63]}; it was closed, or it expired", kind="observation")
            return wire.json_response({}, headers=[(wire.CLOSED_SESSION_ID, session_id.encode())])
        return wire.json_response({}, headers=[wire.session_header(self.server.open_session())])

    async def _body(self, headers: wire.Headers, receive: Receive, *, max_bytes: int) -> bytes:
        message = await receive()
        if message["type"] != "http.request":
            raise Disconnected
        body: bytes = message.get("body", b"")
        if message.get("more_body", False):
            return await self._bodies.rest(body, receive, max_bytes=max_bytes, gone=Disconnected)
        if len(body) > max_bytes:
            raise Refusal(f"the body has {len(body)} bytes, at most {max_bytes} are read", kind="too_large")
        return body

    # ------------------------------------------------------------------ the other routes

    async def _ping(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        if self.draining:
            raise Refusal("the endpoint is stopping", kind="busy")
        return 200, [], b""

    async def _rewards(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self._access.check_client(headers)
        return wire.json_response(self._admin.rewards(await self._document(headers, receive)))

    async def _status(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self._access.check_admin(headers)
        return wire.json_response(await asyncio.to_thread(self._admin.status, draining=self.draining))

    async def _weights(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self._access.check_admin(headers)
        document = await self._document(headers, receive)
        return wire.json_response(await asyncio.to_thread(self._admin.weights, document))

    async def _update(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self._access.check_admin(headers)
        return wire.json_response(await self._admin.update(await self._document(headers, receive)))

    async def _promote(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self._access.check_admin(headers)
        document = await self._document(headers, receive)
        return wire.json_response(await asyncio.to_thread(self._admin.promote, document))

    async def _rollback(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self._access.check_admin(headers)
        await self._document(headers, receive)
        return wire.json_response(await asyncio.to_thread(self._admin.rollback))

    async def _metrics(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self._access.check_client(headers)
        text = self._admin.metrics(self.refused)
        return 200, [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")], text.encode()

    async def _openapi(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self._access.check_client(headers)
        return wire.json_response(self._admin.openapi())

    async def _document(self, headers: wire.Headers, receive: Receive) -> dict[str, Any]:
        """Return the JSON object of an admin request; JSON alone, which a page of another site cannot send."""
        body = await self._body(headers, receive, max_bytes=MAX_ADMIN_BYTES)
        if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != b"application/json":
            raise Refusal("this page takes application/json", kind="unsupported")
        try:
            document = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Refusal(f"the body is no JSON: {str(error)[:120]}", kind="invalid") from None
        if not isinstance(document, dict):
            raise Refusal("the body must be a JSON object", kind="invalid")
        return document


def _session_request(body: bytes) -> str | None:
    """Return what the body asks of a session, if it is a request about one and nothing else."""
    if b'"requestType"' not in body[:64]:
        return None
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if isinstance(document, dict) and document.get("requestType") in ("NEW_SESSION", "CLOSE") and len(document) == 1:
        return str(document["requestType"])
    raise Refusal('a session request is {"requestType": "NEW_SESSION"} or "CLOSE", alone', kind="observation")
