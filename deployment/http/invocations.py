"""`Invocations`: from the headers and the body of an invocation to decisions, and from these to a response."""

from __future__ import annotations

import asyncio
import json

from policylab.deployment.decision import Answer, DecisionRequest, Refusal
from policylab.deployment.http import event_stream, wire
from policylab.deployment.http.answers import AnswerWriter
from policylab.deployment.http.bodies import Asked, BodyReader, decompressed
from policylab.deployment.policy_server import PolicyServer


class Invocations:
    """Invocations of one server, as SageMaker's runtime protocol has them.

    Args:
        server: decides.
        max_body: bytes of a body, once it is decompressed; default: ``limits.body_bytes``.
    """

    def __init__(self, server: PolicyServer, *, max_body: int | None = None) -> None:
        limits = server.config.limits
        self.server = server
        self._reader = BodyReader(server.fleet.bundle, max_batch=limits.batch)
        self._writer = AnswerWriter(server.fleet.bundle)
        self._max_body = max_body or limits.body_bytes

    async def answer(self, headers: wire.Headers, body: bytes) -> wire.Response:
        """Return the response to one invocation, or to a request about a session.

        Raises:
            Refusal: it breaks a rule, or the policy failed and there is no fallback.
        """
        if b"content-encoding" in headers:
            body = self.plain(headers, body)
        session_id = None
        if not wire.NAMES.isdisjoint(headers):
            wire.check_offered(headers)
            session_id = wire.checked_session_id(headers)
            if session_id is not None and (kind := _session_request(body)):
                return self._session(kind, session_id)
        asked = self.asked(headers, body)
        request = request_of(headers, asked, session_id=session_id)
        answer = self.server.decide(request) if self.server.deadline_s is None else await self._decided(request)
        return self.response(headers, answer, single=asked.single)

    async def stream(self, headers: wire.Headers, body: bytes) -> wire.Streamed:
        """Return the response to one invocation as an event stream of lines, one for each decision.

        They are decided together, as by `answer`: with one variant, and the same decisions for the same inference id.

        Raises:
            Refusal: it breaks a rule, or the policy failed and there is no fallback.
        """
        headers = event_stream.plain_headers(headers)
        wire.check_offered(headers)
        asked = self.asked(headers, self.plain(headers, body))
        answer = await self._decided(request_of(headers, asked, session_id=wire.checked_session_id(headers)))
        parts, content_type = self._writer.lines(answer, accept=headers.get(b"accept", b"").decode("latin-1"))
        return event_stream.streamed(parts, headers=self._headers(answer, content_type))

    def answer_now(self, headers: wire.Headers, body: bytes) -> wire.Response:
        """Return the response to one invocation without a session, on any thread.

        Raises:
            Refusal: it breaks a rule, or the policy failed and there is no fallback.
        """
        asked = self.asked(headers, self.plain(headers, body))
        return self.response(headers, self.server.decide(request_of(headers, asked)), single=asked.single)

    def plain(self, headers: wire.Headers, body: bytes) -> bytes:
        """Return the body without its content encoding.

        Raises:
            Refusal: it has none that is read, or becomes too large.
        """
        encoding = headers.get(b"content-encoding")
        if encoding is None:
            return body
        return decompressed(body, encoding.decode("latin-1").strip().lower(), max_bytes=self._max_body)

    def asked(self, headers: wire.Headers, body: bytes) -> Asked:
        """Return what a body asks about.

        Raises:
            Refusal: it is not about observations of the policies' space.
        """
        return self._reader.read(body, headers.get(b"content-type", b"").decode("latin-1"))

    def response(self, headers: wire.Headers, answer: Answer, *, single: bool) -> wire.Response:
        """Return the response that tells an answer."""
        accept = headers.get(b"accept", b"").decode("latin-1")
        content, content_type = self._writer.write(answer, single=single, accept=accept)
        found = self._headers(answer, content_type)
        if answer.new_session is not None:
            found.append(wire.session_header(answer.new_session))
        return 200, found, content

    def _headers(self, answer: Answer, content_type: str) -> list[tuple[bytes, bytes]]:
        first = answer.decisions[0]
        return [
            (b"content-type", content_type.encode()),
            (wire.INVOKED_VARIANT, first.variant.encode()),
            (wire.REQUEST_ID, first.decision_id[:32].encode()),
        ]

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


def request_of(headers: wire.Headers, asked: Asked, *, session_id: str | None = None) -> DecisionRequest:
    """Return the request for decisions about what a body asks, with what its headers say.

    Raises:
        Refusal: the headers name it in a way that cannot be.
    """
    if wire.NAMES.isdisjoint(headers):
        return DecisionRequest(asked.observations, asked.masks, episode=asked.episode, step=asked.step)
    target, retried = headers.get(wire.TARGET_VARIANT), headers.get(wire.INVOCATION_ID)
    return DecisionRequest(
        asked.observations,
        asked.masks,
        wire.checked_inference_id(headers),
        None if retried is None else retried[:256].decode("latin-1"),
        session_id,
        None if target is None else target.decode("latin-1"),
        asked.episode,
        asked.step,
    )


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
