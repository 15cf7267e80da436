"""What is suspicious about an environment, before any training."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection
from typing import Any, Literal

import gymnasium as gym

from policylab.envs.enumeration import has_table, table_of
from policylab.envs.make import DEFAULT_MAX_EPISODE_STEPS, ResolvedEnv, make_env, resolve
from policylab.envs.planners import finite_horizon, start_value
from policylab.envs.settings import EnvSettings

ObservationKind = Literal["discrete", "tuple", "box", "other"]

MAX_THRESHOLD_TABLE = 1_000_000
"""Largest S x A x K for which the optimum behind a reward threshold is computed; keeps planning quick."""


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One suspicious fact: ``rule`` names the check, ``message`` says what, and what to do, in one sentence."""

    rule: str
    message: str


def observation_kind(space: gym.Space[Any]) -> ObservationKind:
    """Return how an agent can read observations of ``space``.

    ``discrete``: one integer from 0. ``tuple``: a tuple of such integers, which can be flattened into one.
    ``box``: a vector or array of real numbers.

    >>> observation_kind(gym.spaces.Discrete(16)), observation_kind(gym.spaces.Box(0, 1, (4,)))
    ('discrete', 'box')
    """
    if isinstance(space, gym.spaces.Discrete):
        return "discrete" if space.start == 0 else "other"
    if isinstance(space, gym.spaces.Tuple) and all(observation_kind(part) == "discrete" for part in space.spaces):
        return "tuple"
    return "box" if isinstance(space, gym.spaces.Box) else "other"


def findings(settings: EnvSettings, *, accepted: Collection[ObservationKind] | None = None) -> list[Finding]:
    """Return what is suspicious about an environment, in a fixed order.

    Args:
        settings: which environment; it is made once.
        accepted: observation kinds the agent takes; None skips that check.

    Raises:
        UserError: the environment cannot be made.

    >>> [finding.rule for finding in findings(EnvSettings(id="FrozenLake-v1"))]
    []
    """
    resolved = resolve(settings)
    with contextlib.closing(make_env(settings)) as env:
        return [
            *(Finding("alias", note) for note in resolved.notes),
            *_retired(resolved),
            *_time_limit(resolved),
            *_threshold(env),
            *_dynamics(env, resolved),
            *_observation(env, resolved, accepted=accepted),
        ]


def _retired(resolved: ResolvedEnv) -> list[Finding]:
    spec = gym.registry[resolved.id]
    versions = {
        known.version: known.id
        for known in gym.registry.values()
        if known.namespace == spec.namespace and known.name == spec.name and known.version is not None
    }
    newest = max(versions, default=None)
    if newest is None or spec.version is None or newest == spec.version:
        return []
    return [Finding("retired_id", f"{resolved.id} is superseded; use {versions[newest]} unless you compare with it")]


def _time_limit(resolved: ResolvedEnv) -> list[Finding]:
    if resolved.limit_source != "default":
        return []
    message = (
        f"{resolved.id} is registered without a time limit, an episode could last for ever; "
        f"{DEFAULT_MAX_EPISODE_STEPS} steps are imposed, set env.max_episode_steps to choose"
    )
    return [Finding("no_time_limit", message)]


def _threshold(env: gym.Env[Any, Any]) -> list[Finding]:
    threshold = env.spec.reward_threshold if env.spec is not None else None
    if threshold is None or not has_table(env):
        return []
    mdp = table_of(env)
    if mdp.max_episode_steps is None or mdp.probability.size > MAX_THRESHOLD_TABLE:
        return []
    optimum = start_value(mdp, finite_horizon(mdp, horizon=mdp.max_episode_steps).values)
    if threshold <= optimum:
        return []
    message = (
        f"the registered reward threshold of {mdp.env_id}, {threshold:g}, is above its true optimum {optimum:.4f} "
        f"within {mdp.max_episode_steps} steps; never wait for it"
    )
    return [Finding("reward_threshold", message)]


def _dynamics(env: gym.Env[Any, Any], resolved: ResolvedEnv) -> list[Finding]:
    base: Any = env.unwrapped
    found = []
    if getattr(base, "fickle_passenger", False):
        message = (
            f"{resolved.id} with fickle_passenger=True hides a state: P is not its model and no exact optimum exists"
        )
        found.append(Finding("false_table", message))
    if resolved.id == "highway-v0":
        message = "highway-v0 simulates about 3 steps per second; highway-fast-v0 is the same road, ten times as fast"
        found.append(Finding("slow", message))
    if resolved.id == "Taxi-v3" and resolved.kwargs.get("is_rainy"):
        message = (
            "Taxi-v3 with is_rainy=True slips otherwise than documented, corrected as Taxi-v4; do not compare the two"
        )
        found.append(Finding("known_defect", message))
    return found


def _observation(
    env: gym.Env[Any, Any], resolved: ResolvedEnv, *, accepted: Collection[ObservationKind] | None
) -> list[Finding]:
    kind = observation_kind(env.observation_space)
    if accepted is None or kind in accepted:
        return []
    message = (
        f"{resolved.id} gives observations {env.observation_space} ({kind}), which the agent cannot take; "
        f"it takes {', '.join(sorted(accepted))}: choose another agent or features"
    )
    return [Finding("observation", message)]
