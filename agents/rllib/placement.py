"""Where RLlib's remote processes go on a cluster whose machines have roles.

A training job of several hosts (`policylab.launchers.sagemaker.container`) gives each host's Ray node a resource
``group_GROUP`` of as many units as it has processors, and the run is told in its environment which are meant for what:

| variable | names the resource of |
|---|---|
| POLICYLAB_LEARNER_RESOURCE | remote learners; a local one is in the run's own process, on the head |
| POLICYLAB_RUNNER_RESOURCE | env runners |

Where the machines are is no setting of an experiment: the same file runs on one machine and on many.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from policylab.errors import UserError

SHARE = 0.001
"""Units that a process asks for: enough to be placed, too few to be the limit, which its processors are."""


def place(config: Any) -> None:
    """Tell RLlib's configuration the resources that the environment names."""
    runner, learner = runner_resource(), os.environ.get("POLICYLAB_LEARNER_RESOURCE")
    if runner:
        config.env_runners(custom_resources_per_env_runner={runner: SHARE})
    if learner:
        config.learners(custom_resources_per_learner={learner: SHARE})


def runner_resource() -> str | None:
    """The resource that env runners are placed on, if the environment names one."""
    return os.environ.get("POLICYLAB_RUNNER_RESOURCE")


def check_room(config: Any, cluster: Mapping[str, float]) -> None:
    """Check that the env runners fit where they are to be placed; RLlib would wait for ever.

    Args:
        config: RLlib's configuration.
        cluster: resource -> units of all nodes together.

    Raises:
        UserError: they do not.
    """
    resource = runner_resource()
    needed = config.num_env_runners * config.num_cpus_per_env_runner
    if resource is not None and needed > cluster.get(resource, 0.0):
        raise UserError(
            f"agent.n_env_runners: {config.num_env_runners} env runners need {needed:g} processors, and there "
            f"are {cluster.get(resource, 0.0):g} of {resource} for them; use fewer, or more or larger machines"
        )
