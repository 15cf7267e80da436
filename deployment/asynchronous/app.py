"""`AsyncApp`: an asynchronous endpoint over HTTP. It answers InvokeEndpointAsync, and refuses InvokeEndpoint.

| file | what |
|---|---|
| FOLDER/BUCKET/KEY | the location s3://BUCKET/KEY |
| FOLDER/.topics/NAME.jsonl | what was told to a topic |
| FOLDER/.queue/NAME/ | the queue, its lock, and the secret that makes decisions repeatable |
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

from policylab.deployment.asynchronous.notifications import Topics
from policylab.deployment.asynchronous.queue import AsyncQueue
from policylab.deployment.asynchronous.requests import MAX_INLINE, accepted, invocation_of
from policylab.deployment.asynchronous.runner import AsyncRunner, counts_as_metrics
from policylab.deployment.decision import Refusal
from policylab.deployment.endpoint import EndpointConfig
from policylab.deployment.http import openapi, prometheus, wire
from policylab.deployment.http.access import Access
from policylab.deployment.http.app import EndpointApp
from policylab.deployment.http.http_app import Receive
from policylab.deployment.http.invocations import Invocations
from policylab.deployment.running import start_endpoint
from policylab.deployment.state import StateFile
from policylab.errors import StorageError

QUEUE = ".queue"
"""In the place of a bucket, whose name cannot begin with a dot."""


class RunningAsync:
    """An asynchronous endpoint that runs in this process.

    Args:
        config: with an ``asynchronous`` section and absolute paths.
        state_folder: of this endpoint alone; None keeps nothing but the queue and its secret.

    Raises:
        RunDirectoryError: another process has the queue.
        StorageError: the queue cannot be written.
        UserError: see `start_endpoint`.
    """

    def __init__(self, config: EndpointConfig, *, state_folder: Path | None = None) -> None:
        assert config.asynchronous is not None
        self.config, self.settings = config, config.asynchronous
        home = StateFile(self.settings.folder / QUEUE / config.name)
        with contextlib.ExitStack() as stack:
            stack.enter_context(home.held())
            self.endpoint = start_endpoint(config, state_folder=state_folder, secret=home.secret())
            stack.callback(self.endpoint.close)
            self.queue = AsyncQueue(home.folder / "queue.sqlite", max_waiting=self.settings.max_waiting)
            stack.callback(self.queue.close)
            self._runner = AsyncRunner(
                self.queue,
                self.settings.folder,
                answered=Invocations(self.endpoint.server, max_body=self.settings.input_bytes).answer_now,
                n_threads=self.settings.max_concurrent,
                max_bytes=self.settings.input_bytes,
                topics=Topics(config.name, self.settings),
            )
            self._runner.start()
            stack.callback(self._runner.stop)
            self._open = stack.pop_all()

    def tick(self) -> None:
        """Look after the rollout and the comparison."""
        self.endpoint.tick()

    def close(self) -> None:
        """Finish what is under way; what waits is executed at the next start."""
        self._open.close()


class AsyncApp(EndpointApp):
    """Serves an asynchronous endpoint.

    Args:
        running: behind it.
        access: who may ask, and who may change.
    """

    def __init__(self, running: RunningAsync, *, access: Access) -> None:
        endpoint, settings = running.endpoint, running.settings
        super().__init__(endpoint.server, access=access, admin=endpoint.admin)
        self._queue = running.queue
        self._name = running.config.name
        self._output = settings.output or f"s3://{self._name}/output"
        self._failures = settings.failures or f"s3://{self._name}/failures"
        for end in ("invocations", "invocations-response-stream"):
            self.handlers[f"/endpoints/{self._name}/{end}"] = {"POST": self._refuse}
        self.handlers[f"/endpoints/{self._name}/async-invocations"] = {"POST": self._enqueue}

    async def _refuse(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        raise Refusal("this endpoint is asynchronous; use InvokeEndpointAsync, .../async-invocations", kind="invalid")

    async def _enqueue(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self.access.check_client(headers)
        if self.rate is not None:
            self.rate.take()
        body, now = await self.body(headers, receive, max_bytes=MAX_INLINE), time.time()
        asked = invocation_of(headers, body, output=self._output, failures=self._failures, now=now)
        try:
            return accepted(await asyncio.to_thread(self._queue.add, asked, now=now))
        except StorageError as error:
            raise Refusal(str(error), kind="busy", retry_after_s=1.0) from error

    async def _openapi(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self.access.check_client(headers)
        bundle = self._admin.server.fleet.bundle
        return wire.json_response(openapi.asynchronous_document(self._name, bundle=bundle))

    async def status(self) -> dict[str, object]:
        """Return how the endpoint stands, and its queue."""
        return {**await super().status(), "asynchronous": await asyncio.to_thread(self._queue.counts)}

    async def metrics(self) -> str:
        """Return the metrics, with those of the queue."""
        counts = await asyncio.to_thread(self._queue.counts)
        return await super().metrics() + prometheus.gauges_and_counters(self._name, counts_as_metrics(counts))
