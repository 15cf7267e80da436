"""From the settings of an agent to the agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from policylab.agents.agent import Agent
from policylab.agents.registry import AGENTS
from policylab.config import Settings
from policylab.envs.settings import EnvSettings
from policylab.errors import ConfigError


def make_agent(
    settings: Settings | Mapping[str, Any], env_settings: EnvSettings, *, seed: int, budget_steps: int
) -> Agent:
    """Return a fresh agent.

    Args:
        settings: the agent's settings model, or the mapping it is validated from; its ``kind`` names the agent.
        env_settings: the environment it learns in.
        seed: root of the run's random streams.
        budget_steps: the full budget, over which schedules stretch.

    Raises:
        UnknownNameError: no agent is called ``kind``.
        ConfigError: the mapping breaks a rule of the agent's settings.
        UserError: agent and environment do not fit together.

    >>> agent = make_agent({"kind": "q_learning"}, EnvSettings(id="FrozenLake-v1"), seed=0, budget_steps=1000)
    >>> agent.learn(1000).steps
    1000
    """
    given = settings.model_dump() if isinstance(settings, Settings) else dict(settings)
    entry = AGENTS.load(str(given.get("kind", "")))
    if not isinstance(settings, entry.Settings):
        settings = _validated(entry.Settings, given)
    agent: Agent = entry.make(settings, env_settings, seed=seed, budget_steps=budget_steps)
    return agent


def _validated(model: type[Settings], given: Mapping[str, Any]) -> Settings:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        findings = (f"agent.{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors())
        raise ConfigError("\n".join(findings)) from None
