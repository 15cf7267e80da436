"""Fills the report's plain data from a finished run directory and writes the report."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from policylab.agents.policy import StoredPolicy
from policylab.envs.make import make_env
from policylab.envs.planners import evaluate_policy
from policylab.errors import EnvironmentRuleError
from policylab.experiments.evaluation import exact_table, greedy_actions, play_episode
from policylab.experiments.outcome import FinishedRun, of_role, winner_of
from policylab.experiments.report import Film, episode_gif, write_report
from policylab.experiments.report.data import (
    BaselineValue,
    Cost,
    Curves,
    EnvironmentFacts,
    Estimate,
    Exact,
    Grid,
    Lineage,
    ObjectiveValues,
    ReportData,
    Score,
)
from policylab.experiments.report.grid import grid_of
from policylab.experiments.rundir import RunDirectory
from policylab.experiments.statistics import learning_curve
from policylab.experiments.study_reporting import study_data
from policylab.files import read_json
from policylab.seeding import generator

logger = logging.getLogger(__name__)

EPISODES = 5


def write_run_report(
    run: RunDirectory, runs: Sequence[FinishedRun], *, policy: StoredPolicy, document: dict[str, Any]
) -> Path:
    """Write report.html and figures/*.png into the run directory; return the page's path."""
    return write_report(report_data(run, runs, policy=policy, document=document), run.path)


def report_data(
    run: RunDirectory, runs: Sequence[FinishedRun], *, policy: StoredPolicy, document: dict[str, Any]
) -> ReportData:
    """Return what the report shows of a finished experiment."""
    manifest, config, cost = run.manifest, run.config, document["cost"]
    tracking = read_json(run.path / "tracking.json") if (run.path / "tracking.json").exists() else {}
    return ReportData(
        name=config.name,
        status=document["status"],
        description=config.description,
        metric=runs[0].result.measure,
        objective=_objective(document),
        cost=Cost(env_steps=cost["env_steps"], wall_s=cost["wall_s"], trials=cost["trials"]),
        lineage=Lineage(
            config_hash=manifest.config_hash,
            git_commit=manifest.git_commit,
            host=manifest.host,
            created_utc=manifest.created_utc,
            root_seed=config.seeds.root,
            versions=manifest.versions,
        ),
        environment=_environment(run),
        config=config.model_dump(mode="json"),
        selected=_estimate((document["returns"] or document)["selected"]),
        confirmed=_estimate((document["returns"] or document)["confirmed"]),
        exact=_exact(document["exact"]),
        baselines=[_baseline(row) for row in document["baselines"]],
        score=None if document["score"] is None else Score(**document["score"]),
        curves=[_curves(group) for role in ("tune", "confirm") if (group := of_role(runs, role, trial=winner_of(run)))],
        warnings=document["warnings"],
        tracking={key: str(tracking[key]) for key in ("uri", "experiment_id", "run_id") if tracking.get(key)},
        files={"run directory": str(run.path), "policy bundle": document["policy_bundle"]},
        grid=_grid(run, policy),
        study=study_data(run, runs, found=document["search"]) if document["search"] else None,
        **_episode(run, policy),
    )


def _environment(run: RunDirectory) -> EnvironmentFacts:
    resolved, mdp = run.manifest.environment, exact_table(run.config.env)
    return EnvironmentFacts(
        id=resolved["id"],
        max_episode_steps=resolved["max_episode_steps"],
        n_states=mdp.n_states if mdp else None,
        n_actions=mdp.n_actions if mdp else None,
        notes=resolved["notes"],
    )


def _objective(document: dict[str, Any]) -> ObjectiveValues | None:
    """Return the values by what the search went by, where that is not the return."""
    if document["returns"] is None:
        return None
    selected = _estimate(document["selected"])
    assert selected is not None
    return ObjectiveValues(document["selected"]["measure"], selected, _estimate(document["confirmed"]))


def _estimate(interval: dict[str, Any] | None) -> Estimate | None:
    if interval is None:
        return None
    low, high = interval["ci"] or (float("nan"), float("nan"))
    return Estimate(interval["value"], low, high, interval["n_seeds"])


def _baseline(row: dict[str, Any]) -> BaselineValue:
    low, high = row["ci"] or (float("nan"), float("nan"))
    return BaselineValue(row["name"], row["value"], low, high, n_episodes=row["n_episodes"])


def _exact(document: dict[str, Any] | None) -> Exact | None:
    if document is None:
        return None
    return Exact(**{field.name: document[field.name] for field in dataclasses.fields(Exact)})


def _curves(runs: Sequence[FinishedRun]) -> Curves:
    values = [{row.step: _value(row.metrics) for row in one.rows} for one in runs]
    shared = sorted(set.intersection(*(set(curve) for curve in values)))  # a promoted run has marks of its own
    steps = np.array(shared, dtype=np.int64)
    returns = np.array([[curve[step] for step in shared] for curve in values])
    band = learning_curve(steps, returns, rng=generator(0, "curve band", runs[0].spec.role))
    return Curves(
        role=runs[0].spec.role,
        seeds=[one.spec.seed for one in runs],
        steps=steps,
        returns=returns,
        middle=band.value,
        low=band.low,
        high=band.high,
        final=np.array([one.result.value for one in runs]),
    )


def _value(metrics: dict[str, float]) -> float:
    return metrics.get("eval/return_mean", metrics.get("train/return_mean", float("nan")))


def _grid(run: RunDirectory, policy: StoredPolicy) -> Grid | None:
    mdp = exact_table(run.config.env)
    actions = greedy_actions(policy, mdp) if mdp else None
    if mdp is None or actions is None:
        return None
    env = make_env(run.config.env)
    try:
        values = evaluate_policy(mdp, actions, discount=1.0, horizon=mdp.max_episode_steps)
        return grid_of(env, mdp, values=values, policy=actions)
    finally:
        env.close()


def _episode(run: RunDirectory, policy: StoredPolicy) -> dict[str, Any]:
    """Return the rendered episode's GIF and caption, or nothing where the environment draws no picture."""
    try:
        env = make_env(run.config.env, render_mode="rgb_array")
    except EnvironmentRuleError:
        return {}
    frames = Film()
    try:
        returns = [play_episode(env, policy, rng=_episode_rng(run, i)) for i in range(EPISODES)]
        typical = sorted(range(EPISODES), key=returns.__getitem__)[EPISODES // 2]
        total = play_episode(env, policy, rng=_episode_rng(run, typical), frames=frames)
    except Exception:  # a machine without graphics: whatever the drawing library comes up with, the numbers are there
        logger.warning("no episode could be drawn", exc_info=True)
        return {}
    finally:
        env.close()
    pictures = [frame for frame in frames if frame is not None]
    if not pictures:
        return {}
    path = episode_gif(pictures, run.path / "figures" / "episode.gif")
    caption = (
        f"A greedy episode of the packaged policy: return {total:g} in {frames.n_shots - 1} steps, "
        f"the median of {EPISODES} episodes."
    )
    return {"episode_gif": path.read_bytes(), "episode_caption": caption}


def _episode_rng(run: RunDirectory, episode: int) -> np.random.Generator:
    return generator(run.config.seeds.root, "rendered episode", episode)
