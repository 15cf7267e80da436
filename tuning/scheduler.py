"""The Scheduler protocol: what to spend on next, when to stop, and which configuration wins."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import numpy as np

from policylab.registry import Registry
from policylab.tuning.decisions import Configuration, Decision
from policylab.tuning.history import History
from policylab.tuning.space import Space

Propose: TypeAlias = Callable[[], Configuration | None]
"""Asks the searcher for a configuration; None when it has none left."""

_OWN = "policylab.tuning.schedulers"

SCHEDULERS = Registry(
    "scheduler",
    {
        "fixed": f"{_OWN}.fixed:Fixed",
        "median": f"{_OWN}.median:Median",
        "hyperband": f"{_OWN}.hyperband:Hyperband",
        "asha": f"{_OWN}.asha:Asha",
        "race": f"{_OWN}.race:Race",
        "population": f"{_OWN}.population:Population",
    },
)
"""Name -> class with a ``Settings`` model and ``make(settings, horizon)``."""


@dataclasses.dataclass(frozen=True, slots=True)
class Horizon:
    """What a scheduler may plan with.

    Attributes:
        max_resource: resource of a full training.
        budget: resource the study may spend in all, or None.
        n_seeds: tuning seeds it may use.
        n_trials: configurations it may start, or None.
        timed: whether a clock ends the study; `History.paid_by_clock` then tells what it pays for, once that is known.
        space: what is searched, for schedulers that change configurations themselves, or None.
    """

    max_resource: int
    budget: int | None
    n_seeds: int
    n_trials: int | None = None
    timed: bool = False
    space: Space | None = None


class Scheduler(Protocol):
    """Decides on the evidence. Every answer is a function of the history and of ``rng`` alone."""

    def next(self, history: History, *, propose: Propose, rng: np.random.Generator) -> Sequence[Decision]:
        """Return the next decisions for one free place; ``[]`` when there is nothing to do until more is known.

        The study ends when nothing is running and the answer is ``[]``. At most one of the decisions begins work
        (it is the last one); any number before it may be `Stop`. ``rng`` is the same until work has begun.
        """
        ...

    def best(self, history: History) -> int | None:
        """Return the trial to select on the evidence so far, or None before the first result."""
        ...
