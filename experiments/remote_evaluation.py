"""Evaluation on machines of its own: episodes played as Ray tasks on the instance group that is there for that.

A training job with a group `evaluation` (`policylab.launchers.sagemaker.container`) names that group's Ray resource, a
unit per processor, in the variable POLICYLAB_EVALUATION_RESOURCE. Each task plays as many episodes as are played side
by side, from the same streams as on the head; the run goes on when all of them have ended.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from policylab.agents.policy import Policy
from policylab.envs.settings import EnvSettings
from policylab.experiments.evaluation import MAX_SIDE_BY_SIDE, Evaluation, RolloutEvaluator

VARIABLE = "POLICYLAB_EVALUATION_RESOURCE"
LOOK_S = 5.0
"""Between two looks whether the machines are still there."""

logger = logging.getLogger(__name__)


class RemoteRollouts:
    """Values policies like `RolloutEvaluator`, on the machines that carry a resource.

    Where the process is not connected to Ray, or those machines are gone, the episodes are played here.

    Args:
        settings: of the environment.
        seed: of the episodes.
        resource: of Ray; a task takes one unit.
    """

    exact = False

    def __init__(self, settings: EnvSettings, *, seed: int, resource: str) -> None:
        self._settings, self._seed, self._resource = settings, seed, resource
        self._here = RolloutEvaluator(settings, seed=seed)
        self.measure = self._here.measure

    def __call__(self, policy: Policy, *, episodes: int, stochastic: bool = False) -> Evaluation:
        """Return the mean over ``episodes`` episodes, with their returns.

        Raises:
            Exception: what the environment raised.
        """
        ray = sys.modules.get("ray")
        if ray is None or not ray.is_initialized() or not self._is_there(ray):
            return self._here(policy, episodes=episodes, stochastic=stochastic)
        try:
            return Evaluation.of(self._played(ray, policy, episodes=episodes, stochastic=stochastic))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except (ray.exceptions.RayError, ConnectionError, TypeError) as error:  # TypeError: a policy that cannot travel
            logger.warning("%s cannot play the episodes, so the head does: %s", self._resource, error)
            return self._here(policy, episodes=episodes, stochastic=stochastic)

    def _is_there(self, ray: Any) -> bool:
        return float(ray.cluster_resources().get(self._resource, 0.0)) >= 1.0

    def _played(self, ray: Any, policy: Policy, *, episodes: int, stochastic: bool) -> list[float]:
        # What is drawn from one stream stays in one task; greedy episodes do not depend on each other.
        size = episodes if stochastic else MAX_SIDE_BY_SIDE
        parts = [range(first, min(first + size, episodes)) for first in range(0, episodes, size)]
        play = ray.remote(num_cpus=0, resources={self._resource: 1.0}, max_retries=0)(_play)
        shared = ray.put((self._settings, self._seed, policy, stochastic))
        tasks = [play.remote(shared, list(part)) for part in parts]
        waiting = tasks
        while waiting:
            _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=LOOK_S)
            if waiting and not self._is_there(ray):
                raise ConnectionError("the machines are gone")
        return [value for part in ray.get(tasks) for value in part]


def _play(shared: tuple[EnvSettings, int, Policy, bool], numbers: Sequence[int]) -> list[float]:
    """Play some episodes; the Ray task."""
    settings, seed, policy, stochastic = shared
    return RolloutEvaluator(settings, seed=seed).play(policy, numbers=numbers, stochastic=stochastic)


def rollouts(settings: EnvSettings, *, seed: int) -> RolloutEvaluator | RemoteRollouts:
    """Return what plays a policy's episodes: the machines that the environment names for it, else this process."""
    resource = os.environ.get(VARIABLE)
    return RemoteRollouts(settings, seed=seed, resource=resource) if resource else RolloutEvaluator(settings, seed=seed)
