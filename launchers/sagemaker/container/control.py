"""The control connection between the hosts of a job: who is there, who is lost, and how the job ended.

The head listens before anything else; every other host holds one TCP connection to it, on which both write JSON lines.

| to the head | to the others |
|---|---|
| ``{"token", "host", "group"}``: the first line | ``{"state": "refused", "reason"}``, then the end |
| ``{"state": "ready"}``: its Ray node is up | ``{"state": "ray", "address"}``: the head's is |
| ``{"state": "lost", "reason"}``: its Ray node ended | ``{"state": "done", "code"}``: the job is over |
| ``{"state": "alive"}``: every few seconds | ``{"state": "alive"}`` |

The end of a connection tells of a process that died, silence of a machine that vanished. The token keeps the hosts of
other jobs away; it is no protection against one who can read the job's channels.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import queue
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any

HELLO_S = 5.0
"""Time that a connection gets to say who it is."""

MISSED = 6
"""Signs of life that may be missed in a row."""

MAX_LINE = 4096

Message = Mapping[str, Any]


class Line:
    """One end of a connection: messages, with a sign of life every so often.

    Args:
        connection: an open TCP connection; closed by `close`.
        heartbeat_s: time between two signs of life.
    """

    def __init__(self, connection: socket.socket, *, heartbeat_s: float) -> None:
        self._connection = connection
        self._file = connection.makefile("rb")
        self._heartbeat_s = heartbeat_s
        self._lock = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._live, daemon=True).start()

    def send(self, message: Message) -> None:
        """Send a message; one who is gone is noticed by the reader."""
        with self._lock, contextlib.suppress(OSError):
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def read(self, *, timeout_s: float) -> dict[str, Any]:
        """Return the next message.

        Raises:
            ConnectionError: the other end closed, was silent, or wrote something else.
        """
        self._connection.settimeout(timeout_s)
        try:
            line = self._file.readline(MAX_LINE)
            message = json.loads(line) if line.endswith(b"\n") else None
        except TimeoutError:
            raise ConnectionError(f"silent for {timeout_s:g} s") from None
        except (OSError, ValueError) as error:
            raise ConnectionError(str(error)) from None
        if not isinstance(message, dict):
            raise ConnectionError("it closed the connection" if not line else "it wrote no message")
        return message

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield messages, signs of life left out.

        Raises:
            ConnectionError: as `read`; the iterator never ends by itself.
        """
        while True:
            message = self.read(timeout_s=MISSED * self._heartbeat_s)
            if message.get("state") != "alive":
                yield message

    def _live(self) -> None:
        while not self._closed.wait(self._heartbeat_s):
            self.send({"state": "alive"})

    def close(self) -> None:
        """End the connection; what was sent still arrives."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)  # wakes who reads; a mere close would not
        self._connection.close()


class HeadControl:
    """The head's end of all connections.

    Args:
        address: IP address and port to listen at.
        token: what the first line of a connection must hold.
        expected: host -> group of the hosts that may join.
        heartbeat_s: time between two signs of life.
        events: receives {"event": "ready", "host"} and {"event": "lost", "host", "reason"}.

    Raises:
        OSError: the address cannot be listened at.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        token: str,
        expected: Mapping[str, str],
        heartbeat_s: float,
        events: queue.SimpleQueue[Any],
    ) -> None:
        self._token = token
        self._expected = dict(expected)
        self._heartbeat_s = heartbeat_s
        self._events = events
        self._lines: dict[str, Line] = {}
        self._met: set[str] = set()
        self._announced: Message | None = None
        self._lock = threading.Lock()
        self._listener = socket.create_server(address, backlog=64)
        threading.Thread(target=self._accept, daemon=True).start()

    def announce(self, message: Message) -> None:
        """Tell every host that has joined, and those that will join."""
        with self._lock:
            self._announced = message
            for line in self._lines.values():
                line.send(message)

    @property
    def joined(self) -> set[str]:
        """The hosts that are connected."""
        with self._lock:
            return set(self._lines)

    @property
    def met(self) -> set[str]:
        """The hosts that have been connected."""
        with self._lock:
            return set(self._met)

    def close(self) -> None:
        """Listen no more and end every connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for line in self._lines.values():
                line.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._attend, args=(connection,), daemon=True).start()

    def _attend(self, connection: socket.socket) -> None:
        line = Line(connection, heartbeat_s=self._heartbeat_s)
        with contextlib.closing(line), contextlib.suppress(ConnectionError):  # a stranger, such as a port scanner
            hello = line.read(timeout_s=HELLO_S)
            refusal = self._admit(line, hello)
            if refusal is None:
                self._listen(line, hello["host"])
            else:
                line.send({"state": "refused", "reason": refusal})

    def _listen(self, line: Line, host: str) -> None:
        try:
            for message in line.messages():
                self._events.put({**message, "event": message.get("state"), "host": host})
        except ConnectionError as error:
            with self._lock:
                del self._lines[host]
            self._events.put({"event": "lost", "host": host, "reason": f"worker host lost: {host}: {error}"})

    def _admit(self, line: Line, hello: Message) -> str | None:
        """Take a host in; return why it is refused, if it is."""
        host, token = hello.get("host"), hello.get("token")
        if not isinstance(token, str) or not hmac.compare_digest(token.encode(), self._token.encode()):
            return "the token is another job's"
        with self._lock:
            if not isinstance(host, str) or host not in self._expected or hello.get("group") != self._expected[host]:
                return f"{host!r} of group {hello.get('group')!r} is no host of this job"
            if host in self._lines:
                return f"{host!r} is connected already"
            self._lines[host] = line
            self._met.add(host)
            if self._announced is not None:
                line.send(self._announced)
        return None


def connect(address: tuple[str, int], hello: Message, *, heartbeat_s: float) -> Line:
    """Connect to the head and say who this is.

    Raises:
        OSError: nobody listens there yet, or the name is not known yet.
    """
    line = Line(socket.create_connection(address, timeout=HELLO_S), heartbeat_s=heartbeat_s)
    line.send(hello)
    return line
