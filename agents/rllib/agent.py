"""`RllibAgent`: an algorithm of RLlib as an agent like the others."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from policylab.agents.agent import Report
from policylab.agents.policy import StoredPolicy
from policylab.agents.rllib.checkpoint import FOLDER, read_facts, write_facts
from policylab.agents.rllib.configuration import algorithm_config, uses_gpu
from policylab.agents.rllib.dataset import Dataset, read_dataset
from policylab.agents.rllib.export import PolicyExporter
from policylab.agents.rllib.gradient_check import LayerCheck, check_gradients, sampled_batch
from policylab.agents.rllib.learner import MAX_SEED, Learner
from policylab.agents.rllib.metrics import Progress
from policylab.agents.rllib.offline import OfflineLearner
from policylab.agents.rllib.settings import RllibSettings
from policylab.agents.rllib.spaces import observations
from policylab.envs.make import make_env
from policylab.envs.settings import EnvSettings
from policylab.errors import CheckpointError, RunError, UserError
from policylab.files import canonical_json
from policylab.seeding import generator, stream

NOT_EXACT = "not bit-exact: environments and random streams start anew"


class RllibAgent:
    """Deep agent of RLlib (new API stack): PPO, APPO, IMPALA, DQN, SAC, or from recorded data BC, MARWIL, CQL.

    Two fresh agents with the same seed learn the same where everything is local. An agent restored from a checkpoint
    goes on from the same weights, optimiser, filters and replay buffer, but not through the same episodes.

    Args:
        settings: the algorithm and what it is told.
        env_settings: the environment.
        seed: root of the run's random streams.
        budget_steps: the full budget, over which schedules stretch.

    Raises:
        ConfigError: an override the algorithm does not take.
        EnvironmentRuleError: observations or actions it does not learn over.
        MissingExtraError: the extra `rllib` is not installed.
    """

    Settings: ClassVar[type[RllibSettings]] = RllibSettings
    extras: ClassVar[tuple[str, ...]] = ("rllib",)
    online: ClassVar[bool] = False
    exact_resume: ClassVar[bool] = False
    stochastic: ClassVar[bool] = True

    def __init__(self, settings: RllibSettings, env_settings: EnvSettings, *, seed: int, budget_steps: int) -> None:
        self.settings = settings
        if settings.dataset and env_settings.learned_reward:
            raise UserError(
                f"agent.dataset: {settings.algorithm} learns from recorded rewards, which env.learned_reward does not "
                "replace; leave one of them out"
            )
        env = make_env(env_settings)
        self._exporter = PolicyExporter(observation_space=env.observation_space, action_space=env.action_space)
        view = observations(env.observation_space, env_id=env_settings.id)
        self._config = algorithm_config(settings, env_settings, env=env, view=view, budget_steps=budget_steps)
        self._dataset = settings.dataset and read_dataset(settings.dataset, env=env, view=view, env_id=env_settings.id)
        env.close()
        self._seed = seed
        self._progress = Progress()
        self._learner: Learner | None = None
        self._resumed_at: list[int] = []
        self._identity: dict[str, Any] = {
            "algorithm": settings.algorithm,
            "network": settings.network.model_dump(mode="json"),
            "observation_filter": settings.observation_filter,
            "environment": env_settings.model_dump(mode="json"),
        }
        if self._dataset:
            self._identity["dataset"] = self._dataset.digest

    @classmethod
    def make(cls, settings: Any, env_settings: EnvSettings, *, seed: int, budget_steps: int) -> Self:
        """Return a fresh agent."""
        return cls(settings, env_settings, seed=seed, budget_steps=budget_steps)

    @property
    def steps(self) -> int:
        """Environment steps taken so far."""
        return self._progress.steps

    @property
    def execution_report(self) -> Mapping[str, str]:
        """``kind`` "rllib", the ``reason``: what runs where, and how it resumes."""
        if self._dataset:
            return self._offline_report(self._dataset)
        runners, learners = self.settings.effective_env_runners, self.settings.n_learners
        sampling = f"{runners} remote env runners" if runners else "local env runner"
        learning = f"{learners} remote learners" if learners else "local learner"
        device = "cuda" if uses_gpu(self.settings) else "cpu"
        return {
            "kind": "rllib",
            "reason": f"{self.settings.algorithm}: {sampling} x {self.settings.effective_envs_per_runner} "
            f"environments, {learning} on {device}",
            "resume": NOT_EXACT + self._resumed_text(),
        }

    def _offline_report(self, dataset: Dataset) -> Mapping[str, str]:
        return {
            "kind": "rllib",
            "reason": f"{self.settings.algorithm}: learns from {len(dataset):,} recorded transitions in "
            f"{dataset.n_episodes:,} episodes, local learner on {'cuda' if uses_gpu(self.settings) else 'cpu'}",
            "steps": "transitions learned from; none is taken in the environment",
            "dataset": f"{dataset.path}, sha256 {dataset.digest}",
            "resume": NOT_EXACT + self._resumed_text(),
        }

    def _resumed_text(self) -> str:
        return f"; resumed after steps {', '.join(map(str, self._resumed_at))}" if self._resumed_at else ""

    def learn(self, steps: int, *, pause: Callable[[], None] | None = None) -> Report:
        """Take at least ``steps`` more environment steps: iterations of RLlib, whole ones.

        Args:
            steps: environment steps; the last iteration may overshoot them, which `Report.steps` tells.
            pause: called between iterations, when the state can be saved; what it raises ends learning.

        Raises:
            RunError: RLlib takes no more steps.
        """
        if steps < 0:
            raise UserError(f"learn needs a number of steps of at least 0, got {steps}")
        goal = self.steps + steps
        idle = 0
        while self.steps < goal:
            before = self.steps
            self._progress.add(self._running().train())
            idle = idle + 1 if self.steps == before else 0
            if idle > MAX_IDLE_ITERATIONS:
                raise RunError(
                    f"RLlib has sampled nothing in {idle} iterations after step {self.steps}; "
                    "its env runners may have died, see the log"
                )
            if pause is not None and self.steps < goal:
                pause()
        return Report(self.steps, self._progress.episodes, self._progress.take(), self._progress.take_warnings())

    def _running(self) -> Learner:
        if self._learner is None:
            self._learner = self._build(0)
        return self._learner

    def _build(self, from_step: int) -> Learner:
        """Return the algorithm; one that goes on from a checkpoint draws other numbers than at the start."""
        words = stream(self._seed, "rllib", from_step).generate_state(1)
        seed = int(words[0]) % MAX_SEED
        if self._dataset:
            return OfflineLearner(self._config, self.settings, seed=seed, dataset=self._dataset)
        return Learner(self._config, self.settings, seed=seed)

    def policy(self) -> StoredPolicy:
        """Return the deterministic policy learned so far, independent of later learning."""
        learner = self._running()
        policy: StoredPolicy = self._exporter.export(
            learner.module, env_to_module=learner.env_to_module, module_to_env=learner.module_to_env
        )
        return policy

    def check_gradients(self, *, batch_size: int = 64) -> list[LayerCheck]:
        """Compare the gradients of each layer with central differences of the loss; the agent must not learn after it.

        Args:
            batch_size: transitions of the batch, or somewhat more.

        Raises:
            UserError: the algorithm's loss cannot be checked so.
        """
        learner = self._running()
        batch, rng = sampled_batch(learner, size=batch_size), generator(self._seed, "gradient check")
        return check_gradients(learner.algo.learner_group._learner, batch, rng=rng)

    def save(self, folder: Path) -> None:
        """Write RLlib's checkpoint (pickles of its making) and our facts, with the hash of every file."""
        self._running().save(folder / FOLDER)
        facts = {"identity": self._identity, "progress": self._progress.state(), "resumed_at": self._resumed_at}
        write_facts(folder, facts)

    def restore(self, folder: Path, *, retuned: bool = False) -> None:
        """Continue from what `save` wrote, with this agent's own hyperparameters.

        Args:
            folder: the checkpoint.
            retuned: changes nothing: whatever leaves the network as it is may differ, and takes effect, in any case.

        Raises:
            CheckpointError: the checkpoint is damaged, or belongs to another algorithm, network or environment.
        """
        facts = read_facts(folder)
        theirs = facts.get("identity")
        if theirs != json.loads(canonical_json(self._identity)):
            raise CheckpointError(
                f"{folder} was saved by another agent ({canonical_json(theirs)[:200]}); "
                "restore it with the algorithm, network and environment it was saved with"
            )
        steps = int(facts["progress"]["steps"])
        self.close()
        self._learner = self._build(steps)
        try:
            self._learner.restore(folder / FOLDER, steps=steps)
        except BaseException:
            self.close()
            raise
        self._progress.restore(facts["progress"])
        self._resumed_at = [*facts["resumed_at"], steps]

    def close(self) -> None:
        """End RLlib's processes; a cluster that was there before stays."""
        if self._learner is not None:
            self._learner.stop()
            self._learner = None


MAX_IDLE_ITERATIONS = 50
"""Asynchronous algorithms have iterations without samples; so many in a row are a failure."""
