"""`States`: logged observations as the numbers of a table, where they repeat."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from policylab.monitoring.ope.log import Log

MAX_STATES = 20_000
REPEATS = 5
"""Observations that are not whole numbers make a table if each is there this many times on average."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class States:
    """N steps between S states.

    Attributes:
        here: the state of each step, shape (N,).
        after: the state each step leads to, shape (N,).
        n: how many states there are, S.
    """

    here: NDArray[np.int64]
    after: NDArray[np.int64]
    n: int

    @classmethod
    def of(cls, log: Log) -> States | None:
        """Return the states of a log; None where observations do not repeat."""
        both = np.concatenate([log.observation, log.next_observation])
        different, index = np.unique(both, axis=0, return_inverse=True)
        whole = both.dtype.kind in "iub" and both.ndim == 1
        if len(different) > MAX_STATES or not (whole or len(log) >= REPEATS * len(different)):
            return None
        flat = index.ravel()
        return cls(flat[: len(log)], flat[len(log) :], len(different))
