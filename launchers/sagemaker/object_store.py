"""Where the files of training jobs lie: S3, or a folder of this machine in its place. Names are ``s3://BUCKET/KEY``.

| name | what it is |
|---|---|
| `ObjectStore` | what both can do |
| `S3Store` | through a boto3 client |
| `FolderStore` | ROOT/BUCKET/KEY on disk, for the emulator and for tests of other parts |
| `StoredObject` | one object of a listing |
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from policylab.errors import StorageError, UserError
from policylab.extras import require
from policylab.files import storage_errors

N_TRANSFERS = 8
"""Objects of a folder that travel at the same time."""


class NoSuchObjectError(StorageError):
    """No object has this name."""


@dataclasses.dataclass(frozen=True, slots=True)
class StoredObject:
    """An object in a store.

    Attributes:
        uri: its name, ``s3://BUCKET/KEY``.
        size: in bytes.
        etag: differs whenever the content does.
        modified: when it was written, in UTC.
    """

    uri: str
    size: int
    etag: str
    modified: datetime.datetime


class ObjectStore(Protocol):
    """Objects by name. A reader sees an object as it was before a write or after it, never a part.

    Every method raises `StorageError` when the store refuses, and `UserError` for a name that is not
    ``s3://BUCKET/KEY``.
    """

    def put_bytes(self, content: bytes, uri: str) -> None:
        """Write an object."""
        ...

    def put_file(self, path: Path, uri: str) -> None:
        """Write an object from a file."""
        ...

    def get_bytes(self, uri: str) -> bytes:
        """Return an object's content.

        Raises:
            NoSuchObjectError: there is none.
        """
        ...

    def get_file(self, uri: str, path: Path) -> None:
        """Write an object's content to a file, which appears complete; its folders are made.

        Raises:
            NoSuchObjectError: there is none.
        """
        ...

    def exists(self, uri: str) -> bool:
        """Return whether there is an object of exactly this name."""
        ...

    def list(self, prefix: str) -> list[StoredObject]:
        """Return the objects whose names begin with ``prefix``, sorted by name; a trailing ``/`` makes it a folder."""
        ...

    def delete(self, uri: str) -> None:
        """Remove an object; nothing happens if there is none."""
        ...

    def upload_folder(self, folder: Path, prefix: str) -> None:
        """Write every file below ``folder`` as ``prefix/PATH``; other objects below ``prefix`` stay."""
        ...

    def download_folder(self, prefix: str, folder: Path) -> None:
        """Write every object below ``prefix/`` into ``folder``; other files in it stay.

        Raises:
            StorageError: an object's name would lead out of the folder.
        """
        ...


class _Folders:
    """The part of a store that follows from the others."""

    def upload_folder(self: ObjectStore, folder: Path, prefix: str) -> None:
        """Write every file below ``folder`` as ``prefix/PATH``; other objects below ``prefix`` stay."""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        with ThreadPoolExecutor(N_TRANSFERS) as pool:
            names = [f"{prefix.rstrip('/')}/{path.relative_to(folder).as_posix()}" for path in files]
            for _ in pool.map(self.put_file, files, names):
                pass

    def download_folder(self: ObjectStore, prefix: str, folder: Path) -> None:
        """Write every object below ``prefix/`` into ``folder``; other files in it stay."""
        found = [one for one in self.list(f"{prefix.rstrip('/')}/") if not one.uri.endswith("/")]
        targets = [folder / relative_name(one.uri, prefix) for one in found]
        folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(N_TRANSFERS) as pool:
            for _ in pool.map(self.get_file, [one.uri for one in found], targets):
                pass


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key.

    >>> split_uri("s3://bucket/a/b")
    ('bucket', 'a/b')

    Raises:
        UserError: it is no such name.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise UserError(f"{uri!r} is not a name such as s3://BUCKET/KEY")
    return bucket, key


def relative_name(uri: str, prefix: str) -> str:
    """Return the path of an object below ``prefix``.

    >>> relative_name("s3://bucket/runs/a/spec.json", "s3://bucket/runs")
    'a/spec.json'

    Raises:
        StorageError: it would lead out of a folder.
    """
    name = uri.removeprefix(f"{prefix.rstrip('/')}/")
    if name == uri or not _stays_inside(name):
        raise StorageError(f"{uri}: its name leads out of the folder {prefix}; delete the object")
    return name


def _stays_inside(name: str) -> bool:
    parts = name.removesuffix("/").split("/")
    return not any(part in ("", ".", "..") or "\0" in part for part in parts)


class S3Store(_Folders):
    """Objects in S3.

    Args:
        client: ``boto3.client("s3")``.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._failures = require("botocore.exceptions", extra="sagemaker")

    def put_bytes(self, content: bytes, uri: str) -> None:
        """Write an object."""
        bucket, key = split_uri(uri)
        with self._errors(uri):
            self._client.put_object(Bucket=bucket, Key=key, Body=content)

    def put_file(self, path: Path, uri: str) -> None:
        """Write an object from a file, in parts if it is large."""
        bucket, key = split_uri(uri)
        with self._errors(uri):
            self._client.upload_file(str(path), bucket, key)

    def get_bytes(self, uri: str) -> bytes:
        """Return an object's content."""
        bucket, key = split_uri(uri)
        with self._errors(uri):
            content: bytes = self._client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    def get_file(self, uri: str, path: Path) -> None:
        """Write an object's content to a file."""
        bucket, key = split_uri(uri)
        with self._errors(uri), _complete(path, folder=path.parent) as fresh:
            self._client.download_file(bucket, key, str(fresh))

    def exists(self, uri: str) -> bool:
        """Return whether there is an object of exactly this name."""
        bucket, key = split_uri(uri)
        try:
            with self._errors(uri):
                self._client.head_object(Bucket=bucket, Key=key)
        except NoSuchObjectError:
            return False
        return True

    def list(self, prefix: str) -> list[StoredObject]:
        """Return the objects whose names begin with ``prefix``."""
        bucket, key = split_uri(prefix)
        with self._errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
            return [
                StoredObject(f"s3://{bucket}/{one['Key']}", one["Size"], one["ETag"].strip('"'), one["LastModified"])
                for page in pages
                for one in page.get("Contents", [])
            ]

    def delete(self, uri: str) -> None:
        """Remove an object."""
        bucket, key = split_uri(uri)
        with self._errors(uri):
            self._client.delete_object(Bucket=bucket, Key=key)

    @contextlib.contextmanager
    def _errors(self, uri: str) -> Iterator[None]:
        """Turn what boto3 raises into one sentence."""
        try:
            yield
        except self._failures.ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in ("404", "NoSuchKey", "NotFound"):
                raise NoSuchObjectError(f"{uri}: no such object") from None
            raise StorageError(f"{uri}: S3 refuses ({code}): {_reason(error)}") from error
        except (self._failures.BotoCoreError, require("boto3.exceptions", extra="sagemaker").Boto3Error) as error:
            raise StorageError(f"{uri}: S3 cannot be used: {error}") from error


