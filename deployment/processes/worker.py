"""One process of an endpoint with several: ``python -m policylab.deployment.processes.worker ROLE FOLDER``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from policylab.config import Settings
from policylab.deployment.endpoint import EndpointConfig
from policylab.errors import PolicylabError
from policylab.files import read_json

SPEC, SOCKET = "endpoint.json", "keeper"


class Spec(Settings):
    """What all processes of one endpoint are told, in a folder that only their user can read."""

    config: EndpointConfig
    host: str
    state: Path
    listener: int
    connections: int
    drain_s: float


def main(role: str, folder: Path) -> int:
    """Be the keeper or a worker until SIGTERM, or until the parent has gone; return the exit code."""
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("policylab").setLevel(logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    spec = Spec.model_validate(read_json(folder / SPEC))
    try:
        (keep if role == "keeper" else work)(spec, folder / SOCKET)
    except PolicylabError as error:
        sys.stderr.write("".join(f"error: {line}\n" for line in str(error).splitlines()))
        return error.exit_code
    return 0


def keep(spec: Spec, path: Path) -> None:
    """Decide for all workers."""
    from policylab.deployment.http.access import access_for
    from policylab.deployment.http.serving import settle_memory, tick_forever
    from policylab.deployment.starting import start_app
    from policylab.deployment.state import StateFile

    async def run() -> None:
        from policylab.deployment.processes.relay import answer_frames

        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        server = await answer_frames(app, path)
        ticking = asyncio.create_task(tick_forever(running.tick))
        await stopped.wait()
        ticking.cancel()
        server.close()

    with StateFile(spec.state).held():
        app, running = start_app(spec.config, access=access_for(spec.host), state_folder=spec.state)
        settle_memory()
        try:
            asyncio.run(run())
        finally:
            running.close()


def work(spec: Spec, path: Path) -> None:
    """Speak HTTP with clients."""
    from policylab.deployment.http.serving import serve_app
    from policylab.deployment.processes.relay import Keeper, RelayApp

    limits = spec.config.limits.model_copy(update={"connections": spec.connections})
    listener = socket.socket(fileno=spec.listener)
    with contextlib.suppress(KeyboardInterrupt):
        serve_app(RelayApp(Keeper(path), limits), limits, listener=listener, drain_s=spec.drain_s)


def _end_with_parent() -> None:
    """End like by SIGTERM when the parent's end of the standard input closes, however the parent ended."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
