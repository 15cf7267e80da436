"""`Workers`: the parent of an endpoint's processes, which starts again what ends.

It holds the listening socket, so that connections wait in the kernel, not refused, while a worker is away, and knows
nothing of policies: what can crash is in its children.
"""

from __future__ import annotations

import logging
import math
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from policylab.deployment.endpoint import EndpointConfig
from policylab.deployment.http.listening import let_everybody_in
from policylab.deployment.processes.worker import SOCKET, SPEC, Spec
from policylab.errors import RunError

LOOK_S = 0.05
START_S = 120.0
QUICK_S = 5.0
"""What ends sooner after its start than this is started again later and later."""
MAX_BACKOFF_S = 5.0
STOP_S = 35.0
logger = logging.getLogger(__name__)


class Child:
    """One process, which is started again when it ends.

    Args:
        role: ``keeper``, or ``worker`` with a number.
        folder: with the `Spec`.
        listener: handed to it.
    """

    def __init__(self, role: str, folder: Path, *, listener: socket.socket) -> None:
        self.role = role
        self._folder = folder
        self._listener = listener
        self._n_quick = 0
        self._start_at = -math.inf
        self.start()

    def start(self) -> None:
        """Start the process."""
        self._started = time.monotonic()
        self.process: subprocess.Popen[bytes] | None = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "policylab.deployment.processes.worker",
                self.role.partition(" ")[0],
                str(self._folder),
            ],
            stdin=subprocess.PIPE,  # closed when this process ends, in whatever way
            pass_fds=[self._listener.fileno()],
            start_new_session=True,
        )

    def watch(self) -> None:
        """Start it again if it has ended; soon, unless it always ends soon."""
        now = time.monotonic()
        if self.process is not None and self.process.poll() is not None:
            self._n_quick = self._n_quick + 1 if now - self._started < QUICK_S else 0
            wait_s = 0.0 if self._n_quick == 0 else min(MAX_BACKOFF_S, 0.1 * 2.0 ** (self._n_quick - 1))
            logger.error("the %s has ended with code %d; it is started again", self.role, self.process.returncode)
            self._close()
            self._start_at = now + wait_s
        if self.process is None and now >= self._start_at:
            let_everybody_in(self._listener)  # a worker that was stopped by itself may have closed the door for all
            self.start()

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def end(self, timeout_s: float) -> None:
        """Wait until it has ended; kill it after some time."""
        if self.process is None:
            return
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            logger.error("the %s did not stop in %g s and is killed", self.role, timeout_s)
            self.process.kill()
            self.process.wait()
        self._close()

    def _close(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
        self.process = None


class Workers:
    """An endpoint of one keeper and several workers.

    Args:
        config: of the endpoint, with absolute paths.
        listener: where it listens.
        host: as the user gave it.
        state: folder of the endpoint's state; None keeps it until the end, so that a keeper's crash loses nothing.
        n_workers: at least 1.
        drain_s: how long clients are told to close their connections before the end.
    """

    def __init__(
        self,
        config: EndpointConfig,
        *,
        listener: socket.socket,
        host: str,
        state: Path | None,
        n_workers: int,
        drain_s: float,
    ) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="policylab-")
        self._folder = Path(self._temporary.name)
        self._listener = listener
        spec = Spec(
            config=config,
            host=host,
            state=(state or self._folder / "state").resolve(),
            listener=listener.fileno(),
            connections=math.ceil(config.limits.connections / n_workers),
            drain_s=drain_s,
        )
        (self._folder / SPEC).write_text(spec.model_dump_json())
        self._stop_s = STOP_S + 2.0 * drain_s
        self._n_workers = n_workers
        self._keeper: Child | None = None
        self._workers: list[Child] = []

    def start(self, url: str) -> None:
        """Start all processes; return when they answer at ``url``.

        Raises:
            RunError: the keeper cannot start; it has printed why.
        """
        self._listener.listen(2048)
        self._keeper = Child("keeper", self._folder, listener=self._listener)
        self._workers = [
            Child(f"worker {i + 1}", self._folder, listener=self._listener) for i in range(self._n_workers)
        ]
        until = time.monotonic() + START_S
        while not ((self._folder / SOCKET).exists() and _answers(url)):  # without a keeper an answer is waited for
            process = self._keeper.process
            if process is None or process.poll() is not None:
                raise RunError("the endpoint cannot start; what it said stands above")
            if time.monotonic() > until:
                raise RunError(f"the endpoint does not answer after {START_S:g} s")
            time.sleep(LOOK_S)

    def watch(self) -> None:
        """Start again what ends, for ever."""
        while True:
            for child in (self._keeper, *self._workers):
                if child is not None:
                    child.watch()
            time.sleep(LOOK_S)

    def stop(self) -> None:
        """Stop the workers, which finish what they have, then the keeper, which writes what was captured."""
        for worker in self._workers:
            worker.ask_to_stop()
        for worker in self._workers:
            worker.end(self._stop_s)
        if self._keeper is not None:
            self._keeper.ask_to_stop()
            self._keeper.end(self._stop_s)
        self._temporary.cleanup()


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/ping", timeout=5.0) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
