"""Reward models from preferences between segments, after Bradley and Terry.

With R_i = Σ_t r(s_t, a_t) over segment i, P(1 > 2) = noise / 2 + (1 - noise) / (1 + exp(R_2 - R_1)), the difference
clipped to ±50. A model minimises the cross-entropy of the labels μ (1: the first is better, 0: the second, ½: neither)
plus ridge / 2 times its squared weights. Members of an ensemble differ by a bootstrap of the pairs and, with hidden
units, by where they begin.

| symbol | name | shape |
|---|---|---|
| x | features of the steps of the first and second segments, standardised | (K, L, F) each |
| μ | preference | (K,) |

Preferences between segments of one length tell a reward up to its scale and an added constant: members are scaled to
mean 0 and standard deviation 1 over the steps of all segments.

Source: Bradley and Terry, Biometrika 39 (1952); Christiano et al., NeurIPS 2017, sections 2.2.3 and A.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from policylab.envs.reward_model import Part, RewardModel, raw_rewards
from policylab.errors import UserError
from policylab.monitoring.labels.segments import Segments
from policylab.seeding import generator

Floats = NDArray[np.float64]
CLIP = 50.0


@dataclasses.dataclass(frozen=True, slots=True)
class PreferenceSettings:
    """How reward models are fitted.

    Attributes:
        n_members: of the ensemble, at least 1.
        hidden: tanh units of each; 0 for linear models.
        noise: share of labels that were given without looking (Christiano: 0.1).
        ridge: weight of the squared weights, divided by the number of pairs.
        seed: chooses bootstraps and beginnings.
    """

    n_members: int = 5
    hidden: int = 16
    noise: float = 0.1
    ridge: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_members < 1 or self.hidden < 0 or not 0.0 <= self.noise < 1.0 or self.ridge < 0.0:
            raise UserError(
                "a reward model needs at least 1 member, at least 0 hidden units, noise in [0, 1) and a ridge of at "
                f"least 0, got {self.n_members}, {self.hidden}, {self.noise:g} and {self.ridge:g}"
            )


def preference(difference: Floats, *, noise: float = 0.0) -> Floats:
    """Return P(1 > 2) for R_1 - R_2.

    >>> preference(np.array([0.0, np.log(3.0), 1e9]), noise=0.1).round(3).tolist()
    [0.5, 0.725, 0.95]
    """
    return np.asarray(noise / 2 + (1 - noise) * expit(np.clip(difference, -CLIP, CLIP)))


def fit(
    segments: Segments, pairs: NDArray[np.int64], *, mu: Floats, parts: tuple[Part, ...], settings: PreferenceSettings
) -> RewardModel:
    """Return a reward model of labelled pairs.

    Args:
        segments: S of them.
        pairs: positions of the first and the second segment, shape (K, 2).
        mu: preferences in [0, 1], shape (K,).
        parts: what a step's features are made of.
        settings: how.

    Raises:
        UserError: there is no pair.
    """
    if not len(pairs):
        raise UserError("a reward model needs labelled pairs; label some with `policylab labels serve`")
    steps = segments.flat()
    features = np.concatenate([part.features(steps[part.name]) for part in parts], axis=1)
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale[scale < 1e-12] = 1.0
    x = (features - mean) / scale
    apiece = x.reshape(len(segments), segments.length, -1)
    problem = _Problem(apiece[pairs[:, 0]], apiece[pairs[:, 1]], mu, settings.noise, settings.ridge, settings.hidden)
    members = [_member(problem, i, settings=settings) for i in range(settings.n_members)]
    arrays = {name: np.stack([member[name] for member in members]) for name in members[0]}
    raw = raw_rewards(arrays, x)
    unit = raw.std(axis=1)
    arrays |= {"mean": mean, "scale": scale, "offset": raw.mean(axis=1), "unit": np.where(unit > 1e-12, unit, 1.0)}
    return RewardModel(parts, arrays, lineage={})


def without_labels(segments: Segments, *, parts: tuple[Part, ...], settings: PreferenceSettings) -> RewardModel:
    """Return an ensemble of random reward models: what is believed before there is a label."""
    one = np.zeros((1, 2), dtype=np.int64)  # a segment compared with itself teaches nothing
    blank = fit(segments, one, mu=np.array([0.5]), parts=parts, settings=dataclasses.replace(settings, hidden=0))
    n_features = len(blank.arrays["mean"])
    arrays = {**blank.arrays}
    arrays["first"] = generator(settings.seed, "prior").standard_normal((settings.n_members, n_features))
    arrays["offset"], arrays["unit"] = np.zeros(settings.n_members), np.ones(settings.n_members)
    return RewardModel(parts, arrays, lineage={})


def differences(model: RewardModel, segments: Segments, *, pairs: NDArray[np.int64]) -> Floats:
    """Return each member's R_1 - R_2 of each pair, shape (M, K)."""
    rewards = model.members(model.features(segments.flat()))
    returns = rewards.reshape(len(rewards), len(segments), segments.length).sum(axis=2)
    return np.asarray(returns[:, pairs[:, 0]] - returns[:, pairs[:, 1]])


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """The loss of one member and its gradient, as functions of a flat vector of weights."""

    first: Floats
    second: Floats
    mu: Floats
    noise: float
    ridge: float
    hidden: int

    @property
    def n_features(self) -> int:
        return int(self.first.shape[2])

    def split(self, flat: Floats) -> dict[str, Floats]:
        f, h = self.n_features, self.hidden
        if not h:
            return {"first": flat}
        return {"first": flat[: f * h].reshape(f, h), "bias": flat[f * h : f * h + h], "second": flat[f * h + h :]}

    def loss(self, flat: Floats, weights: Floats) -> tuple[float, Floats]:
        """Return the loss, where pair k counts ``weights[k]`` times, and its gradient."""
        parts = self.split(flat)
        d = self._returns(parts, self.first) - self._returns(parts, self.second)
        clipped = np.clip(d, -CLIP, CLIP)
        sigma = expit(clipped)
        p = self.noise / 2 + (1 - self.noise) * sigma
        q = self.noise / 2 + (1 - self.noise) * expit(-clipped)
        loss = -(weights * (self.mu * np.log(p) + (1 - self.mu) * np.log(q))).sum()
        slope = (1 - self.noise) * sigma * (1 - sigma) * (np.abs(d) < CLIP)
        of_d = -weights * (self.mu / p - (1 - self.mu) / q) * slope
        gradient = self._pulled_back(parts, self.first, of_return=of_d)
        gradient -= self._pulled_back(parts, self.second, of_return=of_d)
        n = weights.sum()
        return float(loss / n + self.ridge / n * (flat @ flat) / 2), gradient / n + self.ridge / n * flat

    def _returns(self, parts: dict[str, Floats], x: Floats) -> Floats:
        if not self.hidden:
            return np.asarray(x.sum(axis=1) @ parts["first"])
        return np.asarray((np.tanh(x @ parts["first"] + parts["bias"]) @ parts["second"]).sum(axis=1))

    def _pulled_back(self, parts: dict[str, Floats], x: Floats, *, of_return: Floats) -> Floats:
        """Return the gradient of Σ_k of_return[k] R_k."""
        if not self.hidden:
            return np.asarray(of_return @ x.sum(axis=1))
        units = np.tanh(x @ parts["first"] + parts["bias"])
        of_second = of_return @ units.sum(axis=1)
        of_inside = of_return[:, None, None] * (1 - units**2) * parts["second"]
        of_first = np.tensordot(x, of_inside, axes=((0, 1), (0, 1)))
        return np.concatenate([of_first.ravel(), of_inside.sum(axis=(0, 1)), of_second])


def _member(problem: _Problem, number: int, *, settings: PreferenceSettings) -> dict[str, Floats]:
    rng = generator(settings.seed, "member", number)
    n, f, h = len(problem.mu), problem.n_features, settings.hidden
    weights = np.ones(n)
    if settings.n_members > 1:
        weights = rng.multinomial(n, np.full(n, 1 / n)).astype(np.float64)
    start = np.zeros(f) if not h else np.concatenate([
        rng.standard_normal(f * h) / np.sqrt(f), np.zeros(h), rng.standard_normal(h) / np.sqrt(h)
    ])  # fmt: skip
    options: dict[str, Any] = {"maxiter": 500, "ftol": 1e-14, "gtol": 1e-9}
    found = minimize(problem.loss, start, args=(weights,), jac=True, method="L-BFGS-B", options=options)
    return {name: np.array(part, dtype=np.float64) for name, part in problem.split(found.x).items()}
