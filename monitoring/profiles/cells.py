"""`Cells`: the values of one column in one piece of a table, sorted by what they are; and where columns come from.

| source | columns |
|---|---|
| Parquet | as they are; a list of fixed size becomes NAME_0, NAME_1, ... |
| CSV with a header | text that reads as a number is one; an empty cell is missing |
| JSON lines | objects; nested objects and lists become NAME_KEY, NAME_0, ... |
| captured traffic | `policylab.monitoring.profiles.captured` |

NaN and the infinities are no numbers one could compute with: they count as missing, the infinities also by themselves.
So do numbers beyond ±1e150.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policylab.extras import require

Floats = NDArray[np.float64]
WHOLE = r"^[+-]?[0-9]+$"
LARGEST = 1e150
"""Squares of larger numbers are no numbers."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """One column of some rows.

    Attributes:
        numbers: the finite numbers, in order, shape (k,).
        n_whole: how many of them are of a whole type: integers, not 3.0.
        texts: the texts, as an arrow array without nulls; None if there are none.
        n_missing: empty cells, NaN and infinities.
        n_infinite: infinities.
        where: which rows hold the numbers, shape (n,); None if all do.
        present: which rows hold numbers or texts, shape (n,); None if all do.
    """

    numbers: Floats
    n_whole: int = 0
    texts: Any = None
    n_missing: int = 0
    n_infinite: int = 0
    where: NDArray[np.bool_] | None = None
    present: NDArray[np.bool_] | None = None

    @property
    def n(self) -> int:
        """Rows."""
        return len(self.numbers) + self.n_missing + (0 if self.texts is None else len(self.texts))

    def spread(self) -> Floats:
        """Return the numbers in their rows, shape (n,); NaN where there is none."""
        if self.where is None:
            return self.numbers if len(self.numbers) == self.n else np.full(self.n, np.nan)
        found = np.full(len(self.where), np.nan)
        found[self.where] = self.numbers
        return found


def of_numbers(values: NDArray[Any]) -> Cells:
    """Return the cells of an array of numbers or booleans."""
    whole = values.dtype.kind in "iub"
    numbers = np.ascontiguousarray(values, dtype=np.float64)
    if whole:
        return Cells(numbers, n_whole=len(numbers))
    if not numbers.size or (numbers.min() >= -LARGEST and numbers.max() <= LARGEST):  # NaN compares as false
        return Cells(numbers)
    usable = np.abs(numbers) <= LARGEST
    n_missing = int((~usable).sum())
    n_infinite = n_missing - int(np.isnan(numbers).sum())
    return Cells(numbers[usable], n_missing=n_missing, n_infinite=n_infinite, where=usable, present=usable)


def of_arrow(column: Any) -> Cells:
    """Return the cells of an arrow array of numbers, booleans or text.

    Raises:
        TypeError: a column of another type, such as times; the message names it.
    """
    pa = require("pyarrow", extra="monitor")
    kind = column.type
    if pa.types.is_dictionary(kind):
        return of_arrow(column.dictionary_decode())
    if pa.types.is_null(kind):
        return Cells(np.empty(0), n_missing=len(column), present=np.zeros(len(column), dtype=np.bool_))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return of_text(column)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise TypeError(str(kind))
    if not column.null_count:
        return of_numbers(column.to_numpy(zero_copy_only=False))
    present = of_numbers(column.drop_null().to_numpy(zero_copy_only=False))
    where = _within(column.is_valid().to_numpy(zero_copy_only=False), present)
    n_missing = present.n_missing + column.null_count
    return dataclasses.replace(present, n_missing=n_missing, where=where, present=where)


def of_text(column: Any) -> Cells:
    """Return the cells of an arrow array of text: what reads as a number is one."""
    compute = require("pyarrow.compute", extra="monitor")
    n_null, valid, column = column.null_count, column.is_valid(), column.drop_null()
    values, reads = _read(column)
    n_whole = int(compute.sum(compute.match_substring_regex(column, WHOLE)).as_py() or 0)
    found = of_numbers(values[reads])
    texts = None if reads.all() else column.filter(~reads)
    valid = np.array(valid.to_numpy(zero_copy_only=False))
    rows = valid.copy()
    rows[valid] = reads
    where = _within(rows, found)
    n_missing = found.n_missing + n_null
    present = None if not n_missing else (valid & ~rows) | (rows if where is None else where)
    return dataclasses.replace(found, n_whole=n_whole, texts=texts, n_missing=n_missing, where=where, present=present)


def _read(texts: Any) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the number that each text of an arrow array reads as, and which do; NaN is one."""
    compute = require("pyarrow.compute", extra="monitor")
    pandas = require("pandas", extra="monitor")
    try:
        compute.cast(texts[:1], "float64")  # to fail takes as long as to succeed
        return compute.cast(texts, "float64").to_numpy(zero_copy_only=False), np.ones(len(texts), dtype=np.bool_)
    except require("pyarrow", extra="monitor").ArrowInvalid:
        encoded = texts.dictionary_encode()  # texts repeat, and each different one is read once
    different, index = encoded.dictionary, encoded.indices.to_numpy()
    values = np.asarray(pandas.to_numeric(different.to_pandas(), errors="coerce"), dtype=np.float64)
    named = compute.equal(compute.utf8_lower(compute.utf8_trim_whitespace(different)), "nan")
    return values[index], (~np.isnan(values) | np.asarray(named))[index]


def of_values(values: list[Any]) -> Cells:
    """Return the cells of JSON values: numbers, booleans, texts and nulls; anything else counts as text."""
    pa = require("pyarrow", extra="monitor")
    numbers = [value for value in values if isinstance(value, int | float)]
    texts = [encodable(str(value)) for value in values if not isinstance(value, int | float | None)]
    found = of_numbers(np.array([_float(value) for value in numbers], dtype=np.float64))
    rows = np.array([isinstance(value, int | float) for value in values], dtype=np.bool_)
    where, n_missing = _within(rows, found), found.n_missing + values.count(None)
    others = np.array([not isinstance(value, int | float | None) for value in values], dtype=np.bool_)
    return dataclasses.replace(
        found,
        n_whole=sum(isinstance(value, int) for value in numbers),
        texts=pa.array(texts) if texts else None,
        n_missing=n_missing,
        where=where,
        present=None if not n_missing else others | (rows if where is None else where),
    )


def _within(rows: NDArray[np.bool_], found: Cells) -> NDArray[np.bool_] | None:
    """Return which rows hold numbers, where ``found`` are the cells of some ``rows``."""
    if found.where is None:
        return None if rows.all() else rows
    where = rows.copy()
    where[rows] = found.where
    return where


def encodable(text: str) -> str:
    """Return text that UTF-8 can hold: JSON may have escapes of half a character."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer beyond all floats
        return float("inf") if value > 0 else float("-inf")
