"""Gymnasium spaces, and the values in them, as plain JSON.

Infinite bounds are written ``"inf"`` and ``"-inf"``, since JSON has no number for them; a bound equal in
every place is written once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from policylab.errors import UserError

MAX_ELEMENTS = 10_000_000
_NUMERIC = {np.dtype(name) for name in ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")} | {
    np.dtype(name) for name in ("uint64", "float16", "float32", "float64")
}


def space_to_json(space: Space[Any]) -> dict[str, Any]:
    """Return the JSON from which `space_from_json` makes an equal space.

    Raises:
        UserError: a kind of space that has no JSON form here.

    >>> space_to_json(spaces.Discrete(4))
    {'type': 'Discrete', 'n': 4, 'start': 0}
    """
    match space:
        case spaces.Discrete():
            return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
        case spaces.MultiDiscrete():
            return {"type": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist()}
        case spaces.MultiBinary():
            return {"type": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.shape)}
        case spaces.Box():
            bounds = {"low": _bound_to_json(space.low), "high": _bound_to_json(space.high)}
            return {"type": "Box", "shape": list(space.shape), "dtype": str(space.dtype), **bounds}
        case spaces.Tuple():
            return {"type": "Tuple", "spaces": [space_to_json(part) for part in space.spaces]}
        case spaces.Dict():
            return {"type": "Dict", "spaces": {name: space_to_json(part) for name, part in space.spaces.items()}}
        case _:
            raise UserError(
                f"the space {str(space)[:80]} has no JSON form; use Discrete, MultiDiscrete, MultiBinary, Box, "
                "Tuple or Dict spaces"
            )


def space_from_json(value: Any) -> Space[Any]:
    """Return the space that `space_to_json` described.

    Raises:
        UserError: the JSON does not describe a space.

    >>> space_from_json({"type": "Box", "shape": [2], "dtype": "float32", "low": "-inf", "high": [1.0, "inf"]})
    Box(-inf, [ 1. inf], (2,), float32)
    """
    try:
        return _space_from_json(value)
    except (AssertionError, AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise UserError(f"{str(value)[:80]} does not describe a space") from error


def _space_from_json(value: Mapping[str, Any]) -> Space[Any]:
    match value["type"]:
        case "Discrete":
            return spaces.Discrete(value["n"], start=value["start"])
        case "MultiDiscrete":
            return spaces.MultiDiscrete(np.array(value["nvec"]), start=np.array(value["start"]))
        case "MultiBinary":
            n = value["n"]
            return spaces.MultiBinary(_shape([n])[0] if isinstance(n, int) else _shape(n))
        case "Box":
            dtype, shape = np.dtype(value["dtype"]), _shape(value["shape"])
            if dtype not in _NUMERIC:
                raise ValueError(dtype)
            low, high = (_bound_from_json(value[name], dtype, shape=shape) for name in ("low", "high"))
            return spaces.Box(low, high, dtype=dtype.type)
        case "Tuple":
            return spaces.Tuple([_space_from_json(part) for part in value["spaces"]])
        case "Dict":
            return spaces.Dict({name: _space_from_json(part) for name, part in value["spaces"].items()})
        case other:
            raise ValueError(other)


def _shape(value: Any) -> tuple[int, ...]:
    shape = tuple(int(size) for size in value)
    if math.prod(shape) > MAX_ELEMENTS or min(shape, default=0) < 0 or len(shape) > 32:
        raise ValueError(shape)
    return shape


def _bound_to_json(bound: NDArray[Any]) -> Any:
    flat = [x if math.isfinite(x) else str(x) for x in bound.ravel().tolist()]
    return flat[0] if flat and flat.count(flat[0]) == len(flat) else flat


def _bound_from_json(value: Any, dtype: np.dtype[Any], *, shape: tuple[int, ...]) -> NDArray[Any]:
    flat = [float(x) if isinstance(x, str) else x for x in value] if isinstance(value, list) else None
    if flat is not None:
        return np.array(flat, dtype=dtype).reshape(shape)
    return np.full(shape, float(value) if isinstance(value, str) else value, dtype=dtype)


_MISFITS = (
    AttributeError,
    FloatingPointError,
    IndexError,
    KeyError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)


def value_to_json(space: Space[Any], value: Any) -> Any:
    """Return one observation or action of ``space`` as JSON: a number, nested lists or a mapping.

    Raises:
        UserError: the value has another structure than the space.

    >>> value_to_json(spaces.Tuple([spaces.Discrete(3), spaces.Box(0, 1, (2,))]), (2, np.array([0.5, 1.0])))
    [2, [0.5, 1.0]]
    """
    try:
        return _value_to_json(space, value)
    except _MISFITS as error:
        raise UserError(f"{str(value)[:80]} is not a value of the space {str(space)[:80]}") from error


def _value_to_json(space: Space[Any], value: Any) -> Any:
    match space:
        case spaces.Discrete():
            return int(value)
        case spaces.Tuple():
            return [_value_to_json(part, item) for part, item in zip(space.spaces, value, strict=True)]
        case spaces.Dict():
            return {name: _value_to_json(part, value[name]) for name, part in space.spaces.items()}
        case _:
            return np.asarray(value).tolist()


def value_from_json(space: Space[Any], value: Any) -> Any:
    """Return the observation or action of ``space`` that `value_to_json` wrote.

    Raises:
        UserError: the value does not belong to the space.

    >>> value_from_json(spaces.MultiBinary(3), [0, 1, 1])
    array([0, 1, 1], dtype=int8)
    """
    try:
        found = _value_from_json(space, value)
        if space.contains(found):
            return found
    except _MISFITS:
        pass  # one message for every way not to fit
    raise UserError(f"{str(value)[:80]} is not a value of the space {str(space)[:80]}")


def _value_from_json(space: Space[Any], value: Any) -> Any:
    match space:
        case spaces.Discrete():
            return value if isinstance(value, int) else None
        case spaces.Tuple():
            return tuple(_value_from_json(part, item) for part, item in zip(space.spaces, value, strict=True))
        case spaces.Dict():
            if set(value) != set(space.spaces):
                raise KeyError(value)
            return {name: _value_from_json(part, value[name]) for name, part in space.spaces.items()}
        case _:
            whole = np.issubdtype(space.dtype, np.integer)
            if whole and not np.issubdtype(np.asarray(value).dtype, np.integer):
                raise ValueError(value)  # casting would cut off decimals
            with np.errstate(over="raise"):  # a number beyond the type is not the infinity it would become
                return np.array(value, dtype=space.dtype)
