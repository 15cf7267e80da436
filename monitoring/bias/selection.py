"""What is a facet, a positive outcome, a group: ``COLUMN=VALUE,VALUE`` or ``COLUMN>NUMBER`` of a table's columns."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from policylab.errors import UserError


@dataclasses.dataclass(frozen=True, slots=True)
class Selection:
    """Some rows of a table, by the value of one column.

    Attributes:
        column: its name.
        values: the values that are meant; empty if a threshold is.
        threshold: values above it are meant: Clarify's right-closed intervals.
    """

    column: str
    values: tuple[str, ...] = ()
    threshold: float | None = None

    @classmethod
    def parse(cls, text: str, *, option: str) -> Self:
        """Return what ``text`` selects.

        Raises:
            UserError: it is neither ``COLUMN=VALUE,...`` nor ``COLUMN>NUMBER``; the message names ``option``.

        >>> Selection.parse("age>40", option="--facet")
        Selection(column='age', values=(), threshold=40.0)
        >>> Selection.parse("sex=f", option="--facet").values
        ('f',)
        """
        for mark in ("=", ">"):
            column, found, rest = text.partition(mark)
            if found and column.strip() and rest.strip():
                if mark == "=":
                    return cls(column.strip(), tuple(value.strip() for value in rest.split(",")))
                try:
                    threshold = float(rest)
                except ValueError:
                    threshold = math.nan
                if math.isfinite(threshold):
                    return cls(column.strip(), threshold=threshold)
        raise UserError(f"{option} must be COLUMN=VALUE,... or COLUMN>NUMBER, got {text!r}")

    def __str__(self) -> str:
        if self.threshold is not None:
            return f"{self.column}>{self.threshold:g}"
        return f"{self.column}={','.join(self.values)}"

    @property
    def value_or_threshold(self) -> str:
        """As Clarify's analysis writes it."""
        return f"({self.threshold:g}, inf)" if self.threshold is not None else ",".join(self.values)

    def mask(self, column: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which values of a column are meant, shape (N,).

        Raises:
            UserError: a threshold on a column that holds no numbers.
        """
        if self.threshold is not None:
            if column.dtype.kind not in "iufb":
                raise UserError(f"{self}: the column holds no numbers; name values with =")
            return np.asarray(column > self.threshold)
        if column.dtype.kind in "iufb":
            return np.isin(column.astype(np.float64), [_number(value) for value in self.values])
        return np.isin(column.astype(str), self.values)


def _number(value: str) -> float:
    try:
        return {"true": 1.0, "false": 0.0}.get(value.lower()) or float(value)
    except ValueError:
        return math.nan  # equals nothing
