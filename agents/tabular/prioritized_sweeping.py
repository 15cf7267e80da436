"""Prioritized sweeping (Moore & Atkeson 1993; Sutton & Barto 2018, section 8.4)."""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from policylab.agents.settings import TabularSettings
from policylab.agents.tabular.agent import TabularAgent
from policylab.agents.tabular.core import Core, Size, Step
from policylab.agents.tabular.model import Model, make_model, observe
from policylab.agents.tabular.rules import move
from policylab.agents.tabular.values import Values, maximum


class PrioritizedSweepingSettings(TabularSettings):
    """Settings of `PrioritizedSweeping`."""

    mutable: ClassVar[frozenset[str]] = TabularSettings.mutable | {"planning_steps", "threshold"}

    kind: Literal["prioritized_sweeping"] = "prioritized_sweeping"
    planning_steps: int = Field(
        default=5, ge=1, le=100_000, description="updates per real step, while there are any due; 5 as in S&B, ex. 8.4"
    )
    threshold: float = Field(
        default=1e-4, ge=0.0, description="size of an error, in units of return, below which no update is due"
    )


class PrioritizedSweepingAlgorithm(NamedTuple):
    """Updates the state and action whose error is largest first, then asks which pairs lead there.

    `priorities`, shape (n_states, n_actions), holds |r + γ max Q(s', ·) - Q(s, a)| of the pairs that are due, 0
    for the others. The model is deterministic: the last outcome of each pair.
    """

    core: Core
    model: Model
    priorities: Values
    planning_steps: int
    threshold: float

    def looks_ahead(self) -> bool:
        """The target does not need the action taken next."""
        return False

    def update(self, step: Step) -> float:
        """Put the step into the model and sweep; return |δ| of the real step."""
        observe(self.model, step)
        assert isinstance(step.state, int), "prioritized sweeping learns tables only"
        error = self.error(step.state, step.action)
        self.prioritise(step.state, step.action, error)
        for _ in range(self.planning_steps):
            state, action = divmod(int(self.priorities.argmax()), self.core.n_actions)
            if self.priorities[state, action] == 0.0:
                break
            self.priorities[state, action] = 0.0
            move(self.core, state, action, self.target(state, action), step.time)
            for before, leading in zip(*np.nonzero(self.model.next_state == state), strict=True):
                if not self.model.terminated[before, leading]:
                    self.prioritise(int(before), int(leading), self.error(int(before), int(leading)))
        return error

    def target(self, state: int, action: int) -> float:
        """Return r + γ max Q(s', ·) by the model."""
        model, reward = self.model, self.model.reward.item(state, action)
        if model.terminated[state, action]:
            return reward
        return reward + self.core.discount * maximum(self.core.q, model.next_state.item(state, action))

    def error(self, state: int, action: int) -> float:
        """Return |r + γ max Q(s', ·) - Q(s, a)| by the model."""
        return abs(self.target(state, action) - self.core.q.item(state, action))

    def prioritise(self, state: int, action: int, error: float) -> None:  # noqa: PLR0917 - (s, a) and a number
        """Make an update due if its error exceeds the threshold."""
        if error > self.threshold:
            self.priorities[state, action] = max(error, self.priorities.item(state, action))


class PrioritizedSweeping(TabularAgent):
    """Prioritized sweeping: planning backwards from where values changed most. Plain execution only."""

    Settings = PrioritizedSweepingSettings
    compiled = False
    linear = False

    @staticmethod
    def algorithm(settings: PrioritizedSweepingSettings, core: Core, *, size: Size) -> PrioritizedSweepingAlgorithm:
        """Return the algorithm over ``core``."""
        return PrioritizedSweepingAlgorithm(
            core, make_model(size), size.table(0.0), settings.planning_steps, settings.threshold
        )
