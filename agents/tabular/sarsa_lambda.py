"""SARSA(λ) (Sutton & Barto 2018, section 12.7)."""

from __future__ import annotations

from typing import Literal, NamedTuple

from policylab.agents.tabular.agent import TabularAgent
from policylab.agents.tabular.core import Core, Size, Step
from policylab.agents.tabular.rules import continuation
from policylab.agents.tabular.traces import Traces, TraceSettings, make_traces, move_traced
from policylab.agents.tabular.values import value


class SarsaLambdaSettings(TraceSettings):
    """Settings of `SarsaLambda`."""

    kind: Literal["sarsa_lambda"] = "sarsa_lambda"


class SarsaLambdaAlgorithm(NamedTuple):
    """Every Q(s, a) moves by α δ e(s, a), δ = r + γ Q(s', a') - Q(s, a); traces live until the episode ends."""

    core: Core
    traces: Traces

    def looks_ahead(self) -> bool:
        """The target needs the action taken next."""
        return True

    def update(self, step: Step) -> float:
        """Learn from one step; return |δ|."""
        core = self.core
        target = step.reward
        if not step.terminated:
            target += continuation(core, step) * value(core.q, step.next_state, step.next_action)
        return move_traced(core, self.traces, step, target, not (step.terminated or step.truncated))


class SarsaLambda(TabularAgent):
    """SARSA(λ): SARSA whose errors reach back along eligibility traces."""

    Settings = SarsaLambdaSettings

    @staticmethod
    def algorithm(settings: SarsaLambdaSettings, core: Core, *, size: Size) -> SarsaLambdaAlgorithm:
        """Return the algorithm over ``core``."""
        return SarsaLambdaAlgorithm(core, make_traces(settings, size))
