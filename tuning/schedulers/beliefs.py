"""What the race believes about finalists: a two-way model of scores, its unknown variances integrated out.

| symbol | meaning |
|---|---|
| z_ij | score of finalist i on seed j, its result in spreads: a_i + b_j + e_ij |
| τ² | variance of the true scores a between finalists |
| β² | variance of what a seed does to all finalists alike, b |
| σ² | variance of what else a seed does to one finalist, e |
| κ_i | τ² / (σ² + n_i τ²), n_i the number of seeds seen: how far a residual moves the belief about a_i |

Rivals share their seeds, so an easy seed is no merit of those that happened to be trained on it. The common mean has a
flat prior and the scale of the variances 1/scale; both are integrated in closed form (Gelman et al., Bayesian Data
Analysis, 3rd edition, section 14.2). The shares of the three variances are integrated over a grid.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtr

from policylab.tuning.schedulers.scores import Vector, value_scores

Flags: TypeAlias = NDArray[np.bool_]
Indices: TypeAlias = NDArray[np.intp]
Array: TypeAlias = NDArray[np.float64]

SEED_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""The seeds' shares (β² + σ²) / (τ² + β² + σ²) that are thought of, all equally likely before there is data.

Among all configurations of a task the share is .28 in the mean, up to .84 (ARLBench, Becktepe et al. 2024); among
finalists, who are alike, it is higher.
"""

COMMON_SHARES = {0.01: 0.7, 0.3: 0.1, 0.6: 0.1, 0.9: 0.09, 0.99: 0.01}
"""How likely the shares β² / (β² + σ²) are before there is data.

Two learners make different things of one random stream, so nearly always it is nil; a seed that picks a maze or a
fold of the data is another matter.
"""

_SHARES, _COMMON = (grid.ravel() for grid in np.meshgrid(SEED_SHARES, list(COMMON_SHARES), indexing="ij"))
_PRIOR = np.log(np.tile(list(COMMON_SHARES.values()), len(SEED_SHARES)))
_BETWEEN, _ALIKE, _NOISE = 1 - _SHARES, _SHARES * _COMMON, _SHARES * (1 - _COMMON)


@dataclasses.dataclass(frozen=True, slots=True)
class _Design:
    """What the model makes of which finalist was seen on which seed, for each of g pairs of shares.

    Attributes:
        weights: κ on seen seeds, 0 elsewhere, shape (g, n, seeds).
        own: variance of a_i if the seeds' effects were known, shape (g, n).
        effects: covariance of the seeds' effects, shape (g, seeds, seeds).
        logdet: logarithm of the determinants that the likelihood holds, shape (g,).
    """

    weights: Array
    own: Array
    effects: Array
    logdet: Vector

    @classmethod
    def of(cls, seen: Flags) -> _Design:
        counts, n_seeds = seen.sum(axis=1), seen.shape[1]
        noise, alike = _NOISE[:, None], _ALIKE[:, None, None]
        total = noise + np.arange(n_seeds + 1) * _BETWEEN[:, None]  # by the number of seeds, of which there are few
        kappa = (_BETWEEN[:, None] / total).take(counts, axis=1)
        weights = kappa[:, :, None] * seen
        spread = np.eye(n_seeds) - 1 / n_seeds  # around a common mean with a flat prior
        data = np.eye(n_seeds) * seen.sum(axis=0) - seen.T.astype(float) @ weights
        precision = data / noise[:, :, None] + spread / alike
        logdet = (
            np.log(total).take(counts, axis=1).sum(axis=1)
            + (counts - 1).sum() * np.log(_NOISE)
            + np.linalg.slogdet(precision)[1]
            + (n_seeds - 1) * np.log(_ALIKE)
        )
        return cls(weights, kappa * noise, np.linalg.inv(precision), logdet)