def _reason(error: Any) -> str:
    message: str = error.response.get("Error", {}).get("Message") or str(error)
    return message


class FolderStore(_Folders):
    """Objects as the files ROOT/BUCKET/KEY.

    Unlike S3 it cannot hold an object ``a`` beside an object ``a/b``.

    Args:
        root: made when the first object is written.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def put_bytes(self, content: bytes, uri: str) -> None:
        """Write an object."""
        self._write(uri, lambda fresh: fresh.write_bytes(content))

    def put_file(self, path: Path, uri: str) -> None:
        """Write an object from a file."""
        self._write(uri, lambda fresh: shutil.copyfile(path, fresh))

    def _write(self, uri: str, fill: Callable[[Path], object]) -> None:
        path = self._path(uri)
        with _complete(path, folder=self._root / ".partial") as fresh:
            fill(fresh)

    def get_bytes(self, uri: str) -> bytes:
        """Return an object's content."""
        with self._reading(uri) as path:
            return path.read_bytes()

    def get_file(self, uri: str, path: Path) -> None:
        """Write an object's content to a file."""
        with (
            self._reading(uri) as source,
            source.open("rb") as content,
            _complete(path, folder=path.parent) as fresh,
            fresh.open("wb") as target,
        ):
            shutil.copyfileobj(content, target)

    def exists(self, uri: str) -> bool:
        """Return whether there is an object of exactly this name."""
        return self._path(uri).is_file()

    def size(self, uri: str) -> int:
        """Return the bytes of an object.

        Raises:
            NoSuchObjectError: there is none.
        """
        with self._reading(uri) as path:
            return path.stat().st_size

    def list(self, prefix: str) -> list[StoredObject]:
        """Return the objects whose names begin with ``prefix``."""
        bucket, key = split_uri(prefix)
        home = self._root / bucket
        below = home / PurePosixPath(key if key.endswith("/") else key.rpartition("/")[0])
        found = []
        for path in below.rglob("*") if not key or _stays_inside(key) else ():
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                name, status = path.relative_to(home).as_posix(), path.stat()
                if name.startswith(key) and path.is_file():
                    modified = datetime.datetime.fromtimestamp(status.st_mtime, datetime.UTC)
                    etag = f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"
                    found.append(StoredObject(f"s3://{bucket}/{name}", status.st_size, etag, modified))
        return sorted(found, key=lambda one: one.uri)

    def delete(self, uri: str) -> None:
        """Remove an object."""
        path = self._path(uri)
        with storage_errors(path), contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            path.unlink()

    def _path(self, uri: str) -> Path:
        bucket, key = split_uri(uri)
        if not key or key.endswith("/") or bucket in (".", "..", ".partial") or not _stays_inside(key):
            raise UserError(f"{uri!r} cannot name a file below {self._root}; use plain names between the slashes")
        return self._root / bucket / key

    @contextlib.contextmanager
    def _reading(self, uri: str) -> Iterator[Path]:
        path = self._path(uri)
        try:
            yield path
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise NoSuchObjectError(f"{uri}: no such object") from None


@contextlib.contextmanager
def _complete(path: Path, *, folder: Path) -> Iterator[Path]:
    """Yield a new file in ``folder`` to fill; it takes the place of ``path`` afterwards, or is removed on an error."""
    with storage_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".{path.name[:64]}.")
        os.close(handle)
        fresh = Path(name)
        try:
            yield fresh
            fresh.chmod(0o644)
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh.replace(path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
