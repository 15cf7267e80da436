"""A run's policy: restored from the checkpoint it ended with, and written as a bundle."""

from __future__ import annotations

import contextlib
from pathlib import Path

from policylab.agents.build import make_agent
from policylab.agents.bundle import Lineage, write_bundle
from policylab.agents.policy import StoredPolicy
from policylab.envs.make import make_env
from policylab.envs.settings import EnvSettings
from policylab.errors import RunError
from policylab.experiments.checkpoints import newest_checkpoint
from policylab.runspec import RunResult, RunSpec, read_model


def policy_of(folder: Path) -> StoredPolicy:
    """Restore the greedy policy that the finished run in ``folder`` ended with, from its last checkpoint.

    Raises:
        RunError: the run has no checkpoint.
        CheckpointError: it is damaged.
    """
    spec: RunSpec = read_model(RunSpec, folder / "spec.json")
    checkpoint = newest_checkpoint(folder)
    if checkpoint is None:
        raise RunError(f"{folder} has no checkpoint; delete its result.json and resume the run")
    environment = EnvSettings.model_validate(spec.environment)
    agent = make_agent(spec.agent, environment, seed=spec.seed, budget_steps=spec.budget_steps)
    with contextlib.closing(agent):
        agent.restore(checkpoint)
        return agent.policy()


def package_run(folder: Path, *, into: Path) -> None:
    """Write the policy of the finished run in ``folder`` as a policy bundle.

    Raises:
        RunDirectoryError, RunError: the run has not finished.
        BundleError: the policy cannot be stored, or ``into`` holds other files.
        StorageError: a write failed.
    """
    spec: RunSpec = read_model(RunSpec, folder / "spec.json")
    result: RunResult = read_model(RunResult, folder / "result.json")
    facts = {"value": result.value, "measure": result.measure, "steps": result.steps, "experiment": spec.experiment}
    env = make_env(EnvSettings.model_validate(spec.environment))
    try:
        lineage = Lineage(config_hash=spec.config_hash, seeds=(spec.seed,))
        write_bundle(into, policy_of(folder), env=env, lineage=lineage, metrics={"run": facts})
    finally:
        env.close()
