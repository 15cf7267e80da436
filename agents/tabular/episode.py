"""The episode that Monte Carlo methods wait for the end of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from policylab.agents.rule import rule
from policylab.agents.tabular.core import Size, Step


class Episode(NamedTuple):
    """The steps of the episode under way; arrays of shape (max_episode_steps,), the first `length[0]` count."""

    states: NDArray[np.int64]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float64]
    length: NDArray[np.int64]


def make_episode(size: Size) -> Episode:
    """Return an empty episode with room for the longest one."""
    steps = size.max_episode_steps
    integers = np.zeros(steps, dtype=np.int64)
    return Episode(integers, integers.copy(), np.zeros(steps), np.zeros(1, dtype=np.int64))


@rule
def extend(episode: Episode, step: Step) -> int:
    """Append one step; return its place."""
    place = int(episode.length[0])
    episode.states[place] = step.state
    episode.actions[place] = step.action
    episode.rewards[place] = step.reward
    episode.length[0] += 1
    return place
