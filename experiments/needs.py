"""What a run needs that not every installation of policylab has."""

from __future__ import annotations

import gymnasium

from policylab.agents.registry import AGENTS
from policylab.envs.optional import provider_of
from policylab.runspec import RunSpec


def extras_of(spec: RunSpec) -> list[str]:
    """Return the extras of policylab that the run's agent and environment need.

    >>> from policylab.experiments.schema import load_experiment
    >>> extras_of(load_experiment("cartpole_ppo").specs()[0]), extras_of(load_experiment("taxi").specs()[0])
    (['rllib'], [])
    """
    found = set(getattr(AGENTS.load(spec.agent["kind"]), "extras", ()))
    if spec.agent.get("dataset") is not None:
        found.add("offline")
    module, _, name = str(spec.environment["id"]).rpartition(":")
    registered = None if module else gymnasium.registry.get(name)
    provider = provider_of(name, entry_point=registered.entry_point if registered else None)
    return sorted(found | ({provider.extra} if provider else set()))
