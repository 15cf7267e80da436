"""What an experiment will do and cost, and what is suspicious about it, without training."""

from __future__ import annotations

from typing import Any

from policylab.agents.build import make_agent
from policylab.envs.guards import findings
from policylab.envs.make import resolve
from policylab.experiments.evaluation import exact_table
from policylab.experiments.schema import ExperimentConfig
from policylab.experiments.statistics import seed_warning


def plan(config: ExperimentConfig) -> dict[str, Any]:
    """Build everything a run needs once, and return what running it means.

    Returns:
        {name, config_hash, trials, seeds, runs, steps_per_run, total_steps, environment, execution, evaluation,
        warnings}.

    Raises:
        UserError: the environment, agent and settings do not fit together.
    """
    specs = config.specs()
    environment = resolve(config.env)
    agent = make_agent(specs[0].agent, config.env, seed=specs[0].seed, budget_steps=config.budget.steps)
    exact = config.evaluation.kind in ("auto", "exact") and exact_table(config.env) is not None
    counts = {"tune": config.seeds.tune, "confirm": config.seeds.confirm}
    return {
        "name": config.name,
        "config_hash": config.config_hash,
        "trials": 1,
        "seeds": {**counts, "root": config.seeds.root},
        "runs": len(specs),
        "steps_per_run": config.budget.steps,
        "total_steps": config.budget.steps * len(specs),
        "environment": {
            "requested": environment.requested_id,
            "id": environment.id,
            "max_episode_steps": environment.max_episode_steps,
            "limit_source": environment.limit_source,
            "gymnasium": environment.gymnasium_version,
        },
        "execution": dict(agent.execution_report),
        "evaluation": "exact" if exact else "online" if config.evaluation.kind == "online" else "rollout",
        "warnings": [*(found.message for found in findings(config.env)), *_seed_warnings(counts)],
    }


def _seed_warnings(counts: dict[str, int]) -> list[str]:
    found = [f"seeds.{role}: {text}" for role, count in counts.items() if count and (text := seed_warning(count))]
    if not counts["confirm"]:
        found.append("seeds.confirm is 0: the reported value is the one selected on, which is optimistic")
    return found
