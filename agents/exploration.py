"""Exploration: how an agent chooses an action from its action values.

| kind | π(a given s) | parameter |
|---|---|---|
| greedy | uniform over the actions of highest Q(s, a) | |
| epsilon_greedy | with probability ε uniform over all actions, else greedy | epsilon in [0, 1] |
| softmax | proportional to exp(Q(s, a) / τ) | temperature τ > 0, in units of return |
| ucb | greedy on Q(s, a) + c sqrt(ln N(s) / N(s, a)), untried actions first | c >= 0, in units of return |

Ties are broken at random. N(s, a) counts how often a was chosen in s. Sources: Sutton & Barto (2018),
sections 2.2, 2.7 (equation 2.10, per state), 13.1.

One uniform number u decides an epsilon-greedy choice: below ε it explores, and u / ε is then itself uniform
and picks the action. A greedy choice draws only to break a tie.
"""
# ruff: noqa: PLR0917 - rules take positional arguments

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from policylab.agents.rule import draw, likely, rule
from policylab.agents.schedules import Constant, InverseVisits, Schedule, ScheduleSettings, resolve, value_at, within
from policylab.agents.tabular.values import State, Values, action_values, maximum
from policylab.config import Settings

if TYPE_CHECKING:
    from policylab.agents.tabular.core import Core

GREEDY, EPSILON_GREEDY, SOFTMAX, UCB = 0, 1, 2, 3


class Greedy(Settings):
    """Always an action of highest value, ties at random."""

    kind: Literal["greedy"] = "greedy"


class EpsilonGreedy(Settings):
    """With probability epsilon a uniformly random action (it may be the greedy one), else greedy."""

    kind: Literal["epsilon_greedy"] = "epsilon_greedy"
    epsilon: Annotated[ScheduleSettings, within(0.0, 1.0)] = Field(
        default=Constant(value=0.1), description="probability of a random action; 0.1 as in Sutton & Barto, figure 6.4"
    )


class Softmax(Settings):
    """Actions in proportion to exp(value / temperature)."""

    kind: Literal["softmax"] = "softmax"
    temperature: Annotated[ScheduleSettings, within(0.0, math.inf, open_start=True, open_end=True)] = Field(
        default=Constant(value=1.0), description="temperature, in units of return; lower is greedier"
    )


class Ucb(Settings):
    """The action of highest upper confidence bound; needs one active feature per state."""

    kind: Literal["ucb"] = "ucb"
    c: Annotated[ScheduleSettings, within(0.0, math.inf)] = Field(
        default=Constant(value=2.0),
        description="width of the bound, in units of return; 2 as in Sutton & Barto, figure 2.4",
    )


ExplorationSettings = Annotated[Greedy | EpsilonGreedy | Softmax | Ucb, Field(discriminator="kind")]

PARAMETERS = {"epsilon_greedy": "epsilon", "softmax": "temperature", "ucb": "c"}
"""The scheduled parameter of each kind that has one."""
_KINDS = {"greedy": GREEDY, "epsilon_greedy": EPSILON_GREEDY, "softmax": SOFTMAX, "ucb": UCB}


class Exploration(NamedTuple):
    """An exploration as plain numbers: its kind and its parameter's schedule."""

    kind: int
    parameter: Schedule


def make_exploration(settings: Greedy | EpsilonGreedy | Softmax | Ucb, budget_steps: int) -> Exploration:
    """Return ``settings`` with the schedule stretched over ``budget_steps``."""
    name = PARAMETERS.get(settings.kind)
    schedule = getattr(settings, name) if name else Constant(value=0.0)
    return Exploration(_KINDS[settings.kind], resolve(schedule, budget_steps))


def counts_choices(settings: Greedy | EpsilonGreedy | Softmax | Ucb) -> bool:
    """Return whether this exploration needs N(s, a)."""
    name = PARAMETERS.get(settings.kind)
    return settings.kind == "ucb" or (name is not None and isinstance(getattr(settings, name), InverseVisits))


@rule
def among_best(row: Sequence[float], rng: np.random.Generator) -> int:
    """Return the index of the highest entry, one at random among equals; draws only if there are several."""
    best, place, ties = row[0], 0, 1
    for action in range(1, len(row)):
        if row[action] > best:
            best, place, ties = row[action], action, 1
        elif row[action] == best:
            ties += 1
    if ties == 1:
        return place
    skip = int(draw(rng) * ties)
    for action in range(place, len(row)):
        if row[action] == best:
            if skip == 0:
                return action
            skip -= 1
    return place


def greedy(q: Values, state: State, rng: np.random.Generator) -> int:
    """Return an action of highest value, one at random among equals."""
    return among_best(action_values(q, state), rng)


@rule
def choose_softmax(row: Sequence[float], temperature: float, rng: np.random.Generator) -> int:
    """Return an action drawn in proportion to exp(value / temperature)."""
    best = row[0]
    for action in range(1, len(row)):
        best = max(best, row[action])
    total = 0.0
    for action in range(len(row)):
        total += math.exp((row[action] - best) / temperature)
    threshold, reached = draw(rng) * total, 0.0
    for action in range(len(row)):
        reached += math.exp((row[action] - best) / temperature)
        if reached > threshold:
            return action
    return len(row) - 1


