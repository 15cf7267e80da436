"""`EndpointApp`: an endpoint over HTTP: SageMaker's runtime protocol, the container contract, and the admin verbs.

| route | what |
|---|---|
| POST /endpoints/NAME/invocations | InvokeEndpoint, as an unmodified boto3 client calls it |
| POST /endpoints/NAME/invocations-response-stream | InvokeEndpointWithResponseStream |
| POST /invocations, GET /ping, /execution-parameters | what a container answers |
| POST /endpoints/NAME/rewards | rewards by decision id |
| GET /endpoints/NAME | status |
| POST /endpoints/NAME/weights, /update, /promote, /rollback | admin verbs |
| GET /metrics, /openapi.json | Prometheus; a description of all this |

Decisions are made on the event loop: a policy takes microseconds, a thread would cost more. Only with a deadline are
they computed on other threads, since nothing else can be interrupted. Admin verbs, which write to disk, have threads.
"""

from __future__ import annotations

import asyncio

from policylab.deployment.http import wire
from policylab.deployment.http.access import Access
from policylab.deployment.http.admin import Admin
from policylab.deployment.http.http_app import HttpApp, Receive
from policylab.deployment.http.invocations import Invocations
from policylab.deployment.policy_server import PolicyServer


class EndpointApp(HttpApp):
    """Serves one endpoint.

    Args:
        server: decides.
        access: who may ask, and who may change.
        admin: the verbs behind the other routes.
    """

    def __init__(self, server: PolicyServer, *, access: Access, admin: Admin) -> None:
        super().__init__(server.config.limits, access=access)
        self._admin = admin
        self._invocations = Invocations(server)
        place = f"/endpoints/{server.config.name}"
        self.handlers = {
            f"{place}/invocations": {"POST": self._invoke},
            f"{place}/invocations-response-stream": {"POST": self._stream},
            "/invocations": {"POST": self._invoke},
            "/ping": {"GET": self.ping, "HEAD": self.ping},
            "/execution-parameters": {"GET": self._parameters},
            f"{place}/rewards": {"POST": self._rewards},
            place: {"GET": self._status},
            f"{place}/weights": {"POST": self._weights},
            f"{place}/update": {"POST": self._update},
            f"{place}/promote": {"POST": self._promote},
            f"{place}/rollback": {"POST": self._rollback},
            "/metrics": {"GET": self._metrics},
            "/openapi.json": {"GET": self._openapi},
        }

    async def _invoke(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self.access.check_client(headers)
        if self.rate is not None:
            self.rate.take()
        return await self._invocations.answer(headers, await self.body(headers, receive, max_bytes=self.max_body))

    async def _stream(self, headers: wire.Headers, receive: Receive) -> wire.Streamed:
        self.access.check_client(headers)
        if self.rate is not None:
            self.rate.take()
        return await self._invocations.stream(headers, await self.body(headers, receive, max_bytes=self.max_body))

    async def _parameters(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        """Tell a batch transform job how to ask: one request at a time, since one core answers them."""
        self.access.check_client(headers)
        most_mb = max(1, self.max_body // 2**20)
        return wire.json_response(
            {"MaxConcurrentTransforms": 1, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": most_mb}
        )

    async def status(self) -> dict[str, object]:
        """Return how the endpoint stands."""
        return await asyncio.to_thread(self._admin.status, draining=self.draining)

    async def metrics(self) -> str:
        """Return the metrics in Prometheus' text format."""
        return self._admin.metrics(self.refused)

    async def _rewards(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self.access.check_client(headers)
        return wire.json_response(self._admin.rewards(await self.document(headers, receive)))

    async def _status(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self.access.check_admin(headers)
        return wire.json_response(await self.status())

    async def _weights(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self.access.check_admin(headers)
        document = await self.document(headers, receive)
        return wire.json_response(await asyncio.to_thread(self._admin.weights, document))

    async def _update(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self.access.check_admin(headers)
        return wire.json_response(await self._admin.update(await self.document(headers, receive)))

    async def _promote(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self.access.check_admin(headers)
        document = await self.document(headers, receive)
        return wire.json_response(await asyncio.to_thread(self._admin.promote, document))

    async def _rollback(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self.access.check_admin(headers)
        await self.document(headers, receive)
        return wire.json_response(await asyncio.to_thread(self._admin.rollback))

    async def _metrics(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self.access.check_client(headers)
        return wire.text_response(await self.metrics())

    async def _openapi(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self.access.check_client(headers)
        return wire.json_response(self._admin.openapi())
