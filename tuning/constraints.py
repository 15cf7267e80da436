"""Constraints between parameters, as data: ``{left: agent.n_steps, op: ">=", right: agent.batch_size}``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
from pydantic import Field, model_validator

from policylab.config import Settings

Operand: TypeAlias = float | str
"""A number, or the path of a parameter whose values are numbers."""

_OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "!=": operator.ne,
}


class Constraint(Settings):
    """``left op right`` must hold wherever both sides exist; ``==`` is no constraint but one parameter too many.

    It may be written as it is printed.

    >>> str(Constraint.model_validate("agent.n_steps >= 8"))
    'agent.n_steps >= 8.0'
    >>> batch = Constraint(left="batch", op="<=", right="buffer")
    >>> batch.holds({"batch": 64, "buffer": 32}), batch.holds({"batch": 64})
    (False, True)
    """

    left: Operand = Field(union_mode="left_to_right", description="path of a parameter, or a number")
    op: Literal["<", "<=", ">", ">=", "!="]
    right: Operand = Field(union_mode="left_to_right", description="path of a parameter, or a number")

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, data: Any) -> Any:
        if not isinstance(data, str):
            return data
        found = re.fullmatch(r"\s*(\S+)\s+(\S+)\s+(\S+)\s*", data)
        if found is None:
            raise ValueError("a constraint is PATH OP PATH with spaces between, or {left: PATH, op: '<=', right: PATH}")
        return dict(zip(("left", "op", "right"), found.groups(), strict=True))

    @property
    def paths(self) -> list[str]:
        """The parameters it speaks of."""
        return [side for side in (self.left, self.right) if isinstance(side, str)]

    def holds(self, values: Mapping[str, Any]) -> Any:
        """Return whether it holds: for numbers a bool, for columns of numbers (NaN where inactive) an array."""
        if any(path not in values for path in self.paths):
            return True
        left, right = (values[side] if isinstance(side, str) else side for side in (self.left, self.right))
        met = _OPERATIONS[self.op](left, right)
        # What does not exist cannot violate anything: NaN compares false and is let through.
        return met | np.isnan(left) | np.isnan(right) if isinstance(met, np.ndarray) else met

    def __str__(self) -> str:
        return f"{self.left} {self.op} {self.right}"
