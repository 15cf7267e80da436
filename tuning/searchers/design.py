"""Points chosen before anything is known: the default, Sobol points, uniform draws; and which are new."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Set
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from policylab.seeding import generator
from policylab.tuning.history import History
from policylab.tuning.space import Space, configuration_key

MAX_REDRAWS = 200
"""Draws before a countable space is listed."""

MAX_MORE = 5_000
"""Further draws in one that is not."""

MAX_SOBOL_POINTS = 2**16
"""Points of a Sobol sequence looked at in search of feasible ones."""


def opening(space: Space, history: History) -> dict[str, Any] | None:
    """Return the default configuration while nothing was tried, else None."""
    return None if history.trials or space.default is None else dict(space.default)


@dataclasses.dataclass(slots=True)
class _Tried:
    """What was tried among the first ``n_trials`` of a study, whose configurations never change."""

    n_trials: int = 0
    keys: set[str] = dataclasses.field(default_factory=set)


_TRIED: WeakKeyDictionary[History, _Tried] = WeakKeyDictionary()


def tried(history: History) -> Set[str]:
    """Return the key of every configuration of the study; see `configuration_key`."""
    known = _TRIED.setdefault(history, _Tried())
    fresh = itertools.islice(history.trials.values(), known.n_trials, None)
    known.keys.update(configuration_key(trial.configuration) for trial in fresh)
    known.n_trials = len(history.trials)
    return known.keys


def first_new(space: Space, history: History, *, candidates: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the first candidate that was not tried yet, or None.

    Trying a configuration again is the scheduler's business (one more seed), not the searcher's. Where draws do not
    repeat nothing is compared.
    """
    if not space.repeats:
        return next(iter(candidates), None)
    known = tried(history)
    return next((found for found in candidates if configuration_key(found) not in known), None)


def uniform(space: Space, history: History, *, rng: np.random.Generator) -> dict[str, Any] | None:
    """Return a new configuration, uniform on the parameters' scales; None when a finite space has none left.

    Of infinitely many configurations one is repeated where thousands of draws find none that is new.
    """
    n_draws = MAX_REDRAWS + (0 if space.countable else MAX_MORE)
    found = first_new(space, history, candidates=(space.sample(rng) for _ in range(n_draws)))
    if found is not None:
        return found
    if not space.countable:
        return space.sample(rng) if space.size is None else None
    known = tried(history)
    left = [point for point in space.listed() if configuration_key(point) not in known]
    return left[int(rng.integers(len(left)))] if left else None


def sobol(space: Space, history: History, *, rng: np.random.Generator) -> dict[str, Any] | None:
    """Return the study's next scrambled Sobol point, or a uniform draw where the sequence has no new one.

    A sequence must keep its scrambling, while every suggestion has a stream of its own: the scrambling is keyed by
    what the streams of one study share, the entropy at their root.
    """
    entropy = getattr(rng.bit_generator.seed_seq, "entropy", None)
    entropy = entropy if isinstance(entropy, int) else 0
    position = max(0, history.proposed - (space.default is not None))
    points = itertools.islice(_feasible_sobol(space, entropy), position, position + MAX_REDRAWS)
    found = first_new(space, history, candidates=map(space.from_unit, points))
    return found or uniform(space, history, rng=rng)


def _feasible_sobol(space: Space, entropy: int) -> Iterable[np.ndarray]:
    n_seen = 0
    for exponent in itertools.count(6):
        block = sobol_points(len(space.paths), exponent=exponent, entropy=entropy)[n_seen:]
        yield from block[space.feasible(block)]
        n_seen += len(block)
        if n_seen >= MAX_SOBOL_POINTS:
            return


@functools.lru_cache(maxsize=64)
def sobol_points(n_dimensions: int, *, exponent: int, entropy: int) -> np.ndarray:
    """Return the first ``2 ** exponent`` points of the scrambled Sobol sequence that ``entropy`` names."""
    from scipy.stats import qmc  # takes longer to import than all the rest of a random search

    engine = qmc.Sobol(n_dimensions, scramble=True, rng=generator(entropy, "sobol"))
    points: np.ndarray = engine.random_base2(exponent)
    points.flags.writeable = False
    return points
