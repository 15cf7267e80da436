"""Observations as rows of numbers: the tabular input form of MLflow models.

An observation is written as its numbers in the order of its space (a Tuple or Dict part by part, arrays
in C order), one row each; an array of two or more dimensions stays an array.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from policylab.agents.space_json import value_from_json
from policylab.errors import UserError


def is_tensor(space: Space[Any]) -> bool:
    """Return whether an observation is an array that a row of numbers would tear apart."""
    return isinstance(space, spaces.Box) and len(space.shape) >= 2


def columns(space: Space[Any]) -> list[type[int] | type[float]]:
    """Return the type of each number in a row.

    >>> columns(spaces.Tuple([spaces.Discrete(32), spaces.Box(0, 1, (2,))]))
    [<class 'int'>, <class 'float'>, <class 'float'>]
    """
    match space:
        case spaces.Discrete():
            return [int]
        case spaces.Tuple():
            return [column for part in space.spaces for column in columns(part)]
        case spaces.Dict():
            return [column for part in space.spaces.values() for column in columns(part)]
        case _:
            kind: type[int] | type[float] = int if np.issubdtype(space.dtype, np.integer) else float
            return [kind] * math.prod(space.shape or ())


def observations(space: Space[Any], batch: Any) -> list[Any]:
    """Return the raw observations in ``batch``.

    Args:
        space: the observation space.
        batch: a DataFrame with one row per observation, or an array or list of shape (n, ...).

    Raises:
        UserError: a row is not an observation of the space.

    >>> observations(spaces.Discrete(16), [3, 15])
    [3, 15]
    >>> observations(spaces.Tuple([spaces.Discrete(32), spaces.Discrete(11)]), np.array([[20, 10.0]]))
    [(20, 10)]
    """
    rows: Iterable[Any] = batch.itertuples(index=False, name=None) if hasattr(batch, "itertuples") else batch
    if is_tensor(space):
        return [value_from_json(space, np.asarray(row).tolist()) for row in rows]
    return [value_from_json(space, _nested(space, row)) for row in rows]


def _nested(space: Space[Any], row: Any) -> Any:
    """Return a row of numbers as the JSON value of one observation."""
    numbers = np.asarray(row, dtype=np.float64).ravel().tolist()
    if len(numbers) != len(columns(space)):
        raise UserError(f"an observation of {str(space)[:80]} is {len(columns(space))} numbers, got {len(numbers)}")
    return _take(space, iter(numbers))


def _take(space: Space[Any], numbers: Iterator[float]) -> Any:
    match space:
        case spaces.Discrete():
            number = next(numbers)
            return int(number) if number.is_integer() else number
        case spaces.Tuple():
            return [_take(part, numbers) for part in space.spaces]
        case spaces.Dict():
            return {name: _take(part, numbers) for name, part in space.spaces.items()}
        case _:
            flat = np.array([next(numbers) for _ in columns(space)])
            whole = np.issubdtype(space.dtype, np.integer) and bool((flat == np.floor(flat)).all())
            return (flat.astype(np.int64) if whole else flat).reshape(space.shape).tolist()
