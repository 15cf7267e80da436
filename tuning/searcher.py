"""The Searcher protocol: which configuration to try next."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from policylab.registry import Registry
from policylab.tuning.decisions import Configuration
from policylab.tuning.history import History

SEARCHERS = Registry(
    "searcher",
    {
        "grid": "policylab.tuning.searchers.grid:GridSearcher",
        "random": "policylab.tuning.searchers.random:RandomSearcher",
        "bayesian": "policylab.tuning.searchers.bayesian:BayesianSearcher",
        "tpe": "policylab.tuning.searchers.tpe:TpeSearcher",
    },
)
"""Name -> class with a ``Settings`` model and ``make(settings, space, prior=observations)``."""


class Searcher(Protocol):
    """Proposes configurations. Its answer is a function of the history and of ``rng`` alone."""

    def suggest(self, history: History, *, rng: np.random.Generator) -> Configuration | None:
        """Return a configuration to try, or None when there is none left.

        Args:
            history: everything observed so far, unfinished runs included.
            rng: a fresh stream for this suggestion.
        """
        ...
