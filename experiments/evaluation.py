"""The value of a policy: exact where the environment has a table, else from rollouts on shared seeds."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Protocol, Self, runtime_checkable

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from policylab.agents.action_distributions import Categorical, QValues
from policylab.agents.agent import Agent
from policylab.agents.distribution_policy import DistributionPolicy
from policylab.agents.policy import Policy
from policylab.agents.recurrent_policy import Episodes, RecurrentPolicy, in_episode
from policylab.agents.value_policies import TabularPolicy
from policylab.config import Settings
from policylab.envs.baselines import Baseline, Remembering, Uniform
from policylab.envs.enumeration import table_for
from policylab.envs.make import make_env
from policylab.envs.planners import evaluate_policy, finite_horizon, start_value
from policylab.envs.settings import EnvSettings
from policylab.envs.table import TabularMDP
from policylab.errors import EnvironmentRuleError
from policylab.seeding import generator

MAX_SIDE_BY_SIDE = 16
"""Episodes played together; each needs an environment of its own."""


class EvaluationSettings(Settings):
    """How a policy is valued: undiscounted return per episode under the environment's step limit.

    ``exact`` solves the environment's table, ``rollout`` plays episodes on evaluation seeds shared by all runs,
    ``online`` averages the training returns (for learners judged while they learn, such as bandits).
    """

    kind: Literal["auto", "exact", "rollout", "online"] = "auto"
    marks: int = Field(default=20, ge=1, le=10_000, description="evaluations per run, evenly spaced in steps")
    episodes: int = Field(default=20, ge=1, description="rollout episodes at each mark")
    final_episodes: int = Field(default=100, ge=1, description="rollout episodes of the final policy")


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """A policy's value: mean undiscounted return per episode, and the episodes behind it (none when exact)."""

    value: float
    episode_returns: tuple[float, ...] = ()

    @classmethod
    def of(cls, returns: Sequence[float]) -> Self:
        """Return the evaluation by the returns of episodes, at least one."""
        return cls(math.fsum(returns) / len(returns), tuple(returns))


@runtime_checkable
class Batching(Protocol):
    """Decides for several observations at once, as policies do and baselines do not."""

    def act_batch(self, observations: Iterable[Any], *, rng: np.random.Generator | None = None) -> NDArray[Any]:
        """Return one action for each raw observation."""
        ...


class Evaluator(Protocol):
    """Values policies of one environment.

    Attributes:
        measure: what the value is and how it is obtained.
        exact: whether the same policy always has the same value, however many episodes are asked for.
    """

    measure: str
    exact: bool

    def __call__(self, policy: Policy, *, episodes: int, stochastic: bool = False) -> Evaluation:
        """Return the value of ``policy``; ``episodes`` is ignored where the answer is exact.

        With ``stochastic``, actions are drawn from the policy's distribution.
        """
        ...


def exact_table(settings: EnvSettings) -> TabularMDP | None:
    """Return the table that values a policy exactly, or None where there is none; mean rewards are enough for that."""
    return table_for(settings, mean_rewards=True, looks=True)


def greedy_actions(policy: Policy, mdp: TabularMDP) -> NDArray[np.int64] | None:
    """Return the greedy action of each of the table's states, shape (S,), or None if the policy has none."""
    if isinstance(policy, TabularPolicy) and policy.weights.shape == (mdp.n_states, mdp.n_actions):
        if mdp.looks is not None:
            return None
        actions: NDArray[np.int64] = policy.weights.argmax(axis=1)
        return actions if mdp.observation is None else actions[mdp.observation]
    if (choice := _choice_by_state(policy, mdp)) is not None:
        return policy.act_batch(_seen(mdp)) - choice.first_action
    return None


def drawn_actions(policy: Policy, mdp: TabularMDP) -> NDArray[np.float64] | None:
    """Return the probability of each action in each of the table's states, shape (S, A), or None if there are none."""
    if isinstance(policy, DistributionPolicy) and (choice := _choice_by_state(policy, mdp)) is not None:
        return choice.probabilities(policy.outputs(_seen(mdp)))
    actions = greedy_actions(policy, mdp)
    return None if actions is None else np.eye(mdp.n_actions)[actions]


def _choice_by_state(policy: Policy, mdp: TabularMDP) -> Categorical | QValues | None:
    """Return how a network or tree chooses among the table's actions, if the table says what it sees of each state."""
    if not isinstance(policy, DistributionPolicy) or isinstance(policy, RecurrentPolicy) or mdp.observation is not None:
        return None
    if policy.reads_numbers == (mdp.looks is not None):
        return None
    choice = policy.settings.distribution
    if isinstance(choice, Categorical | QValues) and choice.n_actions == mdp.n_actions:
        return choice
    return None


