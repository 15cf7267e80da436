"""Action values, and the few things an update rule may do with them.

| symbol | here | meaning |
|---|---|---|
| Q(s, a) | `value` | sum of the active rows of a weight table; one row for a plain table |
| Q(s, ·) | `action_values` | all actions of a state |
| max Q(s, ·) | `maximum` | |
| Q(s, a) += x | `add` | shared equally among the active rows |

A state is an integer (one active row) or an array of active rows. Rules touch a weight table, shape
(n_features, n_actions), by these functions alone; `policylab.agents.tabular.compiled` gives each of them
its compiled form.
"""
# ruff: noqa: PLR0917 - rules take positional arguments

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from policylab.agents.rule import rule

Values: TypeAlias = NDArray[np.float64]
State: TypeAlias = int | NDArray[np.int64] | list[int]


def features(state: State) -> Sequence[int]:
    """Return the active rows of a state.

    >>> features(3)
    (3,)
    """
    return (state,) if isinstance(state, int) else cast("Sequence[int]", state)


def action_values(q: Values, state: State) -> list[float]:
    """Return Q(s, ·), length n_actions."""
    row: list[float] = (q[state] if isinstance(state, int) else q[state].sum(axis=0)).tolist()
    return row


def value(q: Values, state: State, action: int) -> float:
    """Return Q(s, a)."""
    return q.item(state, action) if isinstance(state, int) else float(q[state, action].sum())


def maximum(q: Values, state: State) -> float:
    """Return max Q(s, ·)."""
    return max(action_values(q, state))


def assign(q: Values, feature: int, action: int, weight: float) -> None:
    """Set one weight."""
    q[feature, action] = weight


def recall(states: NDArray[np.int64], place: int) -> State:
    """Return the state at ``place`` of a buffer of shape (n,), or (n, n_active)."""
    stored: State = states[place].tolist()
    return stored


@rule
def add(q: Values, state: State, action: int, amount: float) -> None:
    """Add ``amount`` to Q(s, a), in equal parts to its active rows."""
    active = features(state)
    for feature in active:
        assign(q, feature, action, value(q, feature, action) + amount / len(active))
