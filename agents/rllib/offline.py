"""Learning from recorded transitions: RLlib's learners of BC, MARWIL and CQL on batches drawn by policylab.

RLlib itself reads such data through Ray Data, which needs a cluster, and its CQL fails with a local learner (its one
batch is taken for a list of iterators). Here the learner is RLlib's and the batches are ours: nothing is started.

A **step** of such an agent is a transition learned from, so a budget of 100,000 steps with batches of 256 makes 391
gradient steps, and learning-rate schedules stretch over the same count. No step is taken in the environment.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from policylab.agents.rllib.dataset import Dataset
from policylab.agents.rllib.extension import MODULE
from policylab.agents.rllib.learner import Learner
from policylab.agents.rllib.metrics import STEPS
from policylab.agents.rllib.settings import RllibSettings

UPDATES = 8
"""Gradient steps of one iteration, between which nothing is saved or reported."""


class OfflineLearner(Learner):
    """An algorithm of RLlib that learns from a data set; see `Learner`.

    Args:
        config: RLlib's configuration of it.
        settings: the agent's settings.
        seed: of the algorithm's generators and of the batches.
        dataset: what it learns from.
    """

    def __init__(self, config: Any, settings: RllibSettings, *, seed: int, dataset: Dataset) -> None:
        super().__init__(config, settings, seed=seed)
        self.algo.local_replay_buffer = None  # CQL inherits SAC's, and nothing would ever be in it
        self._dataset = dataset
        self._size = settings.effective_batch_size
        self._whole_episodes = settings.algorithm == "MARWIL"  # whose advantages look ahead
        self._rng = np.random.default_rng(seed)
        self._learned = 0

    def train(self) -> Mapping[str, Any]:
        """Make `UPDATES` gradient steps; return their results with the transitions learned from as steps."""
        with self.streams.lent(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(UPDATES):
                self._learned += self._size
                found = self.algo.learner_group.update(**self.batch(), timesteps={STEPS: self._learned})
                self.algo.metrics.aggregate(found, key="learners")
            result: Mapping[str, Any] = self.algo.metrics.reduce(compile=True)
        return {**self.with_measured(result), STEPS: self._learned}

    def batch(self) -> dict[str, Any]:
        """Return the next batch, as an argument of RLlib's ``update``."""
        from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

        if self._whole_episodes:
            return {"episodes": self._dataset.stretches(self._size, self._rng)}
        rows = SampleBatch(self._dataset.rows(self._size, self._rng))
        return {"batch": MultiAgentBatch({MODULE: rows}, env_steps=self._size)}

    def restored_at(self, steps: int) -> None:
        """Go on counting from ``steps``."""
        self._learned = steps

    @property
    def module(self) -> Any:
        """The network that learns: none samples."""
        return self.algo.learner_group._learner.module[MODULE]
