"""The last station of a run: result document, policy bundle and report, all remade from the run directory."""

from __future__ import annotations

import json
from typing import Any

from policylab.agents.bundle import Lineage, write_bundle
from policylab.agents.policy import StoredPolicy
from policylab.envs.make import make_env
from policylab.experiments.baselines import baseline_documents, score_document
from policylab.experiments.outcome import (
    FinishedRun,
    best_run,
    cost_document,
    ended_early,
    exact_document,
    finished_runs,
    interval_document,
    objective_of,
    of_role,
    return_interval,
    returns_document,
    search_document,
    value_interval,
    warnings_about,
    winner_of,
)
from policylab.experiments.packaging import policy_of
from policylab.experiments.reporting import write_run_report
from policylab.experiments.rundir import RunDirectory
from policylab.files import write_atomic


def finish(run: RunDirectory) -> dict[str, Any]:
    """Summarise a fully trained experiment, package its best policy and write its report.

    Returns:
        The result document, also written as result.json: run_dir, status, selected, confirmed, returns, exact,
        baselines, score, cost, ended_early, policy_bundle, report, execution, warnings.
    """
    runs = finished_runs(run)
    chosen = best_run(runs, trial=winner_of(run), objective=objective_of(run))
    policy = policy_of(run.path / chosen.spec.path)
    document = _document(run, runs, policy=policy)
    _write_bundle(run, chosen, policy=policy, document=document)
    write_run_report(run, runs, policy=policy, document=document)
    write_atomic(run.path / "result.json", json.dumps(document, indent=1) + "\n")
    return document


def _document(run: RunDirectory, runs: list[FinishedRun], *, policy: StoredPolicy) -> dict[str, Any]:
    root = run.config.seeds.root
    winner, objective = winner_of(run), objective_of(run)
    measure = objective.measure(runs[0].result)
    confirm = of_role(runs, "confirm", trial=winner)
    tuned = of_role(runs, "tune", trial=winner)
    selected = value_interval(tuned, root_seed=root)
    confirmed = value_interval(confirm, root_seed=root) if confirm else None
    returned = return_interval(confirm, root_seed=root) if confirm else None
    exact = exact_document(run, policy, n_candidates=len(tuned), confirmed=returned)
    baselines, failed = baseline_documents(run, policy)
    return {
        "schema_version": 1,
        "run_dir": str(run.path),
        "status": "finished",
        "name": run.config.name,
        "config_hash": run.config.config_hash,
        "selected": interval_document(selected, measure=measure),
        "confirmed": interval_document(confirmed, measure=measure),
        "returns": None if objective.is_return else returns_document(tuned, confirm, root_seed=root),
        "exact": exact,
        "baselines": baselines,
        "score": score_document(exact, baselines, confirmed=returned),
        "search": search_document(run, runs),
        "cost": cost_document(run),
        "ended_early": ended_early(runs),
        "execution": runs[0].result.execution,
        "policy_bundle": str(run.path / "bundle"),
        "report": str(run.path / "report.html"),
        "warnings": [*warnings_about(runs, trial=winner), *failed],
    }


def _write_bundle(run: RunDirectory, chosen: FinishedRun, *, policy: StoredPolicy, document: dict[str, Any]) -> None:
    manifest = run.manifest
    lineage = Lineage(git_commit=manifest.git_commit, config_hash=manifest.config_hash, seeds=(chosen.spec.seed,))
    metrics = {name: document[name] for name in ("selected", "confirmed", "exact") if document[name]}
    env = make_env(run.config.env)
    try:
        write_bundle(run.path / "bundle", policy, env=env, lineage=lineage, metrics=metrics)
    finally:
        env.close()
