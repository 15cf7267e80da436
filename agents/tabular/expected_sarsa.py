"""Expected SARSA (Sutton & Barto 2018, equation 6.9; van Seijen et al. 2009)."""

from __future__ import annotations

from typing import Literal, NamedTuple

from policylab.agents.exploration import expected_value
from policylab.agents.settings import TabularSettings
from policylab.agents.tabular.agent import TabularAgent
from policylab.agents.tabular.core import Core, Size, Step
from policylab.agents.tabular.rules import continuation, move


class ExpectedSarsaSettings(TabularSettings):
    """Settings of `ExpectedSarsa`."""

    kind: Literal["expected_sarsa"] = "expected_sarsa"


class ExpectedSarsaAlgorithm(NamedTuple):
    """Q(s, a) ← Q(s, a) + α [r + γ Σ π(a' given s') Q(s', a') - Q(s, a)], π the exploring policy."""

    core: Core

    def looks_ahead(self) -> bool:
        """The target does not need the action taken next."""
        return False

    def update(self, step: Step) -> float:
        """Learn from one step; return |δ|."""
        core = self.core
        target = step.reward + continuation(core, step) * expected_value(core, step.next_state, step.time + 1)
        return move(core, step.state, step.action, target, step.time)


class ExpectedSarsa(TabularAgent):
    """Expected SARSA: SARSA without the variance of the next action."""

    Settings = ExpectedSarsaSettings

    @staticmethod
    def algorithm(settings: ExpectedSarsaSettings, core: Core, *, size: Size) -> ExpectedSarsaAlgorithm:
        """Return the algorithm over ``core``."""
        return ExpectedSarsaAlgorithm(core)
