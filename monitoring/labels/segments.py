"""`Segments`: pieces of episodes of one length, cut from recordings or captured traffic, as people compare them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from policylab.agents.bundle import Bundle
from policylab.agents.space_json import space_from_json, space_to_json
from policylab.agents.transitions import read_transitions
from policylab.envs.learned_reward import part_of
from policylab.envs.reward_model import Part
from policylab.errors import PolicylabError, UserError
from policylab.monitoring.causes.steps import Steps, read_steps, steps_of

STEP_PARTS = ("observation", "action", "next_observation")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """S pieces of L steps each.

    Attributes:
        observation: shape (S, L) or (S, L, size).
        action: shape (S, L) or (S, L, size).
        next_observation: as ``observation``.
        reward: what was recorded, shape (S, L).
        episode: which episode of its recording each is from, shape (S,).
        start: step of the episode each begins with, shape (S,).
        about: where they are from: ``observation_space`` and ``action_space``; of recordings also ``path``, ``sha256``,
            ``environment`` and ``seed``, from which an episode can be played again.
    """

    observation: NDArray[Any]
    action: NDArray[Any]
    next_observation: NDArray[Any]
    reward: NDArray[np.float64]
    episode: NDArray[np.int64]
    start: NDArray[np.int64]
    about: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def length(self) -> int:
        """Steps of each segment."""
        return int(self.reward.shape[1])

    def take(self, rows: NDArray[np.int64]) -> Segments:
        """Return some of the segments."""
        names = [*STEP_PARTS, "reward", "episode", "start"]
        return dataclasses.replace(self, **{name: getattr(self, name)[rows] for name in names})

    def digest(self, row: int) -> str:
        """Return a name of one segment that follows from what it holds."""
        found = hashlib.sha256()
        for name in (*STEP_PARTS, "episode", "start"):
            found.update(np.ascontiguousarray(getattr(self, name)[row]).tobytes())
        return found.hexdigest()

    def flat(self) -> dict[str, NDArray[Any]]:
        """Return the steps of all segments one after the other, by part, each of shape (S L, ...)."""
        return {name: getattr(self, name).reshape(-1, *getattr(self, name).shape[2:]) for name in STEP_PARTS}


def cut(path: Path, *, length: int, bundle: Bundle | None = None) -> Segments:
    """Return the segments of a recording or of captured traffic: one after the other, and the end of each episode.

    Args:
        path: a Parquet file of `policylab record`, or a folder of captured traffic.
        length: steps of a segment, at least 1; episodes that are shorter have none.
        bundle: a policy of the task, which captured traffic needs.

    Raises:
        UserError: there is no recording, or no episode is long enough.
        MissingExtraError: pyarrow is not installed.
    """
    if length < 1:
        raise UserError(f"segments need at least 1 step, got {length}")
    steps, about = _read(path, bundle)
    first, rows = _places(steps, length)
    if not len(rows):
        raise UserError(
            f"{path}: none of the {len(steps.starts):,} episodes has {length} steps; choose a smaller --segment-steps"
        )
    return Segments(
        steps.observation[rows], steps.action[rows], steps.next_observation[rows], steps.reward[rows],
        first[:, 0], first[:, 1], about,
    )  # fmt: skip


def _places(steps: Steps, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return episode and step of each segment's start, shape (S, 2), and the rows of its steps, shape (S, L)."""
    found = []
    for episode, (row, n) in enumerate(zip(steps.starts.tolist(), steps.lengths.tolist(), strict=True)):
        starts = list(range(0, n - length + 1, length))
        if starts and starts[-1] != n - length:
            starts.append(n - length)  # the end matters most, even where it overlaps
        found += [(episode, start, row + start) for start in starts]
    places = np.array(found, dtype=np.int64).reshape(-1, 3)
    return places[:, :2], places[:, 2:] + np.arange(length)


def _read(path: Path, bundle: Bundle | None) -> tuple[Steps, dict[str, Any]]:
    if path.is_dir() or bundle is not None:
        steps = read_steps(path, bundle=bundle)
        assert bundle is not None, "read_steps asks for it"
        spaces = {name: space_to_json(getattr(bundle, name)) for name in ("observation_space", "action_space")}
        return steps, spaces
    recorded = read_transitions(path)
    try:
        about = {name: recorded.footer[name] for name in ("observation_space", "action_space", "environment", "seed")}
    except KeyError as error:
        raise UserError(
            f"{path} does not say of which spaces its {error} are; record it with `policylab record`, or name a policy "
            "of the task with --policy BUNDLE"
        ) from None
    return steps_of(dict(recorded.columns)), {**about, "path": str(path.resolve()), "sha256": recorded.digest}


def space_in(about: Mapping[str, Any], name: str) -> gym.Space[Any]:
    """Return a space that ``about`` describes.

    Raises:
        UserError: it describes none.
    """
    try:
        return space_from_json(about[name])
    except (PolicylabError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"the segments' {name} is damaged ({str(error)[:80]}); select pairs again") from error


def parts_of(about: Mapping[str, Any], names: tuple[str, ...]) -> tuple[Part, ...]:
    """Return how steps become the features of a reward model.

    Args:
        about: of the segments.
        names: of `STEP_PARTS`.
    """
    spaces = {name: space_in(about, "action_space" if name == "action" else "observation_space") for name in names}
    return tuple(part_of(space, name=name) for name, space in spaces.items())
