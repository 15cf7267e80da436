"""Scales on which a numeric range is searched.

| scaling | scale s(x) | demands |
|---|---|---|
| linear | x | |
| logarithmic | ln x | low > 0 |
| reverse_logarithmic | -ln(1 - x) | a continuous range within 0 <= x < 1 |
| auto | logarithmic when low > 0 and high >= 100 low, else linear | |

Source: SageMaker `HyperParameterScalingType`. There ``Auto`` starts linear and tries to infer a logarithmic scale
while the job runs; here the rule is fixed, two orders of magnitude or more, so that a proposal depends on the
evidence alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np

Scaling: TypeAlias = Literal["auto", "linear", "logarithmic", "reverse_logarithmic"]
Scale: TypeAlias = Literal["linear", "logarithmic", "reverse_logarithmic"]
"""A scaling with ``auto`` resolved."""

AUTO_LOGARITHMIC = 100.0
"""Smallest high / low of a positive range that ``auto`` searches on a logarithmic scale."""


def resolve_scaling(scaling: Scaling, *, low: float, high: float) -> Scale:
    """Return the scale that ``scaling`` means for a range.

    >>> resolve_scaling("auto", low=1e-4, high=1.0), resolve_scaling("auto", low=0.5, high=1.0)
    ('logarithmic', 'linear')
    """
    if scaling != "auto":
        return scaling
    return "logarithmic" if low > 0 and high >= AUTO_LOGARITHMIC * low else "linear"


def _identity(x: Any) -> Any:
    return x


TO_SCALE: dict[Scale, Callable[[Any], Any]] = {
    "linear": _identity,
    "logarithmic": np.log,
    "reverse_logarithmic": lambda x: -np.log1p(-x),
}
"""s(x) of each scale, for numbers and arrays."""

FROM_SCALE: dict[Scale, Callable[[Any], Any]] = {
    "linear": _identity,
    "logarithmic": np.exp,
    "reverse_logarithmic": lambda z: -np.expm1(-z),
}
"""The inverse of each scale."""
