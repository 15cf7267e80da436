"""`Comparison`: one layer of two samples compared; and values of steps as columns of numbers."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Role = Literal["cause", "symptom"]


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """How large a difference is, how often chance makes one like it, and what was compared, in words."""

    role: Role
    effect: float
    p_value: float
    detail: str


def columns(values: NDArray[Any]) -> Floats:
    """Return values of shape (N,) or (N, size) as numbers of shape (N, size)."""
    return values.reshape(len(values), -1).astype(np.float64)


def listed(action: NDArray[Any]) -> bool:
    """Return whether actions are choices from a list."""
    return action.ndim == 1 and action.dtype.kind in "iub"
