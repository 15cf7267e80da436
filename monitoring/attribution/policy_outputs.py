"""What of a policy is explained: the numbers its choice is made of, as a function of the flattened observation.

| policy | outputs |
|---|---|
| tabular | action values |
| network over listed actions | logits or action values |
| network over continuous actions | mean of each component |
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from policylab.agents.action_distributions import Gaussian
from policylab.agents.bundle import Bundle
from policylab.agents.distribution_policy import DistributionPolicy
from policylab.errors import UserError
from policylab.monitoring.attribution.shapley import Function

Floats = NDArray[np.float64]


def outputs_of(bundle: Bundle) -> Function:
    """Return the function that a bundle's policy computes, from flattened observations (n, F) to outputs (n, L).

    Raises:
        UserError: observations have no features that could be varied one by one, or the policy computes nothing.
    """
    space, policy = bundle.observation_space, bundle.policy
    if isinstance(space, spaces.Discrete | spaces.Dict | spaces.Tuple) or len(space.shape or ()) != 1:
        raise UserError(
            f"attributions need observations that are a list of numbers; those of this policy are {str(space)[:60]}"
        )
    values: Any = getattr(policy, "values", None)

    def function(flat: Floats) -> Floats:
        observations = np.ascontiguousarray(flat, dtype=space.dtype)
        if isinstance(policy, DistributionPolicy):
            found = policy.outputs(observations).astype(np.float64)
            distribution = policy.settings.distribution
            return found[:, : distribution.n_components] if isinstance(distribution, Gaussian) else found
        return np.stack([values(observation) for observation in observations])

    if not isinstance(policy, DistributionPolicy) and values is None:
        raise UserError(f"a policy of the kind '{bundle.manifest.policy.kind}' has no outputs to explain")
    return function
