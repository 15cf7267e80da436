"""`TabularMDP`: the exact model of a finite environment, as dense arrays.

| symbol | field | shape | meaning |
|---|---|---|---|
| p | probability | (S, A, K) | probability of the k-th outcome of action a in state s; 0 pads |
| s' | next_state | (S, A, K) | its next state |
| r | reward | (S, A, K) | its reward |
| | terminated | (S, A, K) | whether it ends the episode (the next state's value is then 0) |
| μ | initial_distribution | (S,) | distribution of the first state |
| H | max_episode_steps | | the time limit, or None |

K is the largest number of outcomes of any state and action. Rewards and terminations sit on
transitions, so nothing is averaged away and nothing needs an artificial absorbing state.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

Outcome = tuple[float, int, float, bool]
"""(probability, next state, reward, terminated): Gymnasium's own order in ``env.unwrapped.P[s][a]``."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class TabularMDP:
    """A finite Markov decision process; see the module's symbol table.

    Arrays are C-contiguous and read-only. Outcomes keep the order of the environment's ``P``, so that
    sampling one uniform number through the cumulative probabilities picks the outcome Gymnasium's own
    ``categorical_sample`` picks.
    """

    probability: NDArray[np.float64]
    next_state: NDArray[np.int32]
    reward: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    initial_distribution: NDArray[np.float64]
    max_episode_steps: int | None = None
    env_id: str = ""

    @property
    def n_states(self) -> int:
        """Number of states S."""
        return self.probability.shape[0]

    @property
    def n_actions(self) -> int:
        """Number of actions A."""
        return self.probability.shape[1]
