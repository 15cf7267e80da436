"""Grid search: every combination once, in a fixed order.

SageMaker's rule: categorical parameters only, and the number of trials, where it is given, equals the number of
combinations. A numeric range joins the grid when its ``step`` says which values are meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Self
from weakref import WeakKeyDictionary

import numpy as np

from policylab.config import Settings
from policylab.errors import ConfigError
from policylab.tuning.decisions import Configuration
from policylab.tuning.history import History
from policylab.tuning.searchers.design import opening, tried
from policylab.tuning.searchers.observations import Observation
from policylab.tuning.space import Space, configuration_key

MAX_GRID = 100_000
"""Most combinations a grid may have."""


class GridSettings(Settings):
    """Grid search."""

    kind: Literal["grid"] = "grid"


class GridSearcher:
    """Walks through the grid, the first parameter slowest; the default point, where given, comes first.

    Raises:
        ConfigError: a numeric range has no step, or the grid is too large or empty.
    """

    Settings = GridSettings

    def __init__(self, space: Space) -> None:
        self._space = space
        self._points = list(_points(space))
        if not self._points:
            raise ConfigError("search space: no point of the grid keeps the constraints; loosen them")
        self._place: WeakKeyDictionary[History, int] = WeakKeyDictionary()  # all points before it were tried

    @classmethod
    def make(cls, settings: GridSettings, space: Space, *, prior: Sequence[Observation] = ()) -> Self:
        """Return a searcher; what is known from elsewhere plays no part."""
        return cls(space)

    def suggest(self, history: History, *, rng: np.random.Generator) -> Configuration | None:
        """Return the first point of the grid that was not tried, or None after the last."""
        if (first := opening(self._space, history)) is not None:
            return first
        known, place = tried(history), self._place.get(history, 0)
        while place < len(self._points) and configuration_key(self._points[place]) in known:
            place += 1
        self._place[history] = place
        return dict(self._points[place]) if place < len(self._points) else None


def check_grid_trials(space: Space, n_trials: int | None) -> None:
    """Refuse a number of trials that is not the number of combinations; None asks for all of them.

    Source: SageMaker, ``MaxNumberOfTrainingJobs`` with the grid strategy.

    Raises:
        ConfigError: the numbers differ, or there is no grid.
    """
    n_points = sum(1 for _ in _points(space))
    if n_trials is not None and n_trials != n_points:
        raise ConfigError(f"limits.trials: a grid has {n_points} points, got {n_trials}; leave it out")


def _points(space: Space) -> Iterator[dict[str, Any]]:
    found = space.grid()  # refuses ranges without a step before the size is looked at
    if space.size is None or space.size > MAX_GRID:
        raise ConfigError(f"search space: a grid of {space.size} points is beyond {MAX_GRID}; use random search")
    return found
