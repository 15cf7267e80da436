"""``policylab debug``: looks into an agent that does not learn."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses

from policylab.cli.output import columns, emit
from policylab.errors import UserError


def gradients(arguments: argparse.Namespace) -> int:
    """Check a deep agent's gradients numerically, layer by layer; exit code 1 if any layer fails."""
    from policylab.agents.build import make_agent
    from policylab.experiments.schema import load_experiment

    config = load_experiment(arguments.config, overrides=arguments.overrides)
    if config.agent.kind != "rllib":
        raise UserError(f"agent.kind '{config.agent.kind}' has no gradients to check; they are of kind 'rllib'")
    here = {"machine": "small", "n_env_runners": None, "n_learners": None, "device": "cpu"}
    settings = config.agent.model_copy(update=here)
    agent = make_agent(settings, config.env, seed=config.seeds.root, budget_steps=config.budget.steps)
    with contextlib.closing(agent):
        checks = agent.check_gradients(batch_size=arguments.batch_size)  # type: ignore[attr-defined]
    rows = [["layer", "checked", "largest gradient", "max relative error", "verdict"]]
    for check in checks:
        verdict = "pass" if check.passed else "FAIL"
        rows.append([check.layer, str(check.n_checked), f"{check.largest:.3g}", f"{check.max_error:.1e}", verdict])
    passed = all(check.passed for check in checks)
    document = {
        "algorithm": settings.algorithm,
        "passed": passed,
        "layers": [dataclasses.asdict(one) for one in checks],
    }
    emit(arguments, document, text=lambda: columns(rows))
    return 0 if passed else 1
