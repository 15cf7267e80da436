"""Watkins's Q(λ) (Watkins 1989; Sutton & Barto 1998, section 7.6; 2018, section 12.10)."""

from __future__ import annotations

from typing import Literal, NamedTuple

from policylab.agents.tabular.agent import TabularAgent
from policylab.agents.tabular.core import Core, Size, Step
from policylab.agents.tabular.rules import continuation
from policylab.agents.tabular.traces import Traces, TraceSettings, make_traces, move_traced
from policylab.agents.tabular.values import maximum, value


class QLambdaSettings(TraceSettings):
    """Settings of `QLambda`."""

    kind: Literal["q_lambda"] = "q_lambda"


class QLambdaAlgorithm(NamedTuple):
    """Every Q(s, a) moves by α δ e(s, a), δ = r + γ max Q(s', ·) - Q(s, a); an exploring action ends all traces."""

    core: Core
    traces: Traces

    def looks_ahead(self) -> bool:
        """The target needs the action taken next."""
        return True

    def update(self, step: Step) -> float:
        """Learn from one step; return |δ|."""
        core = self.core
        best = maximum(core.q, step.next_state)
        keep = False
        if not (step.terminated or step.truncated):
            keep = value(core.q, step.next_state, step.next_action) == best
        return move_traced(core, self.traces, step, step.reward + continuation(core, step) * best, keep)


class QLambda(TabularAgent):
    """Watkins's Q(λ): Q-learning whose errors reach back until the last exploring action."""

    Settings = QLambdaSettings

    @staticmethod
    def algorithm(settings: QLambdaSettings, core: Core, *, size: Size) -> QLambdaAlgorithm:
        """Return the algorithm over ``core``."""
        return QLambdaAlgorithm(core, make_traces(settings, size))
