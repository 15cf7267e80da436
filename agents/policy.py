"""Policies: what a trained agent leaves behind, and what a bundle, an endpoint and an evaluation hold."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Policy(Protocol):
    """A decision rule over batches of raw environment observations.

    `act` with ``rng=None`` is deterministic (greedy, first index among ties); with a generator it samples
    from `probabilities`.
    """

    def act(self, observation: Any, *, rng: np.random.Generator | None = None) -> Any:
        """Return the action for one raw observation of the environment."""
        ...

    def probabilities(self, observation: Any) -> NDArray[np.float64]:
        """Return the probability of each action for one raw observation, shape (n_actions,)."""
        ...
