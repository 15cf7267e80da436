"""Tables in files, piece by piece: Parquet, CSV, JSON lines, and folders of them; memory stays bounded.

See `policylab.monitoring.profiles.cells` for what becomes a column.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from policylab.deployment.capture.format import CAPTURED, CAPTURED_PARQUET
from policylab.deployment.capture.parquet import decisions_of
from policylab.deployment.capture.reading import Copies
from policylab.errors import UserError
from policylab.extras import require
from policylab.monitoring.profiles.captured import captured_id, captured_row
from policylab.monitoring.profiles.cells import Cells, encodable, of_arrow, of_numbers, of_text, of_values

ROWS = 131_072
"""Rows read at once."""
LINES = 16_384
BUFFER_BYTES = 2**20
MAX_COLUMNS = 10_000
MAX_LINE = 16 * 2**20
BOOKKEEPING = frozenset(
    {"episode_id", "t", "next_obs", "propensity", "log_propensity", "policy_id", "env_id", "spec_hash", "seed",
     "timestamp"}
)  # fmt: skip
"""Columns of `policylab record` that say nothing about what a policy meets or does."""
CAPTURED_COLUMNS = {"decision_id", "observation", "action", "propensity", "policy_version"}
SUFFIXES = {".parquet", ".csv", ".jsonl", ".json"}

Chunk = dict[str, Cells]


def chunks(path: Path, *, columns: tuple[str, ...] = ()) -> Iterator[Chunk]:
    """Yield the table in a file, or in all files of a folder in the order of their names, piece by piece.

    Args:
        path: a file or folder.
        columns: read these alone, by the name in the file; default: all but times and the bookkeeping of recordings.

    Raises:
        UserError: there is no such file, its kind is unknown, it is damaged, or lacks a column.
        MissingExtraError: pyarrow or pandas is not installed.
    """
    copies, hour = Copies(), None
    for file in files_of(path):
        if file.parent != hour:
            copies, hour = Copies(), file.parent  # copies of captured lines are of the same hour
        try:
            yield from _READERS[file.suffix](file, columns, copies=copies)
        except OSError as error:  # arrow's own errors of damaged files are of this kind too
            raise UserError(f"{file} cannot be read ({_reason(error)}); copy it again") from error
        except require("pyarrow", extra="monitor").ArrowException as error:
            raise UserError(f"{file} is damaged or no {file.suffix} file ({_reason(error)}); copy it again") from error


def files_of(path: Path) -> list[Path]:
    """Return the file, or the files of a folder and all folders in it, in the order of their names.

    Of an endpoint's capture folder, the decisions; beside them are rewards, in rows of their own.

    Raises:
        UserError: there is none that can be read.
    """
    if path.is_dir():
        places = [path / kind for kind in (CAPTURED, CAPTURED_PARQUET) if (path / kind).is_dir()] or [path]
        found = sorted(
            file
            for place in places
            for file in place.rglob("*")
            if file.suffix in SUFFIXES and file.is_file() and not file.name.startswith(".")
        )
        if found:
            return found
        raise UserError(f"{path} holds no file of the kinds {', '.join(sorted(SUFFIXES))}")
    if not path.exists():
        raise UserError(f"{path} does not exist; give a file or folder of data")
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: data must be one of {', '.join(sorted(SUFFIXES))}, got '{path.suffix}'")
    return [path]


def _parquet(path: Path, columns: tuple[str, ...], *, copies: Copies) -> Iterator[Chunk]:
    parquet = require("pyarrow.parquet", extra="monitor")
    file = parquet.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False)  # else a row group is read as a whole
    if set(file.schema_arrow.names) >= CAPTURED_COLUMNS:
        yield from _captured_parquet(path, columns, copies=copies)
        return
    recorded = b"policylab" in (file.schema_arrow.metadata or {})
    names = _chosen(file.schema_arrow.names, columns, skipped=BOOKKEEPING if recorded else frozenset(), path=path)
    for batch in file.iter_batches(batch_size=ROWS, columns=names, use_threads=False):
        found: Chunk = {}
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            found |= _flattened(name, column, named=name in columns, path=path)
        yield found


def _captured_parquet(path: Path, columns: tuple[str, ...], *, copies: Copies) -> Iterator[Chunk]:
    found = [one for one in decisions_of(path) if copies.is_new(one.decision_id, one.content)]
    rows = [
        _flat({"observation": one.observation, "action": one.action, "propensity": one.facts.propensity})
        for one in found
    ]
    yield from _chunk(rows, columns)


def _flattened(name: str, column: Any, *, named: bool, path: Path) -> Chunk:
    pa = require("pyarrow", extra="monitor")
    if pa.types.is_fixed_size_list(column.type) and not column.null_count:
        parts = column.flatten()
        if parts.null_count == 0 and not pa.types.is_nested(parts.type):
            table = parts.to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)
            return {f"{name}_{i}": of_numbers(part) for i, part in enumerate(table.T)}
    try:
        return {name: of_arrow(column)}
    except TypeError as error:
        if not named:
            return {}  # times and nested columns, unless they were asked for
        raise UserError(f"{path}: column '{name}' is {error}; give columns of numbers, booleans or text") from error


def _csv(path: Path, columns: tuple[str, ...], **_: Copies) -> Iterator[Chunk]:
    csv = require("pyarrow.csv", extra="monitor")
    pa = require("pyarrow", extra="monitor")
    with path.open("rb") as file:
        header = file.readline(MAX_LINE)
    names = csv.read_csv(pa.BufferReader(header)).schema.names if header.strip() else []
    if not names or len(set(names)) < len(names):
        raise UserError(
            f"{path}: the first line must name each column once, got {header[:80].decode(errors='replace')!r}"
        )
    wanted = _chosen(names, columns, skipped=frozenset(), path=path)
    convert = csv.ConvertOptions(
        column_types=dict.fromkeys(wanted, pa.string()), strings_can_be_null=True, include_columns=wanted
    )
    options = csv.ReadOptions(use_threads=False, block_size=8 * 2**20)
    with csv.open_csv(path, read_options=options, convert_options=convert) as reader:
        for batch in reader:
            yield {name: of_text(batch.column(i)) for i, name in enumerate(batch.schema.names)}


def _json_lines(path: Path, columns: tuple[str, ...], *, copies: Copies) -> Iterator[Chunk]:
    numbered = enumerate(_lines(path), start=1)
    while piece := list(itertools.islice(numbered, LINES)):
        found = (_object(line, place=f"{path}:{number}", copies=copies) for number, line in piece)
        yield from _chunk([row for row in found if row is not None], columns)


def _chunk(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> Iterator[Chunk]:
    names = dict.fromkeys(name for row in rows for name in row)
    wanted = [name for name in names if not columns or name in columns or name.rpartition("_")[0] in columns]
    if rows:
        yield {name: of_values([row.get(name) for row in rows]) for name in wanted}


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE + 1):
            if len(line) > MAX_LINE:
                raise UserError(f"{path}: a line exceeds {MAX_LINE // 2**20} MiB; is it JSON lines?")
            yield line


def _object(line: bytes, *, place: str, copies: Copies) -> dict[str, Any] | None:
    """Return one line as a flat object; None for an empty line, a copy, or a last one that is still being written."""
    if not line.strip():
        return None
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError("no object")
        captured = captured_row(row)
        if captured is not None and (decision_id := captured_id(row)) is not None:
            return _flat(captured) if copies.is_new(decision_id, repr(captured)) else None
        return _flat(captured or row)
    except (ValueError, RecursionError) as error:
        if not line.endswith(b"\n"):
            return None
        raise UserError(f"{place}: not a line of JSON with an object ({str(error)[:60]}); mend or remove it") from error


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    stack: list[tuple[str, Any]] = list(reversed(row.items()))
    while stack:
        name, value = stack.pop()
        if isinstance(value, dict):
            stack.extend((f"{name}_{key}", item) for key, item in reversed(value.items()))
        elif isinstance(value, list):
            stack.extend((f"{name}_{i}", item) for i, item in reversed(list(enumerate(value))))
        else:
            found[encodable(name)] = value
        if len(found) > MAX_COLUMNS:
            raise ValueError(f"more than {MAX_COLUMNS} values")
    return found


def _chosen(present: list[str], columns: tuple[str, ...], *, skipped: frozenset[str], path: Path) -> list[str]:
    if missing := [name for name in columns if name not in present]:
        raise UserError(f"{path} has no column '{missing[0]}'; it has {', '.join(map(repr, present))[:200]}")
    return list(columns) or [name for name in present if name not in skipped]


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:120]


_READERS = {".parquet": _parquet, ".csv": _csv, ".jsonl": _json_lines, ".json": _json_lines}
