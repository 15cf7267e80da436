"""From an environment to its exact `TabularMDP`: read off ``P``, or enumerated from a model."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable, Sequence
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from gymnasium import wrappers
from gymnasium.envs.toy_text.blackjack import BlackjackEnv
from numpy.typing import NDArray

from policylab.envs.make import make_env
from policylab.envs.settings import EnvSettings
from policylab.envs.table import Outcome, TabularMDP
from policylab.envs.table_env import TableEnv
from policylab.envs.textbook.blackjack import BlackjackModel
from policylab.errors import EnvironmentRuleError

MAX_ENTRIES = 10_000_000
"""Default limit on S x A x K; one entry takes 21 bytes."""

TRANSPARENT_WRAPPERS = (
    wrappers.TimeLimit,
    wrappers.OrderEnforcing,
    wrappers.PassiveEnvChecker,
    wrappers.RecordEpisodeStatistics,
    wrappers.RecordVideo,
    wrappers.HumanRendering,
    wrappers.RenderCollection,
)
"""Wrappers that change neither observations nor rewards nor dynamics."""


@runtime_checkable
class EnumerableModel(Protocol):
    """An environment that can state its dynamics instead of only sampling them.

    States are any hashable values; `encode` numbers them as the environment's observation does, one number
    per state. A state from which the episode cannot continue needs no transitions of its own.
    """

    n_states: int

    def initial_outcomes(self) -> Sequence[tuple[float, Any]]:
        """Return (probability, state) of every possible first state."""
        ...

    def transitions(self, state: Any, action: int) -> Sequence[tuple[float, Any, float, bool]]:
        """Return (probability, next state, reward, terminated) of every outcome of an action."""
        ...

    def encode(self, state: Any) -> int:
        """Return the observation of a state, in 0 .. n_states - 1."""
        ...


def table_of(env: gym.Env[Any, Any], *, max_entries: int = MAX_ENTRIES, mean_rewards: bool = False) -> TabularMDP:
    """Return the exact model of ``env``, with the time limit its wrappers impose.

    Args:
        env: an environment whose ``unwrapped`` has ``P`` and ``initial_state_distrib`` or is an
            `EnumerableModel`, or Gymnasium's Blackjack.
        max_entries: largest S x A x K to build.
        mean_rewards: accept a table that holds mean rewards where `step` draws them: planning over it is exact,
            learning from it is not what the environment teaches.

    Raises:
        EnvironmentRuleError: there is no table, it is known to be false, or it is too large.

    >>> mdp = table_of(gym.make("FrozenLake-v1"))
    >>> mdp.n_states, mdp.n_actions, mdp.max_episode_steps
    (16, 4, 100)
    """
    reason = table_refusal(env, max_entries=max_entries, mean_rewards=mean_rewards)
    if reason:
        raise EnvironmentRuleError(f"{name_of(env)} has no exact table: {reason}")
    base: Any = env.unwrapped
    if _has_outcomes(base):
        return TabularMDP.from_outcomes(
            base.P, base.initial_state_distrib, max_episode_steps=time_limit(env), env_id=name_of(env)
        )
    model = model_of(env)
    assert model is not None
    outcomes, initial = _enumerate(model, int(base.action_space.n), place=name_of(env), max_entries=max_entries)
    return TabularMDP.from_outcomes(
        outcomes,
        initial,
        max_episode_steps=time_limit(env),
        env_id=name_of(env),
        observation=model.observed if isinstance(model, BlackjackModel) else None,
    )


def has_table(env: gym.Env[Any, Any], *, mean_rewards: bool = False) -> bool:
    """Return whether `table_of` accepts the environment; cheap, nothing is built."""
    return table_refusal(env, mean_rewards=mean_rewards) is None


def table_for(settings: EnvSettings, *, mean_rewards: bool = False, looks: bool = False) -> TabularMDP | None:
    """Return the exact model of the environment that ``settings`` name, or None; made once per process.

    With ``looks``, also of an environment that shows its states as arrays of numbers (`TableEnv.observe`), which then
    stand in `TabularMDP.looks`: enough to value a policy, no table for an agent to index.

    >>> table_for(EnvSettings(id="CartPole-v1")) is None
    True
    """
    return _table_for(settings.model_dump_json(), mean_rewards=mean_rewards, looks=looks)


@functools.lru_cache(maxsize=8)
def _table_for(settings_json: str, *, mean_rewards: bool, looks: bool) -> TabularMDP | None:
    env = make_env(EnvSettings.model_validate_json(settings_json))
    try:
        if looks and _shows_arrays(env):
            return _seen_table(env)
        return table_of(env, mean_rewards=mean_rewards) if has_table(env, mean_rewards=mean_rewards) else None
    finally:
        env.close()


def _shows_arrays(env: gym.Env[Any, Any]) -> bool:
    """Return whether ``env`` is a table whose states are observed as arrays of numbers."""
    transparent = all(isinstance(layer, TRANSPARENT_WRAPPERS) for layer in _layers(env))
    base = env.unwrapped
    return (
        transparent
        and isinstance(base, TableEnv)
        and base.stationary
        and isinstance(base.observation_space, gym.spaces.Box)
    )


def _seen_table(env: gym.Env[Any, Any]) -> TabularMDP:
    base = env.unwrapped
    assert isinstance(base, TableEnv)
    looks = np.stack([base.observe(state) for state in range(len(base.P))])
    looks.setflags(write=False)
    mdp = TabularMDP.from_outcomes(
        base.P, base.initial_state_distrib, max_episode_steps=time_limit(env), env_id=name_of(env)
    )
    return dataclasses.replace(mdp, looks=looks)


def table_refusal(env: gym.Env[Any, Any], *, max_entries: int = MAX_ENTRIES, mean_rewards: bool = False) -> str | None:
    """Return why ``env`` has no exact table, or None when it has one."""
    opaque = [layer for layer in _layers(env) if not isinstance(layer, TRANSPARENT_WRAPPERS)]
    if opaque:
        return f"the wrapper {type(opaque[0]).__name__} may change it; ask for the table without that wrapper"
    base: Any = env.unwrapped
    if not isinstance(base.action_space, gym.spaces.Discrete):
        return f"its actions are {base.action_space}, not Discrete; discretise them first"
    if getattr(base, "fickle_passenger", False):
        return "with fickle_passenger=True its P leaves out the changed destination; use fickle_passenger=False"
    if not getattr(base, "stationary", True):
        return "its dynamics change while it lives, so no one table is its model"
    if getattr(base, "P_rewards_are_means", False) and not mean_rewards:
        return "its P holds mean rewards where step draws them; for planning, ask with mean_rewards=True"
    if _has_outcomes(base):
        if not (isinstance(base.observation_space, gym.spaces.Discrete) and base.observation_space.n == len(base.P)):
            return "its observations do not tell its states apart; build one of the states by TabularMDP.from_outcomes"
        # Rows may be made when asked for, all of them at some cost: the first state stands for the rest.
        entries = len(base.P) * len(base.P[0]) * max(len(base.P[0][action]) for action in range(len(base.P[0])))
    else:
        model = model_of(env)
        if model is None:
            return "it offers neither P and initial_state_distrib nor the methods of EnumerableModel"
        entries = model.n_states * int(base.action_space.n)
    return f"S x A x K = {entries} exceeds the limit of {max_entries}" if entries > max_entries else None


def model_of(env: gym.Env[Any, Any]) -> EnumerableModel | None:
    """Return the model behind ``env`` that can be enumerated, or None."""
    base: Any = env.unwrapped
    if type(base) is BlackjackEnv:
        return BlackjackModel(natural=base.natural, sab=base.sab)
    return base if isinstance(base, EnumerableModel) else None


def name_of(env: gym.Env[Any, Any]) -> str:
    """Return the registered id of ``env``, or its class name when it was not made by id."""
    spec = env.unwrapped.spec
    return spec.id if spec is not None else type(env.unwrapped).__name__


def time_limit(env: gym.Env[Any, Any]) -> int | None:
    """Return the number of steps after which the wrappers truncate an episode, or None.

    >>> time_limit(gym.make("FrozenLake-v1")), time_limit(gym.make("CliffWalking-v1"))
    (100, None)
    """
    limits = [layer._max_episode_steps for layer in _layers(env) if isinstance(layer, wrappers.TimeLimit)]
    return min(limits, default=None)


def _layers(env: gym.Env[Any, Any]) -> list[gym.Wrapper[Any, Any, Any, Any]]:
    layers = []
    while isinstance(env, gym.Wrapper):
        layers.append(env)
        env = env.env
    return layers


def _has_outcomes(base: Any) -> bool:
    return getattr(base, "P", None) is not None and getattr(base, "initial_state_distrib", None) is not None


def _enumerate(
    model: EnumerableModel, n_actions: int, *, place: str, max_entries: int
) -> tuple[dict[int, dict[int, list[Outcome]]], NDArray[np.float64]]:
    """Search breadth-first from the first states; what is never reached ends at once with reward 0."""
    outcomes: dict[int, dict[int, list[Outcome]]] = {
        state: {action: [(1.0, state, 0.0, True)] for action in range(n_actions)} for state in range(model.n_states)
    }
    initial = np.zeros(model.n_states)
    seen: dict[int, Hashable] = {}

    def number(state: Hashable) -> int:
        code = model.encode(state)
        if not 0 <= code < model.n_states:
            raise EnvironmentRuleError(f"{place}: encode({state!r}) must lie in 0 .. {model.n_states - 1}, got {code}")
        if seen.setdefault(code, state) != state:
            raise EnvironmentRuleError(
                f"{place} has no exact table: the states {seen[code]!r} and {state!r} share observation {code}; "
                "let the observation tell them apart"
            )
        return code

    frontier: dict[int, Hashable] = {}
    for probability, state in model.initial_outcomes():
        initial[number(state)] += probability
        frontier[model.encode(state)] = state
    entries, expanded = 0, set(frontier)
    while frontier:
        found: dict[int, Hashable] = {}
        for code, state in frontier.items():
            for action in range(n_actions):
                row: list[Outcome] = []
                for probability, onward, reward, terminated in model.transitions(state, action):
                    target = model.encode(onward) if terminated else number(onward)
                    row.append((probability, target, reward, terminated))
                    if not terminated and target not in expanded:
                        expanded.add(target)
                        found[target] = onward
                outcomes[code][action] = row
                entries += len(row)
        if entries > max_entries:
            raise EnvironmentRuleError(f"{place} has no exact table: more than {max_entries} outcomes")
        frontier = found
    return outcomes, initial
