"""Checks of the arguments of environments: each returns the value, or says which rule it breaks."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policylab.errors import EnvironmentRuleError, did_you_mean


def checked_number(name: str, value: Any) -> float:
    """Return ``value`` as a finite float.

    Raises:
        EnvironmentRuleError: it is no number, or infinite, or NaN.
    """
    if not _is_number(value) or not math.isfinite(value):
        raise EnvironmentRuleError(f"`{name}` must be a finite number, got {value!r}")
    return float(value)


def checked_probability(name: str, value: Any) -> float:
    """Return ``value`` as a float in [0, 1].

    Raises:
        EnvironmentRuleError: it is no number or lies outside.

    >>> checked_probability("slip", 1)
    1.0
    """
    if not _is_number(value) or not 0.0 <= float(value) <= 1.0:
        raise EnvironmentRuleError(f"`{name}` must be a probability between 0 and 1, got {value!r}")
    return float(value)


def checked_count(name: str, value: Any) -> int:
    """Return ``value`` as an int >= 0.

    Raises:
        EnvironmentRuleError: it is no whole number or negative.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 0:
        raise EnvironmentRuleError(f"`{name}` must be a whole number >= 0, got {value!r}")
    return int(value)


def checked_unit_action(action: Any, *, size: int) -> NDArray[np.float64]:
    """Return an action of a Box [-1, 1] as float64, shape (size,).

    Raises:
        EnvironmentRuleError: it has another shape, or a number outside of [-1, 1].
    """
    given = np.asarray(action, dtype=np.float64)
    if given.shape != (size,) or not (np.abs(given) <= 1.0).all():
        raise EnvironmentRuleError(f"an action must be {size} number(s) from -1 to 1, got {action!r}; clip it first")
    return given


def checked_name(name: str, value: Any, *, known: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``known``.

    Raises:
        EnvironmentRuleError: it is not.
    """
    names = list(known)
    if value not in names:
        hint = did_you_mean(str(value), names)
        raise EnvironmentRuleError(f"`{name}` must be one of {', '.join(names)}, got {value!r}{hint}")
    return str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
