"""`LabelFolder`: pairs of segments that wait for labels, and every label that was given, in one folder.

| file | holds |
|---|---|
| ``pairs/0001.npz``, ... | one selection: its segments, pairs of them, and where they are from; plain arrays |
| ``labels.jsonl`` | a line per label, appended and flushed to the disk before it counts as given |
| ``automatic.json`` | labels of a validated reward model |
| ``consolidated.json`` | one preference for each pair |

A line is ``{"pair": id, "labeller": name, "choice": "first", "time_utc": ...}``; ``"withdrawn"`` takes the label back.
The last line of a labeller about a pair counts. A pair's id follows from what its segments hold.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from policylab.errors import PolicylabError, UserError
from policylab.files import (
    append_line,
    canonical_json,
    drop_torn_tail,
    locked,
    read_lines,
    storage_errors,
    write_atomic,
)
from policylab.monitoring.labels.segments import STEP_PARTS, Segments

Choice = Literal["first", "second", "equal", "skip"]
"""Which segment is better; neither; or that nobody could tell from what is shown."""
CHOICES: tuple[Choice, ...] = get_args(Choice)
DECISIVE: tuple[Choice, ...] = ("first", "second", "equal")
WITHDRAWN = "withdrawn"
LABELLER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
MAX_BYTES = 2**30
FORMAT_VERSION = 1
_ARRAYS = (*STEP_PARTS, "reward", "episode", "start", "pairs")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Some segments and the pairs of them that are to be compared.

    Attributes:
        segments: S of them.
        pairs: positions of the first and second one, shape (P, 2).
        ids: a name for each pair, 16 hexadecimal digits.
    """

    segments: Segments
    pairs: NDArray[np.int64]
    ids: tuple[str, ...]

    @classmethod
    def of(cls, segments: Segments, pairs: NDArray[np.int64]) -> Selection:
        """Return the selection of ``pairs`` with the segments that they need."""
        used, places = np.unique(pairs, return_inverse=True)
        kept = segments.take(used)
        digests = [kept.digest(row) for row in range(len(kept))]
        renamed = places.reshape(-1, 2)
        ids = (hashlib.sha256(f"{digests[a]} {digests[b]}".encode()).hexdigest()[:16] for a, b in renamed.tolist())
        return cls(kept, renamed.astype(np.int64), tuple(ids))