@dataclasses.dataclass(frozen=True, slots=True)
class Belief:
    """What is believed of n finalists' true scores; see `believe`.

    Attributes:
        seen: who was seen on which seed, shape (n, seeds).
        chances: how likely each of g pairs of shares is, shape (g,).
        means: expected true score under each, shape (g, n).
        scales: τ² + β² + σ² under each, shape (g,).
        design: what follows from who was seen alone.
    """

    seen: Flags
    chances: Vector
    means: Array
    scales: Vector
    design: _Design

    @property
    def mean(self) -> Vector:
        """Expected true scores, shape (n,)."""
        return np.asarray(self.chances @ self.means)

    def chance_to_beat(self, rival: int, *, among: Indices | None = None) -> Vector:
        """Return, for each finalist or those ``among`` them, how likely its true score exceeds that of ``rival``."""
        asked = np.arange(len(self.seen)) if among is None else among
        weights, own = self.design.weights, self.design.own
        moved = weights[:, asked] - weights[:, [rival]]
        variance = own[:, asked] + own[:, [rival]] + (moved @ self.design.effects * moved).sum(axis=2)
        gap = (self.means[:, asked] - self.means[:, [rival]]) / np.sqrt(variance * self.scales[:, None])
        chance = self.chances @ stdtr(self.seen.sum() - 1, gap)
        return np.where(asked == rival, 0.5, chance)

    def knowledge_gradient(self, pending: Flags) -> Vector:
        """Return how much the next seed of each finalist is expected to raise the best expected true score.

        Source: Frazier, Powell and Dayanik 2009, INFORMS J. Computing 21, equations 11 to 14, against the best rival.

        Args:
            pending: seeds of each that are under way, shape (n, seeds); they count as if they came out as expected.
                Its next seed is the first that is neither seen nor pending; one that has none gains nothing.
        """
        taken = self.seen | pending
        design = _Design.of(taken) if pending.any() else self.design
        at = np.arange(len(taken))
        best, second = np.argsort(-self.means, axis=1)[:, :2].T
        rival = np.where(at == best[:, None], second[:, None], best[:, None])
        pairs = np.arange(len(self.means))[:, None]
        following = taken.argmin(axis=1)
        effect = design.effects[:, :, following].transpose(0, 2, 1)  # of the next seed with each other one
        mine, theirs = design.weights, design.weights[pairs, rival]
        drawn = effect - mine @ design.effects  # what the next value of each says about the seeds' effects
        variance = (design.own + effect[:, at, following] + _NOISE[:, None]) + (
            (mine @ design.effects * mine).sum(axis=2) - 2 * (mine * effect).sum(axis=2)
        )
        told = design.own - ((mine - theirs) * drawn).sum(axis=2)
        change = np.sqrt(self.scales[:, None] / variance) * np.maximum(np.abs(told), 1e-9)
        gap = -np.abs(self.means - self.means[pairs, rival]) / change
        density = np.exp(-gap * gap / 2) / math.sqrt(2 * math.pi)
        gain = self.chances @ (change * (gap * ndtr(gap) + density))
        return np.where(taken.all(axis=1), 0.0, gain)


def believe(results: Array) -> Belief:
    """Return the belief about finalists from their results, shape (n, seeds), NaN where there is none.

    Results are taken in units of their spread, outliers drawn in (`value_scores`). A finalist's expected true score is
    shrunk towards the common mean, the more the fewer of its seeds were seen: that keeps one lucky seed from winning.

    >>> none = np.nan
    >>> belief = believe(np.array([[9, 8, 9], [5, 6, none], [9.5, 2, none], [1, none, none]]))
    >>> belief.mean.round(2).tolist(), belief.chance_to_beat(0).round(2).tolist()
    ([0.69, -0.01, 0.04, -0.72], [0.5, 0.16, 0.18, 0.07])
    """
    seen = ~np.isnan(results)
    scores = np.zeros(results.shape)
    scores[seen] = value_scores(results)[seen]
    design = _Design.of(seen)
    sums = scores.sum(axis=1)
    told = (scores.sum(axis=0) - (design.weights * sums[:, None]).sum(axis=1)) / _NOISE[:, None]
    effects = (design.effects @ told[:, :, None])[:, :, 0]
    kappa = design.own / _NOISE[:, None]
    squares = ((scores**2).sum() - kappa @ sums**2) / _NOISE - (told * effects).sum(axis=1)
    freedom = max(1, int(seen.sum()) - 1)
    squares = np.maximum(squares, 1e-6)
    likelihood = _PRIOR - design.logdet / 2 - freedom / 2 * np.log(squares)
    chances = np.exp(likelihood - likelihood.max())
    means = kappa * sums - (design.weights @ effects[:, :, None])[:, :, 0]
    return Belief(seen, chances / chances.sum(), means, squares / freedom, design)
