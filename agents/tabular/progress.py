"""How far an agent is, and what it measured since its last report.

| array | entries |
|---|---|
| clock (int64) | steps, episodes, state, pending action, episode length, episodes ended, sum of their lengths |
| tally (float64) | return of the episode under way, sum of returns ended, sum of |δ| |
| seen (bool) | features that were active at least once |

The last two entries of both arrays are of the steps since the last report. ``state`` is -1 when an episode
must begin; the pending action, -1 for none, is the one an algorithm that looks ahead has already chosen.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from policylab.agents.rule import rule

STEPS, EPISODES, STATE, PENDING, LENGTH, ENDED, LENGTH_SUM = range(7)
RETURN, RETURN_SUM, ERROR_SUM = range(3)


class Progress(NamedTuple):
    """See the module's table; arrays of shapes (7,), (3,) and (n_features,)."""

    clock: NDArray[np.int64]
    tally: NDArray[np.float64]
    seen: NDArray[np.bool_]


def begin(n_features: int) -> Progress:
    """Return the progress of an agent that has not started."""
    clock = np.zeros(7, dtype=np.int64)
    clock[STATE] = clock[PENDING] = -1
    return Progress(clock, np.zeros(3), np.zeros(n_features, dtype=np.bool_))


METRICS = frozenset({"train/states_visited", "train/td_error", "train/return_mean", "train/length_mean"})
"""Names of what `metrics_of` may return."""


def metrics_of(progress: Progress, n_steps: int) -> dict[str, float]:
    """Return the metrics of the last ``n_steps`` steps."""
    clock, tally, seen = progress
    metrics = {"train/states_visited": float(np.count_nonzero(seen)) / len(seen)}
    if n_steps:
        metrics["train/td_error"] = float(tally[ERROR_SUM]) / n_steps
    if clock[ENDED]:
        metrics["train/return_mean"] = float(tally[RETURN_SUM]) / int(clock[ENDED])
        metrics["train/length_mean"] = int(clock[LENGTH_SUM]) / int(clock[ENDED])
    return metrics


@rule
def forget(progress: Progress) -> None:
    """Begin to measure anew: a report was made."""
    progress.clock[ENDED] = progress.clock[LENGTH_SUM] = 0
    progress.tally[RETURN_SUM] = progress.tally[ERROR_SUM] = 0.0
