"""Off-policy value of a contextual bandit, whose episodes have one step.

| name | definition, w = π_e(a given x) / π_b(a given x), E over decisions |
|---|---|
| ips | E[w r] |
| snips | E[w r] / E[w] |
| dm | E[v(x)], v(x) = Σ_a π_e(a given x) q(x, a) |
| dr | E[v(x) + w (r - q(x, a))] |
| sndr | E[v(x)] + E[w (r - q(x, a))] / E[w] |
| switch_dr | dr with w where w <= τ and 0 elsewhere: the model alone where the weight is too large |
| dr_os | dr with w shrunk to λ w / (w² + λ) |

All take ``share``, shape (R, N), as `policylab.monitoring.ope.estimators` does.

Source: Horvitz and Thompson 1952 (ips); Swaminathan and Joachims, NeurIPS 2015 (snips); Dudík, Langford and Li, ICML
2011 (dr); Wang, Agarwal and Dudík, ICML 2017 (switch); Su et al., ICML 2020 (optimistic shrinkage).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """N logged decisions.

    Attributes:
        weight: w, shape (N,).
        reward: r, shape (N,).
        action_value: q(x, a) of the logged action, by a model, shape (N,).
        value: v(x) of the target policy, by the same model, shape (N,).
    """

    weight: Floats
    reward: Floats
    action_value: Floats
    value: Floats


def ips(of: Decisions, share: Floats) -> Floats:
    """Return the inverse-propensity score, shape (R,)."""
    return share @ (of.weight * of.reward)


def snips(of: Decisions, share: Floats) -> Floats:
    """Return the self-normalised inverse-propensity score, shape (R,); NaN where no weight is left."""
    return _normalised(share @ (of.weight * of.reward), share @ of.weight)


def doubly_robust(of: Decisions, share: Floats) -> Floats:
    """Return DR, shape (R,)."""
    return _corrected(of, share, weight=of.weight)


def self_normalised_doubly_robust(of: Decisions, share: Floats) -> Floats:
    """Return SNDR, shape (R,); NaN where no weight is left."""
    correction = share @ (of.weight * (of.reward - of.action_value))
    return share @ of.value + _normalised(correction, share @ of.weight)


def switch_doubly_robust(of: Decisions, share: Floats, *, threshold: float) -> Floats:
    """Return Switch-DR with τ = ``threshold``, shape (R,)."""
    return _corrected(of, share, weight=np.where(of.weight <= threshold, of.weight, 0.0))


def shrunk_doubly_robust(of: Decisions, share: Floats, *, shrinkage: float) -> Floats:
    """Return DR with optimistic shrinkage λ = ``shrinkage`` > 0, shape (R,)."""
    return _corrected(of, share, weight=shrinkage * of.weight / (of.weight**2 + shrinkage))


def _corrected(of: Decisions, share: Floats, *, weight: Floats) -> Floats:
    return share @ (of.value + weight * (of.reward - of.action_value))


def _normalised(numerator: Floats, denominator: Floats) -> Floats:
    return np.asarray(np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0))
