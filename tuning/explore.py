"""Exploration around a configuration that did well: what a copy in a population changes.

| value | change |
|---|---|
| number | times one of two factors, kept in its range; on a reversed logarithmic scale its distance to 1 |
| number with a step, whole number | the same, by one step at least |
| any, with some probability | drawn anew from the space; the only change of a category |

Source: Jaderberg et al. 2017, "Population Based Training of Neural Networks", arXiv 1711.09846, section 4.1.1:
"perturb", factors 0.8 and 1.2, or "resample" from the prior.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np

from policylab.tuning.decisions import Configuration
from policylab.tuning.parameters import Categorical, Parameter
from policylab.tuning.space import Space

MAX_DRAWS = 100
"""Draws after which the constraints are held to admit no change, and the copy keeps the configuration."""


def explore(
    space: Space,
    configuration: Configuration,
    *,
    paths: Collection[str],
    factors: tuple[float, float],
    resample: float,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Return a configuration near ``configuration``.

    Args:
        space: searched; its conditions and constraints are kept.
        configuration: of a run that did well.
        paths: what may change; the rest is inherited.
        factors: a number is multiplied by one of them, with equal chances.
        resample: probability that a value is drawn anew instead.
        rng: drawn from.

    >>> space = Space.model_validate({"parameters": {"rate": {"kind": "continuous", "low": 0.001, "high": 1.0}}})
    >>> near = explore(space, {"rate": 0.1}, paths=["rate"], factors=(0.5, 2.0), resample=0.0,
    ...                rng=np.random.default_rng(0))
    >>> near["rate"] in (0.05, 0.2)
    True
    """
    for _ in range(MAX_DRAWS):
        drawn = space.sample(rng)
        found: dict[str, Any] = {}
        for path in space.resolution_order:
            if not space.exists(path, found):
                continue
            if path not in configuration or (path in paths and rng.random() < resample):
                found[path] = drawn[path] if path in drawn else space.parameters[path].from_unit(float(rng.random()))
            elif path in paths:
                factor = factors[int(rng.integers(2))]
                found[path] = _perturbed(space.parameters[path], configuration[path], factor=factor)
            else:
                found[path] = configuration[path]
        if space.contains(found):
            return {path: found[path] for path in space.paths if path in found}
    return dict(configuration)


def _perturbed(parameter: Parameter, value: Any, *, factor: float) -> Any:
    """Return a value a factor away, in its range and on its grid if it has one."""
    if isinstance(parameter, Categorical):
        return value
    moved = 1 - (1 - value) * factor if parameter.scale == "reverse_logarithmic" else value * factor
    if parameter.cell is None:
        return parameter.plain(min(max(moved, parameter.low), parameter.high))
    if abs(moved - value) < parameter.cell:
        moved = value + math.copysign(parameter.cell, factor - 1)
    return parameter.from_unit(parameter.to_unit(moved))
