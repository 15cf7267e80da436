"""Rules: functions that both executions of an agent run, in Python and compiled.

A rule uses scalars, array elements, loops, `math` and other rules only, takes positional arguments, and
draws its random numbers by `draw`. The compiled execution (`policylab.agents.tabular.compiled`) compiles
these very functions; since neither NumPy reductions nor fused operations occur, both round alike and give
equal results to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

Function = TypeVar("Function", bound=Callable[..., object])

RULES: list[Callable[..., object]] = []
"""Every function marked by `rule`, in the order of definition."""


def rule(function: Function) -> Function:
    """Mark a function as one that both executions run."""
    RULES.append(function)
    return function


def draw(rng: np.random.Generator) -> float:
    """Return a uniform number in [0, 1): the one way a rule uses its random stream."""
    return rng.random()


def likely(condition: bool) -> bool:
    """Return ``condition``; a compiled rule is laid out for the case that it holds."""
    return condition
