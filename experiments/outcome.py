"""What an experiment found: its runs' results, the selected and confirmed values, the exact optimum."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from policylab.agents.policy import StoredPolicy
from policylab.errors import RunError
from policylab.experiments.evaluation import ExactEvaluator, exact_table, greedy_actions
from policylab.experiments.failures import all_failures, without_tracebacks
from policylab.experiments.objective import Objective
from policylab.experiments.rundir import RunDirectory
from policylab.experiments.standing import schedule_document
from policylab.experiments.statistics import (
    Interval,
    independent_difference,
    mean_interval,
    paired_improvement,
    probability_of_improvement,
    seed_warning,
)
from policylab.experiments.study import read_history
from policylab.experiments.study_outcome import read_outcome
from policylab.files import read_lines
from policylab.runspec import ReportRow, RunResult, RunSpec, read_model
from policylab.seeding import generator


@dataclasses.dataclass(frozen=True, slots=True)
class FinishedRun:
    """One run with everything it wrote, and what it is worth by the experiment's objective."""

    spec: RunSpec
    result: RunResult
    rows: tuple[ReportRow, ...]
    cpu_s: float
    value: float


def finished_runs(run: RunDirectory) -> list[FinishedRun]:
    """Read the runs that the result speaks of, tuning runs first: the winner's, and the default's confirmation.

    Raises:
        RunError: a run has no result yet.
        RunDirectoryError: the search is not over, or a file is damaged.
        UserError: the study was imported, and has no runs.
    """
    run.refuse_import()
    objective = objective_of(run)
    return [_read(run, folder, objective=objective) for folder in _folders(run)]


def objective_of(run: RunDirectory) -> Objective:
    """Return what the experiment's runs are judged by: the search's metric, else the return."""
    search = run.config.search
    return Objective() if search is None else search.objective


def _folders(run: RunDirectory) -> list[Path]:
    config = run.config
    if config.search is None:
        return [run.path / spec.path for spec in config.specs()]
    outcome = read_outcome(run)
    winner = run.path / f"trials/{outcome.winner:04d}"
    tuned = [folder for folder in sorted(winner.glob("tune-*")) if (folder / "result.json").exists()]
    trials = dict.fromkeys([outcome.winner, outcome.default])
    return [*tuned, *(run.path / spec.path for trial in trials for spec in config.specs(("confirm",), trial=trial))]


def _read(run: RunDirectory, folder: Path, *, objective: Objective) -> FinishedRun:
    if not (folder / "result.json").exists():
        raise RunError(f"{folder} has no result yet; finish it with `policylab resume {run.path}`")
    result = read_model(RunResult, folder / "result.json")
    rows = tuple(ReportRow.model_validate(row) for row in read_lines(folder / "reports.jsonl"))
    return FinishedRun(
        spec=read_model(RunSpec, folder / "spec.json"),
        result=result,
        rows=rows,
        cpu_s=sum(entry["cpu_s"] for entry in read_lines(folder / "cost.jsonl")),
        value=objective.value(result, rows, name=str(folder)),
    )


def winner_of(run: RunDirectory) -> int:
    """Return the trial the experiment selected; 0 without a search."""
    return read_outcome(run).winner if run.config.search else 0


def of_role(runs: Sequence[FinishedRun], role: str, *, trial: int) -> list[FinishedRun]:
    """The runs of one trial in one role, in the order of their seeds."""
    return [one for one in runs if one.spec.role == role and one.spec.trial == trial]


def value_interval(runs: Sequence[FinishedRun], *, root_seed: int) -> Interval:
    """Return the mean value by the experiment's objective over ``runs`` (one per seed) with its 95 % interval."""
    return _interval([one.value for one in runs], runs, root_seed=root_seed)


def return_interval(runs: Sequence[FinishedRun], *, root_seed: int) -> Interval:
    """Return the mean return of the final policies of ``runs`` (one per seed) with its 95 % interval."""
    return _interval([one.result.value for one in runs], runs, root_seed=root_seed)


def _interval(values: Sequence[float], runs: Sequence[FinishedRun], *, root_seed: int) -> Interval:
    return mean_interval(np.array(values), rng=generator(root_seed, "bootstrap", runs[0].spec.role))


def interval_document(interval: Interval | None, *, measure: str) -> dict[str, Any] | None:
    """Return an interval as the JSON object {value, ci, n_seeds, method, measure}; None stays None."""
    if interval is None:
        return None
    return {
        "value": interval.value,
        "ci": _ends(interval),
        "level": interval.level,
        "n_seeds": interval.n,
        "method": interval.method,
        "measure": measure,
    }


def returns_document(tuned: Sequence[FinishedRun], confirm: Sequence[FinishedRun], *, root_seed: int) -> dict[str, Any]:
    """Return the mean returns, {selected, confirmed}, of what was searched by something else."""
    return {
        name: interval_document(return_interval(group, root_seed=root_seed), measure=group[0].result.measure)
        if group
        else None
        for name, group in (("selected", tuned), ("confirmed", confirm))
    }


def best_run(runs: Sequence[FinishedRun], *, trial: int, objective: Objective) -> FinishedRun:
    """Return the trial's tuning run that is best by ``objective`` (the earliest seed among equals)."""
    return max(of_role(runs, "tune", trial=trial), key=lambda one: (objective.sign * one.value, -one.spec.index))