@rule
def visits_of(choices: NDArray[np.int64], state: State, n_actions: int) -> int:
    """Return N(s), 0 when choices are not counted."""
    if likely(len(choices) == 0):
        return 0
    total = 0
    for action in range(n_actions):
        total += int(choices[state, action])
    return total


@rule
def bound(row: Sequence[float], tried: int, action: int, width: float) -> float:
    """Return the upper confidence bound of one action; ``width`` is c sqrt(ln N(s))."""
    return math.inf if tried == 0 else row[action] + width / math.sqrt(tried)


@rule
def best_bound(row: Sequence[float], choices: NDArray[np.int64], state: State, c: float) -> tuple[float, float, int]:
    """Return (width of the bounds, highest bound, number of actions that reach it)."""
    width = c * math.sqrt(math.log(max(visits_of(choices, state, len(row)), 1)))
    best, ties = -math.inf, 0
    for action in range(len(row)):
        score = bound(row, int(choices[state, action]), action, width)
        if score > best:
            best, ties = score, 1
        elif score == best:
            ties += 1
    return width, best, ties


@rule
def choose_ucb(
    row: Sequence[float], choices: NDArray[np.int64], state: State, c: float, rng: np.random.Generator
) -> int:
    """Return an action of highest upper confidence bound, one at random among equals."""
    width, best, ties = best_bound(row, choices, state, c)
    skip = int(draw(rng) * ties) if ties > 1 else 0
    for action in range(len(row)):
        if bound(row, int(choices[state, action]), action, width) == best:
            if skip == 0:
                return action
            skip -= 1
    return 0


@rule
def parameter_at(core: Core, state: State, time: int) -> float:
    """Return the exploration parameter that a choice in ``state`` at step ``time`` uses."""
    schedule = core.exploration.parameter
    return value_at(schedule, time, visits_of(core.choices, state, core.n_actions) + 1)


@rule
def choose(core: Core, state: State, time: int) -> int:
    """Return the action taken in ``state`` at step ``time``, and count it.

    Args:
        core: what every tabular agent has, a `policylab.agents.tabular.core.Core`.
        state: a state.
        time: environment steps taken before this one.
    """
    kind = core.exploration.kind
    if likely(kind == EPSILON_GREEDY):
        epsilon = parameter_at(core, state, time)
        u = draw(core.rng)
        if u < epsilon:
            action = min(int(u / epsilon * core.n_actions), core.n_actions - 1)
        else:
            action = greedy(core.q, state, core.rng)
    elif kind == GREEDY:
        action = greedy(core.q, state, core.rng)
    elif kind == SOFTMAX:
        action = choose_softmax(action_values(core.q, state), parameter_at(core, state, time), core.rng)
    else:
        c = parameter_at(core, state, time)
        action = choose_ucb(action_values(core.q, state), core.choices, state, c, core.rng)
    if likely(len(core.choices) == 0):
        return action
    core.choices[state, action] += 1
    return action


@rule
def expected_value(core: Core, state: State, time: int) -> float:
    """Return the mean of Q(s, a) over the actions that `choose` would take in ``state`` at step ``time``."""
    kind = core.exploration.kind
    row = action_values(core.q, state)
    if kind == GREEDY:
        return maximum(core.q, state)
    parameter = parameter_at(core, state, time)
    total = 0.0
    if kind == EPSILON_GREEDY:
        for action in range(core.n_actions):
            total += row[action]
        return parameter * (total / core.n_actions) + (1.0 - parameter) * maximum(core.q, state)
    if kind == SOFTMAX:
        best, weights = maximum(core.q, state), 0.0
        for action in range(core.n_actions):
            weight = math.exp((row[action] - best) / parameter)
            weights += weight
            total += weight * row[action]
        return total / weights
    width, best, ties = best_bound(row, core.choices, state, parameter)
    for action in range(core.n_actions):
        if bound(row, int(core.choices[state, action]), action, width) == best:
            total += row[action] / ties
    return total


@rule
def choice_probability(core: Core, state: State, action: int, time: int) -> float:
    """Return the probability with which `choose` took ``action``; not for `ucb` and visit-based parameters."""
    kind = core.exploration.kind
    row, best = action_values(core.q, state), maximum(core.q, state)
    parameter = value_at(core.exploration.parameter, time, 1)
    if kind == SOFTMAX:
        weights = 0.0
        for other in range(core.n_actions):
            weights += math.exp((row[other] - best) / parameter)
        return math.exp((row[action] - best) / parameter) / weights
    ties = 0
    for other in range(core.n_actions):
        if row[other] == best:
            ties += 1
    greedy_part = 1.0 / ties if row[action] == best else 0.0
    return parameter / core.n_actions + (1.0 - parameter) * greedy_part
