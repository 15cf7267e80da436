"""The process's global random generators, lent to RLlib while it works.

RLlib seeds and draws from the global generators of Python, NumPy and torch. Each agent keeps states of its own, puts
them in place for the duration of a call and puts back what was there, so that two agents in one process do not shift
each other's numbers, and nobody else's.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np


class GlobalStreams:
    """The states of the three generators that belong to one agent; None before its first call."""

    def __init__(self) -> None:
        self._states: tuple[Any, Any, Any] | None = None

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Put this agent's states in place; take them back at the end."""
        outside = _states()
        if self._states is not None:
            _set_states(self._states)
        try:
            yield
        finally:
            self._states = _states()
            _set_states(outside)


def _states() -> tuple[Any, Any, Any]:
    import torch

    return random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()  # noqa: NPY002


def _set_states(states: tuple[Any, Any, Any]) -> None:
    import torch

    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])
