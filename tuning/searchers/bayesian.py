"""Bayesian optimisation: a Gaussian process over noisy means, maximal log expected improvement.

A suggestion is computed from the history alone: Sobol points first; then the process is fitted to every trial's mean
over its seeds, each with the noise that its number of seeds leaves, pending trials are believed to come out as
expected, and the point with the largest expected improvement over the best *posterior mean* is proposed. A lucky
seed thus raises the incumbent only as far as the model believes it.

Source: Snoek, Larochelle and Adams (2012) for the frame; the parts name theirs in `gaussian_process`, `normalise` and
`acquisition`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from pydantic import Field
from scipy.spatial import distance
from threadpoolctl import ThreadpoolController

from policylab.config import Settings
from policylab.tuning.decisions import Configuration
from policylab.tuning.history import History
from policylab.tuning.parameters import Categorical
from policylab.tuning.searchers.acquisition import best_point, log_expected_improvement
from policylab.tuning.searchers.design import opening, sobol, uniform
from policylab.tuning.searchers.gaussian_process import GaussianProcess, NoisePrior
from policylab.tuning.searchers.normalise import Transform, normalise
from policylab.tuning.searchers.observations import Evidence, Observation, gather
from policylab.tuning.space import Space

ALIKE = 1e-3
"""Share of every range within which a configuration is the same again: on its seed it would bring the same result."""

MAX_OBSERVATIONS = 400
"""Observations a model is fitted to: the best half and the latest; the cost grows with their cube."""


class BayesianSettings(Settings):
    """Bayesian optimisation with a Gaussian process."""

    kind: Literal["bayesian"] = "bayesian"
    n_startup_trials: int = Field(default=10, ge=2, description="Sobol points before the first model")
    transform: Transform = Field(default="power", description="how values are made Gaussian before the model sees them")


class BayesianSearcher:
    """Proposes where improvement is most to be expected.

    Args:
        settings: of the search.
        space: searched.
        prior: observations from elsewhere, such as a parent study; they count as startup trials.
    """

    Settings = BayesianSettings

    def __init__(self, settings: BayesianSettings, space: Space, *, prior: Sequence[Observation] = ()) -> None:
        self._settings = settings
        self._space = space
        self._prior = tuple(prior)
        self._unordered = np.array([isinstance(parameter, Categorical) for parameter in space.parameters.values()])

    @classmethod
    def make(cls, settings: BayesianSettings, space: Space, *, prior: Sequence[Observation] = ()) -> Self:
        """Return a searcher."""
        return cls(settings, space, prior=prior)

    def suggest(self, history: History, *, rng: np.random.Generator) -> Configuration | None:
        """Return the next configuration, or None when a finite space is used up."""
        if (first := opening(self._space, history)) is not None:
            return first
        evidence = gather(history, n_parameters=len(self._space.paths), prior=self._prior)
        if history.proposed + len(self._prior) < self._settings.n_startup_trials or len(evidence.observed) < 2:
            return sobol(self._space, history, rng=rng)
        # Small matrices: threads cost more than they bring, and their number would show in the last bits.
        with _blas().limit(limits=1, user_api="blas"):
            return self._improve(evidence, history, rng=rng)

    def _improve(self, evidence: Evidence, history: History, *, rng: np.random.Generator) -> Configuration | None:
        process, points = self._model(evidence, rng)
        means = process.predict(points)[0]
        if evidence.pending:
            process = process.believing(self._space.points(evidence.pending))
        known = self._space.points([trial.configuration for trial in history.trials.values()])

        def score(candidates: np.ndarray) -> np.ndarray:
            mean, sd = process.predict(candidates)
            scores = log_expected_improvement(mean, sd, incumbent=float(means.max()))
            scores[_tried(candidates, known)] = -math.inf  # another seed of these is the scheduler's to add
            return scores

        near = points[np.argsort(-means, kind="stable")[:5]]
        found = best_point(score, self._space, near=near, rng=rng)
        return uniform(self._space, history, rng=rng) if found is None else self._space.from_unit(found)

    def _model(self, evidence: Evidence, rng: np.random.Generator) -> tuple[GaussianProcess, np.ndarray]:
        """Return the process and the points (n, d) it was fitted to."""
        observed = _relevant(evidence.observed)
        points = self._space.points([observation.configuration for observation in observed])
        values = normalise(observed, self._settings.transform)
        noise_prior = NoisePrior.from_seeds(values.seed_variance, degrees_of_freedom=values.degrees_of_freedom)
        process = GaussianProcess.fit(
            x=points,
            y=values.mean,
            noise=values.noise,
            unordered=self._unordered,
            noise_prior=noise_prior,
            rng=rng,
        )
        return process, points


@functools.cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _relevant(observed: Sequence[Observation]) -> Sequence[Observation]:
    """Return at most `MAX_OBSERVATIONS`: the best half, each by its rank in its group, then the latest."""
    if len(observed) <= MAX_OBSERVATIONS:
        return observed
    places: dict[int, float] = {}
    for group in {observation.group for observation in observed}:
        members = [index for index, observation in enumerate(observed) if observation.group == group]
        ranked = sorted(members, key=lambda index: -observed[index].mean)
        places |= {index: rank / len(ranked) for rank, index in enumerate(ranked)}
    best = set(sorted(places, key=lambda index: (places[index], index))[: MAX_OBSERVATIONS // 2])
    latest = [index for index in range(len(observed) - 1, -1, -1) if index not in best]
    kept = best | set(latest[: MAX_OBSERVATIONS - len(best)])
    return [observed[index] for index in sorted(kept)]


def _tried(points: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return which rows of ``points`` (n, d) are no further than `ALIKE` from one of ``known`` (m, d), shape (n,)."""
    return np.asarray((distance.cdist(points, known, "chebyshev") < ALIKE).any(axis=1))
