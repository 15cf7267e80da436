"""`SnapshotStore`: run folders carried between machines that share no file system, through any fsspec storage.

| in the store | content |
|---|---|
| KEY/snapshot.json | the folder's files: path -> sha256 of the content; replaced last, as a whole |
| KEY/objects/SHA256 | one file's content |

So a reader sees the folder as it was at one moment, whenever a writer died. Names that begin with a dot and ``*.lock``
belong to one machine and stay there. Contents pass through memory one file at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from policylab.errors import MissingExtraError, RunDirectoryError, StorageError, UserError
from policylab.extras import require
from policylab.files import canonical_json, write_atomic

ATTEMPTS = 20
"""Readings of a folder or a snapshot that may find it changed meanwhile."""

SPEC = "spec.json"
Files = dict[str, str]
"""Path below the folder -> sha256 of the content."""


class SnapshotStore:
    """Snapshots of folders below one URL.

    Args:
        url: of any fsspec storage, such as ``s3://BUCKET/PATH`` or ``file:///mnt/shared``.

    Raises:
        UserError, MissingExtraError: no such kind of storage, or its driver is not installed.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        try:
            self._storage, self._root = _opened(self._url)
        except ImportError as error:
            raise MissingExtraError(f"launcher.storage={url}: {error}") from None
        except ValueError as error:
            raise UserError(f"launcher.storage={url}: {error}; use a URL such as s3://BUCKET/PATH") from None
        except OSError as error:  # Arrow asks S3 for the bucket's region
            raise StorageError(f"launcher.storage={url}: {error}; check the bucket's name and credentials") from None

    def push(self, folder: Path, key: str) -> None:
        """Store the folder's files as they are now; what is there already is not sent again.

        Raises:
            StorageError: the storage refused, or the folder kept changing.
        """
        with self._errors(key):
            held = self._files(key) or {}
            files, contents = _consistent(folder, known=set(held.values()))
            for digest, content in contents.items():
                self._write(f"{key}/objects/{digest}", content)
            self._replace(f"{key}/snapshot.json", canonical_json({"schema_version": 1, "files": files}).encode())
            for digest in set(held.values()) - set(files.values()):
                with contextlib.suppress(FileNotFoundError):
                    self._storage.rm_file(self._path(f"{key}/objects/{digest}"))

    def pull(self, key: str, *, into: Path) -> bool:
        """Make the folder ``into`` equal to the stored one; return False if there is none.

        Folders that are new appear complete: a reader never sees half a checkpoint.

        Raises:
            StorageError: the storage refused, or holds damaged content.
        """
        with self._errors(key):
            for _ in range(ATTEMPTS):
                files = self._files(key)
                if files is None:
                    return False
                try:
                    self._fetch(key, files, into=into)
                except FileNotFoundError:  # a writer replaced the snapshot meanwhile
                    continue
                return True
        raise StorageError(f"{self._url}/{key}: files that its snapshot.json names are missing; delete {key} there")

    def exchange(self, folder: Path, key: str) -> None:
        """Bring folder and store together before a run: the store is right if it holds the same spec.json."""
        with self._errors(key):
            held = self._files(key)
        if held is not None and held.get(SPEC) == _digest((folder / SPEC).read_bytes()):
            self.pull(key, into=folder)
        else:
            self.push(folder, key)

    def _fetch(self, key: str, files: Mapping[str, str], *, into: Path) -> None:
        into.mkdir(parents=True, exist_ok=True)
        present = set(travelling_files(into))
        staged: dict[Path, Path] = {}
        # Files of the folder itself first: reports must never be behind the checkpoint they belong to.
        for name in sorted(files, key=lambda name: (name.count("/"), name)):
            target = into / name
            if name in present and _digest(target.read_bytes()) == files[name]:
                continue
            content = self._read(f"{key}/objects/{files[name]}")
            if _digest(content) != files[name]:
                raise StorageError(f"{self._url}/{key}/objects/{files[name]}: damaged; delete {key} there")
            write_atomic(_staged(target, into=into, staged=staged), content)
        for fresh, target in staged.items():
            fresh.rename(target)
        for name in present - set(files):
            (into / name).unlink(missing_ok=True)
        _remove_empty_folders(into)

    def _files(self, key: str) -> Files | None:
        try:
            return dict(json.loads(self._read(f"{key}/snapshot.json"))["files"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            raise StorageError(f"{self._url}/{key}/snapshot.json: damaged; delete {key} there") from None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _read(self, name: str) -> bytes:
        content: bytes = self._storage.cat_file(self._path(name))
        return content

    def _write(self, name: str, content: bytes) -> None:
        path = self._path(name)
        self._storage.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._storage.pipe_file(path, content)

    def _replace(self, name: str, content: bytes) -> None:
        fresh = f"{name}.{uuid.uuid4().hex}"
        self._write(fresh, content)
        self._storage.mv(self._path(fresh), self._path(name))

    @contextlib.contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except (StorageError, RunDirectoryError):
            raise
        except Exception as error:  # every kind of storage has its own exceptions
            raise StorageError(
                f"launcher.storage: {self._url}/{key}: {type(error).__name__}: {error}; "
                "what was stored before is intact"
            ) from error


def _opened(url: str) -> tuple[Any, str]:
    """Return the file system of ``url`` and the path in it.

    S3 by Arrow: the s3fs that fits beside a current boto3 is years old and cannot delete an object.
    """
    if not url.startswith("s3://"):
        opened: tuple[Any, str] = require("fsspec.core", extra="ray").url_to_fs(url)
        return opened
    storage, root = require("pyarrow.fs", extra="ray").FileSystem.from_uri(url)
    return require("fsspec.implementations.arrow", extra="ray").ArrowFSWrapper(storage), root


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def travelling_files(folder: Path) -> list[str]:
    """Return the paths below ``folder`` of the files of a run that travel to other machines, sorted."""
    found = []
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_file() and path.suffix != ".lock" and not any(part.startswith(".") for part in parts):
            found.append("/".join(parts))
    return sorted(found)


def _consistent(folder: Path, *, known: set[str]) -> tuple[Files, dict[str, bytes]]:
    """Return the folder's files at one moment and the contents that are not ``known``.

    Deeper files are read first: a run appends a report before it saves the checkpoint that goes with it.
    """
    for _ in range(ATTEMPTS):
        files: Files = {}
        contents: dict[str, bytes] = {}
        with contextlib.suppress(FileNotFoundError):
            names = travelling_files(folder)
            for name in sorted(names, key=lambda name: -name.count("/")):
                content = (folder / name).read_bytes()
                files[name] = _digest(content)
                if files[name] not in known:
                    contents[files[name]] = content
            if travelling_files(folder) == names:
                return files, contents
    raise StorageError(f"{folder}: its files kept changing while they were read")


def _staged(target: Path, *, into: Path, staged: dict[Path, Path]) -> Path:
    """Return where to write ``target`` so that a folder that does not exist yet appears complete."""
    missing = [parent for parent in target.parents if parent != into and into in parent.parents and not parent.exists()]
    if not missing:
        return target
    top = missing[-1]
    fresh = top.with_name(f".pulling-{top.name}")
    if fresh not in staged:
        shutil.rmtree(fresh, ignore_errors=True)
        staged[fresh] = top
    return fresh / target.relative_to(top)


def _remove_empty_folders(folder: Path) -> None:
    for path in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        with contextlib.suppress(OSError):  # not empty
            path.rmdir()
