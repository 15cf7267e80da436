"""The learned model of the planning algorithms: what each action led to, the last time it was taken."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from policylab.agents.rule import rule
from policylab.agents.tabular.core import Size, Step

UNKNOWN = -1


class Model(NamedTuple):
    """The last outcome of every state and action, arrays of shape (n_states, n_actions).

    | field | meaning |
    |---|---|
    | next_state | its next state, -1 while the action is untried |
    | reward | its reward |
    | terminated | whether it ended the episode (truncation does not count) |
    """

    next_state: NDArray[np.int64]
    reward: NDArray[np.float64]
    terminated: NDArray[np.bool_]


def make_model(size: Size) -> Model:
    """Return a model that knows nothing."""
    return Model(size.table(UNKNOWN, np.int64), size.table(0.0), size.table(False, np.bool_))


@rule
def observe(model: Model, step: Step) -> None:
    """Remember the outcome of one step."""
    model.next_state[step.state, step.action] = step.next_state
    model.reward[step.state, step.action] = step.reward
    model.terminated[step.state, step.action] = step.terminated
