"""SARSA (Rummery & Niranjan 1994; Sutton & Barto 2018, equation 6.7)."""

from __future__ import annotations

from typing import Literal, NamedTuple

from policylab.agents.settings import TabularSettings
from policylab.agents.tabular.agent import TabularAgent
from policylab.agents.tabular.core import Core, Size, Step
from policylab.agents.tabular.rules import continuation, move
from policylab.agents.tabular.values import value


class SarsaSettings(TabularSettings):
    """Settings of `Sarsa`."""

    kind: Literal["sarsa"] = "sarsa"


class SarsaAlgorithm(NamedTuple):
    """Q(s, a) ← Q(s, a) + α [r + γ Q(s', a') - Q(s, a)], a' the action taken next."""

    core: Core

    def looks_ahead(self) -> bool:
        """The target needs the action taken next."""
        return True

    def update(self, step: Step) -> float:
        """Learn from one step; return |δ|."""
        core = self.core
        target = step.reward
        if not step.terminated:
            target += continuation(core, step) * value(core.q, step.next_state, step.next_action)
        return move(core, step.state, step.action, target, step.time)


class Sarsa(TabularAgent):
    """SARSA: on-policy one-step control, towards the best exploring policy."""

    Settings = SarsaSettings

    @staticmethod
    def algorithm(settings: SarsaSettings, core: Core, *, size: Size) -> SarsaAlgorithm:
        """Return the algorithm over ``core``."""
        return SarsaAlgorithm(core)
