"""The numbers of a policy bundle: `arrays.npz`, checked against the manifest before memory is allocated."""

from __future__ import annotations

import io
import math
import threading
import zipfile
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt

from policylab.agents.bundle_archive import MAX_BYTES
from policylab.config import Settings
from policylab.errors import BundleError

_SLACK_BYTES = 4096  # room for the header of an array and its two zip entries
_DTYPES = {np.dtype(kind).str for kind in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8")}


class ArrayEntry(Settings):
    """Type and shape of one array, as the manifest declares them."""

    dtype: str
    shape: Annotated[tuple[NonNegativeInt, ...], Field(max_length=8)]

    @property
    def n_bytes(self) -> int:
        """Bytes of the array's data."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def describe(arrays: Mapping[str, NDArray[Any]]) -> dict[str, ArrayEntry]:
    """Return the manifest entries of ``arrays``.

    Raises:
        BundleError: an array is not of plain finite numbers.
    """
    for name, array in arrays.items():
        if array.dtype.str not in _DTYPES:
            raise BundleError(f"array '{name}' has type {array.dtype}; a bundle holds plain numbers only")
        _check_finite(name, array)
    return {name: ArrayEntry(dtype=array.dtype.str, shape=array.shape) for name, array in arrays.items()}


# NumPy reads headers by ast.literal_eval, which may fail in threads before Python 3.11.8 (CPython issue 106905).
_PARSING = threading.Lock()


def dump(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return ``arrays`` as the bytes of an uncompressed npz file, the same bytes for the same numbers."""
    buffer = io.BytesIO()
    ordered: dict[str, Any] = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    np.savez(buffer, allow_pickle=False, **ordered)
    return buffer.getvalue()


def load(content: bytes, declared: Mapping[str, ArrayEntry]) -> dict[str, NDArray[Any]]:
    """Return the arrays of an npz file that holds exactly what the manifest declares.

    Raises:
        BundleError: the file is damaged, or its members differ from ``declared``.
    """
    for name, entry in declared.items():
        if entry.dtype not in _DTYPES:
            raise BundleError(f"manifest.json: array '{name}' has type {entry.dtype[:20]!r}, not plain numbers")
    total = sum(entry.n_bytes for entry in declared.values())
    if total > MAX_BYTES:
        raise BundleError(f"manifest.json: the declared arrays need {total:.3g} bytes, above {MAX_BYTES:.3g}")
    if len(content) > total + _SLACK_BYTES * (len(declared) + 1):
        raise BundleError("arrays.npz is larger than the arrays that manifest.json declares")
    try:
        with _PARSING:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                _check_members(archive, declared)
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                arrays = {name: np.asarray(stored[name]) for name in declared}
    except BundleError:
        raise
    except Exception as error:  # the parsers of hostile bytes may fail in any way; all mean the same
        raise BundleError("arrays.npz is not a readable npz file; copy the bundle again") from error
    for name, array in arrays.items():
        _check_finite(name, array)
    return arrays


def _check_members(archive: zipfile.ZipFile, declared: Mapping[str, ArrayEntry]) -> None:
    names = sorted(member.filename for member in archive.infolist())
    if names != sorted(f"{name}.npy" for name in declared):
        raise BundleError(f"arrays.npz holds {str(names)[:80]}, but manifest.json declares {sorted(declared)}")
    for name, entry in declared.items():
        member = archive.getinfo(f"{name}.npy")
        with archive.open(member) as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise BundleError(f"arrays.npz: array '{name}' has an unknown format version")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            expected = file.tell() + entry.n_bytes
        if (dtype.str, shape) != (entry.dtype, entry.shape):
            raise BundleError(
                f"arrays.npz: array '{name}' is {dtype} of shape {str(shape)[:60]}, "
                f"but manifest.json declares {entry.dtype} of shape {entry.shape}"
            )
        if member.file_size != expected:
            raise BundleError(f"arrays.npz: array '{name}' has {member.file_size} bytes, its shape needs {expected}")


def _check_finite(name: str, array: NDArray[Any]) -> None:
    if not np.isfinite(array).all():
        raise BundleError(f"array '{name}' holds NaN or infinity, as after diverged learning; lower the learning rate")
