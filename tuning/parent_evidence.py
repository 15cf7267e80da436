"""How much a parent's observations are worth to a child, and on which scale.

A Gaussian process of the parent, over normal scores of the ranks of its values, predicts the scores z of the child's
configurations.

| symbol | meaning |
|---|---|
| z | predicted normal scores of the child's configurations |
| y | what the child measured there |
| a + b z | a parent's score on the child's scale: the regression of y on z, b drawn towards the parent's own spread |
| S | Σ (z - mean z)², the evidence on the parent |
| s_ij | 1 if z_i - z_j and y_i - y_j have one sign, -1 if they have not |
| τ | (S Σ |z_i - z_j| s_ij / Σ |z_i - z_j| + EVIDENCE TRUST) / (S + EVIDENCE), sums over pairs |
| c_i | Σ_j exp(-|x_i - x_j|² / (2 d CROWD²)), how many of the parent's observations stand where the i-th stands |
| τ² / c_i | what it is worth, in observations of the child's |

Pairs that the parent holds to be alike say little about it and hardly count, so a child that has gone straight to the
best region, where nothing differs much, does not lose its trust in the parent.

Source: Salinas, Shen and Perrone (2020), "A quantile-based approach for hyperparameter transfer learning", for the
normal scores; Feurer, Letham and Bakshy (2018), "Practical transfer learning for Bayesian optimization", for weights by
rank agreement.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np

from policylab.seeding import generator
from policylab.tuning.decisions import Configuration
from policylab.tuning.parameters import Categorical
from policylab.tuning.parent_mapping import expressed
from policylab.tuning.searchers.acquisition import best_point
from policylab.tuning.searchers.gaussian_process import GaussianProcess, NoisePrior
from policylab.tuning.searchers.normalise import Normalised, normalise
from policylab.tuning.searchers.observations import Observation
from policylab.tuning.study_facts import Parent, StudyFacts

TRUST = 0.7
"""Rank agreement assumed of a parent before the child has measured anything."""

EVIDENCE = 4.0
"""S that weighs as much as that assumption: about as many configurations, spread as widely as the parent's."""

LEAST_AGREEMENT = 0.25
"""τ below which a parent is not used."""

CROWD = 0.1
"""Root-mean-square distance along an axis within which a parent's observations repeat one another."""

MAX_OBSERVATIONS = 200
"""Observations of one parent that are used: the best half and the latest."""


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """How a parent stands with the child.

    Attributes:
        name: of the parent.
        n_used: observations that have a place in the child's space.
        n_left_out: observations that have none.
        agreement: τ, in [-1, 1].
        weight: what one of its observations is worth, 1 for one of the child's own.
    """

    name: str
    n_used: int
    n_left_out: int
    agreement: float
    weight: float


