"""`LineFile`: JSON lines in a folder per hour, each write whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from policylab.deployment.capture.format import hour_folder

logger = logging.getLogger(__name__)


def _encoder() -> Callable[[Any], bytes]:
    """Return what makes JSON: msgspec, which the server has and which takes a sixth of the time, or else json."""
    try:
        import msgspec
    except ImportError:
        return lambda line: json.dumps(line, separators=(",", ":")).encode()
    return msgspec.json.encode


class LineFile:
    """Lines that are collected and appended to files of one folder, a folder per hour, whole or not at all.

    Args:
        folder: receives yyyy/mm/dd/hh/.
        max_bytes: size at which a new file is begun.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.n_waiting_bytes = 0
        self._encode = _encoder()
        self._waiting: dict[str, list[bytes]] = {}
        self._path: Path | None = None
        self._size = 0

    def add(self, line: Mapping[str, Any], *, time_s: float) -> None:
        """Collect a line of some moment."""
        content = self._encode(line) + b"\n"
        self._waiting.setdefault(hour_folder(time_s), []).append(content)
        self.n_waiting_bytes += len(content)

    def flush(self) -> tuple[int, int]:
        """Append what was collected; return how many lines were written, and how many could not be and are lost."""
        waiting, self._waiting, self.n_waiting_bytes = self._waiting, {}, 0
        n_written, n_lost = 0, 0
        for hour, lines in waiting.items():
            try:
                self._append(self.folder / hour, lines)
                n_written += len(lines)
            except OSError as error:
                n_lost += len(lines)
                logger.warning("%d lines for %s are lost: %s", len(lines), self.folder, error.strerror or error)
        return n_written, n_lost

    def _append(self, hour: Path, lines: list[bytes]) -> None:
        handle = self._opened(hour)
        content = b"".join(lines)
        before = os.fstat(handle).st_size
        try:
            if os.write(handle, content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._size = before + len(content)
        except OSError:
            os.ftruncate(handle, before)  # no torn line in the middle of a file
            raise
        finally:
            os.close(handle)

    def _opened(self, hour: Path) -> int:
        """Open the file of an hour to append to it: the one before, or a new one if somebody has moved that away."""
        flags = os.O_WRONLY | os.O_APPEND
        if self._path is not None and self._path.parent == hour and self._size < self.max_bytes:
            with contextlib.suppress(FileNotFoundError):
                return os.open(self._path, flags)
        hour.mkdir(parents=True, exist_ok=True)
        moment = datetime.now(UTC).strftime("%M-%S-%f")
        self._path, self._size = hour / f"{moment}-{uuid.uuid4()}.jsonl", 0
        return os.open(self._path, flags | os.O_CREAT, 0o640)
