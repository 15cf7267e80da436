"""`Profile`: what a table holds, column by column; made of files of any size, merged, stored and read back."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from policylab.errors import UserError
from policylab.files import write_atomic
from policylab.monitoring.profiles.co_moments import CoMoments
from policylab.monitoring.profiles.column import ColumnProfile
from policylab.monitoring.profiles.tables import Chunk, chunks
from policylab.seeding import generator

FORMAT_VERSION = 1
MAX_BYTES = 2**30
"""Of a stored profile: more is none."""


class Profile:
    """The columns of a table by name, in the order in which they were first seen.

    Equal data in equal pieces makes an equal profile: the random offsets of the sketches are drawn from a stream named
    after the column.

    Args:
        like: a baseline that this one will be compared with, whose scores of numbers are taken: without it, the
            correlations of columns cannot be compared.

    Attributes:
        columns: by name.
        n_rows: rows.
        pairs: how columns of numbers go together.
    """

    pairs: CoMoments

    def __init__(self, like: Profile | None = None) -> None:
        self.columns: dict[str, ColumnProfile] = {}
        self.n_rows = 0
        self.pairs = CoMoments() if like is None else like.pairs.alike()

    def update(self, chunk: Chunk) -> None:
        """Take some more rows; a column that they lack is missing there."""
        n_rows = max((cells.n for cells in chunk.values()), default=0)
        for name, cells in chunk.items():
            self._column(name).update(cells)
        self.pairs.update(chunk)
        self._settle_rows(n_rows)

    def merge(self, other: Profile) -> None:
        """Take all rows that ``other`` has seen."""
        for name, column in other.columns.items():
            self._column(name).merge(column)
        self.pairs.merge(other.pairs)
        self._settle_rows(other.n_rows)

    def _column(self, name: str) -> ColumnProfile:
        if name not in self.columns:
            self.columns[name] = ColumnProfile(generator(0, "sketch", name))
        return self.columns[name]

    def _settle_rows(self, n_rows: int) -> None:
        self.n_rows += n_rows
        for column in self.columns.values():
            column.n_missing += self.n_rows - column.n

    def save(self, path: Path) -> None:
        """Write the profile to a file of NumPy arrays.

        Raises:
            StorageError: the write failed.
        """
        pairs = {f"pairs.{part}": array for part, array in self.pairs.arrays().items()}
        of_pairs = list(self.pairs.scores.names) if self.pairs.scores is not None else []
        names = {
            "version": FORMAT_VERSION, "n_rows": self.n_rows, "names": list(self.columns), "pairs": of_pairs
        }  # fmt: skip
        arrays: dict[str, Any] = {"index": np.frombuffer(json.dumps(names).encode(), dtype=np.uint8), **pairs}
        for number, column in enumerate(self.columns.values()):
            arrays |= {f"{number}.{part}": array for part, array in column.arrays().items()}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        write_atomic(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Profile:
        """Return the profile in a file.

        Raises:
            UserError: it is missing, damaged or none.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"{path} cannot be read ({reason}); make it with `policylab monitor baseline`") from None
        try:
            found = cls._from_bytes(content)
        except Exception as error:  # the parsers of hostile bytes may fail in any way; all mean the same
            raise UserError(f"{path} is no stored profile ({str(error)[:80]}); make it again") from error
        return found

    @classmethod
    def _from_bytes(cls, content: bytes) -> Profile:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_BYTES:
                raise ValueError("too large")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        index = json.loads(arrays["index"].tobytes())
        if index["version"] != FORMAT_VERSION:
            raise ValueError(f"version {index['version']}")
        found = cls()
        found.n_rows = int(index["n_rows"])
        for number, name in enumerate(index["names"]):
            parts = {key.partition(".")[2]: array for key, array in arrays.items() if key.startswith(f"{number}.")}
            column = ColumnProfile.from_arrays(parts, rng=generator(0, "sketch", name, found.n_rows))
            if column.n != found.n_rows:
                raise ValueError(f"column {number} has {column.n} rows, the profile {found.n_rows}")
            found.columns[str(name)] = column
        if "pairs" in index:  # not in profiles of earlier versions
            parts = {key.partition(".")[2]: array for key, array in arrays.items() if key.startswith("pairs.")}
            found.pairs = CoMoments.from_arrays([str(name) for name in index["pairs"]], parts)
        return found


def profile_of(paths: Iterable[Path], *, columns: tuple[str, ...] = (), like: Profile | None = None) -> Profile:
    """Return the profile of the tables in some files or folders, one after the other.

    Args:
        paths: see `policylab.monitoring.profiles.tables.chunks`; or profiles that were saved as ``.npz``.
        columns: profile these alone; of saved profiles all columns are taken.
        like: see `Profile`.

    Raises:
        UserError: a file is missing or damaged, or there is no row.
        MissingExtraError: pyarrow or pandas is not installed.
    """
    found = Profile(like)
    for path in paths:
        if path.suffix == ".npz":
            found.merge(Profile.load(path))
            continue
        try:
            for chunk in chunks(path, columns=columns):
                found.update(chunk)
        except UnicodeDecodeError as error:
            raise UserError(f"{path} holds text that is not UTF-8 ({error.reason}); write it again") from error
    return found