def _seen(mdp: TabularMDP) -> Iterable[Any]:
    """Return what a network or tree sees of each state: its number, or how it looks."""
    return range(mdp.n_states) if mdp.looks is None else mdp.looks


def rule_actions(rule: Baseline, mdp: TabularMDP, *, space: gym.Space[Any]) -> NDArray[Any] | None:
    """Return what a baseline does in each of the table's states: actions (S,), or probabilities (S, A) if random.

    None if it remembers, or if the table does not say what it sees of a state.
    """
    if isinstance(rule, Uniform):
        return np.full((mdp.n_states, mdp.n_actions), 1.0 / mdp.n_actions)
    if isinstance(rule, Remembering):
        return None
    if mdp.looks is not None:
        seen: list[Any] = list(mdp.looks)
    elif isinstance(space, gym.spaces.Discrete):
        seen = list(range(mdp.n_states))
    elif isinstance(space, gym.spaces.Tuple) and all(isinstance(part, gym.spaces.Discrete) for part in space.spaces):
        sizes = [int(part.n) for part in space.spaces]  # type: ignore[attr-defined]
        seen = [tuple(int(part) for part in np.unravel_index(state, sizes)) for state in range(mdp.n_states)]
    else:
        return None
    actions: NDArray[np.int64] = np.array([rule.act(observation) for observation in seen], dtype=np.int64)
    return actions if mdp.observation is None else actions[mdp.observation]


class ExactEvaluator:
    """Backward induction over the table, up to the step limit.

    Source: Puterman, Markov Decision Processes (1994), section 4.2.
    """

    exact = True

    def __init__(self, mdp: TabularMDP) -> None:
        self.mdp = mdp
        self.measure = f"undiscounted return in at most {mdp.max_episode_steps} steps, exact"

    def __call__(self, policy: Policy, *, episodes: int, stochastic: bool = False) -> Evaluation:
        """Return the exact value; ``episodes`` plays no part."""
        return self.of_actions(self.actions(policy, stochastic=stochastic))

    def of_actions(self, actions: NDArray[Any]) -> Evaluation:
        """Return the exact value of actions, shape (S,), or of action probabilities, shape (S, A)."""
        if actions.ndim == 1:
            return Evaluation(self.values(actions[None])[0])
        values = evaluate_policy(self.mdp, actions, discount=1.0, horizon=_limit(self.mdp))
        return Evaluation(start_value(self.mdp, values))

    def actions(self, policy: Policy, *, stochastic: bool = False) -> NDArray[Any]:
        """Return the greedy actions of ``policy``, shape (S,), or what it draws from, shape (S, A).

        Raises:
            EnvironmentRuleError: the policy does not say what it does in each state.
        """
        actions = drawn_actions(policy, self.mdp) if stochastic else greedy_actions(policy, self.mdp)
        if actions is None:
            raise EnvironmentRuleError(
                f"evaluation.kind 'exact' needs an action for each state of {self.mdp.env_id}; use 'rollout'"
            )
        return actions

    def values(self, actions: NDArray[Any]) -> list[float]:
        """Return the exact value of each policy, actions of shape (P, S); it does not depend on the others."""
        from policylab.agents.tabular.compiled_values import values_within  # Numba is slow to import

        values = values_within(self.mdp, actions, horizon=_limit(self.mdp))
        return [start_value(self.mdp, of_states) for of_states in values]

    def optimum(self) -> float:
        """The best return any policy can reach within the step limit, from the start distribution."""
        return _optimum(self.mdp)


@functools.lru_cache(maxsize=8)
def _optimum(mdp: TabularMDP) -> float:
    return start_value(mdp, finite_horizon(mdp, horizon=_limit(mdp)).values[0])


def _limit(mdp: TabularMDP) -> int:
    if mdp.max_episode_steps is None:
        raise EnvironmentRuleError(f"{mdp.env_id} has no step limit; set env.max_episode_steps")
    return mdp.max_episode_steps


