"""`BanditAgent`: the bandit learners as agents over environments with a single observation.

A new episode is a new problem, so what was learned is forgotten at every reset; the agent is judged by
what it earns while learning (``train/reward_mean``, ``train/optimal_fraction``), not by the policy left
behind, which knows the arms of the last problem only.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

import gymnasium as gym
import numpy as np

from policylab.agents import array_checkpoint
from policylab.agents.agent import Report
from policylab.agents.bandit_learners import make_learner, run_testbed
from policylab.agents.bandit_settings import (
    BanditSettings,
    EpsilonGreedyBandit,
    GradientBandit,
    OptimisticBandit,
    ThompsonBandit,
    Ucb1Bandit,
)
from policylab.agents.checkpoint_facts import FactsFormat
from policylab.agents.value_policies import BanditPolicy
from policylab.envs.cursor import EpisodeCursor
from policylab.envs.learned_reward import training_env
from policylab.envs.settings import EnvSettings
from policylab.errors import CheckpointError, EnvironmentRuleError
from policylab.files import canonical_json
from policylab.seeding import generator, generator_state, set_generator_state

__all__ = [
    "BanditAgent",
    "BanditSettings",
    "EpsilonGreedyBandit",
    "GradientBandit",
    "OptimisticBandit",
    "ThompsonBandit",
    "Ucb1Bandit",
    "run_testbed",
]

CHECKPOINT = FactsFormat("policylab bandit", 2, "a bandit")


class BanditAgent:
    """One bandit learner on one environment.

    Args:
        settings: which learner.
        env_settings: which environment; it must have one observation and finitely many actions.
        seed: root of the run's random streams, "environment" and "agent".

    Attributes:
        execution_report: {"kind": "plain", "reason": why}.

    Raises:
        EnvironmentRuleError: the environment has more than one observation.
    """

    online: ClassVar[bool] = True
    exact_resume: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False
    metrics: ClassVar[frozenset[str]] = frozenset(
        {"train/reward_mean", "train/optimal_fraction", "train/return_mean", "train/length_mean"}
    )

    def __init__(self, settings: BanditSettings, env_settings: EnvSettings, *, seed: int) -> None:
        env = training_env(env_settings)
        k = _n_arms(env, kind=settings.kind, env_id=env_settings.id)
        self._identity = {
            "agent": settings.model_dump(mode="json"),
            "environment": env_settings.model_dump(mode="json"),
        }
        self.execution_report = {"kind": "plain", "reason": "bandit learners step the environment"}
        self._learner = make_learner(settings, n_problems=1, k=k)
        self._rng = generator(seed, "agent")
        self._cursor = EpisodeCursor(env, generator(seed, "environment"))
        self._steps = 0
        self._episodes = 0
        self._episode_return = 0.0
        self._episode_length = 0

    @classmethod
    def make(cls, settings: BanditSettings, env_settings: EnvSettings, *, seed: int, budget_steps: int) -> Self:
        """Return a fresh agent; no bandit learner has a schedule, so the budget plays no part."""
        return cls(settings, env_settings, seed=seed)

    @property
    def steps(self) -> int:
        """Arms pulled so far."""
        return self._steps

    def learn(self, steps: int, *, pause: Callable[[], None] | None = None) -> Report:
        """Pull ``steps`` more arms and learn from their rewards; it never pauses."""
        reward_sum, optimal, n_known = 0.0, 0, 0
        returns: list[float] = []
        lengths: list[int] = []
        for _ in range(steps):
            if self._cursor.over:
                self._begin_problem()
            arms = self._learner.select(self._rng)
            _, reward, _, _, info = self._cursor.step(int(arms[0]))
            self._learner.update(arms, np.array([reward]))
            reward_sum += reward
            n_known += "optimal" in info
            optimal += bool(info.get("optimal", False))
            self._episode_return += reward
            self._episode_length += 1
            if self._cursor.over:
                self._episodes += 1
                returns.append(self._episode_return)
                lengths.append(self._episode_length)
        self._steps += steps
        metrics = {"train/reward_mean": reward_sum / max(steps, 1)}
        if n_known:
            metrics["train/optimal_fraction"] = optimal / n_known
        if returns:
            metrics["train/return_mean"] = float(np.mean(returns))
            metrics["train/length_mean"] = float(np.mean(lengths))
        return Report(steps=self._steps, episodes=self._episodes, metrics=metrics)

    def _begin_problem(self) -> None:
        self._cursor.reset()
        self._learner.reset()
        self._episode_return = 0.0
        self._episode_length = 0

    def policy(self) -> BanditPolicy:
        """Return what was learned about the latest problem."""
        return self._learner.policy()

    def save(self, folder: Path) -> None:
        """Write learner, random stream, environment position and counters into ``folder``."""
        position = self._cursor.state()
        arrays = {
            **{f"learner_{name}": array for name, array in self._learner.state.items()},
            **{f"cursor_{name}": value for name, value in position.items() if isinstance(value, np.ndarray)},
            "rng": generator_state(self._rng),
        }
        facts = {
            "identity": self._identity,
            "steps": self._steps,
            "episodes": self._episodes,
            "episode_return": self._episode_return,
            "episode_length": self._episode_length,
            "cursor": {name: value for name, value in position.items() if not isinstance(value, np.ndarray)},
        }
        array_checkpoint.write(folder, arrays, facts=facts, form=CHECKPOINT)

    def restore(self, folder: Path, *, retuned: bool = False) -> None:
        """Continue from what `save` wrote.

        Args:
            folder: the checkpoint.
            retuned: changes nothing: a bandit has no settings that may change while it learns.

        Raises:
            CheckpointError: the checkpoint is damaged or belongs to another agent or environment.
        """
        arrays, facts = array_checkpoint.read(folder, form=CHECKPOINT)
        theirs = facts.get("identity")
        if theirs != json.loads(canonical_json(self._identity)):
            raise CheckpointError(
                f"{folder} was saved by another agent ({canonical_json(theirs)[:200]}); "
                "restore it with the settings it was saved with"
            )
        try:
            learned = {name: arrays[f"learner_{name}"] for name in self._learner.state}
            if any(learned[name].shape != array.shape for name, array in self._learner.state.items()):
                raise ValueError("the learner's arrays have other shapes")
            position = {key.removeprefix("cursor_"): arrays[key] for key in arrays if key.startswith("cursor_")}
            self._cursor.restore({**facts["cursor"], **position})
            set_generator_state(self._rng, arrays["rng"])
            self._steps, self._episodes = int(facts["steps"]), int(facts["episodes"])
            self._episode_return = float(facts["episode_return"])
            self._episode_length = int(facts["episode_length"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{folder} is damaged ({error}); use an older checkpoint") from error
        self._learner.state = learned

    def close(self) -> None:
        """Nothing runs outside of this process."""


def _n_arms(env: gym.Env[Any, Any], *, kind: str, env_id: str) -> int:
    observations, actions = env.observation_space, env.action_space
    one_observation = isinstance(observations, gym.spaces.Discrete) and observations.n == 1
    if not one_observation or not isinstance(actions, gym.spaces.Discrete) or actions.start != 0:
        raise EnvironmentRuleError(
            f"agent '{kind}' needs an environment with one observation and arms 0 to k - 1, such as "
            f"policylab/Bandit-v0, but {env_id} has observations {str(observations)[:60]} and actions "
            f"{str(actions)[:60]}; choose another agent, such as q_learning"
        )
    return int(actions.n)
