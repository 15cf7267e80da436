"""`Log`: episodes that some policy played, with the probability it gave each action it took.

| symbol | field | shape | meaning |
|---|---|---|---|
| s, s' | observation, next_observation | (N,) or (N, size) | a Discrete space's numbers, else flattened |
| a | action | (N,) or (N, size) | what the behaviour policy did |
| r | reward | (N,) | |
| ln π_b(a given s) | log_propensity | (N,) | for a Box of actions a log-density |
| | mask | (N, A) or None | the actions that were allowed; None where all always were |
| | starts | (E + 1,) | episode i is the rows starts[i] .. starts[i + 1] - 1 |

Rows of a file may stand in any order and more than once. An episode with a missing step, or one that had not ended
when the log was written, cannot be weighed: it is left out and counted in ``left_out``.

Where it is not known which observation follows the last action of an episode (``ends`` says so), its
``next_observation`` is the observation before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policylab.agents.transitions import read_transitions
from policylab.deployment.capture.format import MAX_REWARD
from policylab.errors import UserError
from policylab.monitoring.ope.reported import Ends

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Log:
    """Whole episodes, one after the other; see the module's symbol table.

    Attributes:
        left_out: how many episodes were left out, by reason.
        ends: how much is known of the ends of episodes.
    """

    observation: NDArray[Any]
    action: NDArray[Any]
    reward: Floats
    next_observation: NDArray[Any]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    log_propensity: Floats
    starts: NDArray[np.int64]
    mask: NDArray[np.bool_] | None = None
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)
    ends: Ends = "whole"

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def n_episodes(self) -> int:
        """Number of episodes E."""
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Steps of each episode, shape (E,)."""
        return np.diff(self.starts)

    @property
    def episode(self) -> NDArray[np.int64]:
        """The episode of each row, shape (N,)."""
        return np.repeat(np.arange(self.n_episodes), self.lengths)

    @property
    def step(self) -> NDArray[np.int64]:
        """The step of each row within its episode, from 0, shape (N,)."""
        return np.arange(len(self)) - np.repeat(self.starts[:-1], self.lengths)

    def take(self, episodes: NDArray[np.int64]) -> Log:
        """Return the log of some episodes, in the given order."""
        lengths = self.lengths[episodes]
        ends = lengths.cumsum()
        rows = np.arange(ends[-1] if len(ends) else 0) + np.repeat(
            self.starts[:-1][episodes] - (ends - lengths), lengths
        )
        columns = {name: getattr(self, name)[rows] for name in _COLUMNS}
        mask = None if self.mask is None else self.mask[rows]
        return Log(**columns, starts=np.concatenate([[0], ends]), mask=mask, left_out=self.left_out, ends=self.ends)


_COLUMNS = (
    "observation", "action", "reward", "next_observation", "terminated", "truncated", "log_propensity",
)  # fmt: skip


def read_log(path: Path) -> Log:
    """Return the episodes in a Parquet file of recorded transitions (`policylab.agents.transitions`).

    Raises:
        UserError: the file is missing or damaged, has no propensities, or holds no whole episode.
        MissingExtraError: pyarrow is not installed.
    """
    columns = dict(read_transitions(path, also=("log_propensity",)).columns)
    columns["observation"], columns["next_observation"] = columns.pop("obs"), columns.pop("next_obs")
    return assembled(columns, source=str(path))


def check_rewards(reward: NDArray[Any], *, source: str) -> None:
    """Check that one can compute with rewards, shape (N,).

    Raises:
        UserError: one is no number within ±`MAX_REWARD`.
    """
    beyond = np.flatnonzero(~(np.abs(reward) <= MAX_REWARD))  # NaN compares as false
    if beyond.size:
        value = float(reward[beyond[0]])
        raise UserError(f"{source}: rewards must be numbers within ±{MAX_REWARD:g}, got {value:g}; record it again")


def assembled(columns: Mapping[str, NDArray[Any]], *, source: str) -> Log:
    """Return the log in ``columns``: those of `Log`, with ``episode_id`` and ``t`` in place of ``starts``.

    ``mask`` may be missing.

    Raises:
        UserError: one step is there twice with different contents, a propensity is no probability, or no episode is
            whole.
    """
    if not np.isfinite(columns["log_propensity"]).all():
        raise UserError(f"{source}: every action needs a propensity above 0; it was drawn, so it had one")
    check_rewards(columns["reward"], source=source)
    order = np.lexsort((columns["t"], columns["episode_id"]))
    episode, t = columns["episode_id"][order], columns["t"][order]
    again = np.zeros(len(order), dtype=np.bool_)
    again[1:] = (episode[1:] == episode[:-1]) & (t[1:] == t[:-1])
    names = [*_COLUMNS, *(["mask"] if "mask" in columns else [])]
    rows = {name: np.asarray(columns[name])[order] for name in names}
    for name in names:
        differs = again[1:] & (rows[name][1:] != rows[name][:-1]).reshape(len(order) - 1, -1).any(axis=1)
        if differs.any():
            place = int(np.flatnonzero(differs)[0]) + 1
            raise UserError(
                f"{source}: step {int(t[place])} of episode {episode[place]} is there twice with different {name!r}; "
                "number the episodes of different files differently"
            )
    kept = {name: column[~again] for name, column in rows.items()}
    return _whole_episodes(episode[~again], t[~again], rows=kept, source=source)


def _whole_episodes(episode: NDArray[Any], t: NDArray[Any], *, rows: dict[str, NDArray[Any]], source: str) -> Log:
    starts = np.flatnonzero(np.r_[True, episode[1:] != episode[:-1], True])
    lengths = np.diff(starts)
    gapless = (t[starts[:-1]] == 0) & (t[starts[1:] - 1] == lengths - 1)
    ends = rows["terminated"] | rows["truncated"]
    early = np.add.reduceat(ends, starts[:-1], dtype=np.int64) - ends[starts[1:] - 1] > 0
    ended = ends[starts[1:] - 1]
    if early.any():
        raise UserError(
            f"{source}: episode {episode[starts[:-1][early][0]]} goes on after it has ended; "
            "number each episode differently"
        )
    log = Log(**_typed(rows), starts=starts)
    left_out = {
        "steps are missing": int((~gapless).sum()),
        "had not ended": int((gapless & ~ended).sum()),
    }
    whole = np.flatnonzero(gapless & ended)
    if not whole.size:
        raise UserError(f"{source} holds no whole episode of {len(lengths)}; record episodes from step 0 to their end")
    found = {reason: n for reason, n in left_out.items() if n}
    return dataclasses.replace(log.take(whole) if found else log, left_out=found)


def _typed(rows: dict[str, NDArray[Any]]) -> dict[str, Any]:
    types = {"reward": np.float64, "log_propensity": np.float64, "terminated": np.bool_, "truncated": np.bool_}
    return {name: column.astype(types[name]) if name in types else column for name, column in rows.items()}
