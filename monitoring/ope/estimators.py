"""Off-policy estimators of an episode's expected discounted return under the target policy.

Every estimator takes the trajectories and how much each episode counts, ``share`` of shape (R, E) whose rows add up to
1, and returns R values: one row of 1 / E is the estimate, rows of resampled counts are its bootstrap, and the
probabilities of all possible trajectories give its exact expectation, which is how the tests prove it.

| name | definition, E over episodes | unbiased |
|---|---|---|
| is | E[c_T-1 G], G = Σ γ^t r_t | yes |
| pdis | E[Σ γ^t c_t r_t] | yes |
| wis | E[c_T-1 G] / E[c_T-1] | consistent |
| pdwis | Σ γ^t E[c_t r_t] / E[c_t] | consistent |
| dm | E[V(s_0)] | if V is right |
| dr | E[Σ γ^t (c_t r_t - c_t Q(s_t, a_t) + c_t-1 V(s_t))] | yes, with any Q of other data |
| wdr | dr with every c_t replaced by c_t / E[c_t] | consistent |

WIS normalises by whole trajectories, PDWIS by steps; finished episodes keep their last weight in E[c_t].

Source: Precup, Sutton and Singh, ICML 2000 (is, pdis, wis, pdwis); Jiang and Li, ICML 2016, equation 10 (dr, written
out); Thomas and Brunskill, ICML 2016, equation 2 (wdr).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from policylab.monitoring.ope.trajectories import Trajectories

Floats = NDArray[np.float64]
Estimator = Callable[[Trajectories, Floats], Floats]


def importance_sampling(of: Trajectories, share: Floats) -> Floats:
    """Return IS, shape (R,)."""
    return np.asarray(share @ (of.weight[:, -1] * of.reward.sum(axis=1)))


def per_decision(of: Trajectories, share: Floats) -> Floats:
    """Return PDIS, shape (R,)."""
    return np.asarray(share @ (of.weight * of.reward).sum(axis=1))


def weighted(of: Trajectories, share: Floats) -> Floats:
    """Return WIS, by whole trajectories, shape (R,); NaN where no weight is left."""
    last = of.weight[:, -1]
    return _ratio(share @ (last * of.reward.sum(axis=1)), share @ last)


def per_decision_weighted(of: Trajectories, share: Floats) -> Floats:
    """Return PDWIS, shape (R,); NaN where no weight is left."""
    return np.asarray(_ratio(share @ (of.weight * of.reward), share @ of.weight).sum(axis=1))


def direct_method(of: Trajectories, share: Floats) -> Floats:
    """Return DM: what the model says of the first observations, shape (R,)."""
    return share @ of.value[:, 0]


def doubly_robust(of: Trajectories, share: Floats) -> Floats:
    """Return DR, shape (R,)."""
    return np.asarray(share @ (of.weight * (of.reward - of.action_value) + of.previous_weight * of.value).sum(axis=1))


def weighted_doubly_robust(of: Trajectories, share: Floats) -> Floats:
    """Return WDR, shape (R,); NaN where no weight is left."""
    corrections = _ratio(share @ (of.weight * (of.reward - of.action_value)), share @ of.weight)
    guesses = _ratio(share @ (of.previous_weight * of.value), share @ of.previous_weight)
    return np.asarray((corrections + guesses).sum(axis=1))


ESTIMATORS: dict[str, Estimator] = {
    "is": importance_sampling,
    "pdis": per_decision,
    "wis": weighted,
    "pdwis": per_decision_weighted,
    "dr": doubly_robust,
    "wdr": weighted_doubly_robust,
}
"""Those that follow from trajectories alone, given the model's guesses; each is resampled over episodes."""


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Return the quotient; NaN where the denominator is 0."""
    found = np.full(numerator.shape, np.nan)
    return np.asarray(np.divide(numerator, denominator, out=found, where=denominator > 0))
