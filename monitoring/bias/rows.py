"""Whole rows of a table with the columns that a bias analysis needs; or one row per recorded episode."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policylab.agents.transitions import read_transitions
from policylab.errors import UserError
from policylab.extras import require
from policylab.monitoring.profiles.tables import files_of

Columns = dict[str, NDArray[Any]]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Columns of equal length without missing values, and how many rows were left out for having one."""

    columns: Columns
    n_left_out: int = 0

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


def read_rows(path: Path, *, columns: tuple[str, ...], optional: bool = False) -> Rows:
    """Return the rows of a Parquet, CSV or JSON-lines file, or of all files in a folder.

    Args:
        path: a file or folder.
        columns: needed; a row that lacks one of them is left out.
        optional: read the other numeric columns too; their missing values become NaN.

    Raises:
        UserError: there is no such file or column, it is damaged, or no row is whole.
        MissingExtraError: pyarrow or pandas is not installed.
    """
    pandas = require("pandas", extra="monitor")
    frame = pandas.concat([_frame(file) for file in files_of(path)], ignore_index=True)
    if missing := [name for name in columns if name not in frame.columns]:
        shown = ", ".join(map(repr, frame.columns))[:200]
        raise UserError(f"{path} has no column '{missing[0]}'; it has {shown}")
    whole = frame.dropna(subset=list(columns))
    if not len(whole):
        raise UserError(f"{path}: no row holds a value in each of {', '.join(columns)}")
    wanted = list(dict.fromkeys(columns))
    if optional:
        wanted += [name for name in whole.select_dtypes("number").columns if name not in wanted]
    return Rows({name: whole[name].to_numpy() for name in wanted}, n_left_out=len(frame) - len(whole))


def _frame(path: Path) -> Any:
    pandas = require("pandas", extra="monitor")
    readers = {
        ".parquet": pandas.read_parquet,
        ".csv": pandas.read_csv,
        ".jsonl": lambda file: pandas.read_json(file, lines=True),
        ".json": lambda file: pandas.read_json(file, lines=True),
    }
    try:
        return readers[path.suffix](path)
    except (OSError, ValueError) as error:  # pandas' and arrow's errors of damaged files are of these kinds
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path} is damaged or no {path.suffix} file ({reason}); copy it again") from error


def episode_rows(path: Path) -> Rows:
    """Return one row per episode of recorded transitions.

    Columns: ``obs`` or ``obs_0``, ... of the first step, ``action`` or ``action_0``, ... of the first step, ``return``
    (undiscounted) and ``length``.

    Raises:
        UserError: the file is missing, damaged or no recording.
        MissingExtraError: pyarrow is not installed.
    """
    columns = read_transitions(path).columns
    order = np.lexsort((columns["t"], columns["episode_id"]))
    episode = columns["episode_id"][order]
    starts = np.flatnonzero(np.r_[True, episode[1:] != episode[:-1]])
    found: Columns = {}
    for name in ("obs", "action"):
        first = columns[name][order][starts]
        parts = {name: first} if first.ndim == 1 else {f"{name}_{i}": part for i, part in enumerate(first.T)}
        found |= parts
    found["return"] = np.add.reduceat(columns["reward"][order].astype(np.float64), starts)
    found["length"] = np.diff(np.r_[starts, len(episode)])
    return Rows(found)
