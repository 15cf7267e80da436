"""The files of a policy bundle: read from a folder or a `model.tar.gz`, or packed into one.

A bundle is flat: a few regular files side by side, no folders, no links. Its files are read into memory
and never extracted, so that no name in a hostile archive can reach the disk. Caps hold before anything is
allocated: the number of files, their bytes, and the ratio between archive and content.
"""

from __future__ import annotations

import gzip
import io
import re
import stat
import tarfile
import zlib
from pathlib import Path

from policylab.errors import BundleError
from policylab.files import write_atomic

MAX_FILES = 16
MAX_BYTES = 512 * 2**20
MAX_RATIO = 200
RATIO_FREE_BYTES = 64 * 2**20  # a small archive of zeros compresses well and harms nobody
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def read_files(path: Path) -> dict[str, bytes]:
    """Return the content of every file of the bundle at ``path``, by name.

    Raises:
        BundleError: ``path`` is not a flat folder or archive of regular files within the caps.
    """
    try:
        if path.is_dir():
            return _read_folder(path)
        if not path.is_file():
            raise BundleError("there is no such file or folder; give a bundle folder or a model.tar.gz")
        with path.open("rb") as file:
            packed = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BundleError(f"it cannot be read: {error.strerror or error}") from error
    if packed[:2] != b"\x1f\x8b":
        raise BundleError("it is not a policy bundle; give a bundle folder or a model.tar.gz")
    return _read_tar(_decompressed(packed))


def pack(folder: Path, archive: Path) -> None:
    """Write the bundle in ``folder`` as ``archive`` (`model.tar.gz`), the same bytes for the same bundle.

    Raises:
        BundleError: ``folder`` is not a bundle folder.
        StorageError: the archive cannot be written.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted(read_files(folder).items()):
            member = tarfile.TarInfo(name)  # owner, group and time stay 0
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    write_atomic(archive, gzip.compress(buffer.getvalue(), mtime=0))


def _read_folder(folder: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    left = MAX_BYTES
    for entry in sorted(folder.iterdir()):
        _check_name(entry.name, files)
        status = entry.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{entry.name[:100]!r} is not a regular file; a bundle holds no folders and no links")
        _check_size(status.st_size, left)
        with entry.open("rb") as file:
            files[entry.name] = file.read(status.st_size + 1)
        left -= len(files[entry.name])
    return files


def _decompressed(packed: bytes) -> bytes:
    """Return the content of one gzip stream, never allocating more than the caps allow."""
    allowed = min(MAX_BYTES, max(RATIO_FREE_BYTES, MAX_RATIO * len(packed)))
    stream = zlib.decompressobj(wbits=31)
    try:
        content = stream.decompress(packed, allowed + 1)
    except zlib.error as error:
        raise BundleError("the archive is damaged; copy it again from where it was made") from error
    if len(content) > allowed:
        raise BundleError(f"the archive unpacks to more than {allowed // 2**20} MiB; it is no policy bundle")
    if not stream.eof or stream.unused_data:
        raise BundleError("the archive is truncated or has data behind its end; copy it again from where it was made")
    return content


def _read_tar(content: bytes) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    left = MAX_BYTES
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            for count, member in enumerate(tar):
                if count > MAX_FILES:
                    raise BundleError(f"the archive has more than {MAX_FILES} members; it is no policy bundle")
                name = member.name.removeprefix("./")
                if member.isdir() and name == ".":
                    continue
                _check_name(name, files)
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
                    raise BundleError(f"member {name!r} is not a regular file; a bundle holds no folders and no links")
                _check_size(member.size, left)
                file = tar.extractfile(member)
                files[name] = file.read() if file else b""
                left -= len(files[name])
    except BundleError:
        raise
    except Exception as error:  # the parser of hostile bytes may fail in any way; all mean the same
        raise BundleError("the archive is not a readable tar file; copy it again from where it was made") from error
    return files


def _check_name(name: str, files: dict[str, bytes]) -> None:
    if not _NAME.fullmatch(name):
        raise BundleError(f"file name {name[:100]!r} is not allowed; a bundle holds plain files side by side")
    if name in files:
        raise BundleError(f"file {name!r} appears twice; a bundle holds each file once")
    if len(files) >= MAX_FILES:
        raise BundleError(f"there are more than {MAX_FILES} files; it is no policy bundle")


def _check_size(size: int, left: int) -> None:
    if not 0 <= size <= left:
        raise BundleError(f"its files exceed {MAX_BYTES // 2**20} MiB; it is no policy bundle")
