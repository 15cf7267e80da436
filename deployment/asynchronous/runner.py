"""`AsyncRunner`: takes asynchronous invocations from their queue, decides, and writes answers and failures.

Each of a fixed number of threads has one invocation at a time. An invocation is executed at least once: one whose
process is killed is executed again, and its decision is the same, since it is a function of its inference id.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from policylab.deployment.asynchronous.notifications import Topics
from policylab.deployment.asynchronous.queue import MAX_ATTEMPTS, AsyncQueue, Invocation
from policylab.deployment.decision import Refusal
from policylab.deployment.http import wire
from policylab.errors import StorageError
from policylab.launchers.sagemaker.object_store import FolderStore, NoSuchObjectError

RETRY_S = 1.0
"""Between attempts at a disk that is full."""
STOP_S = 30.0
Answered = Callable[[wire.Headers, bytes], wire.Response]
logger = logging.getLogger(__name__)


class AsyncRunner:
    """Executes the invocations of one endpoint.

    Args:
        queue: holds them.
        folder: of all locations.
        answered: returns the response to the headers and the body of an invocation; called on several threads.
        n_threads: invocations at the same time.
        max_bytes: of one input.
        topics: are told of every end; default: nobody is.
        wall_clock: seconds since 1970.
    """

    def __init__(
        self,
        queue: AsyncQueue,
        folder: Path,
        *,
        answered: Answered,
        n_threads: int,
        max_bytes: int,
        topics: Topics | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._store = FolderStore(folder)
        self._answered = answered
        self._max_bytes = max_bytes
        self._topics = topics
        self._wall_clock = wall_clock
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name=f"asynchronous-{i}", daemon=True) for i in range(n_threads)
        ]

    def start(self) -> None:
        """Begin with what waits."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish what is under way; what waits goes on waiting on the disk."""
        self._stopped.set()
        self._queue.stop()
        until = time.monotonic() + STOP_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                invocation = self._queue.take()
                if invocation is None:
                    return
                self.execute(invocation)
            except StorageError:  # a full disk must not end the thread
                logger.exception("asynchronous invocations wait for the disk")
                self._stopped.wait(RETRY_S)

    def execute(self, invocation: Invocation) -> None:
        """Execute one invocation that was taken.

        Raises:
            StorageError: its end cannot be noted.
        """
        try:
            found = self._too_late(invocation) or self._decide(invocation)
            self._write(invocation, found)
        except StorageError:
            logger.exception("the end of invocation '%s' cannot be written", invocation.inference_id)
            if invocation.attempts < MAX_ATTEMPTS:
                self._stopped.wait(RETRY_S)
                self._queue.again(invocation)
            else:
                self._queue.finish(invocation, "failed", now=self._wall_clock())
            return
        self._queue.finish(invocation, "failed" if isinstance(found, Refusal) else "done", now=self._wall_clock())

    def _too_late(self, invocation: Invocation) -> Refusal | None:
        if self._wall_clock() > invocation.expires:
            return Refusal("the invocation expired in the queue (RequestTTLSeconds)", kind="late")
        if invocation.attempts > MAX_ATTEMPTS:
            return Refusal(f"the server ended {MAX_ATTEMPTS} times while it was executed", kind="failed")
        return None

    def _write(self, invocation: Invocation, found: bytes | Refusal) -> None:
        """Write an answer or a failure to its location, and tell of it."""
        failed = isinstance(found, Refusal)
        content = _failure(found, invocation) if isinstance(found, Refusal) else found
        self._store.put_bytes(content, invocation.failure if failed else invocation.output)
        if self._topics is not None:
            failure = str(found) if failed else None
            self._topics.tell(invocation, content, failure=failure, now=self._wall_clock())

    def _decide(self, invocation: Invocation) -> bytes | Refusal:
        """Return the answer, or why there is none."""
        begun = time.monotonic()
        headers = {name.encode(): value.encode("latin-1") for name, value in invocation.headers.items()}
        headers[wire.INFERENCE_ID] = invocation.inference_id.encode()
        try:
            _, _, content = self._answered(headers, self._input(invocation))
        except Refusal as refusal:
            return refusal
        except Exception:
            logger.exception("invocation '%s' failed", invocation.inference_id)
            return Refusal("the server failed; its log says why", kind="failed")
        if time.monotonic() - begun > invocation.timeout_s:
            return Refusal(f"the invocation took more than {invocation.timeout_s:g} s", kind="late")
        return content

    def _input(self, invocation: Invocation) -> bytes:
        if invocation.input is None:
            return invocation.body or b""
        try:
            if self._store.size(invocation.input) > self._max_bytes:
                raise Refusal(f"{invocation.input} is larger than {self._max_bytes} bytes", kind="too_large")
            return self._store.get_bytes(invocation.input)
        except NoSuchObjectError as error:
            raise Refusal(str(error), kind="observation") from None
        except OSError as error:
            raise Refusal(f"{invocation.input}: {error.strerror}", kind="observation") from None


def _failure(refusal: Refusal, invocation: Invocation) -> bytes:
    _, _, content = wire.refused(refusal, wrapped=True)
    return json.dumps({"InferenceId": invocation.inference_id, **json.loads(content)}).encode()


def counts_as_metrics(counts: dict[str, int]) -> Sequence[tuple[str, str, list[tuple[dict[str, str], float]]]]:
    """Return the states of a queue for Prometheus."""
    samples = [({"state": state}, float(n)) for state, n in counts.items()]
    return [("asynchronous_invocations", "asynchronous invocations; the ended ones of some hours", samples)]
