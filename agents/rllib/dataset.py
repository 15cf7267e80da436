"""Recorded transitions as RLlib's learners take them: in batches drawn at random, with replacement."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from policylab.agents.rllib.environment import first_action
from policylab.agents.rllib.spaces import Observations
from policylab.agents.transitions import Transitions, read_transitions
from policylab.errors import UserError


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """N transitions as the network sees them.

    Attributes:
        path: the file they came from.
        digest: its sha256.
        observations: shape (N, ...), float32.
        following: the observations after the actions, shape (N, ...), float32.
        actions: counted from 0; of a bounded Box scaled to [-1, 1], shape (N,) or (N, components).
        rewards: shape (N,), float32.
        terminated: shape (N,), bool.
        starts: index of each episode's first transition, and N, shape (episodes + 1,).
    """

    path: str
    digest: str
    observations: NDArray[np.float32]
    following: NDArray[np.float32]
    actions: NDArray[Any]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def n_episodes(self) -> int:
        """Episodes in the file."""
        return len(self.starts) - 1

    def rows(self, size: int, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        """Return ``size`` transitions drawn one by one, under RLlib's names."""
        chosen = rng.integers(len(self), size=size)
        return {
            "obs": self.observations[chosen],
            "new_obs": self.following[chosen],
            "actions": self.actions[chosen],
            "rewards": self.rewards[chosen],
            "terminateds": self.terminated[chosen],
        }

    def stretches(self, size: int, rng: np.random.Generator) -> list[Any]:
        """Return stretches of episodes, ``size`` transitions in all, as RLlib's episodes."""
        from ray.rllib.env.single_agent_episode import SingleAgentEpisode

        found = []
        while size:
            number = int(rng.integers(self.n_episodes))
            first, end = int(self.starts[number]), int(self.starts[number + 1])
            length = min(size, end - first)
            first += int(rng.integers(end - first - length + 1))
            part = slice(first, first + length)
            episode = SingleAgentEpisode(
                observations=[*self.observations[part], self.following[part.stop - 1]],
                actions=list(self.actions[part]),
                rewards=self.rewards[part].tolist(),
                terminated=bool(self.terminated[part.stop - 1]),
                truncated=not self.terminated[part.stop - 1],
                len_lookback_buffer=0,
            )
            found.append(episode.to_numpy())
            size -= length
        return found


def read_dataset(path: str, *, env: gym.Env[Any, Any], view: Observations, env_id: str) -> Dataset:
    """Return the transitions of a file, recorded in an environment like ``env``.

    Raises:
        UserError: the file cannot be read, or was recorded in another environment.
        MissingExtraError: pyarrow is not installed.
    """
    held = read_transitions(Path(path))
    theirs = held.footer.get("environment", {}).get("id", env_id)
    if theirs != env_id.rpartition(":")[2]:
        raise UserError(f"agent.dataset: {path} was recorded in {theirs}, but the experiment's environment is {env_id}")
    columns = held.columns
    observations, following = (
        _seen(columns[name], space=env.observation_space, view=view, path=path) for name in ("obs", "next_obs")
    )
    return Dataset(
        path=path,
        digest=held.digest,
        observations=observations,
        following=following,
        actions=_learned(columns["action"], env.action_space, path=path),
        rewards=columns["reward"].astype(np.float32),
        terminated=columns["terminated"].astype(np.bool_),
        starts=_starts(held, path=path),
    )


def _seen(column: NDArray[Any], *, space: Any, view: Observations, path: str) -> NDArray[np.float32]:
    """Return recorded observations as the network sees them."""
    if isinstance(space, spaces.Discrete):
        raw: Any = column
        states = range(int(space.start), int(space.start) + int(space.n))
        fits = column.ndim == 1 and column.min() in states and column.max() in states
    else:
        fits = column.ndim == 2 and column.shape[1] == spaces.flatdim(space)
        raw = (spaces.unflatten(space, row) for row in column)
    if not fits:
        raise UserError(
            f"agent.dataset: {path} has observations of shape {column.shape[1:]} that are not of {str(space)[:80]}; "
            "record it in the experiment's environment"
        )
    if isinstance(space, spaces.Box) and not view.image:
        return column.astype(np.float32)
    return np.stack([view(one) for one in raw])


def _learned(column: Any, space: Any, *, path: str) -> Any:
    """Return recorded actions as networks learn them."""
    if isinstance(space, spaces.Box):
        fits = column.shape[1:] == space.shape
        actions = column
        if fits and space.is_bounded():
            low, high = (bound.astype(np.float64) for bound in (space.low, space.high))
            actions = np.clip(2.0 * (column - low) / (high - low) - 1.0, -1.0, 1.0).astype(np.float32)
    else:
        start = first_action(space)
        actions = column - (0 if start is None else start)
        sizes = space.n if isinstance(space, spaces.Discrete) else space.nvec
        fits = column.shape[1:] == space.shape and bool(((actions >= 0) & (actions < sizes)).all())
    if not fits:
        raise UserError(f"agent.dataset: {path} has actions that are not of {str(space)[:80]}; record it again")
    return actions


def _starts(held: Transitions, *, path: str) -> NDArray[np.int64]:
    """Return where episodes begin, and the end; whole episodes follow each other, step by step."""
    episode, t = held.columns["episode_id"], held.columns["t"]
    first = np.flatnonzero(np.diff(episode, prepend=episode[0] - 1))
    starts = np.append(first, len(t)).astype(np.int64)
    if not np.array_equal(t - t[first].repeat(np.diff(starts)), np.arange(len(t)) - first.repeat(np.diff(starts))):
        raise UserError(f"agent.dataset: {path} has episodes with steps missing or out of order; record it again")
    return starts
