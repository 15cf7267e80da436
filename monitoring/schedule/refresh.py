"""A new baseline from traffic that somebody approved; the old one is kept, and what changed is told."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable
from pathlib import Path

from policylab.errors import UserError
from policylab.files import copy_folder, storage_errors, sync_folder
from policylab.monitoring.profiles.profile import Profile, profile_of
from policylab.monitoring.quality.check import check
from policylab.monitoring.quality.constraints import read_constraints
from policylab.monitoring.schedule.baselines import write_data_baseline

PREVIOUS = "previous"
FILES = ("statistics.json", "constraints.json", "profile.npz")


@dataclasses.dataclass(frozen=True, slots=True)
class ColumnChange:
    """What a column was and is; empty where it is not there."""

    name: str
    before: str
    after: str
    distance: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Refreshed:
    """The new baseline.

    Attributes:
        n_rows: of the new one.
        kept: folder of the old one.
        changes: by column, those of the new one first.
    """

    n_rows: int
    kept: Path
    changes: tuple[ColumnChange, ...]


def refresh(folder: Path, data: Iterable[Path], *, columns: tuple[str, ...] = ()) -> Refreshed:
    """Replace the baseline in ``folder`` by one of ``data``; the old one goes to ``folder/previous/N``.

    Raises:
        UserError: there is no baseline, or the data have no rows.
        StorageError: it cannot be written; the old baseline is intact in either place.
    """
    old, limits = Profile.load(folder / "profile.npz"), read_constraints(folder / "constraints.json")
    new = profile_of(data, columns=columns)
    if not new.n_rows:
        raise UserError("no rows; a baseline needs data")
    distances = {one.name: one.distances.get("linf_simple") for one in check(new, old, constraints=limits).columns}
    changes = []
    for name in dict.fromkeys([*new.columns, *old.columns]):
        distance = distances.get(name)
        value = None if distance is None else distance.value
        changes.append(ColumnChange(name, _described(old, name), _described(new, name), value))
    kept = _keep(folder)
    write_data_baseline(folder, new)
    return Refreshed(new.n_rows, kept, tuple(changes))


def _keep(folder: Path) -> Path:
    """Copy the baseline to the next free number; return that folder."""
    numbers = [int(path.name) for path in (folder / PREVIOUS).glob("*") if path.name.isdecimal()]
    kept = folder / PREVIOUS / f"{max(numbers, default=0) + 1:04d}"
    with storage_errors(kept):
        staged = folder / PREVIOUS / f".{kept.name}"
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        for name in FILES:
            if (folder / name).exists():
                shutil.copy2(folder / name, staged / name)
        sync_folder(staged)
    copy_folder(staged, kept)
    shutil.rmtree(staged)
    return kept


def _described(profile: Profile, name: str) -> str:
    column = profile.columns.get(name)
    if column is None:
        return ""
    present = f"{column.type}, {column.completeness:.4g} present"
    return f"{present}, mean {column.mean:.4g}, {column.low:.4g} to {column.high:.4g}" if column.n_numbers else present
