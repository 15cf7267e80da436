"""What an experiment found: its runs' results, the selected and confirmed values, the exact optimum."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from policylab.agents.build import make_agent
from policylab.agents.policy import StoredPolicy
from policylab.envs.settings import EnvSettings
from policylab.errors import RunError
from policylab.experiments.evaluation import ExactEvaluator, exact_table, greedy_actions
from policylab.experiments.rundir import RunDirectory
from policylab.experiments.statistics import Interval, mean_interval, seed_warning
from policylab.files import read_lines
from policylab.runspec import ReportRow, RunResult, RunSpec, read_model
from policylab.seeding import generator


@dataclasses.dataclass(frozen=True, slots=True)
class FinishedRun:
    """One run with everything it wrote."""

    spec: RunSpec
    result: RunResult
    rows: tuple[ReportRow, ...]
    cpu_s: float


def finished_runs(run: RunDirectory) -> list[FinishedRun]:
    """Read every run of a finished experiment, tuning runs first.

    Raises:
        RunError: a run has no result yet.
        RunDirectoryError: a file is damaged.
    """
    found = []
    for spec in run.config.specs():
        folder = run.path / spec.path
        if not (folder / "result.json").exists():
            raise RunError(f"{folder} has no result yet; finish it with `policylab resume {run.path}`")
        found.append(
            FinishedRun(
                spec=spec,
                result=read_model(RunResult, folder / "result.json"),
                rows=tuple(ReportRow.model_validate(row) for row in read_lines(folder / "reports.jsonl")),
                cpu_s=sum(entry["cpu_s"] for entry in read_lines(folder / "cost.jsonl")),
            )
        )
    return found


def of_role(runs: Sequence[FinishedRun], role: str) -> list[FinishedRun]:
    """The runs of one role, in the order of their seeds."""
    return [one for one in runs if one.spec.role == role]


def value_interval(runs: Sequence[FinishedRun], *, root_seed: int) -> Interval:
    """Return the mean final value over ``runs`` (one per seed) with its 95 % interval."""
    values = np.array([one.result.value for one in runs])
    return mean_interval(values, rng=generator(root_seed, "bootstrap", runs[0].spec.role))


def interval_document(interval: Interval | None, *, measure: str) -> dict[str, Any] | None:
    """Return an interval as the JSON object {value, ci, n_seeds, method, measure}; None stays None."""
    if interval is None:
        return None
    ci = None if interval.low is None or interval.high is None else [interval.low, interval.high]
    return {
        "value": interval.value,
        "ci": ci,
        "level": interval.level,
        "n_seeds": interval.n,
        "method": interval.method,
        "measure": measure,
    }


def best_run(runs: Sequence[FinishedRun]) -> FinishedRun:
    """Return the tuning run with the highest final value (the earliest seed among equals)."""
    return max(of_role(runs, "tune"), key=lambda one: (one.result.value, -one.spec.index))


def policy_of(run: RunDirectory, one: FinishedRun) -> StoredPolicy:
    """Restore the greedy policy a run ended with, from its last checkpoint.

    Raises:
        RunError: the run has no checkpoint.
        CheckpointError: it is damaged.
    """
    checkpoints = sorted((run.path / one.spec.path / "checkpoints").glob("[0-9]*"))
    if not checkpoints:
        raise RunError(f"{run.path / one.spec.path} has no checkpoint; delete its result.json and resume the run")
    environment = EnvSettings.model_validate(one.spec.environment)
    agent = make_agent(one.spec.agent, environment, seed=one.spec.seed, budget_steps=one.spec.budget_steps)
    agent.restore(checkpoints[-1])
    policy: StoredPolicy = agent.policy()
    return policy


def exact_document(run: RunDirectory, policy: StoredPolicy) -> dict[str, Any] | None:
    """Return {optimal_return, policy_return, optimality_gap, measure} of ``policy``, or None without a table."""
    config = run.config
    mdp = exact_table(config.env) if config.evaluation.kind in ("auto", "exact") else None
    if mdp is None or greedy_actions(policy, mdp) is None:
        return None
    evaluator = ExactEvaluator(mdp)
    optimal, achieved = evaluator.optimum(), evaluator(policy, episodes=0).value
    return {
        "optimal_return": optimal,
        "policy_return": achieved,
        "optimality_gap": optimal - achieved,
        "measure": evaluator.measure,
    }


def cost_document(runs: Sequence[FinishedRun], *, wall_s: float) -> dict[str, Any]:
    """Return what an experiment cost: {env_steps, wall_s elapsed, cpu_s summed over runs, trials, runs}."""
    return {
        "env_steps": sum(one.result.steps for one in runs),
        "wall_s": round(wall_s, 3),
        "cpu_s": round(sum(one.cpu_s for one in runs), 3),
        "trials": len({one.spec.trial for one in runs}),
        "runs": len(runs),
    }


def warnings_about(runs: Sequence[FinishedRun]) -> list[str]:
    """Return what a reader of the numbers must know."""
    found = [seed_warning(len(of_role(runs, role))) for role in ("tune", "confirm") if of_role(runs, role)]
    return list(dict.fromkeys(text for text in found if text))
