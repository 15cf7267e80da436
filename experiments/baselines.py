"""Classical baselines of an experiment: valued once, as its policies are, and kept in the run directory.

| file | content |
|---|---|
| baselines.jsonl | one line per baseline: {name, value, episode_returns, measure} |
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import numpy as np

from policylab.agents.policy import StoredPolicy
from policylab.envs.baselines import RANDOM, baseline_names, make_baseline
from policylab.envs.make import make_env, resolve
from policylab.experiments.evaluation import (
    ExactEvaluator,
    RolloutEvaluator,
    exact_table,
    greedy_actions,
    rule_actions,
)
from policylab.experiments.rundir import RunDirectory
from policylab.experiments.statistics import Interval, mean_interval
from policylab.files import append_line, drop_torn_tail, read_lines
from policylab.seeding import generator, run_seed

logger = logging.getLogger(__name__)

MIN_HEADROOM = 1e-9
"""Baselines closer to the optimum than this share of it leave nothing to score."""


def baseline_documents(run: RunDirectory, policy: StoredPolicy) -> tuple[list[dict[str, Any]], list[str]]:
    """Value every baseline of the experiment's environment that baselines.jsonl does not hold yet.

    Args:
        run: the run directory.
        policy: the packaged policy; where it is valued exactly, so are the baselines.

    Returns:
        Each as {name, value, ci, n_episodes, measure}, best first, and a sentence for each that failed: a rule of
        somebody else's must not cost the experiment its result.
    """
    failed = []
    path = run.path / "baselines.jsonl"
    drop_torn_tail(path)
    known = {row["name"]: row for row in read_lines(path)}
    for name in (*baseline_names(resolve(run.config.env).id), RANDOM):
        if name in known:
            continue
        try:
            known[name] = _valued(run, policy, name=name)
        except Exception as error:  # whatever a rule or its package comes up with
            logger.exception("baseline %s failed", name)
            failed.append(
                f"baseline {name} could not be valued: {type(error).__name__}: {' '.join(str(error).split())}"
            )
            continue
        append_line(path, known[name])
    rows = sorted(known.values(), key=lambda row: -row["value"])
    return [_document(row, root_seed=run.config.seeds.root) for row in rows], failed


def _valued(run: RunDirectory, policy: StoredPolicy, *, name: str) -> dict[str, Any]:
    config = run.config
    with contextlib.closing(make_env(config.env)) as env:
        rule = make_baseline(resolve(config.env).id, name, env=env)
        mdp = exact_table(config.env) if config.evaluation.kind in ("auto", "exact") else None
        if mdp is not None and greedy_actions(policy, mdp) is None:
            mdp = None
        actions = None if mdp is None else rule_actions(rule, mdp, space=env.observation_space)
    if mdp is not None and actions is not None:
        exact = ExactEvaluator(mdp)
        return {"name": name, "value": exact.of_actions(actions).value, "measure": exact.measure, "episode_returns": []}
    evaluator = RolloutEvaluator(config.env, seed=run_seed(config.seeds.root, role="evaluation", index=0))
    found = evaluator(rule, episodes=config.evaluation.final_episodes)
    returns = list(found.episode_returns)
    return {"name": name, "value": found.value, "measure": evaluator.measure, "episode_returns": returns}


def _document(row: dict[str, Any], *, root_seed: int) -> dict[str, Any]:
    returns, interval = np.array(row["episode_returns"]), None
    if returns.size:
        interval = mean_interval(returns, rng=generator(root_seed, "baseline", row["name"]), per_episode=True)
    known = interval is not None and interval.low is not None
    return {
        "name": row["name"],
        "value": row["value"],
        "ci": [interval.low, interval.high] if interval is not None and known else None,
        "n_episodes": int(returns.size),
        "measure": row["measure"],
    }


def score_document(
    exact: dict[str, Any] | None, baselines: list[dict[str, Any]], *, confirmed: Interval | None
) -> dict[str, Any] | None:
    """Return where the policy stands between the best classical baseline (0) and the optimum (1), or None.

    Args:
        exact: of `policylab.experiments.outcome.exact_document`; without it the optimum is unknown.
        baselines: of `baseline_documents`; random actions are no classical baseline.
        confirmed: value of the configuration on fresh seeds.

    Returns:
        {policy, confirmed, baseline}: the packaged policy's score, that of an average fresh run, and the name of the
        baseline that scores 0; None also where that baseline is optimal, which leaves nothing to score.
    """
    classical = [row for row in baselines if row["name"] != RANDOM]
    if exact is None or not classical:
        return None
    best = max(classical, key=lambda row: float(row["value"]))
    headroom = exact["optimal_return"] - best["value"]
    if headroom <= MIN_HEADROOM * max(1.0, abs(exact["optimal_return"])):
        return None
    return {
        "policy": (exact["policy_return"] - best["value"]) / headroom,
        "confirmed": None if confirmed is None else (confirmed.value - best["value"]) / headroom,
        "baseline": best["name"],
    }
