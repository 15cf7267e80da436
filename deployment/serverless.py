"""`ServerlessApp`: an endpoint whose policies are in memory only while they are asked.

    asleep --request--> waking (the cold start, which is measured) --> awake --idle_s without a request--> asleep

Requests that come while it wakes wait for it. Asleep, it holds nothing of the endpoint but its file; health, status,
metrics and the description do not wake it. What is stored in the state folder (weights, an update, the secret) is there
when it wakes; sessions, answers to retries and the ids of rewards are forgotten, as where machines come and go.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

from policylab.deployment.decision import Refusal
from policylab.deployment.endpoint import EndpointConfig
from policylab.deployment.fleet import load_fleet
from policylab.deployment.http import openapi, prometheus, wire
from policylab.deployment.http.access import Access
from policylab.deployment.http.app import EndpointApp
from policylab.deployment.http.http_app import Handler, HttpApp, Receive, Scope
from policylab.deployment.running import RunningEndpoint, start_endpoint
from policylab.errors import PolicylabError

logger = logging.getLogger(__name__)


class RunningServerless:
    """A serverless endpoint, awake or asleep.

    Args:
        config: with a ``serverless`` section and absolute paths.
        state_folder: of this endpoint alone; None keeps its state for as long as the process lives.

    Raises:
        BundleError: a bundle is refused.
        UserError: the parts do not fit together.
    """

    def __init__(self, config: EndpointConfig, *, state_folder: Path | None = None) -> None:
        fleet = load_fleet(config)  # what is wrong is told now, not to the first client
        self.config = config
        self.description = openapi.document(config.name, bundle=fleet.bundle)
        self.cold_starts_s: list[float] = []
        self.awake: RunningEndpoint | None = None
        self._temporary = tempfile.TemporaryDirectory(prefix="policylab-") if state_folder is None else None
        self._state = Path(self._temporary.name) if self._temporary is not None else state_folder

    def wake(self) -> RunningEndpoint:
        """Load the endpoint and measure how long that takes."""
        began = time.perf_counter()
        self.awake = start_endpoint(self.config, state_folder=self._state)
        self.cold_starts_s.append(time.perf_counter() - began)
        logger.info("'%s' is awake after %.3f s", self.config.name, self.cold_starts_s[-1])
        return self.awake

    def tick(self) -> None:
        """Look after the rollout while it is awake."""
        if (awake := self.awake) is not None:
            awake.tick()

    def close(self) -> None:
        """Write what was captured and forget the state that nobody asked to keep."""
        if self.awake is not None:
            self.awake.close()
        if self._temporary is not None:
            self._temporary.cleanup()


class ServerlessApp(HttpApp):
    """Serves a serverless endpoint.

    Args:
        running: behind it.
        access: who may ask, and who may change.
    """

    def __init__(self, running: RunningServerless, *, access: Access) -> None:
        super().__init__(running.config.limits, access=access)
        assert running.config.serverless is not None
        self._running, self._settings = running, running.config.serverless
        self._app: EndpointApp | None = None
        self._waking: asyncio.Task[EndpointApp] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._n_under_way = 0
        self._used = 0.0
        self._watching = False
        self._place = f"/endpoints/{running.config.name}"
        pages = (
            "/invocations",
            "/invocations-response-stream",
            "/rewards",
            "/weights",
            "/update",
            "/promote",
            "/rollback",
        )
        self._waking_pages = {"/invocations", *(f"{self._place}{page}" for page in pages)}
        self.handlers = {
            "/ping": {"GET": self.ping, "HEAD": self.ping},
            self._place: {"GET": self._status},
            "/metrics": {"GET": self._metrics},
            "/openapi.json": {"GET": self._openapi},
        }

    def found(self, scope: Scope) -> Handler:
        """Return what answers a request; for most, that is the endpoint once it is awake."""
        if scope["path"] in self._waking_pages:
            return functools.partial(self._awake, scope=scope)
        return super().found(scope)

    async def _awake(self, headers: wire.Headers, receive: Receive, *, scope: Scope) -> wire.Response | wire.Streamed:
        self.access.check_client(headers)  # nobody else wakes it
        if self._n_under_way >= self._settings.max_concurrency:
            raise Refusal(
                f"more than {self._settings.max_concurrency} requests at once (serverless.max_concurrency)",
                kind="throttled",
                retry_after_s=1.0,
            )
        self._n_under_way += 1
        try:
            app = self._app or await self._woken()
            return await app.found(scope)(headers, receive)
        finally:
            self._n_under_way -= 1
            self._used = time.monotonic()
            self._watch()

    async def _woken(self) -> EndpointApp:
        if self._waking is None:
            self._waking = asyncio.create_task(self._wake())
            self._waking.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            return await asyncio.shield(self._waking)
        except PolicylabError as error:
            raise Refusal(f"the endpoint cannot be loaded: {error}", kind="failed") from error

    async def _wake(self) -> EndpointApp:
        try:
            awake = await asyncio.to_thread(self._running.wake)
            self._app = EndpointApp(awake.server, access=self.access, admin=awake.admin)
            return self._app
        finally:
            self._waking = None

    def _watch(self, *, after_s: float | None = None) -> None:
        """Look again when it could have been idle for long enough; one look is due at a time."""
        if after_s is None and self._watching:
            return
        self._watching = True
        delay_s = self._settings.idle_s if after_s is None else after_s
        asyncio.get_running_loop().call_later(delay_s, self._sleep_if_idle)

    def _sleep_if_idle(self) -> None:
        awake, left_s = self._running.awake, self._used + self._settings.idle_s - time.monotonic()
        if awake is None or self._app is None:
            self._watching = False
        elif left_s > 0.0 or self._n_under_way or awake.rollout.state.update is not None:
            self._watch(after_s=max(left_s, min(1.0, self._settings.idle_s)))
        else:
            self._watching = False
            self._app = self._running.awake = None
            closing = asyncio.create_task(asyncio.to_thread(awake.close))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    # ------------------------------------------------------------------ what does not wake it

    async def _status(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self.access.check_admin(headers)
        starts = self._running.cold_starts_s
        serverless: dict[str, Any] = {
            "awake": self._app is not None,
            "under_way": self._n_under_way,
            "cold_starts": len(starts),
            "last_cold_start_ms": 1000.0 * starts[-1] if starts else None,
            "longest_cold_start_ms": 1000.0 * max(starts) if starts else None,
        }
        if (app := self._app) is not None:
            return wire.json_response({**await app.status(), "serverless": serverless})
        name = self._running.config.name
        return wire.json_response({"name": name, "status": "InService", "serverless": serverless})

    async def _metrics(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self.access.check_client(headers)
        starts = self._running.cold_starts_s
        own = prometheus.gauges_and_counters(
            self._running.config.name,
            [
                ("awake", "1 while the policies are in memory", [({}, float(self._app is not None))]),
                ("cold_starts_total", "times that they were loaded", [({}, float(len(starts)))]),
                ("cold_start_seconds_total", "time for that", [({}, sum(starts))]),
                ("throttled_total", "requests refused", [({}, float(self.refused.get("throttled", 0)))]),
            ],
        )
        return wire.text_response(own + ("" if self._app is None else await self._app.metrics()))

    async def _openapi(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self.access.check_client(headers)
        return wire.json_response(self._running.description)