class RolloutEvaluator:
    """Episodes of a policy; episode i always starts from the same stream, whoever is evaluated.

    Several episodes are played side by side, so that a network computes their actions together.
    """

    exact = False

    def __init__(self, settings: EnvSettings, *, seed: int) -> None:
        self._settings = settings
        self._envs = [make_env(settings)]
        self._seed = seed
        self.measure = "undiscounted return, mean of rollout episodes"

    def __call__(self, policy: Policy | Baseline, *, episodes: int, stochastic: bool = False) -> Evaluation:
        """Return the mean over ``episodes`` episodes, with their returns."""
        return Evaluation.of(self.play(policy, numbers=range(episodes), stochastic=stochastic))

    def play(self, policy: Policy | Baseline, *, numbers: Sequence[int], stochastic: bool = False) -> list[float]:
        """Return the returns of the episodes of these numbers; greedy ones do not depend on which others are played."""
        streams = [generator(self._seed, "episode", i) for i in numbers]
        if not isinstance(policy, Batching):
            return [self._play(policy, i, rng=rng) for i, rng in zip(numbers, streams, strict=True)]
        while len(self._envs) < min(len(streams), MAX_SIDE_BY_SIDE):
            self._envs.append(make_env(self._settings))
        actions = generator(self._seed, "actions") if stochastic else None
        return play_episodes(self._envs, policy, streams=streams, actions=actions)

    def _play(self, rule: Baseline, i: int, *, rng: np.random.Generator) -> float:
        acting = generator(self._seed, "random actions", i) if isinstance(rule, Uniform) else None
        return play_episode(self._envs[0], rule, rng=rng, acting=acting)


def play_episodes(
    envs: Sequence[gym.Env[Any, Any]],
    policy: Batching,
    *,
    streams: Sequence[np.random.Generator],
    actions: np.random.Generator | None = None,
) -> list[float]:
    """Play one episode per stream, at most ``len(envs)`` at once; return their returns in the order of the streams.

    Args:
        envs: equal environments; which of them plays an episode makes no difference.
        policy: decides for all running episodes together.
        streams: the environments' randomness, one generator per episode.
        actions: draws actions from the policy's distribution; None takes its deterministic ones.
    """
    returns = [0.0] * len(streams)
    waiting = iter(enumerate(streams))
    running: list[tuple[int, gym.Env[Any, Any], Any]] = []
    for env, (i, rng) in zip(envs, waiting, strict=False):
        running.append((i, env, begin_episode(env, rng)))
    players = Episodes(policy)
    while running:
        numbers, observations = [i for i, _, _ in running], [observation for _, _, observation in running]
        chosen = players.act_batch(observations, numbers=numbers, rng=actions)
        going_on = []
        for (i, env, _), action in zip(running, chosen, strict=True):
            observation, reward, terminated, truncated, _ = env.step(action)
            returns[i] += float(reward)
            if not (terminated or truncated):
                going_on.append((i, env, observation))
            elif (following := next(waiting, None)) is not None:
                going_on.append((following[0], env, begin_episode(env, following[1])))
        running = going_on
    return returns


def begin_episode(env: gym.Env[Any, Any], rng: np.random.Generator) -> Any:
    """Reset ``env`` so that all its randomness comes from ``rng``; return the first observation."""
    env.reset(seed=int(rng.integers(2**31)))
    env.unwrapped.np_random = rng
    observation, _ = env.reset()
    return observation


def play_episode(
    env: gym.Env[Any, Any],
    policy: Policy | Baseline,
    *,
    rng: np.random.Generator,
    acting: np.random.Generator | None = None,
    frames: list[Any] | None = None,
) -> float:
    """Play one episode with the environment's randomness from ``rng``; return its return.

    Actions are greedy, or drawn with ``acting``. With ``frames``, the picture of every state is appended to it.
    """
    observation = begin_episode(env, rng)
    if isinstance(policy, Remembering):
        policy.reset()
    policy = in_episode(policy)
    total, ended = 0.0, False
    while not ended:
        if frames is not None:
            frames.append(env.render())
        observation, reward, terminated, truncated, _ = env.step(policy.act(observation, rng=acting))
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


def exact_evaluator(env: EnvSettings, policy: Callable[[], Policy], *, kind: str) -> ExactEvaluator | None:
    """Return what values such a policy exactly, or None where episodes must.

    Args:
        env: the environment.
        policy: makes a policy of the sort to be valued; called only where the environment has a table.
        kind: ``auto``, ``exact`` or ``rollout``.

    Raises:
        EnvironmentRuleError: ``exact`` was asked for and the environment or policy has no table.
    """
    mdp = exact_table(env) if kind in ("auto", "exact") else None
    if mdp is not None and greedy_actions(policy(), mdp) is not None:
        return ExactEvaluator(mdp)
    if kind == "exact":
        raise EnvironmentRuleError(f"evaluation.kind 'exact': {env.id} or the policy has no table; use 'rollout'")
    return None


def make_evaluator(env: EnvSettings, policy: Policy, *, kind: str, seed: int) -> Evaluator:
    """Return the evaluator for ``kind`` (``auto``, ``exact`` or ``rollout``) and this sort of policy.

    Raises:
        EnvironmentRuleError: ``exact`` was asked for and the environment or policy has no table.
    """
    from policylab.experiments.remote_evaluation import rollouts  # it builds on this module

    return exact_evaluator(env, lambda: policy, kind=kind) or rollouts(env, seed=seed)
