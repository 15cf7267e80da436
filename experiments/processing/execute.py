"""Carrying out a description on this machine; a processing job does the same in its container."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from policylab.agents.bundle import load_bundle
from policylab.envs.settings import EnvSettings
from policylab.experiments.evaluation import make_evaluator
from policylab.experiments.processing.description import Evaluate, Prepare
from policylab.experiments.processing.prepare import prepare
from policylab.experiments.statistics import mean_interval
from policylab.files import write_atomic
from policylab.seeding import generator


def execute(task: Prepare | Evaluate) -> dict[str, Any]:
    """Do what is described; return what came out, as plain data.

    Raises:
        UserError: the input is not what it should be.
        StorageError: a write failed.
    """
    return prepare(task) if isinstance(task, Prepare) else evaluate(task)


def evaluate(task: Evaluate) -> dict[str, Any]:
    """Value a bundle's policy; return {value, ci, measure, episodes, policy, environment, evaluation}.

    Raises:
        BundleError: the bundle is damaged.
        StorageError: the write failed.
    """
    bundle = load_bundle(Path(task.input), memory=True)
    entry = bundle.manifest.environment
    settings = EnvSettings(id=entry.id, kwargs=entry.kwargs, max_episode_steps=entry.max_episode_steps)
    evaluator = make_evaluator(settings, bundle.policy, kind="auto", seed=task.seed)
    found = evaluator(bundle.policy, episodes=task.episodes)
    returns = np.array(found.episode_returns)
    interval = mean_interval(returns, rng=generator(task.seed, "bootstrap", "evaluate")) if len(returns) > 1 else None
    document = {
        "value": found.value,
        "ci": None if interval is None else [interval.low, interval.high],
        "measure": evaluator.measure,
        "episodes": len(returns),
        "policy": {"kind": bundle.manifest.policy.kind, "digest": bundle.digest},
        "environment": entry.model_dump(mode="json"),
    }
    path = Path(task.output) / "evaluation.json"
    write_atomic(path, json.dumps(document, indent=1) + "\n")
    return {**document, "evaluation": str(path)}
