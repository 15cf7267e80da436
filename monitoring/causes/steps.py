"""`Steps`: recorded transitions of a baseline or a window, as the tests of drift read them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policylab.agents.bundle import Bundle
from policylab.agents.transitions import read_transitions
from policylab.errors import UserError
from policylab.extras import require
from policylab.monitoring.ope.captured_log import CaptureQuery, read_captured_log
from policylab.monitoring.ope.log import Log, check_rewards
from policylab.monitoring.ope.reported import Ends

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """N steps, those of an episode one after the other.

    Attributes:
        observation: shape (N,) or (N, size).
        action: shape (N,) or (N, size).
        reward: shape (N,).
        next_observation: as ``observation``.
        terminated: shape (N,).
        ended: terminated or truncated, shape (N,).
        log_propensity: of each action, shape (N,); None if it was not recorded.
        starts: the first row of each episode, shape (E,).
        ends: how much is known of the ends of episodes; where their last ``next_observation`` is not, it is the
            observation before.
    """

    observation: NDArray[Any]
    action: NDArray[Any]
    reward: Floats
    next_observation: NDArray[Any]
    terminated: NDArray[np.bool_]
    ended: NDArray[np.bool_]
    log_propensity: Floats | None
    starts: NDArray[np.int64]
    ends: Ends = "whole"

    def __len__(self) -> int:
        return len(self.reward)

    def totals(self, values: Floats) -> Floats:
        """Return the sum of ``values``, shape (N,), over each episode, shape (E,)."""
        found: Floats = np.add.reduceat(values, self.starts)
        return found

    @property
    def whole(self) -> NDArray[np.bool_]:
        """Which episodes begin with their first recorded step and end, shape (E,)."""
        return np.asarray(self.ended[np.r_[self.starts[1:], len(self)] - 1])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Steps of each episode, shape (E,)."""
        return np.asarray(np.diff(np.r_[self.starts, len(self)]))


def read_steps(path: Path, *, bundle: Bundle | None = None) -> Steps:
    """Return the steps in a Parquet file of recorded transitions, or in a folder of captured traffic.

    Args:
        path: the file or folder. Decisions without a reported reward count as 0 there.
        bundle: a policy of the task, whose spaces captured observations and actions belong to.

    Raises:
        UserError: it is missing, damaged, or no recording; a reward is beyond all sense; or a folder without a bundle.
        MissingExtraError: pyarrow is not installed.
    """
    if path.is_dir():
        if bundle is None:
            raise UserError(f"{path} is a folder of captured traffic; name a policy of the task with --policy BUNDLE")
        return of_log(read_captured_log(path, bundle, query=CaptureQuery(missing_reward=0.0)))
    try:
        names = set(require("pyarrow.parquet", extra="monitor").read_schema(path).names)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path} cannot be read as Parquet ({reason}); record it with `policylab record`") from error
    also = ("log_propensity",) if "log_propensity" in names else ()
    columns = dict(read_transitions(path, also=also).columns)
    check_rewards(columns["reward"], source=str(path))
    return steps_of(columns)


def alike(*sides: Steps) -> tuple[Steps, ...]:
    """Return steps that know as much of the ends of their episodes as the side that knows least.

    What one side lacks would otherwise be a difference: a state at the end, or how many episodes were cut off.
    """
    least = max((side.ends for side in sides), key=("whole", "told", "assumed").index)
    return sides if least == "whole" else tuple(_without_ends(side, known=least) for side in sides)


def _without_ends(side: Steps, *, known: Ends) -> Steps:
    """Return steps without the observations after the ends, and without how episodes ended if even that is assumed."""
    ended = side.ended if side.observation.ndim == 1 else side.ended[:, None]
    following = np.where(ended, side.observation, side.next_observation)
    terminated = side.terminated if known == "told" else side.ended
    return dataclasses.replace(side, next_observation=following, terminated=terminated, ends=known)


def of_log(log: Log) -> Steps:
    """Return the steps of a log."""
    return Steps(
        observation=log.observation,
        action=log.action,
        reward=log.reward,
        next_observation=log.next_observation,
        terminated=log.terminated,
        ended=log.terminated | log.truncated,
        log_propensity=log.log_propensity,
        starts=log.starts[:-1],
        ends=log.ends,
    )


def steps_of(columns: dict[str, NDArray[Any]]) -> Steps:
    """Return the steps in columns named as in `policylab.agents.transitions`, in any order, each counted once."""
    order = np.lexsort((columns["t"], columns["episode_id"]))
    episode, t = columns["episode_id"][order], columns["t"][order]
    again = np.r_[False, (episode[1:] == episode[:-1]) & (t[1:] == t[:-1])]
    order, episode = order[~again], episode[~again]
    terminated = columns["terminated"][order].astype(np.bool_)
    return Steps(
        observation=columns["obs"][order],
        action=columns["action"][order],
        reward=columns["reward"][order].astype(np.float64),
        next_observation=columns["next_obs"][order],
        terminated=terminated,
        ended=terminated | columns["truncated"][order].astype(np.bool_),
        log_propensity=columns["log_propensity"][order] if "log_propensity" in columns else None,
        starts=np.flatnonzero(np.r_[True, episode[1:] != episode[:-1]]),
    )