def exact_document(
    run: RunDirectory, policy: StoredPolicy, *, n_candidates: int, confirmed: Interval | None
) -> dict[str, Any] | None:
    """Return how far from the optimum the packaged policy and the confirmed mean are, or None without a table.

    Args:
        run: the run directory.
        policy: the packaged policy.
        n_candidates: runs it is the best of.
        confirmed: value of the configuration on fresh seeds.

    Returns:
        {optimal_return, policy_return, optimality_gap, policy_is, confirmed_gap, measure}; ``optimality_gap`` is the
        packaged policy's, ``confirmed_gap`` that of an average fresh run.
    """
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
        "policy_is": f"best of {n_candidates} tuning seeds",
        "confirmed_gap": None if confirmed is None else optimal - confirmed.value,
        "measure": evaluator.measure,
    }


def cost_document(run: RunDirectory) -> dict[str, Any]:
    """Return what the experiment cost: {env_steps, wall_s elapsed, cpu_s summed over runs, trials, runs}.

    Of an agent that learns from recorded data also ``transitions`` learned from, which are no environment steps.
    """
    costs = [read_lines(path) for path in sorted(run.path.glob("trials/*/*/cost.jsonl"))]
    steps = sum(entry["steps"] for cost in costs for entry in cost)
    recorded = getattr(run.config.agent, "dataset", None) is not None
    return {
        **({"env_steps": 0, "transitions": steps} if recorded else {"env_steps": steps}),
        "wall_s": round(run.elapsed_s(), 3),
        "cpu_s": round(sum(entry["cpu_s"] for cost in costs for entry in cost), 3),
        "trials": len(list(run.path.glob("trials/*"))),
        "runs": len(costs),
    }


def search_document(run: RunDirectory, runs: Sequence[FinishedRun]) -> dict[str, Any] | None:
    """Return what the search found: the winner, its optimism gap and how it does against the default; or None.

    Both are confirmed on the same fresh seeds, so their difference is paired: ``improvement``, positive where the
    winner is better, with the ``probability`` that it is so in the mean. ``beats_default`` is how likely one run of
    the winner beats one of the default.
    """
    if run.config.search is None:
        return None
    outcome, root = read_outcome(run), run.config.seeds.root
    history = read_history(run)
    reasons = all_failures(history, run.path)
    found: dict[str, Any] = {
        **outcome.model_dump(mode="json", exclude={"schema_version"}),
        "configuration": dict(history.trials[outcome.winner].configuration),
        "schedule": schedule_document(history, outcome.winner),
        "failures": without_tracebacks(reasons.failed),
        "retried": without_tracebacks(reasons.retried),
        "optimism_gap": None,
        "optimism_gap_ci": None,
        "default_confirmed": None,
        "improvement": None,
        "beats_default": None,
    }
    tuned = of_role(runs, "tune", trial=outcome.winner)
    confirmed, default = (of_role(runs, "confirm", trial=trial) for trial in (outcome.winner, outcome.default))
    if confirmed:
        objective = run.config.search.objective
        gap = optimism_gap(tuned, confirmed, objective=objective)
        found["optimism_gap"] = round(gap.value, 12)  # the means of equal values may differ in their last digits
        found["optimism_gap_ci"] = [round(end, 12) for end in _ends(gap) or ()] or None
        interval = value_interval(default, root_seed=root)
        found["default_confirmed"] = interval_document(interval, measure=objective.measure(default[0].result))
        ours, theirs = (objective.sign * np.array([one.value for one in group]) for group in (confirmed, default))
        gain, chance = paired_improvement(ours, theirs)
        found["improvement"] = {"value": gain.value, "ci": _ends(gain), "method": gain.method, "probability": chance}
        beats = probability_of_improvement(ours, theirs, rng=generator(root, "beats default"))
        found["beats_default"] = {"value": beats.value, "ci": _ends(beats)}
    return found


def optimism_gap(tuned: Sequence[FinishedRun], confirmed: Sequence[FinishedRun], *, objective: Objective) -> Interval:
    """Return by how much the selected value is better than the confirmed one."""
    first, second = (objective.sign * np.array([one.value for one in group]) for group in (tuned, confirmed))
    return independent_difference(first, second, rng=generator(0, "optimism gap"))


def _ends(interval: Interval) -> list[float] | None:
    return None if interval.low is None or interval.high is None else [interval.low, interval.high]


def warnings_about(runs: Sequence[FinishedRun], *, trial: int) -> list[str]:
    """Return what a reader of the numbers must know."""
    groups = [of_role(runs, role, trial=trial) for role in ("tune", "confirm")]
    found = [seed_warning(len(group)) for group in groups if group]
    for one in (one for group in groups for one in group):
        found += [f"{one.spec.path}: {text}" for text in one.result.warnings or ()]
    return list(dict.fromkeys(text for text in found if text))


def ended_early(runs: Sequence[FinishedRun]) -> list[dict[str, Any]]:
    """Return the runs that ended before their budget: {run, reason, steps, unused_steps}."""
    return [
        {
            "run": one.spec.path,
            "reason": one.result.ended,
            "steps": one.result.steps,
            "unused_steps": max(one.spec.budget_steps - one.result.steps, 0),
        }
        for one in runs
        if one.result.ended
    ]
