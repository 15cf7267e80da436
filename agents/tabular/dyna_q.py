"""Dyna-Q and Dyna-Q+ (Sutton 1990; Sutton & Barto 2018, sections 8.2 and 8.3)."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from policylab.agents.rule import draw, rule
from policylab.agents.settings import TabularSettings
from policylab.agents.tabular.agent import TabularAgent
from policylab.agents.tabular.core import Core, Size, Step
from policylab.agents.tabular.model import UNKNOWN, Model, make_model, observe
from policylab.agents.tabular.rules import continuation, move
from policylab.agents.tabular.values import maximum


class DynaQSettings(TabularSettings):
    """Settings of `DynaQ`."""

    mutable: ClassVar[frozenset[str]] = TabularSettings.mutable | {"planning_steps"}

    kind: Literal["dyna_q"] = "dyna_q"
    planning_steps: int = Field(
        default=5, ge=0, le=100_000, description="simulated updates per real step; 5 as in S&B, figure 8.2"
    )


class DynaQPlusSettings(DynaQSettings):
    """Settings of `DynaQPlus`."""

    mutable: ClassVar[frozenset[str]] = DynaQSettings.mutable | {"bonus"}

    kind: Literal["dyna_q_plus"] = "dyna_q_plus"  # type: ignore[assignment]
    bonus: float = Field(
        default=1e-3, ge=0.0, description="κ, reward per square root of a step that an action was left untried"
    )


class DynaQAlgorithm(NamedTuple):
    """Q-learning on each real step, then on `planning_steps` remembered ones drawn at random.

    | field | shape | meaning |
    |---|---|---|
    | model | | last outcome of every state and action |
    | pairs | (n_states * n_actions,) | state * n_actions + action, the first `n_pairs[0]` entries can be drawn |
    | last_taken | (n_states, n_actions) | step at which each action was last taken, 0 if never |
    | bonus | | κ of Dyna-Q+ |
    | plus | | whether untried actions of visited states can be drawn (Dyna-Q+, as leading nowhere) |
    """

    core: Core
    model: Model
    pairs: NDArray[np.int64]
    n_pairs: NDArray[np.int64]
    last_taken: NDArray[np.int64]
    planning_steps: int
    bonus: float
    plus: bool

    def looks_ahead(self) -> bool:
        """The target does not need the action taken next."""
        return False

    def update(self, step: Step) -> float:
        """Learn from one step and plan; return |δ| of the real step."""
        core = self.core
        target = step.reward + continuation(core, step) * maximum(core.q, step.next_state)
        error = move(core, step.state, step.action, target, step.time)
        remember(self, step)
        for _ in range(self.planning_steps):
            plan_once(self, step.time)
        return error


@rule
def remember(algorithm: DynaQAlgorithm, step: Step) -> None:
    """Put the step into the model, and its pair (all of its state's, for Dyna-Q+) among those to draw from."""
    model, state, action, n_actions = algorithm.model, int(step.state), step.action, algorithm.core.n_actions  # type: ignore[arg-type]
    if model.next_state[state, action] == UNKNOWN:
        if algorithm.plus:
            for other in range(n_actions):
                model.next_state[state, other] = state
                algorithm.pairs[algorithm.n_pairs[0]] = state * n_actions + other
                algorithm.n_pairs[0] += 1
        else:
            algorithm.pairs[algorithm.n_pairs[0]] = state * n_actions + action
            algorithm.n_pairs[0] += 1
    observe(model, step)
    algorithm.last_taken[state, action] = step.time


@rule
def plan_once(algorithm: DynaQAlgorithm, time: int) -> None:
    """Q-learning on one remembered step, its reward raised by κ sqrt(steps since it was taken)."""
    core, model = algorithm.core, algorithm.model
    pair = int(algorithm.pairs[int(draw(core.rng) * algorithm.n_pairs[0])])
    state = pair // core.n_actions
    action = pair - state * core.n_actions
    reward = float(model.reward[state, action])
    if algorithm.bonus > 0.0:
        reward += algorithm.bonus * math.sqrt(time - algorithm.last_taken[state, action])
    target = reward
    if not model.terminated[state, action]:
        target += core.discount * maximum(core.q, int(model.next_state[state, action]))
    move(core, state, action, target, time)


class DynaQ(TabularAgent):
    """Dyna-Q: Q-learning that also replays a learned deterministic model."""

    Settings = DynaQSettings
    linear = False

    @staticmethod
    def algorithm(settings: DynaQSettings, core: Core, *, size: Size) -> DynaQAlgorithm:
        """Return the algorithm over ``core``."""
        plus = isinstance(settings, DynaQPlusSettings)
        return DynaQAlgorithm(
            core,
            make_model(size),
            pairs=np.zeros(size.n_features * size.n_actions, dtype=np.int64),
            n_pairs=np.zeros(1, dtype=np.int64),
            last_taken=size.table(0, np.int64),
            planning_steps=settings.planning_steps,
            bonus=settings.bonus if isinstance(settings, DynaQPlusSettings) else 0.0,
            plus=plus,
        )


class DynaQPlus(DynaQ):
    """Dyna-Q+: Dyna-Q with a bonus for what was long untried, for environments that change."""

    Settings = DynaQPlusSettings
