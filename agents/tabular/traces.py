"""Eligibility traces (Sutton & Barto 2018, chapter 12), as a list of the weights whose trace is not 0.

| kind | e(s, a) when a is taken in s | source |
|---|---|---|
| accumulating | e + 1 | Sutton & Barto, equation 12.5 |
| replacing | 1 | Singh & Sutton (1996) |
| dutch | (1 - α) e + 1 | van Seijen & Sutton (2014) |

Traces decay by γλ per step. One that has fallen below `NEGLIGIBLE` is dropped.
"""
# ruff: noqa: PLR0917 - rules take positional arguments

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from policylab.agents.rule import rule
from policylab.agents.settings import TabularSettings
from policylab.agents.tabular.core import Core, Size, Step
from policylab.agents.tabular.rules import step_size
from policylab.agents.tabular.values import add, features, value

NEGLIGIBLE = 1e-8
"""Below this share of a TD error a weight is no longer moved."""
ACCUMULATING, REPLACING, DUTCH = 0, 1, 2
KINDS = {"accumulating": ACCUMULATING, "replacing": REPLACING, "dutch": DUTCH}


class TraceSettings(TabularSettings):
    """What the algorithms with traces share."""

    mutable: ClassVar[frozenset[str]] = TabularSettings.mutable | {"trace_decay"}

    trace_decay: float = Field(default=0.9, ge=0.0, le=1.0, description="λ; 0.9 as in S&B, example 12.2")
    traces: Literal["accumulating", "replacing", "dutch"] = Field(
        default="replacing", description="what taking an action does to its trace"
    )


class Traces(NamedTuple):
    """The traces of one episode.

    | field | shape | meaning |
    |---|---|---|
    | eligibility | (n_features, n_actions) | e, 0 for all but the listed weights |
    | listed | (n_features * n_actions,) | feature * n_actions + action, the first `n_listed[0]` entries count |
    | n_listed | (1,) | how many are listed |
    """

    eligibility: NDArray[np.float64]
    listed: NDArray[np.int64]
    n_listed: NDArray[np.int64]
    decay: float
    kind: int


def make_traces(settings: TraceSettings, size: Size) -> Traces:
    """Return empty traces."""
    listed = np.zeros(size.n_features * size.n_actions, dtype=np.int64)
    n_listed = np.zeros(1, dtype=np.int64)
    return Traces(size.table(0.0), listed, n_listed, settings.trace_decay * settings.discount, KINDS[settings.traces])


@rule
def mark(traces: Traces, feature: int, action: int, alpha: float) -> None:
    """Let the trace of one weight grow, because its action is taken."""
    eligibility = traces.eligibility
    old = eligibility[feature, action]
    if old == 0.0:
        traces.listed[traces.n_listed[0]] = feature * eligibility.shape[1] + action
        traces.n_listed[0] += 1
    if traces.kind == ACCUMULATING:
        eligibility[feature, action] = old + 1.0
    elif traces.kind == REPLACING:
        eligibility[feature, action] = 1.0
    else:
        eligibility[feature, action] = (1.0 - alpha) * old + 1.0


@rule
def move_traced(core: Core, traces: Traces, step: Step, target: float, keep: bool) -> float:
    """Move every weight by α δ e, then let its trace decay, or vanish unless ``keep``; return |δ|."""
    n_actions, n_active = core.n_actions, len(features(step.state))
    alpha = step_size(core, step.state, step.action, step.time)
    delta = target - value(core.q, step.state, step.action)
    for feature in features(step.state):
        mark(traces, feature, step.action, alpha)
    amount = alpha * delta / n_active
    place = 0
    while place < traces.n_listed[0]:
        feature = int(traces.listed[place]) // n_actions
        action = int(traces.listed[place]) - feature * n_actions
        trace = float(traces.eligibility[feature, action])
        add(core.q, feature, action, amount * trace)
        trace = trace * traces.decay if keep else 0.0
        if trace < NEGLIGIBLE:
            traces.eligibility[feature, action] = 0.0
            traces.n_listed[0] -= 1
            traces.listed[place] = traces.listed[traces.n_listed[0]]
        else:
            traces.eligibility[feature, action] = trace
            place += 1
    return abs(delta)
