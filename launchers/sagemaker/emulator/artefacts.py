"""What a job leaves behind: the hosts' files merged into model.tar.gz and output.tar.gz, and why it failed."""

from __future__ import annotations

import filecmp
import os
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from policylab.launchers.sagemaker.emulator.trees import place_inside, read_text
from policylab.launchers.sagemaker.object_store import ObjectStore

MAX_REASON = 1024
"""Characters of FailureReason."""

Entries = dict[str, tuple[str, Path]]
"""Path in the artefact -> the host that wrote it, and where."""


class Merged:
    """The files that all hosts left in the same folder.

    Hosts' files are merged on the service, and what happens to a path that two hosts wrote is not documented: here it
    is a clash unless both wrote the same.

    Attributes:
        entries: every path below the folder, folders too.
        clashes: one sentence per path on which hosts disagree.
        skipped: hosts whose folder a link leads elsewhere.
    """

    def __init__(self, trees: Mapping[str, Path], below: str) -> None:
        self.entries: Entries = {}
        self.clashes: list[str] = []
        self.skipped: list[str] = []
        for host, ml in trees.items():
            folder = place_inside(ml, below)
            if folder is None:
                self.skipped.append(host)
                continue
            for current, names, files in os.walk(folder):
                for name in sorted((*names, *files)):
                    path = Path(current, name)
                    self._add(path, path.relative_to(folder).as_posix(), host=host)

    def _add(self, path: Path, name: str, *, host: str) -> None:
        other_host, other = self.entries.setdefault(name, (host, path))
        if other_host != host and not _same(path, other):
            self.clashes.append(f"{name} (on {other_host} and {host})")

    @property
    def n_files(self) -> int:
        """Entries that are no folders."""
        return sum(not path.is_dir() or path.is_symlink() for _, path in self.entries.values())

    def pack(self, store: ObjectStore, uri: str, *, scratch: Path) -> None:
        """Store everything as one compressed archive.

        Raises:
            StorageError: it cannot be stored.
        """
        with tempfile.NamedTemporaryFile(dir=scratch, suffix=".tar.gz") as file:
            with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as archive:
                for name, (_, path) in sorted(self.entries.items()):
                    archive.add(path, arcname=name, recursive=False)
            file.flush()
            store.put_file(Path(file.name), uri)

    def store_plainly(self, store: ObjectStore, uri: str) -> None:
        """Store every regular file as an object of its own below ``uri``."""
        for name, (_, path) in sorted(self.entries.items()):
            if path.is_file() and not path.is_symlink():
                store.put_file(path, f"{uri}/{name}")


def _same(one: Path, other: Path) -> bool:
    if one.is_symlink() or other.is_symlink():
        return one.is_symlink() and other.is_symlink() and one.readlink() == other.readlink()
    if one.is_dir() or other.is_dir():
        return one.is_dir() and other.is_dir()
    return one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)


def failure_text(ml: Path) -> str:
    """Return what a host wrote to its failure file, stripped; empty if nothing."""
    folder = place_inside(ml, "output")
    return read_text(folder / "failure").strip() if folder else ""


def failure_reason(text: str, *, code: int) -> str:
    """Return FailureReason: the beginning of the failure file, with the exit code.

    >>> failure_reason("boom", code=3)
    'AlgorithmError: boom, exit code: 3'
    """
    tail = f", exit code: {code}"
    return f"AlgorithmError: {text}"[: MAX_REASON - len(tail)] + tail
