"""Q-learning (Watkins 1989; Sutton & Barto 2018, equation 6.8)."""

from __future__ import annotations

from typing import Literal, NamedTuple

from policylab.agents.settings import TabularSettings
from policylab.agents.tabular.agent import TabularAgent
from policylab.agents.tabular.core import Core, Size, Step
from policylab.agents.tabular.rules import continuation, move
from policylab.agents.tabular.values import maximum


class QLearningSettings(TabularSettings):
    """Settings of `QLearning`."""

    kind: Literal["q_learning"] = "q_learning"


class QLearningAlgorithm(NamedTuple):
    """Q(s, a) ← Q(s, a) + α [r + γ max Q(s', ·) - Q(s, a)]."""

    core: Core

    def looks_ahead(self) -> bool:
        """The target does not need the action taken next."""
        return False

    def update(self, step: Step) -> float:
        """Learn from one step; return |δ|."""
        core = self.core
        target = step.reward + continuation(core, step) * maximum(core.q, step.next_state)
        return move(core, step.state, step.action, target, step.time)


class QLearning(TabularAgent):
    """Q-learning: off-policy one-step control towards the greedy policy."""

    Settings = QLearningSettings

    @staticmethod
    def algorithm(settings: QLearningSettings, core: Core, *, size: Size) -> QLearningAlgorithm:
        """Return the algorithm over ``core``."""
        return QLearningAlgorithm(core)
