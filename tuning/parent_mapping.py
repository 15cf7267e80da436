"""A parent's observations in the space of its child.

A parameter that was static in the parent has its static value. One that is static in the child, and a value outside
the child's range, cost weight with the distance: exp(-distance / NEAR), in lengths of the range. What has no place at
all, an unknown category or a parameter without a value, is left out.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from policylab.tuning.parameters import Categorical, Parameter, value_key
from policylab.tuning.scaling import TO_SCALE
from policylab.tuning.searchers.observations import Observation
from policylab.tuning.study_facts import StudyFacts, static_values

NEAR = 0.2
"""Distance at which an observation out of place is worth 1/e."""

LEAST_WEIGHT = 0.01


def expressed(observation: Observation, *, parent: StudyFacts, child: StudyFacts) -> Observation | None:
    """Return a parent's observation in the child's space, or None where it has no place there."""
    values = {**parent.static, **observation.configuration}
    space = child.space
    known = {path: values[path] for path in space.paths if path in values}
    active = space.active(known)
    if any(path not in known for path in active):
        return None
    configuration = {path: known[path] for path in active}
    distance = sum(_outside(space.parameters[path], value) for path, value in configuration.items())
    now = static_values(child, parent)
    distance += sum(
        _moved(parent.space.parameters[path], now=now[path], then=value)
        for path, value in observation.configuration.items()
        if path in now and path in parent.space.parameters
    )
    weight = observation.weight * math.exp(-distance / NEAR)
    if weight < LEAST_WEIGHT or not math.isfinite(observation.mean):
        return None
    plain = {path: space.parameters[path].plain(value) for path, value in configuration.items()}
    return Observation(plain, observation.values, weight=weight)


def _outside(parameter: Parameter, value: Any) -> float:
    """Return how far a value lies outside its range, in lengths of the range; infinity if it has no place at all."""
    if isinstance(parameter, Categorical):
        return math.inf if parameter.fault(value) else 0.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.inf
    scale = TO_SCALE[parameter.scale]
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high, place = (float(scale(number)) for number in (parameter.low, parameter.high, value))
    if not math.isfinite(place):
        return math.inf
    return max(low - place, place - high, 0.0) / (high - low)


def _moved(parameter: Parameter, *, now: Any, then: Any) -> float:
    """Return how far the value a parent searched lies from the one that is static now, in lengths of its range."""
    if isinstance(parameter, Categorical):
        return 0.0 if value_key(now) == value_key(then) else math.inf
    if isinstance(now, bool) or not isinstance(now, int | float):
        return math.inf
    places = parameter.places([now, then])
    return float(abs(places[0] - places[1]))
