"""Checkpoints between the hosts and the store: restored on every host before it starts, then uploaded."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path

from policylab.launchers.sagemaker.emulator.trees import regular_files
from policylab.launchers.sagemaker.object_store import ObjectStore, relative_name


class CheckpointSync:
    """Keeps the objects below a prefix equal to what the hosts last wrote.

    There is one prefix for all hosts: a file that two hosts write is the one written last, and a file that one host
    deletes is deleted in the store, though other hosts may have a copy. Objects that arrive later are not pulled. As on
    the service, a file may be uploaded while it is being written; the upload after the last write is whole.

    Args:
        store: receives the objects.
        uri: the prefix.
        folders: each host's folder of checkpoints.
    """

    def __init__(self, store: ObjectStore, uri: str, *, folders: Mapping[str, Path]) -> None:
        self._store = store
        self._uri = uri.rstrip("/")
        self._folders = folders
        self._places = {host: folder.resolve() for host, folder in folders.items()}
        self._known: dict[str, dict[str, tuple[int, int, int]]] = {host: {} for host in folders}
        self._writers: dict[str, set[str]] = {}

    def restore(self) -> int:
        """Download every checkpoint to every host; return how many there are.

        Raises:
            StorageError: an object cannot be read, or its name would lead out of the folder.
        """
        found = [one for one in self._store.list(f"{self._uri}/") if not one.uri.endswith("/")]
        for host, folder in self._folders.items():
            for one in found:
                name = relative_name(one.uri, self._uri)
                self._store.get_file(one.uri, folder / name)
                self._known[host][name] = _version((folder / name).lstat())
        return len(found)

    def upload(self, *, without: Collection[str] = ()) -> int:
        """Upload what changed and delete what was deleted since the last call; return how many objects changed.

        Args:
            without: hosts that are gone, and with them what had not been uploaded.
        """
        changes = 0
        for host, folder in self._folders.items():
            if host in without or folder.resolve() != self._places[host]:  # a link leads it elsewhere
                continue
            now = {}
            for path in regular_files(folder):
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    now[path.relative_to(folder).as_posix()] = _version(path.lstat())
            known = self._known[host]
            for name in known.keys() - now.keys():
                self._store.delete(f"{self._uri}/{name}")
                del known[name]
                changes += 1
            for name, version in now.items():
                if known.get(name) != version and self._put(folder / name, name):
                    known[name] = version
                    self._writers.setdefault(name, set()).add(host)
                    changes += 1
        return changes

    def _put(self, path: Path, name: str) -> bool:
        """Upload a file unless it has gone."""
        if not (path.exists() and stat.S_ISREG(path.lstat().st_mode)):
            return False
        self._store.put_file(path, f"{self._uri}/{name}")
        return True

    def contested(self) -> list[str]:
        """Return the checkpoint files that more than one host wrote."""
        return sorted(name for name, writers in self._writers.items() if len(writers) > 1)


def _version(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns
