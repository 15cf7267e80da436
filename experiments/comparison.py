"""Comparison of finished experiments: refuses unlike things, pairs equal seeds, answers with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from policylab.errors import ComparisonError
from policylab.experiments.outcome import (
    FinishedRun,
    finished_runs,
    interval_document,
    of_role,
    value_interval,
    winner_of,
)
from policylab.experiments.rundir import RunDirectory
from policylab.experiments.statistics import (
    independent_difference,
    paired_difference,
    probability_of_improvement,
    seed_warning,
)
from policylab.seeding import generator

MUST_AGREE = {
    "environment": "environment id and version",
    "kwargs": "environment arguments",
    "max_episode_steps": "step limit",
    "gymnasium": "Gymnasium version",
    "budget_steps": "training budget in steps",
    "measure": "metric",
}


def compare_runs(runs: Sequence[RunDirectory]) -> dict[str, Any]:
    """Compare the values of finished experiments on their confirmation seeds (tuning seeds if they have none).

    Returns:
        {measure, seeds, runs: [{run_dir, name, value, ci, ...}], pairs: [{a, b, difference, paired,
        probability_of_improvement, verdict}], warnings}; a difference is a's value minus b's.

    Raises:
        ComparisonError: fewer than two runs, or their numbers do not measure the same thing.
    """
    if len(runs) < 2:
        raise ComparisonError(f"compare needs at least two run directories, got {len(runs)}")
    if len({run.path for run in runs}) < len(runs):
        raise ComparisonError("compare was given the same run directory twice; name different ones")
    finished = [finished_runs(run) for run in runs]
    _refuse_unlike(runs, finished)
    winners = [winner_of(run) for run in runs]
    pairs = list(zip(finished, winners, strict=True))
    role = "confirm" if all(of_role(group, "confirm", trial=trial) for group, trial in pairs) else "tune"
    groups = [of_role(group, role, trial=trial) for group, trial in pairs]
    measure = groups[0][0].result.measure
    intervals = [interval_document(value_interval(group, root_seed=0), measure=measure) for group in groups]
    return {
        "measure": measure,
        "seeds": role,
        "runs": [
            {"run_dir": str(run.path), "name": run.manifest.name, **(interval or {})}
            for run, interval in zip(runs, intervals, strict=True)
        ],
        "pairs": [_pair(runs, groups, a=a, b=b) for a, b in combinations(range(len(runs)), 2)],
        "warnings": sorted({text for group in groups if (text := seed_warning(len(group)))}),
    }


def _identity(run: RunDirectory, group: Sequence[FinishedRun]) -> dict[str, Any]:
    environment = run.manifest.environment
    return {
        "environment": environment["id"],
        "kwargs": environment["kwargs"],
        "max_episode_steps": environment["max_episode_steps"],
        "gymnasium": environment["gymnasium_version"],
        "budget_steps": run.config.budget.steps,
        "measure": group[0].result.measure,
    }


def _refuse_unlike(runs: Sequence[RunDirectory], finished: Sequence[Sequence[FinishedRun]]) -> None:
    first = _identity(runs[0], finished[0])
    for run, group in zip(runs[1:], finished[1:], strict=True):
        other = _identity(run, group)
        unlike = [
            f"{text} ({first[key]} and {other[key]})" for key, text in MUST_AGREE.items() if first[key] != other[key]
        ]
        if unlike:
            raise ComparisonError(
                f"{runs[0].path.name} and {run.path.name} cannot be compared: different {'; '.join(unlike)}; "
                "run both with the same settings"
            )


def _pair(runs: Sequence[RunDirectory], groups: Sequence[Sequence[FinishedRun]], *, a: int, b: int) -> dict[str, Any]:
    values = [np.array([one.result.value for one in groups[i]]) for i in (a, b)]
    paired = [one.spec.seed for one in groups[a]] == [one.spec.seed for one in groups[b]]
    compute = paired_difference if paired else independent_difference
    difference = compute(values[0], values[1], rng=generator(0, "difference"))
    improvement = probability_of_improvement(values[0], values[1], rng=generator(0, "improvement"))
    return {
        "a": str(runs[a].path),
        "b": str(runs[b].path),
        "paired": paired,
        "difference": {"value": difference.value, "ci": _ends(difference)},
        "probability_of_improvement": {"value": improvement.value, "ci": _ends(improvement)},
        "verdict": _verdict(difference),
    }


def _ends(interval: Any) -> list[float] | None:
    return None if interval.low is None else [interval.low, interval.high]


def _verdict(difference: Any) -> str:
    if difference.low is None:
        return "one seed says nothing about the difference"
    if difference.low > 0:
        return "a is better"
    return "b is better" if difference.high < 0 else "indistinguishable"


def comparison_text(document: dict[str, Any]) -> str:
    """Return the comparison as lines for a person."""
    lines = [f"{document['measure']}, {document['seeds']} seeds"]
    for row in document["runs"]:
        lines.append(
            f"  {row['name']}  {row['value']:.5g}{_range(row['ci'])}  {row['n_seeds']} seeds  {row['run_dir']}"
        )
    for pair in document["pairs"]:
        difference, improvement = pair["difference"], pair["probability_of_improvement"]
        lines.append(f"{pair['a']} (a) against {pair['b']} (b): {pair['verdict']}")
        how = "paired seeds" if pair["paired"] else "independent seeds"
        lines.append(f"  a - b = {difference['value']:.5g}{_range(difference['ci'])} ({how})")
        lines.append(f"  P(a > b) = {improvement['value']:.3f}{_range(improvement['ci'])}")
    return "\n".join([*lines, *(f"warning: {text}" for text in document["warnings"])])


def _range(ends: list[float] | None) -> str:
    return f" [{ends[0]:.5g}, {ends[1]:.5g}]" if ends else ""
