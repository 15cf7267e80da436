"""Tree-structured Parzen estimator: Optuna's sampler on an in-memory study that mirrors the history.

Every suggestion uses a freshly seeded sampler on a study that holds the evidence and nothing else, so it is a
function of the history and the stream alone, which a sampler that lives through a study is not. Numeric axes are
searched on the unit interval of their scale, conditional parameters in groups of their own (``group=True``).

Source: Bergstra et al. (2011); Falkner, Klein and Hutter (2018) for the multivariate form; Optuna ``TPESampler``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from pydantic import Field

from policylab.config import Settings
from policylab.tuning.decisions import Configuration
from policylab.tuning.history import History
from policylab.tuning.searchers.design import first_new, opening, sobol, uniform
from policylab.tuning.searchers.normalise import normalise
from policylab.tuning.searchers.observations import Evidence, Observation, gather
from policylab.tuning.space import Space

if TYPE_CHECKING:
    from policylab.tuning.searchers.optuna_mirror import Row

MAX_ASKS = 16
"""Asks before a uniform draw replaces proposals that break constraints or repeat."""


class TpeSettings(Settings):
    """Tree-structured Parzen estimator."""

    kind: Literal["tpe"] = "tpe"
    n_startup_trials: int = Field(default=10, ge=2, description="Sobol points before the first model")
    n_ei_candidates: int = Field(default=24, ge=1, description="draws among which the best is proposed")


class TpeSearcher:
    """Proposes what is likelier among good configurations than among the rest.

    Args:
        settings: of the search.
        space: searched.
        prior: observations from elsewhere, such as a parent study; they count as startup trials.
    """

    Settings = TpeSettings

    def __init__(self, settings: TpeSettings, space: Space, *, prior: Sequence[Observation] = ()) -> None:
        # Optuna takes longer to import than a small study lasts: whoever only names the searcher does not wait for it.
        from policylab.tuning.searchers.optuna_mirror import StudyMirror

        self._settings = settings
        self._space = space
        self._prior = tuple(prior)
        self._mirror = StudyMirror(space, n_ei_candidates=settings.n_ei_candidates)

    @classmethod
    def make(cls, settings: TpeSettings, space: Space, *, prior: Sequence[Observation] = ()) -> Self:
        """Return a searcher."""
        return cls(settings, space, prior=prior)

    def suggest(self, history: History, *, rng: np.random.Generator) -> Configuration | None:
        """Return the next configuration, or None when a finite space is used up."""
        if (first := opening(self._space, history)) is not None:
            return first
        evidence = gather(history, n_parameters=len(self._space.paths), prior=self._prior)
        if history.proposed + len(self._prior) < self._settings.n_startup_trials or len(evidence.observed) < 2:
            return sobol(self._space, history, rng=rng)
        self._mirror.show(self._rows(evidence), seed=int(rng.integers(2**32)))
        proposals = (self._mirror.ask() for _ in range(MAX_ASKS))
        kept = (found for found in proposals if self._space.contains(found))
        return first_new(self._space, history, candidates=kept) or uniform(self._space, history, rng=rng)

    def _rows(self, evidence: Evidence) -> list[Row]:
        """Return the evidence as the mirror's rows: observed ones first, then what is pending."""
        foreign = any(observation.group for observation in evidence.observed)
        # The estimator looks at the order alone; only groups on other scales need to be made comparable.
        values = normalise(evidence.observed, "rank").mean.tolist() if foreign else [o.mean for o in evidence.observed]
        observed = zip((observation.configuration for observation in evidence.observed), values, strict=True)
        return [*observed, *((configuration, None) for configuration in evidence.pending)]
