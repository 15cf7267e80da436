"""Durable files: atomic writes, flushed appends, canonical JSON, content hashes, locks.

Source of the write protocol: temporary file in the same folder, fsync, rename over the target, fsync
of the folder (POSIX ``rename`` is atomic within a file system).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from policylab.errors import RunDirectoryError, StorageError

_line = json.JSONEncoder(sort_keys=True).encode


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into one StorageError that names ``path``."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}; what was written before is intact, "
            "free space or fix permissions, then resume"
        ) from error


def write_synced(path: Path, content: bytes | str) -> None:
    """Write ``content`` to ``path`` and to the disk: for a file in a folder that is renamed into place when complete.

    Raises:
        StorageError: the disk is full or the folder is not writable; a part may be at ``path``.
    """
    payload = content.encode() if isinstance(content, str) else content
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace ``path`` by ``content`` so that a reader sees the old or the new file, never a part.

    Raises:
        StorageError: the disk is full or the folder is not writable; ``path`` is unchanged.
    """
    payload = content.encode() if isinstance(content, str) else content
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def copy_folder(source: Path, target: Path) -> None:
    """Replace ``target`` by a copy of the folder ``source``, renamed into place when it is complete.

    Raises:
        StorageError: the disk is full, or ``source`` cannot be read; no part of a copy is at ``target``.
    """
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        for leftover in target.parent.glob(f".{target.name}.copy-*"):
            shutil.rmtree(leftover)
        fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.copy-"))
        shutil.copytree(source, fresh, dirs_exist_ok=True)
        for path in fresh.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        sync_folder(fresh)
        if target.exists():
            shutil.rmtree(target)
        fresh.rename(target)
        sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def append_line(path: Path, record: Any) -> None:
    """Append one JSON record as one line, in a single write.

    Raises:
        StorageError: the write failed; the file is as it was.
    """
    append_lines(path, [record])


def append_lines(path: Path, records: Iterable[Any]) -> None:
    """Append JSON records, one line each, all in a single write: a killed process leaves all of them or none.

    Raises:
        StorageError: the write failed; the file is as it was.
    """
    lines = "".join(f"{_line(record)}\n" for record in records).encode()
    with storage_errors(path), path.open("ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        try:
            written = file.write(lines)
            if written < len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(size)
            raise


def drop_torn_tail(path: Path) -> None:
    """Cut off a last line without its newline, which a process killed while writing may have left."""
    if path.exists():
        with storage_errors(path), path.open("r+b") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                file.truncate(whole)


def read_lines(path: Path, *, known: int = 0) -> list[Any]:
    """Return the complete JSON records of an append-only file, but the first ``known``; a torn last line is left out.

    Raises:
        RunDirectoryError: a line that is not the last one is damaged.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    records: list[Any] = []
    for number, line in enumerate(lines[known:-1], start=known + 1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            if number == len(lines) - 1:
                break
            raise RunDirectoryError(f"{path}:{number}: not a JSON record; restore the file from a copy") from error
    return records


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        RunDirectoryError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise RunDirectoryError(f"{path}: cannot be read: {error}; restore it from a copy") from None


def canonical_json(value: Any) -> str:
    """Return the one JSON text of ``value``: sorted keys, no spaces, no NaN.

    >>> canonical_json({"b": 1, "a": [1.0, None]})
    '{"a":[1.0,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_hash(value: Any) -> str:
    """Return the sha256 hex digest of ``value`` as canonical JSON.

    >>> content_hash({"a": 1})[:12]
    '015abd7f5cc5'
    """
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def is_locked(path: Path) -> bool:
    """Whether a live process holds the lock on the file ``path``.

    >>> is_locked(Path("no-such-file.lock"))
    False
    """
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # it was never taken, or cannot be told
        return False
    return False


@contextlib.contextmanager
def locked(path: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold an exclusive lock on the file ``path``; the kernel frees it when the process ends.

    Raises:
        RunDirectoryError: another live process holds it after ``wait_s`` seconds.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    deadline = time.monotonic() + wait_s
    with file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise RunDirectoryError(
                        f"{path.parent} is in use by another policylab process; wait for it or stop it"
                    ) from error
                time.sleep(0.05)
        yield