class LabelFolder:
    """See the module.

    Args:
        path: need not exist before something is added.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.labels_file = path / "labels.jsonl"
        self.automatic_file = path / "automatic.json"
        self.consolidated_file = path / "consolidated.json"

    def add(self, segments: Segments, pairs: NDArray[np.int64]) -> Selection:
        """Store a selection.

        Raises:
            StorageError: the write failed.
        """
        selection = Selection.of(segments, pairs)
        kept = selection.segments
        index = json.dumps({"version": FORMAT_VERSION, "about": dict(kept.about)}, sort_keys=True)
        arrays = {name: getattr(kept, name) for name in _ARRAYS if name != "pairs"}
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, index=np.frombuffer(index.encode(), dtype=np.uint8), pairs=selection.pairs, **arrays
        )
        with locked(self.path / ".lock", wait_s=10.0):
            number = 1 + len(list((self.path / "pairs").glob("*.npz")))
            write_atomic(self.path / "pairs" / f"{number:04}.npz", buffer.getvalue())
        return selection

    def selections(self) -> list[Selection]:
        """Return what was added, in its order.

        Raises:
            UserError: there is nothing, or a file is damaged.
        """
        files = sorted((self.path / "pairs").glob("*.npz"))
        if not files:
            raise UserError(f"{self.path} holds no pairs; choose some with `policylab labels select`")
        return [_read(file) for file in files]

    def give(self, pair: str, *, labeller: str, choice: str) -> None:
        """Append a label, or with ``"withdrawn"`` take one back; it is on the disk when this returns.

        Raises:
            UserError: labeller or choice are none.
            StorageError: the write failed.
        """
        if not LABELLER.fullmatch(labeller):
            raise UserError(
                "a labeller's name has up to 32 letters, digits, '.', '_' and '-' and begins with a letter or digit"
            )
        if choice not in (*CHOICES, WITHDRAWN):
            raise UserError(f"a label is one of {', '.join(CHOICES)}, got {choice!r:.40}")
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        with locked(self.path / ".labels.lock", wait_s=10.0):
            drop_torn_tail(self.labels_file)
            append_line(self.labels_file, {"pair": pair, "labeller": labeller, "choice": choice, "time_utc": now})
            with storage_errors(self.labels_file), self.labels_file.open("rb") as file:
                os.fsync(file.fileno())

    def given(self) -> dict[str, dict[str, Choice]]:
        """Return what counts: labeller -> pair -> choice, in the order in which the labels were given.

        Raises:
            UserError: a line is damaged.
        """
        found: dict[str, dict[str, Choice]] = {}
        for number, line in enumerate(read_lines(self.labels_file), start=1):
            try:
                labeller, pair, choice = str(line["labeller"]), str(line["pair"]), line["choice"]
            except (KeyError, TypeError) as error:
                raise UserError(f"{self.labels_file}:{number}: no label; restore the file from a copy") from error
            own = found.setdefault(labeller, {})
            own.pop(pair, None)
            if choice in CHOICES:
                own[pair] = choice
            elif choice != WITHDRAWN:
                raise UserError(
                    f"{self.labels_file}:{number}: {choice!r:.40} is no choice; restore the file from a copy"
                )
        return found

    def automatic(self) -> dict[str, float]:
        """Return the preferences that a reward model gave, by pair."""
        if not self.automatic_file.exists():
            return {}
        return {str(pair): float(mu) for pair, mu in _document(self.automatic_file)["preferences"].items()}

    def preferences(self) -> dict[str, float]:
        """Return the consolidated preference of each pair: how surely its first segment is better, 0 to 1.

        Raises:
            UserError: nothing was consolidated yet.
        """
        if not self.consolidated_file.exists():
            raise UserError(f"{self.path} has no consolidated labels; run `policylab labels consolidate {self.path}`")
        return {str(pair): float(mu) for pair, mu in _document(self.consolidated_file)["preferences"].items()}

    def digest(self) -> str:
        """Return the sha256 of the consolidated preferences, for lineage."""
        return hashlib.sha256(canonical_json(self.preferences()).encode()).hexdigest()


def joined(selections: list[Selection]) -> Iterator[tuple[str, Selection, int]]:
    """Yield every pair once: its id, its selection, and its row there."""
    seen: set[str] = set()
    for selection in selections:
        for row, pair in enumerate(selection.ids):
            if pair not in seen:
                seen.add(pair)
                yield pair, selection, row


def _document(path: Path) -> dict[str, dict[str, float]]:
    try:
        found: dict[str, dict[str, float]] = json.loads(path.read_bytes())
        if not all(0.0 <= mu <= 1.0 for mu in found["preferences"].values()):
            raise ValueError("a preference is not in [0, 1]")
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({str(error)[:80]}); make it again") from error


@functools.lru_cache(maxsize=64)
def _read(path: Path) -> Selection:
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_BYTES:
                raise ValueError("too large")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (*_ARRAYS, "index")}
        index = json.loads(arrays.pop("index").tobytes())
        pairs = arrays.pop("pairs")
        if index["version"] != FORMAT_VERSION:
            raise ValueError(f"version {index['version']}")
        segments = Segments(**arrays, about=dict(index["about"]))
        shapes = {getattr(segments, name).shape[:2] for name in (*STEP_PARTS, "reward")}
        if len(shapes) != 1 or pairs.shape[1:] != (2,) or pairs.min() < 0 or pairs.max() >= len(segments):
            raise ValueError("its arrays do not fit each other")
        if any(array.dtype.kind not in "iufb" or not np.isfinite(array).all() for array in arrays.values()):
            raise ValueError("its arrays are not finite numbers")
        return Selection.of(segments, pairs)
    except PolicylabError:
        raise
    except Exception as error:  # the parsers of hostile bytes may fail in any way; all mean the same
        raise UserError(f"{path} holds no pairs that could be read ({str(error)[:80]}); select them again") from error
