"""Whole rows of a table with the columns that a bias analysis needs; or one row per recorded episode."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from policylab.agents.bundle import Bundle
from policylab.errors import UserError
from policylab.extras import require
from policylab.monitoring.causes.steps import read_steps
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


def episode_rows(path: Path, *, bundle: Bundle | None = None, columns: tuple[str, ...] = ()) -> Rows:
    """Return one row per episode of recorded transitions, or of a folder of captured traffic.

    Columns: ``obs`` or ``obs_0``, ... of the first step, ``action`` or ``action_0``, ... of the first step, ``return``
    (undiscounted) and ``length``.

    Args:
        path: the recording or folder. Captured decisions without a reported reward count as 0.
        bundle: a policy of the task, whose spaces captured observations and actions belong to.
        columns: that must be there.

    Raises:
        UserError: it is missing, damaged or no recording; a folder without a bundle; or a column is not there.
        MissingExtraError: pyarrow is not installed.
    """
    steps = read_steps(path, bundle=bundle)
    found: Columns = {}
    for name, column in (("obs", steps.observation), ("action", steps.action)):
        first = column[steps.starts]
        found |= {name: first} if first.ndim == 1 else {f"{name}_{i}": part for i, part in enumerate(first.T)}
    found["return"], found["length"] = steps.totals(steps.reward), steps.lengths
    if missing := [name for name in columns if name not in found]:
        raise UserError(f"{path} has no column '{missing[0]}'; an episode has {', '.join(found)}")
    return Rows(found)
