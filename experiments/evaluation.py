"""The value of a policy: exact where the environment has a table, else from rollouts on shared seeds."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from policylab.agents.agent import Agent
from policylab.agents.policy import Policy, TabularPolicy
from policylab.envs.enumeration import table_for
from policylab.envs.make import make_env
from policylab.envs.planners import evaluate_policy, finite_horizon, start_value
from policylab.envs.settings import EnvSettings
from policylab.envs.table import TabularMDP
from policylab.errors import EnvironmentRuleError
from policylab.seeding import generator


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """A policy's value: mean undiscounted return per episode, and the episodes behind it (none when exact)."""

    value: float
    episode_returns: tuple[float, ...] = ()


class Evaluator(Protocol):
    """Values policies of one environment."""

    measure: str

    def __call__(self, policy: Policy, *, episodes: int) -> Evaluation:
        """Return the value of ``policy``; ``episodes`` is ignored where the answer is exact."""
        ...


def exact_table(settings: EnvSettings) -> TabularMDP | None:
    """Return the table that values a policy exactly, or None where there is none; mean rewards are enough for that."""
    return table_for(settings, mean_rewards=True)


def greedy_actions(policy: Policy, mdp: TabularMDP) -> NDArray[np.int64] | None:
    """Return the greedy action of each of the table's states, shape (S,), or None if the policy has none."""
    if isinstance(policy, TabularPolicy) and policy.weights.shape == (mdp.n_states, mdp.n_actions):
        actions: NDArray[np.int64] = policy.weights.argmax(axis=1)
        return actions if mdp.observation is None else actions[mdp.observation]
    return None


class ExactEvaluator:
    """Backward induction over the table, up to the step limit.

    Source: Puterman, Markov Decision Processes (1994), section 4.2.
    """

    def __init__(self, mdp: TabularMDP) -> None:
        self.mdp = mdp
        self.measure = f"undiscounted return in at most {mdp.max_episode_steps} steps, exact"

    def __call__(self, policy: Policy, *, episodes: int) -> Evaluation:
        """Return the exact value; ``episodes`` plays no part."""
        actions = greedy_actions(policy, self.mdp)
        if actions is None:
            raise EnvironmentRuleError(
                f"evaluation.kind 'exact' needs one table row per state of {self.mdp.env_id}; use 'rollout'"
            )
        values = evaluate_policy(self.mdp, actions, discount=1.0, horizon=self.mdp.max_episode_steps)
        return Evaluation(start_value(self.mdp, values))

    def optimum(self) -> float:
        """The best return any policy can reach within the step limit, from the start distribution."""
        return _optimum(self.mdp)


@functools.lru_cache(maxsize=8)
def _optimum(mdp: TabularMDP) -> float:
    if mdp.max_episode_steps is None:
        raise EnvironmentRuleError(f"{mdp.env_id} has no step limit; set env.max_episode_steps")
    return start_value(mdp, finite_horizon(mdp, horizon=mdp.max_episode_steps).values[0])


class RolloutEvaluator:
    """Episodes of the greedy policy; episode i always starts from the same stream, whoever is evaluated."""

    def __init__(self, settings: EnvSettings, *, seed: int) -> None:
        self._env = make_env(settings)
        self._seed = seed
        self.measure = "undiscounted return, mean of rollout episodes"

    def __call__(self, policy: Policy, *, episodes: int) -> Evaluation:
        """Return the mean over ``episodes`` episodes, with their returns."""
        returns = tuple(
            play_episode(self._env, policy, rng=generator(self._seed, "episode", i)) for i in range(episodes)
        )
        return Evaluation(math.fsum(returns) / episodes, returns)


def play_episode(
    env: gym.Env[Any, Any], policy: Policy, *, rng: np.random.Generator, frames: list[Any] | None = None
) -> float:
    """Play one greedy episode with the environment's randomness from ``rng``; return its return.

    With ``frames``, the picture of every state is appended to it.
    """
    env.reset(seed=int(rng.integers(2**31)))
    env.unwrapped.np_random = rng
    observation, _ = env.reset()
    total, ended = 0.0, False
    while not ended:
        if frames is not None:
            frames.append(env.render())
        observation, reward, terminated, truncated, _ = env.step(policy.act(observation))
        total += float(reward)
        ended = terminated or truncated
    if frames is not None:
        frames.append(env.render())
    return total


def evaluation_kind(asked: str, agent: Agent) -> str:
    """Return how ``agent`` is valued: as asked, where ``auto`` means ``online`` for agents judged while they learn.

    Raises:
        EnvironmentRuleError: its final policy was to be valued although every episode is a new problem to it.
    """
    if not agent.online:
        return asked
    if asked in ("exact", "rollout"):
        raise EnvironmentRuleError(
            f"evaluation.kind '{asked}' would value what the agent knows of its last problem, but every episode is a "
            "new one to it; use 'online'"
        )
    return "online"


def make_evaluator(env: EnvSettings, policy: Policy, *, kind: str, seed: int) -> Evaluator:
    """Return the evaluator for ``kind`` (``auto``, ``exact`` or ``rollout``) and this sort of policy.

    Raises:
        EnvironmentRuleError: ``exact`` was asked for and the environment or policy has no table.
    """
    mdp = exact_table(env) if kind in ("auto", "exact") else None
    if mdp is not None and greedy_actions(policy, mdp) is not None:
        return ExactEvaluator(mdp)
    if kind == "exact":
        raise EnvironmentRuleError(f"evaluation.kind 'exact': {env.id} or the policy has no table; use 'rollout'")
    return RolloutEvaluator(env, seed=seed)
