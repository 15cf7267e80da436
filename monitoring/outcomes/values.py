"""Whether a policy's action values are true: against the returns that followed, and against themselves a step later.

| symbol | meaning |
|---|---|
| V(s) = Σ_a π(a given s) Q(s, a) | value of an observation under the policy that serves |
| G | discounted return of an episode from its first observation s_0 |
| δ = r + γ V(s') - Q(s, a) | temporal-difference error; V(s') is 0 where the episode terminated |

Source: van Seijen et al., "A theoretical and empirical analysis of Expected Sarsa", ADPRL 2009, equation 4 (δ).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from policylab.agents.action_distributions import QValues
from policylab.agents.bundle import Bundle
from policylab.agents.onnx_policy import OnnxPolicy
from policylab.monitoring.outcomes.joined import Outcomes

Floats = NDArray[np.float64]
N_BINS = 10


@dataclasses.dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Episodes whose first observations have similar values: what was expected, and what came.

    Attributes:
        n: episodes.
        expected: mean of V(s_0).
        realised: mean of G.
    """

    n: int
    expected: float
    realised: float


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Values:
    """A policy's values on outcomes.

    Attributes:
        at_start: V(s_0) of each episode, shape (E,).
        td_error: δ of each step, shape (N,); NaN where its reward is missing.
    """

    at_start: Floats
    td_error: Floats


def values_on(outcomes: Outcomes, bundle: Bundle, *, discount: float) -> Values | None:
    """Return the values of a bundle's policy on outcomes; None if it has no action values."""
    observation, following, action = outcomes.observation, outcomes.next_observation, outcomes.action
    space = bundle.action_space
    if observation is None or following is None or action is None or not isinstance(space, spaces.Discrete):
        return None
    both = np.concatenate([observation, following])
    different, index = np.unique(both, axis=0, return_inverse=True)
    seen = bundle.observation_space
    raw = [int(row) if isinstance(seen, spaces.Discrete) else spaces.unflatten(seen, row) for row in different]
    q = _action_values(bundle.policy, raw)
    if q is None:
        return None
    policy: Any = bundle.policy
    v = (policy.probabilities_batch(raw) * q).sum(axis=1)
    here, after = np.split(index.ravel(), 2)
    taken = q[here, action.astype(np.int64) - int(space.start)]
    td_error = outcomes.reward + discount * np.where(outcomes.ended, 0.0, v[after]) - taken
    return Values(v[here][outcomes.starts], td_error)


def _action_values(policy: Any, observations: list[Any]) -> Floats | None:
    if isinstance(policy, OnnxPolicy):
        if not isinstance(policy.settings.distribution, QValues):
            return None
        return np.asarray(policy.outputs(observations), dtype=np.float64)
    values = getattr(policy, "values", None)
    return None if values is None else np.stack([values(observation) for observation in observations])


def calibration(expected: Floats, realised: Floats) -> list[CalibrationBin]:
    """Return up to ten bins of equally many episodes by their expected return, shapes (E,)."""
    order = expected.argsort(kind="stable")
    order = order[np.isfinite(realised[order])]
    parts = np.array_split(order, min(N_BINS, len(order))) if len(order) else []
    return [CalibrationBin(len(part), float(expected[part].mean()), float(realised[part].mean())) for part in parts]


def regression_metrics(expected: Floats, realised: Floats) -> dict[str, float]:
    """Return SageMaker's block of a regression, of the episodes whose return is known; empty without any.

    >>> regression_metrics(np.array([1.0, 3.0]), np.array([2.0, 4.0]))
    {'mae': 1.0, 'mse': 1.0, 'rmse': 1.0, 'r2': 0.0}
    """
    known = np.isfinite(realised)
    error, truth = expected[known] - realised[known], realised[known]
    if not known.any():
        return {}
    mse = float((error**2).mean())
    spread = float(truth.var())
    found = {"mae": float(np.abs(error).mean()), "mse": mse, "rmse": mse**0.5}
    return {**found, "r2": 1.0 - mse / spread} if spread > 0.0 else found
