"""Random search: independent uniform draws on the parameters' scales, or a scrambled Sobol sequence.

Source: Bergstra and Bengio (2012), "Random search for hyper-parameter optimization"; Owen (1998), "Scrambling Sobol'
and Niederreiter-Xing points", for the sequence that fills a space more evenly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from pydantic import Field

from policylab.config import Settings
from policylab.tuning.decisions import Configuration
from policylab.tuning.history import History
from policylab.tuning.searchers.design import opening, sobol, uniform
from policylab.tuning.searchers.observations import Observation
from policylab.tuning.space import Space


class RandomSettings(Settings):
    """Random search."""

    kind: Literal["random"] = "random"
    sobol: bool = Field(default=False, description="a scrambled Sobol sequence instead of independent draws")


class RandomSearcher:
    """Draws configurations without looking at results."""

    Settings = RandomSettings

    def __init__(self, settings: RandomSettings, space: Space) -> None:
        self._space = space
        self._draw = sobol if settings.sobol else uniform

    @classmethod
    def make(cls, settings: RandomSettings, space: Space, *, prior: Sequence[Observation] = ()) -> Self:
        """Return a searcher; what is known from elsewhere plays no part."""
        return cls(settings, space)

    def suggest(self, history: History, *, rng: np.random.Generator) -> Configuration | None:
        """Return a new configuration, or None when a finite space is used up."""
        return opening(self._space, history) or self._draw(self._space, history, rng=rng)
