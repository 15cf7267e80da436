"""Recording what a policy does as a Parquet file of transitions, for offline learning and off-policy evaluation."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from policylab.agents.bundle import Bundle
from policylab.agents.recurrent_policy import in_episode
from policylab.agents.space_json import space_to_json
from policylab.agents.transitions import FOOTER, SCHEMA_VERSION, arrow, arrow_schema, stored
from policylab.envs.make import make_env
from policylab.envs.settings import EnvSettings
from policylab.errors import UserError
from policylab.experiments.evaluation import begin_episode
from policylab.extras import require
from policylab.files import storage_errors
from policylab.seeding import generator

ROWS_PER_GROUP = 16_384
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Recording:
    """What was recorded: episodes, transitions, and the mean undiscounted return of an episode."""

    path: Path
    episodes: int
    transitions: int
    return_mean: float


def record(bundle: Bundle, path: Path, *, episodes: int, seed: int = 0, deterministic: bool = False) -> Recording:
    """Play ``episodes`` episodes of the bundle's policy in its environment and write every step to ``path``.

    Args:
        bundle: the policy, and the environment it was trained for.
        path: the Parquet file; it appears when it is complete.
        episodes: at least 1.
        seed: root of the episodes' and the actions' random streams.
        deterministic: take the policy's deterministic actions instead of drawing from its distribution.

    Raises:
        UserError: the spaces cannot be recorded.
        MissingExtraError: pyarrow is not installed.
        StorageError: a write failed.
    """
    if episodes < 1:
        raise UserError(f"episodes must be at least 1, got {episodes}")
    entry = bundle.manifest.environment
    settings = EnvSettings(id=entry.id, kwargs=entry.kwargs, max_episode_steps=entry.max_episode_steps)
    env = make_env(settings)
    try:
        schema = arrow_schema(env.observation_space, env.action_space)
        acting = {"seed": seed, "deterministic": deterministic, "episodes": episodes}
        footer = json.dumps({"schema_version": SCHEMA_VERSION, **_described(bundle), **acting}, sort_keys=True)
        player = _Player(bundle, env, seed=seed, deterministic=deterministic)
        return _write(path, schema.with_metadata({FOOTER: footer}), rows=player.play(episodes), episodes=episodes)
    finally:
        env.close()


def _described(bundle: Bundle) -> dict[str, Any]:
    return {
        "environment": bundle.manifest.environment.model_dump(mode="json"),
        "observation_space": space_to_json(bundle.observation_space),
        "action_space": space_to_json(bundle.action_space),
        "policy": {"kind": bundle.manifest.policy.kind, "digest": bundle.digest},
        "lineage": bundle.manifest.lineage.model_dump(mode="json"),
    }


class _Player:
    """Plays episodes, step by step."""

    def __init__(self, bundle: Bundle, env: gym.Env[Any, Any], *, seed: int, deterministic: bool) -> None:
        self._bundle = bundle
        self._policy: Any = bundle.policy
        self._env = env
        self._seed = seed
        self._deterministic = deterministic
        self._same = {
            "policy_id": bundle.digest,
            "env_id": bundle.manifest.environment.id,
            "spec_hash": bundle.manifest.lineage.config_hash,
            "seed": seed,
        }

    def play(self, episodes: int) -> Iterator[Row]:
        """Yield a row for each step."""
        for episode in range(episodes):
            observation = begin_episode(self._env, generator(self._seed, "episode", episode))
            self._policy = in_episode(self._bundle.policy)
            rng, t, ended = generator(self._seed, "actions", episode), 0, False
            while not ended:
                now = datetime.datetime.now(datetime.UTC)
                action, log_propensity = self._decide(observation, rng)
                following, reward, terminated, truncated, _ = self._env.step(action)
                yield {
                    "episode_id": episode,
                    "t": t,
                    "obs": stored(self._env.observation_space, observation),
                    "action": np.asarray(action) if np.ndim(action) else int(action),
                    "reward": float(reward),
                    "next_obs": stored(self._env.observation_space, following),
                    "terminated": bool(terminated),
                    "truncated": bool(truncated),
                    "propensity": None if log_propensity is None else math.exp(log_propensity),
                    "log_propensity": log_propensity,
                    "timestamp": now,
                    **self._same,
                }
                observation, t, ended = following, t + 1, terminated or truncated

    def _decide(self, observation: Any, rng: np.random.Generator) -> tuple[Any, float | None]:
        if not self._deterministic:
            drawn: tuple[Any, float] = self._policy.sample(observation, rng)
            return drawn
        density = isinstance(self._env.action_space, gym.spaces.Box)
        return self._policy.act(observation), None if density else 0.0


def _write(path: Path, schema: Any, *, rows: Iterator[Row], episodes: int) -> Recording:
    pa, parquet = arrow(), require("pyarrow.parquet", extra="offline")
    part = path.with_name(f".{path.name}.part")
    n_rows, total = 0, 0.0
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with parquet.ParquetWriter(part, schema, compression="zstd", write_page_checksum=True) as writer:
                group: list[Row] = []
                for row in rows:
                    group.append(row)
                    n_rows, total = n_rows + 1, total + row["reward"]
                    if len(group) == ROWS_PER_GROUP:
                        writer.write_table(_table(pa, group, schema=schema))
                        group = []
                if group:
                    writer.write_table(_table(pa, group, schema=schema))
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    return Recording(path, episodes, n_rows, total / episodes)


def _table(pa: Any, rows: list[Row], *, schema: Any) -> Any:
    return pa.Table.from_pydict({name: [row[name] for row in rows] for name in schema.names}, schema=schema)
