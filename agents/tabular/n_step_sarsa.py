"""n-step SARSA (Sutton & Barto 2018, section 7.2)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from policylab.agents.rule import rule
from policylab.agents.settings import TabularSettings
from policylab.agents.tabular.agent import TabularAgent
from policylab.agents.tabular.core import Core, Size, Step
from policylab.agents.tabular.rules import continuation, move
from policylab.agents.tabular.values import recall, value


class NStepSarsaSettings(TabularSettings):
    """Settings of `NStepSarsa`."""

    kind: Literal["n_step_sarsa"] = "n_step_sarsa"
    n: int = Field(default=4, ge=1, le=10_000, description="steps of real reward in a target; 4 as in S&B, figure 7.2")


class NStepSarsaAlgorithm(NamedTuple):
    """Q(S_t, A_t) moves towards R_t+1 + γ R_t+2 + ... + γ^n Q(S_t+n, A_t+n).

    The last n steps wait in a ring; an episode's end empties it, with Q after truncation only.
    """

    core: Core
    states: NDArray[np.int64]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float64]
    ring: NDArray[np.int64]
    """Place of the oldest step, and number of steps held."""

    def looks_ahead(self) -> bool:
        """The target needs the action taken next."""
        return True

    def update(self, step: Step) -> float:
        """Store one step, learn from those whose n rewards are known; return the sum of |δ|."""
        core, size = self.core, len(self.actions)
        place = (self.ring[0] + self.ring[1]) % size
        self.states[place] = step.state
        self.actions[place] = step.action
        self.rewards[place] = step.reward
        self.ring[1] += 1
        ended = step.terminated or step.truncated
        if not (ended or self.ring[1] == size):
            return 0.0
        beyond = 0.0
        if not step.terminated:
            beyond = value(core.q, step.next_state, step.next_action)
        error = learn_oldest(self, beyond, step)
        while ended and self.ring[1] > 0:
            error += learn_oldest(self, beyond, step)
        return error


@rule
def learn_oldest(algorithm: NStepSarsaAlgorithm, beyond: float, step: Step) -> float:  # noqa: PLR0917
    """Take the oldest step out of the ring and learn from it; return |δ|."""
    core, ring, size = algorithm.core, algorithm.ring, len(algorithm.actions)
    discount, target = continuation(core, step), beyond
    for back in range(ring[1]):
        target = algorithm.rewards[(ring[0] + ring[1] - 1 - back) % size] + discount * target
        discount = core.discount
    place = int(ring[0])
    ring[0] = (place + 1) % size
    ring[1] -= 1
    return move(core, recall(algorithm.states, place), int(algorithm.actions[place]), target, step.time)


class NStepSarsa(TabularAgent):
    """n-step SARSA: on-policy control between one-step SARSA (n = 1) and Monte Carlo (n large)."""

    Settings = NStepSarsaSettings

    @staticmethod
    def algorithm(settings: NStepSarsaSettings, core: Core, *, size: Size) -> NStepSarsaAlgorithm:
        """Return the algorithm over ``core``."""
        n = settings.n
        ring = np.zeros(2, dtype=np.int64)
        return NStepSarsaAlgorithm(core, size.buffer(n), np.zeros(n, dtype=np.int64), np.zeros(n), ring)