class ParentEvidence:
    """One parent's observations in the child's space.

    Attributes:
        name: of the parent.
        pooled: observations on the parent's own scale, at its full resource; none where it has trained nothing in full.
        n_left_out: observations without a place in the space.
    """

    def __init__(self, parent: Parent, *, child: StudyFacts) -> None:
        self.name = parent.facts.name
        self._space = child.space
        self.pooled, self._ranked = (
            _relevant([found for item in items if (found := expressed(item, parent=parent.facts, child=child))])
            for items in (parent.observed, parent.ranked)
        )
        self.n_left_out = sum(expressed(item, parent=parent.facts, child=child) is None for item in parent.ranked)
        means = [observation.mean for observation in self._ranked]
        self._spread = float(np.std(means)) if len(set(means)) > 1 else 1.0

    @functools.cached_property
    def _scores(self) -> Normalised:
        return normalise(self._ranked, "rank")

    @functools.cached_property
    def _process(self) -> GaussianProcess:
        scores = self._scores
        unordered = np.array([isinstance(parameter, Categorical) for parameter in self._space.parameters.values()])
        prior = NoisePrior.from_seeds(scores.seed_variance, degrees_of_freedom=scores.degrees_of_freedom)
        points = self._space.points([item.configuration for item in self._ranked])
        return GaussianProcess.fit(x=points, y=scores.mean, noise=scores.noise, unordered=unordered, noise_prior=prior)

    def predict(self, observed: Sequence[Observation]) -> np.ndarray:
        """Return the normal scores that the parent expects of the child's configurations, shape (n,)."""
        if not observed or not self._ranked:
            return np.zeros(len(observed))
        return self._process.predict(self._space.points([item.configuration for item in observed]))[0]

    def standing(self, observed: Sequence[Observation]) -> Standing:
        """Return how the parent stands with what the child observed."""
        agreement = rank_agreement(self.predict(observed), np.array([item.mean for item in observed]))
        weight = agreement**2 if agreement >= LEAST_AGREEMENT else 0.0
        return Standing(self.name, len(self._ranked), self.n_left_out, agreement, weight)

    def transferred(self, observed: Sequence[Observation]) -> Iterator[Observation]:
        """Yield the parent's observations on the child's scale, with their weights."""
        weight = self.standing(observed).weight
        values = np.array([item.mean for item in observed])
        shift, slope = _alignment(self.predict(observed), values, spread=self._spread)
        if not self._ranked or weight == 0.0 or slope <= 0.0:
            return
        weights = weight / self._scores.noise / self._crowding
        with np.errstate(over="ignore", invalid="ignore"):  # values near the largest number there is
            means = shift + slope * self._scores.mean
        for item, mean, worth in zip(self._ranked, means, weights, strict=True):
            if np.isfinite(mean):
                yield dataclasses.replace(item, values=(float(mean),), weight=float(worth))

    @functools.cached_property
    def _crowding(self) -> np.ndarray:
        """How many observations stand where each stands, itself included, shape (n,).

        What is different about the child is different in a whole neighbourhood, so the parent's repeated visits there
        do not average it out.
        """
        points = self._space.points([item.configuration for item in self._ranked])
        squares = ((points[:, None, :] - points[None, :, :]) ** 2).mean(axis=2)
        return np.asarray(np.exp(-squares / (2 * CROWD**2)).sum(axis=1))

    @functools.cached_property
    def box(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Corners in the unit cube of the box that holds the best fifth, (d,) each; None of fewer than three."""
        leaders = sorted(self._ranked, key=lambda item: -item.mean)[: max(3, len(self._ranked) // 5)]
        if len(leaders) < 3:
            return None
        points = self._space.points([item.configuration for item in leaders])
        return points.min(axis=0), points.max(axis=0)

    def best(self) -> list[Configuration]:
        """Return configurations of the child's space, best first: the best observed, the one predicted best, others.

        What few seeds say is drawn towards the mean.
        """
        if not self._ranked:
            return []
        variance = self._scores.seed_variance or 1.0
        shrunk = self._scores.mean / (1.0 + variance * self._scores.noise)
        order = np.argsort(-shrunk, kind="stable")
        observed: list[Configuration] = [self._ranked[index].configuration for index in order]
        inside = [configuration for configuration in observed if self._space.contains(configuration)]
        near = self._space.points(observed[:5])
        rng = generator(0, "warm_start", self.name)
        peak = best_point(lambda points: self._process.predict(points)[0], self._space, near=near, rng=rng)
        return inside if peak is None else [*inside[:1], self._space.from_unit(peak), *inside[1:]]


def rank_agreement(predicted: np.ndarray, values: np.ndarray) -> float:
    """Return τ of predictions and values, both (n,), drawn towards `TRUST` where predictions differ little.

    >>> rank_agreement(np.zeros(3), np.arange(3.0))
    0.7
    >>> round(rank_agreement(np.arange(-4.0, 5.0), -np.arange(9.0)), 2)
    -0.89
    """
    i, j = np.triu_indices(len(predicted), k=1)
    gaps = predicted[i] - predicted[j]
    same = np.sign(gaps) * np.sign(values[i] - values[j])
    total = float(np.abs(gaps).sum())
    evidence = float(((predicted - predicted.mean()) ** 2).sum()) if total > 0 else 0.0
    observed = float((np.abs(gaps) * same).sum()) / total if total > 0 else 0.0
    return (evidence * observed + EVIDENCE * TRUST) / (evidence + EVIDENCE)


def _alignment(predicted: np.ndarray, values: np.ndarray, *, spread: float) -> tuple[float, float]:
    """Return a and b of values = a + b predicted, b drawn towards ``spread``."""
    if not len(values):
        return 0.0, spread
    centred = predicted - predicted.mean()
    slope = (float(centred @ values) + spread) / (float(centred @ centred) + 1.0)
    return float(values.mean() - slope * predicted.mean()), slope


def _relevant(observations: list[Observation]) -> list[Observation]:
    if len(observations) <= MAX_OBSERVATIONS:
        return observations
    order = sorted(range(len(observations)), key=lambda index: -observations[index].mean)
    kept = set(order[: MAX_OBSERVATIONS // 2])
    latest = [index for index in reversed(range(len(observations))) if index not in kept]
    kept.update(latest[: MAX_OBSERVATIONS - len(kept)])
    return [observations[index] for index in sorted(kept)]
