"""From RLlib's nested results to the flat metrics of a report."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from policylab.agents.rllib.episodes import LENGTHS, RETURNS
from policylab.agents.rllib.gradient_watch import GradientWatch, gradient_norms

logger = logging.getLogger(__name__)

STEPS, EPISODES = "num_env_steps_sampled_lifetime", "num_episodes_lifetime"
MODULE = "default_policy"
NAMES = {
    "default_optimizer_learning_rate": "learning_rate",
    "policy_learning_rate": "learning_rate",
    "vf_explained_var": "explained_variance",
}
"""RLlib's name -> ours."""
LEFT_OUT = ("num_", "module_train", "weights_seq_no", "connector_pipeline", "diff_num", "timers", "mean_kl_loss")
"""Beginnings of RLlib's names that are not reported; its ``mean_kl_loss`` is 0 where KL is no part of the loss."""


class Progress:
    """What was sampled and learned so far, and since the last report.

    Attributes:
        steps: environment steps sampled in total; RLlib samples whole batches, so this overshoots what was asked.
        episodes: episodes ended in total.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.episodes = 0
        self._returns: list[float] = []
        self._lengths: list[float] = []
        self._learner: dict[str, float] = {}
        self._watch = GradientWatch()
        self._warnings: list[str] = []

    def add(self, result: Mapping[str, Any]) -> None:
        """Take in one result of ``algo.train()``."""
        runners = result.get("env_runners", {})
        self.steps = int(result.get(STEPS, runners.get(STEPS, self.steps)))
        returns, lengths = (_series(runners.get(name)) for name in (RETURNS, LENGTHS))
        self.episodes += len(returns)
        self._returns += returns
        self._lengths += lengths
        learner = result.get("learners", {}).get(MODULE, {})
        self._learner |= learner_metrics(learner)  # not every update measures everything
        self._warn(gradient_norms(learner))

    def _warn(self, norms: Mapping[str, float]) -> None:
        for warning in self._watch.hear(norms):
            logger.warning("%s", warning)
            self._warnings.append(warning)

    def take_warnings(self) -> tuple[str, ...]:
        """Return what went wrong with gradients since the last call."""
        found, self._warnings = tuple(self._warnings), []
        return found

    def take(self) -> dict[str, float]:
        """Return the metrics since the last call.

        Where no episode ended, its return and length are absent: there is no number to give.
        """
        found = dict(self._learner)
        if self._returns:
            found["train/return_mean"] = float(np.mean(self._returns))
            found["train/length_mean"] = float(np.mean(self._lengths))
        self._returns, self._lengths = [], []
        return found

    def state(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "steps": self.steps,
            "episodes": self.episodes,
            "returns": self._returns,
            "lengths": self._lengths,
            "learner": self._learner,
            "warnings": self._warnings,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.steps, self.episodes = int(state["steps"]), int(state["episodes"])
        self._returns, self._lengths = list(state["returns"]), list(state["lengths"])
        self._learner = dict(state["learner"])
        self._warnings = list(state.get("warnings", []))


def _series(value: Any) -> list[float]:
    """Return the numbers of a series: for one of a single number RLlib gives that, for an empty one NaN or nothing."""
    numbers = value if isinstance(value, list) else [math.nan if value is None else value]
    return [float(one) for one in numbers if math.isfinite(one)]


def learner_metrics(learner: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers of RLlib's results of one module, as ``train/NAME``."""
    found = {}
    for name, value in learner.items():
        if name.startswith(LEFT_OUT) or isinstance(value, Mapping):
            continue
        if np.ndim(value) == 0 and isinstance(value, int | float | np.number) and math.isfinite(value):
            found[f"train/{NAMES.get(name, name)}"] = float(value)
    return found
