"""A table of what a policy does in each state of a small discrete space."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from policylab.agents.action_distributions import Categorical, QValues
from policylab.agents.bundle import Bundle
from policylab.agents.distribution_policy import DistributionPolicy
from policylab.agents.features import AutoFeatures, make_encoder
from policylab.agents.value_policies import TabularPolicy
from policylab.errors import EnvironmentRuleError, UserError

MAX_STATES = 200_000


def tabulate(bundle: Bundle) -> TabularPolicy:
    """Return the policy as a table: the same action in every state, and the same probabilities to rounding.

    Raises:
        UserError: observations cannot be counted or are too many, or actions cannot be listed.
    """
    policy = bundle.policy
    if not isinstance(policy, DistributionPolicy):
        raise UserError(f"a policy of the kind '{bundle.manifest.policy.kind}' is a table already; serve it as it is")
    distribution = policy.settings.distribution
    if not isinstance(distribution, Categorical | QValues):
        raise UserError(f"a table lists actions, those of this policy are {str(bundle.action_space)[:60]}; use int8")
    try:
        encoder = make_encoder(AutoFeatures(), bundle.observation_space)
    except EnvironmentRuleError as error:
        raise UserError(
            f"a table needs observations that can be counted, those of this policy are "
            f"{str(bundle.observation_space)[:80]}; use distill-tree"
        ) from error
    if encoder.n_features > MAX_STATES:
        raise UserError(f"a table of {encoder.n_features:,} states exceeds {MAX_STATES:,}; use distill-tree")
    # One after the other, as a server asks: a batch may be added up in another order.
    rows = np.concatenate([policy.outputs([observation]) for observation in every(bundle.observation_space)])
    return TabularPolicy(
        rows.astype(np.float64),
        encoder,
        epsilon=distribution.epsilon if isinstance(distribution, QValues) else 0.0,
        temperature=1.0 if isinstance(distribution, Categorical) else None,
        first_action=distribution.first_action,
    )


def every(space: Space[Any]) -> Iterator[Any]:
    """Yield all observations of a discrete space, as the environment gives them, in the order of `IndexEncoder`.

    >>> list(every(spaces.Tuple([spaces.Discrete(2), spaces.Discrete(2, start=5)])))
    [(0, 5), (0, 6), (1, 5), (1, 6)]
    """
    match space:
        case spaces.Discrete():
            yield from range(int(space.start), int(space.start) + int(space.n))
        case spaces.Tuple():
            parts = [part for part in space.spaces if isinstance(part, spaces.Discrete)]
            for index in np.ndindex(*(int(part.n) for part in parts)):
                yield tuple(place + int(part.start) for place, part in zip(index, parts, strict=True))
        case spaces.MultiDiscrete():
            starts: Any = space.start
            for index in np.ndindex(*space.nvec.ravel().tolist()):
                yield np.asarray(np.reshape(index, space.shape) + starts, dtype=space.dtype)
        case spaces.MultiBinary():
            for index in np.ndindex(*(2,) * int(np.prod(space.shape))):
                yield np.array(index, dtype=space.dtype).reshape(space.shape)
