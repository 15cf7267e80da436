"""Preparing a data set: missing values and duplicates, categories as numbers, texts as counts of words.

| column of the input | columns of data.parquet |
|---|---|
| categorical | the same name: place of the value in the sorted list of encoding.json, int32 |
| text | NAME.words: places in the sorted vocabulary of encoding.json; NAME.counts: how often; lists of int32 |
| any other | as it was |
"""

from __future__ import annotations

import collections
import json
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from policylab.errors import UserError, did_you_mean
from policylab.experiments.processing.description import Prepare
from policylab.experiments.processing.tables import Columns, read_table, write_table
from policylab.extras import require
from policylab.files import write_atomic

WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def prepare(task: Prepare) -> dict[str, Any]:
    """Carry out a preparation; return {rows_read, rows_missing, rows_duplicate, rows, data, encoding}.

    Raises:
        UserError: the input is no table or lacks a column, or nothing is left of it.
        StorageError: a write failed.
    """
    table = read_table(Path(task.input))
    _check_columns(task, table)
    n_read = _length(table)
    for column, value in task.fill.items():
        table[column] = [value if one is None else one for one in table[column]]
    n_missing = n_duplicate = 0
    if task.drop_missing:
        table, n_missing = _kept(table, [all(one is not None for one in row) for row in _rows(table)])
    if task.drop_duplicates:
        table, n_duplicate = _kept(table, _firsts(_rows(table)))
    if not _length(table):
        raise UserError(f"{task.input}: no row is left of {n_read:,}; fill missing values, or keep rows that lack some")
    columns, encoding = _encoded(task, table)
    output = Path(task.output)
    write_table(columns, output / "data.parquet")
    write_atomic(output / "encoding.json", json.dumps(encoding, indent=1, ensure_ascii=False) + "\n")
    return {
        "rows_read": n_read,
        "rows_missing": n_missing,
        "rows_duplicate": n_duplicate,
        "rows": _length(table),
        "data": str(output / "data.parquet"),
        "encoding": str(output / "encoding.json"),
    }


def words(text: str, *, without: Collection[str]) -> collections.Counter[str]:
    """Return how often each word occurs, in small letters, without stop words.

    >>> words("The cat's hat, the HAT", without=["the"])
    Counter({'hat': 2, "cat's": 1})
    """
    found = (word.lower() for word in WORD.findall(text))
    return collections.Counter(word for word in found if word not in without)


def _check_columns(task: Prepare, table: Columns) -> None:
    for column in (*task.fill, *task.categorical, *(text.column for text in task.text)):
        if column not in table:
            known = f"{did_you_mean(column, table)} (columns: {', '.join(table)})"
            raise UserError(f"{task.input}: there is no column '{column}'{known}")


def _encoded(task: Prepare, table: Columns) -> tuple[dict[str, Any], dict[str, Any]]:
    int32 = require("pyarrow", extra="offline").int32()
    array = require("pyarrow", extra="offline").array
    lists = require("pyarrow", extra="offline").list_(int32)
    texts = {text.column: frozenset(map(str.lower, text.stop_words)) for text in task.text}
    columns: dict[str, Any] = {}
    encoding: dict[str, Any] = {}
    for name, values in table.items():
        if name in task.categorical:
            encoding[name] = sorted({one for one in values if one is not None}, key=lambda one: (str(type(one)), one))
            places = {value: place for place, value in enumerate(encoding[name])}
            columns[name] = array([None if one is None else places[one] for one in values], int32)
        elif name in texts:
            counted = [words(str(one or ""), without=texts[name]) for one in values]
            encoding[name] = sorted(set().union(*counted))
            places = {word: place for place, word in enumerate(encoding[name])}
            columns[f"{name}.words"] = array([sorted(places[word] for word in one) for one in counted], lists)
            columns[f"{name}.counts"] = array([[one[word] for word in sorted(one)] for one in counted], lists)
        else:
            columns[name] = array(values)
    return columns, encoding


def _rows(table: Columns) -> Iterable[tuple[Any, ...]]:
    return zip(*table.values(), strict=True)


def _length(table: Columns) -> int:
    return len(next(iter(table.values()), ()))


def _firsts(rows: Iterable[tuple[Any, ...]]) -> list[bool]:
    """Return for each row whether no equal one came before it."""
    seen: set[str] = set()
    found = []
    for row in rows:
        key = repr(row)
        found.append(key not in seen)
        seen.add(key)
    return found


def _kept(table: Columns, keep: Sequence[bool]) -> tuple[Columns, int]:
    """Return the rows to keep, and how many are dropped."""
    kept = {name: [one for one, stays in zip(values, keep, strict=True) if stays] for name, values in table.items()}
    return kept, len(keep) - sum(keep)
