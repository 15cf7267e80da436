"""Serving an endpoint with uvicorn: its socket, its connections, and its end.

uvicorn closes connections without notice when it stops, which `EndpointServer` does not; its connections are
`policylab.deployment.http.connection.BoundedProtocol`.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import inspect
import logging
import socket
import sys
from collections.abc import Callable
from typing import Any, Protocol

import uvicorn

from policylab.deployment.endpoint import Limits
from policylab.deployment.http.connection import KEEP_ALIVE_S, BoundedProtocol
from policylab.deployment.http.http_app import Receive, Scope, Send
from policylab.deployment.http.listening import let_nobody_in
from policylab.deployment.running import Running

TICK_S = 0.25
SWITCH_S = 0.0005
"""How long the recorder, or a bundle that is being loaded, may hold the interpreter while a request waits for it."""
logger = logging.getLogger(__name__)


class Drainable(Protocol):
    """An ASGI application that can be told that it is about to end."""

    draining: bool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: PLR0917 - ASGI
        """Answer one request."""


class EndpointServer(uvicorn.Server):  # type: ignore[misc, unused-ignore]
    """Serves until a signal, then ends without failing a request.

    Args:
        config: of uvicorn.
        app: answers.
        tick: is called a few times a second, on a thread.
        drain_s: how long clients are told to close their connections before the remaining ones are closed.
    """

    def __init__(self, config: uvicorn.Config, *, app: Drainable, tick: Callable[[], object], drain_s: float) -> None:
        super().__init__(config)
        self._app = app
        self._look = tick
        self._drain_s = drain_s

    async def main_loop(self) -> None:
        """Serve, close late connections and look after the rollout; then drain."""
        ticking = asyncio.create_task(tick_forever(self._tick))
        await super().main_loop()
        self._app.draining = True  # /ping says so, and every answer closes its connection
        await self._wait(lambda: False)
        ticking.cancel()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, wait for the connections that were made to end, then close what is left of them."""
        for listener in sockets or []:
            let_nobody_in(listener)
        await asyncio.sleep(0.05)  # those who are in the queue are let in
        for server in self.servers:
            server.close()
        await self._wait(lambda: not self.server_state.connections)
        await super().shutdown(sockets)

    async def _wait(self, ended: Callable[[], bool]) -> None:
        until = asyncio.get_running_loop().time() + self._drain_s
        while asyncio.get_running_loop().time() < until and not self.force_exit and not ended():
            await asyncio.sleep(0.02)

    async def _tick(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in list(self.server_state.connections):
            connection.close_if_late(now)
        await asyncio.to_thread(self._look)


async def tick_forever(tick: Callable[[], Any]) -> None:
    """Call ``tick`` a few times a second: a coroutine function, or one that may write to disk, on a thread."""
    while True:
        await asyncio.sleep(TICK_S)
        try:
            await (tick() if inspect.iscoroutinefunction(tick) else asyncio.to_thread(tick))
        except Exception:  # a full disk must not end the watch over an update
            logger.exception("the update could not go on; it is tried again")


def url_of(listener: socket.socket) -> str:
    """Return the URL under which a listening socket is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def serve(
    app: Drainable,
    running: Running,
    *,
    listener: socket.socket,
    drain_s: float = 1.0,
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve an endpoint until SIGTERM or SIGINT, then finish the requests under way and write what was captured.

    Args:
        app: answers.
        running: the endpoint behind it.
        listener: where, from `policylab.deployment.http.listening.bound_socket`.
        drain_s: how long clients are told to close their connections before the end.
        ready: is called with the server's URL once it answers.
    """
    importlib.import_module("scipy.optimize")  # a promotion test needs it; imported then, it would hold requests up
    settle_memory()
    limits = running.config.limits
    try:
        serve_app(app, limits, listener=listener, drain_s=drain_s, ready=ready, tick=running.tick)
    finally:
        running.close()


def settle_memory() -> None:
    """Leave what is loaded out of garbage collections, and let requests interrupt long work of other threads soon."""
    gc.collect()
    gc.freeze()  # what is loaded stays: no collection need look at it again
    sys.setswitchinterval(SWITCH_S)


def serve_app(
    app: Drainable,
    limits: Limits,
    *,
    listener: socket.socket,
    drain_s: float,
    ready: Callable[[str], None] = lambda url: None,
    tick: Callable[[], object] = lambda: None,
) -> None:
    """Serve an ASGI application within limits until SIGTERM or SIGINT, then finish the requests under way.

    Args:
        app: answers.
        limits: on connections and the time of requests.
        listener: where.
        drain_s: how long clients are told to close their connections before the end.
        ready: is called with the server's URL once it answers.
        tick: is called a few times a second.
    """
    protocol = type(
        "Protocol", (BoundedProtocol,), {"limit": limits.connections, "request_timeout_s": limits.body_timeout_s}
    )
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=2048,
        timeout_keep_alive=int(KEEP_ALIVE_S),
        timeout_graceful_shutdown=25,  # below the 30 s after which SageMaker and Kubernetes kill
    )
    server = EndpointServer(config, app=app, tick=tick, drain_s=drain_s)
    asyncio.run(_served(server, listener, ready=ready))


async def _served(server: EndpointServer, listener: socket.socket, *, ready: Callable[[str], None]) -> None:
    async def announce() -> None:
        while not server.started:
            await asyncio.sleep(0.005)
        ready(url_of(listener))

    announcing = asyncio.create_task(announce())
    await server.serve(sockets=[listener])
    announcing.cancel()
