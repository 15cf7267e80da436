"""Double Q-learning (van Hasselt 2010; Sutton & Barto 2018, equation 6.10)."""

from __future__ import annotations

from typing import Literal, NamedTuple

from policylab.agents.exploration import greedy
from policylab.agents.rule import draw, rule
from policylab.agents.settings import TabularSettings
from policylab.agents.tabular.agent import TabularAgent
from policylab.agents.tabular.core import Core, Size, Step
from policylab.agents.tabular.rules import continuation, step_size
from policylab.agents.tabular.values import Values, add, assign, features, value


class DoubleQLearningSettings(TabularSettings):
    """Settings of `DoubleQLearning`."""

    kind: Literal["double_q_learning"] = "double_q_learning"


class DoubleQLearningAlgorithm(NamedTuple):
    """Two tables learn by turns at random: one names the best next action, the other says what it is worth.

    Actions are chosen on their mean, which ``core.q`` holds.
    """

    core: Core
    first: Values
    second: Values

    def looks_ahead(self) -> bool:
        """The target does not need the action taken next."""
        return False

    def update(self, step: Step) -> float:
        """Learn from one step; return |δ|."""
        if draw(self.core.rng) < 0.5:
            return learn_one(self, self.first, self.second, step)
        return learn_one(self, self.second, self.first, step)


@rule
def learn_one(algorithm: DoubleQLearningAlgorithm, q: Values, other: Values, step: Step) -> float:  # noqa: PLR0917
    """Q1(s, a) ← Q1(s, a) + α [r + γ Q2(s', argmax Q1(s', ·)) - Q1(s, a)]; return |δ|."""
    core, state, action = algorithm.core, step.state, step.action
    best = greedy(q, step.next_state, core.rng)
    target = step.reward + continuation(core, step) * value(other, step.next_state, best)
    delta = target - value(q, state, action)
    add(q, state, action, step_size(core, state, action, step.time) * delta)
    for feature in features(state):
        assign(core.q, feature, action, 0.5 * (value(q, feature, action) + value(other, feature, action)))
    return abs(delta)


class DoubleQLearning(TabularAgent):
    """Double Q-learning: Q-learning without the bias of maximising over noisy estimates."""

    Settings = DoubleQLearningSettings

    @staticmethod
    def algorithm(settings: DoubleQLearningSettings, core: Core, *, size: Size) -> DoubleQLearningAlgorithm:
        """Return the algorithm over ``core``."""
        return DoubleQLearningAlgorithm(core, first=core.q.copy(), second=core.q.copy())
