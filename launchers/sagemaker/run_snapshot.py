"""Snapshots of a run's folder for a storage that is synchronised file by file, such as /opt/ml/checkpoints.

| file | content |
|---|---|
| NNNNNN-DIGEST.tar | the run's folder at one moment; DIGEST begins the sha256 of the file |
| reports.jsonl, result.json | copies of the newest snapshot's, for readers that want no checkpoint |

SageMaker uploads the folder continuously, in an order of its own, and may be cut off anywhere. One snapshot is one
file, so it is there whole or not at all, and the digest in its name tells which; the two newest are kept, so that one
is whole while the next is on its way. There is one writer: the head of a job.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from policylab.errors import RunDirectoryError, StorageError
from policylab.files import storage_errors, sync_folder, write_atomic
from policylab.launchers.snapshots import ATTEMPTS, travelling_files

KEPT = 2
LOOSE = ("reports.jsonl", "result.json")
_NAME = re.compile(r"(\d{6})-([0-9a-f]{16})\.tar")

logger = logging.getLogger(__name__)


def save_snapshot(folder: Path, *, into: Path) -> Path:
    """Store the run's folder as it is now; return the snapshot, the newest one if it holds the same.

    Raises:
        StorageError: a write failed, or the folder kept changing; earlier snapshots are intact.
    """
    with storage_errors(into):
        into.mkdir(parents=True, exist_ok=True)
        for leftover in into.glob(".saving-*"):
            leftover.unlink()
        earlier = _snapshots(into)
        with tempfile.NamedTemporaryFile(dir=into, prefix=".saving-", delete=False) as file:
            fresh = Path(file.name)
            try:
                digest = _write(folder, file)
            except BaseException:
                fresh.unlink()
                raise
        if earlier and earlier[-1].stem.endswith(digest):
            fresh.unlink()
            return earlier[-1]
        number = int(earlier[-1].stem[:6]) + 1 if earlier else 1
        target = into / f"{number:06d}-{digest}.tar"
        fresh.chmod(0o644)
        fresh.rename(target)
        sync_folder(into)
        for old in earlier[: 1 - KEPT]:
            old.unlink()
    for name in LOOSE:
        if (folder / name).exists():
            write_atomic(into / name, (folder / name).read_bytes())
    return target


def restore_snapshot(source: Path, *, into: Path) -> bool:
    """Make ``into``, which must not exist, the run's folder of the newest whole snapshot; return False without any.

    Raises:
        RunDirectoryError: there are snapshots, and every one is damaged.
        StorageError: a write failed.
    """
    snapshots = _snapshots(source)
    for snapshot in reversed(snapshots):
        if _digest(snapshot) != _digest_in_name(snapshot):
            logger.warning("%s is incomplete or damaged: the one before it is used", snapshot)
            continue
        with storage_errors(into):
            fresh = into.with_name(f".{into.name}.restoring")
            shutil.rmtree(fresh, ignore_errors=True)
            try:
                with tarfile.open(snapshot) as archive:
                    archive.extractall(fresh, filter="data")
            except tarfile.TarError as error:
                raise RunDirectoryError(f"{snapshot}: not a snapshot of a run: {error}; delete it") from None
            fresh.rename(into)
        return True
    if snapshots:
        raise RunDirectoryError(f"{source}: every snapshot is damaged; delete them to train this run from its start")
    return False


def _snapshots(folder: Path) -> list[Path]:
    """Return the snapshots, the newest last."""
    return sorted(path for path in folder.glob("*.tar") if _NAME.fullmatch(path.name))


def _digest_in_name(snapshot: Path) -> str:
    return snapshot.stem.partition("-")[2]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _write(folder: Path, file: IO[bytes]) -> str:
    """Write the archive of one moment and return the beginning of its sha256.

    The newest checkpoint is opened first, as a whole: a run that goes on may remove it, but not what is open; and it
    appends a report before it saves the checkpoint that goes with it, so reports are never behind.
    """
    for _ in range(ATTEMPTS):
        with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as opened:
            newest = _newest(folder)
            names = travelling_files(folder)
            below = [name for name in names if newest is not None and (folder / name).is_relative_to(newest)]
            ordered = [*below, *(name for name in names if not name.startswith("checkpoints/"))]
            contents = {name: opened.enter_context((folder / name).open("rb")) for name in ordered}
            if _newest(folder) == newest:  # else it may have been listed while it was removed
                return _archive(contents, file)
    raise StorageError(f"{folder}: its checkpoints kept changing while they were read")


def _newest(folder: Path) -> Path | None:
    return max((folder / "checkpoints").glob("[0-9]*"), default=None)


def _archive(contents: Mapping[str, IO[bytes]], file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    with tarfile.open(fileobj=_Tee(file, digest.update), mode="w|", format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = os.fstat(content.fileno()).st_size
            archive.addfile(member, content)
    file.flush()
    return digest.hexdigest()[:16]


class _Tee:
    """Writes to a file and tells what it wrote."""

    def __init__(self, file: IO[bytes], tell: Callable[[bytes], None]) -> None:
        self._file = file
        self._tell = tell

    def write(self, content: bytes) -> int:
        self._tell(content)
        return self._file.write(content)
