"""The causes: outcomes given circumstances, within strata where observations repeat, else by nearest neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from policylab.monitoring.causes.comparison import Comparison, Floats, columns, listed
from policylab.monitoring.causes.marginal import columnwise, unseen
from policylab.monitoring.causes.matching import MAX_ROWS, NEAR, matched_outcomes, matches
from policylab.monitoring.causes.steps import Steps
from policylab.monitoring.causes.strata import Homogeneity, homogeneity

Codes = NDArray[np.int64]
MAX_STATES = 5_000
MAX_REWARDS = 50
N_BINS = 10


# ------------------------------------------------------------------ observations that repeat


def repeating_states(baseline: Steps, window: Steps) -> list[Codes] | None:
    """Return the states of observation and next observation of both, numbered alike; None where they do not repeat."""
    sides = [baseline.observation, baseline.next_observation, window.observation, window.next_observation]
    if not listed(baseline.action):
        return None
    most = min(MAX_STATES, len(baseline) // 5)
    if len(_different(baseline.observation[: 2 * most])[0]) > most:  # spares sorting all of what does not repeat
        return None
    different, index = _different(np.concatenate(sides))
    return np.split(index, np.cumsum([len(side) for side in sides])[:-1]) if len(different) <= most else None


def by_strata(baseline: Steps, window: Steps, *, states: list[Codes]) -> dict[str, Comparison]:
    """Return the layers of a baseline and a window whose observations are ``states``, of `repeating_states`."""
    here, after = (states[0], states[2]), (states[1], states[3])
    n_states = 1 + max(int(codes.max()) for codes in states)
    actions = _codes(baseline.action, window.action)
    n_actions = 1 + max(int(codes.max()) for codes in actions)
    pairs = [state * n_actions + action for state, action in zip(here, actions, strict=True)]
    ends = [np.where(side.terminated, n_states + to, to) for side, to in zip((baseline, window), after, strict=True)]
    n_ends = 2 * n_states
    moves = [pair * n_ends + end for pair, end in zip(pairs, ends, strict=True)]
    rewards = _reward_codes(baseline.reward, window.reward)
    first = [state[side.starts] for state, side in zip(here, (baseline, window), strict=True)]
    nothing = [np.zeros(len(codes), dtype=np.int64) for codes in first]
    compared: dict[str, tuple[list[Codes], list[Codes]]] = {
        "start": (nothing, first),
        "policy": (list(here), actions),
        "transition": (pairs, ends),
        "reward": (moves, rewards),
    }
    found = {
        name: _compared(homogeneity((stratum[0], outcome[0]), (stratum[1], outcome[1])))
        for name, (stratum, outcome) in compared.items()
    }
    seen = np.zeros(n_states, dtype=np.bool_)
    seen[np.concatenate([states[0], states[1]])] = True
    once = float((np.bincount(states[0]) == 1).sum() / len(baseline))
    found["unseen"] = unseen(
        ~seen[states[2]], window, rows=np.arange(len(window)), expected=once, n_baseline=len(baseline)
    )
    return found


def _codes(*sides: NDArray[Any]) -> list[Codes]:
    """Return values as numbers from 0, alike on all sides."""
    index = _different(np.concatenate(sides))[1]
    return np.split(index, np.cumsum([len(side) for side in sides])[:-1])


def _different(values: NDArray[Any]) -> tuple[NDArray[Any], Codes]:
    """Return the different rows, in order, and the number of each row among them."""
    axis = None if values.ndim == 1 else 0  # rows of one number are sorted ten times as fast as such
    different, index = np.unique(values, axis=axis, return_inverse=True)
    return different, index.ravel().astype(np.int64)


def _reward_codes(first: Floats, second: Floats) -> list[Codes]:
    """Return rewards as numbers: their values if there are few, else bins that the baseline fills equally."""
    if len(np.unique(np.concatenate([first, second]))) <= MAX_REWARDS:
        return _codes(first, second)
    edges = np.unique(np.quantile(first, np.arange(1, N_BINS) / N_BINS))
    return [np.searchsorted(edges, side).astype(np.int64) for side in (first, second)]


# ------------------------------------------------------------------ observations that do not


def by_matching(baseline: Steps, window: Steps) -> dict[str, Comparison]:
    """Return the layers of a baseline and a window whose observations are vectors."""
    sides = [(side, _some(side)) for side in (baseline, window)]
    here = [columns(side.observation)[rows] for side, rows in sides]
    near = matches(*here)
    if listed(baseline.action):
        actions: list[Any] = _codes(*(side.action[rows] for side, rows in sides))
        with_action = matches(*here, groups=(actions[0], actions[1]))
    else:
        actions = [columns(side.action)[rows] for side, rows in sides]
        with_action = matches(*(np.column_stack(pair) for pair in zip(here, actions, strict=True)))
    after = [
        np.column_stack([columns(side.next_observation)[rows] - now, side.terminated[rows]])
        for (side, rows), now in zip(sides, here, strict=True)
    ]
    moves = [np.column_stack(pair) for pair in zip(here, after, strict=True)]
    with_move = (
        matches(*moves, groups=(actions[0], actions[1]))
        if listed(baseline.action)
        else matches(*(np.column_stack(pair) for pair in zip(moves, actions, strict=True)))
    )
    rewards = [side.reward[rows][:, None] for side, rows in sides]
    begins = [columns(side.observation)[side.starts] for side, _ in sides]
    return {
        "start": columnwise("cause", begins, times=False, detail="first observations"),
        "policy": _compared(matched_outcomes(near, actions[0], window=actions[1])),
        "transition": _compared(matched_outcomes(with_action, after[0], window=after[1])),
        "reward": _compared(matched_outcomes(with_move, rewards[0], window=rewards[1])),
        "unseen": unseen(near.unseen, window, rows=sides[1][1], expected=1.0 - NEAR, n_baseline=len(sides[0][1])),
    }


def _some(side: Steps) -> Codes:
    """Return at most `MAX_ROWS` rows, evenly spaced."""
    return np.unique(np.linspace(0, len(side) - 1, min(len(side), MAX_ROWS)).astype(np.int64))


def _compared(test: Homogeneity) -> Comparison:
    detail = f"chi-square {test.statistic:.4g}, {test.degrees} degrees; {test.compared:.0%} compared"
    return Comparison("cause", test.effect, test.p_value, detail)
