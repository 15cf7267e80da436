"""The equations that several algorithms share; symbols as in Sutton & Barto (2018)."""
# ruff: noqa: PLR0917 - rules take positional arguments

from __future__ import annotations

from policylab.agents.rule import rule
from policylab.agents.schedules import INVERSE_VISITS, value_at
from policylab.agents.tabular.core import Core, Step
from policylab.agents.tabular.values import State, add, value


@rule
def continuation(core: Core, step: Step) -> float:
    """Return the weight of the next state's value: γ, or 0 after termination. Truncation keeps γ."""
    return 0.0 if step.terminated else core.discount


@rule
def step_size(core: Core, state: State, action: int, time: int) -> float:
    """Return α for one update of Q(s, a) and count it: the schedule's value, or start / N(s, a)."""
    if core.learning_rate.kind == INVERSE_VISITS:
        core.updates[state, action] += 1
        return value_at(core.learning_rate, time, int(core.updates[state, action]))
    return value_at(core.learning_rate, time, 0)


@rule
def move(core: Core, state: State, action: int, target: float, time: int) -> float:
    """Q(s, a) ← Q(s, a) + α [target - Q(s, a)]; return |target - Q(s, a)|."""
    delta = target - value(core.q, state, action)
    add(core.q, state, action, step_size(core, state, action, time) * delta)
    return abs(delta)
