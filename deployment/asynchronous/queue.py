"""`AsyncQueue`: asynchronous invocations on disk, from their arrival until some time after their end.

    waiting --take--> running --finish--> done | failed

An invocation that was told to its client is on the disk (SQLite, write-ahead log, flushed at every change). Those that
ran when the process was killed wait again; one that has ended the process `MAX_ATTEMPTS` times is given up.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from policylab.deployment.decision import Refusal
from policylab.errors import StorageError, UserError

MAX_ATTEMPTS = 3
KEEP_S = 21_600.0
"""How long the end of an invocation is remembered, so that a repeated request finds it."""
SCHEMA_VERSION = 2
_TABLE = """
CREATE TABLE IF NOT EXISTS invocations (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT UNIQUE,
    inference_id TEXT NOT NULL,
    input TEXT,
    body BLOB,
    headers TEXT NOT NULL,
    output TEXT NOT NULL,
    failure TEXT NOT NULL,
    expires REAL NOT NULL,
    timeout_s REAL NOT NULL,
    received REAL NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'waiting',
    attempts INTEGER NOT NULL DEFAULT 0,
    ended REAL
);
CREATE INDEX IF NOT EXISTS by_state ON invocations (state, number);
CREATE INDEX IF NOT EXISTS by_end ON invocations (ended);
"""

Outcome = Literal["done", "failed"]


@dataclasses.dataclass(frozen=True, slots=True)
class Invocation:
    """One asynchronous invocation.

    Attributes:
        key: tells a repeated request.
        inference_id: as the client named it, or as it was named here.
        input: location of the body, or None if it came with the request.
        body: then the body.
        headers: of the invocation, as a container would get them.
        output: location of the answer.
        failure: location of the failure.
        expires: when it is too late to begin, in seconds since 1970.
        timeout_s: how long it may take.
        received: when it came, in seconds since 1970.
        number: its place in the queue, once it has one.
        attempts: how often it was begun.
    """

    key: str
    inference_id: str
    input: str | None
    body: bytes | None
    headers: dict[str, str]
    output: str
    failure: str
    expires: float
    timeout_s: float
    received: float = 0.0
    number: int = 0
    attempts: int = 0

    def same(self, other: Invocation) -> bool:
        """Return whether both ask for the same."""
        return (self.input, self.body, self.headers) == (other.input, other.body, other.headers)


_FIELDS = [field.name for field in dataclasses.fields(Invocation)]


class AsyncQueue:
    """The queue of one endpoint; one process at a time uses it.

    Args:
        path: of its file; made if needed.
        max_waiting: most invocations that wait.

    Raises:
        UserError: the file is no such queue.
        StorageError: it cannot be written.
    """

    def __init__(self, path: Path, *, max_waiting: int) -> None:
        self._path = path
        self._max_waiting = max_waiting
        self._changed = threading.Condition()
        self._stopping = False
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version not in (0, 1, SCHEMA_VERSION):
                raise UserError(f"{path} is a queue of another version of policylab; let that one finish it")
            self._connection.executescript(_TABLE)
            if version == 1:
                self._connection.execute("ALTER TABLE invocations ADD COLUMN received REAL NOT NULL DEFAULT 0")
            self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._connection.execute("UPDATE invocations SET state = 'waiting' WHERE state = 'running'")

    def add(self, invocation: Invocation, *, now: float) -> Invocation:
        """Put an invocation at the end; return it, or the one that the same request had made before.

        Raises:
            Refusal: its id was used for something else, or too many wait.
            StorageError: the disk is full.
        """
        with self._changed, self._errors():
            self._connection.execute("DELETE FROM invocations WHERE ended < ?", (now - KEEP_S,))
            found = self._one("SELECT * FROM invocations WHERE key = ?", invocation.key)
            if found is not None and not found.same(invocation):
                raise Refusal(f"the {found.key[:80]} was used for another request; give each its own", kind="invalid")
            if found is not None:
                return found
            if self.counts()["waiting"] >= self._max_waiting:
                raise Refusal("too many invocations wait (asynchronous.max_waiting)", kind="busy", retry_after_s=1.0)
            stored = {**dataclasses.asdict(invocation), "headers": json.dumps(invocation.headers)}
            del stored["number"]
            names = ", ".join(stored)
            marks = ", ".join("?" * len(stored))
            self._connection.execute(f"INSERT INTO invocations ({names}) VALUES ({marks})", tuple(stored.values()))
            self._changed.notify()
            return invocation

    def take(self) -> Invocation | None:
        """Return the next invocation, which runs from now on; waits for one, and returns None when it is over.

        Raises:
            StorageError: the disk is full.
        """
        with self._changed:
            while not self._stopping:
                with self._errors():
                    found = self._one(
                        "UPDATE invocations SET state = 'running', attempts = attempts + 1 WHERE number = "
                        "(SELECT number FROM invocations WHERE state = 'waiting' ORDER BY number LIMIT 1) RETURNING *"
                    )
                if found is not None:
                    return found
                self._changed.wait()
            return None

    def finish(self, invocation: Invocation, outcome: Outcome, *, now: float) -> None:
        """Note the end of an invocation.

        Raises:
            StorageError: the disk is full.
        """
        with self._changed, self._errors():
            self._connection.execute(
                "UPDATE invocations SET state = ?, ended = ? WHERE number = ?", (outcome, now, invocation.number)
            )

    def again(self, invocation: Invocation) -> None:
        """Let an invocation wait again, at its old place.

        Raises:
            StorageError: the disk is full.
        """
        with self._changed, self._errors():
            self._connection.execute("UPDATE invocations SET state = 'waiting' WHERE number = ?", (invocation.number,))
            self._changed.notify()

    def counts(self) -> dict[str, int]:
        """Return how many invocations there are in each state."""
        with self._changed:
            rows = self._connection.execute("SELECT state, COUNT(*) FROM invocations GROUP BY state").fetchall()
        return {"waiting": 0, "running": 0, "done": 0, "failed": 0, **dict(rows)}

    def stop(self) -> None:
        """Let nobody take or wait any more."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def close(self) -> None:
        """Close the file."""
        with self._changed:
            self._connection.close()

    def _one(self, statement: str, *values: Any) -> Invocation | None:
        cursor = self._connection.execute(statement, values)
        row = cursor.fetchone()
        if row is None:
            return None
        found = dict(zip((column[0] for column in cursor.description), row, strict=True))
        found["headers"] = json.loads(found["headers"])
        return Invocation(**{name: found[name] for name in _FIELDS})

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"{self._path}: {error}; free space, or mend or remove the file") from error
