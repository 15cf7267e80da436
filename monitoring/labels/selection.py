"""Which pairs people should compare: those about which an ensemble of reward models disagrees most.

Source: Christiano et al., NeurIPS 2017, section 2.2.4: of many drawn pairs those with the largest variance across
members of the predicted preference.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policylab.envs.reward_model import RewardModel
from policylab.errors import UserError
from policylab.monitoring.labels.preference_model import PreferenceSettings, differences, preference, without_labels
from policylab.monitoring.labels.segments import Segments, parts_of
from policylab.seeding import generator

CANDIDATES_PER_PAIR = 10
MAX_USES = 5
"""Pairs that one segment may be in: a choice of the same few segments would teach little."""


def disagreement(model: RewardModel, segments: Segments, *, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the variance across members of the predicted preference, shape (K,): 0 to 1/4."""
    found: NDArray[np.float64] = preference(differences(model, segments, pairs=pairs)).var(axis=0)
    return found


def choose(model: RewardModel, segments: Segments, *, n_pairs: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the positions of the pairs of largest disagreement, in no order, shape (n, 2), n <= n_pairs.

    Args:
        model: an ensemble.
        segments: at least two different ones.
        n_pairs: how many are wanted, at least 1.
        rng: draws candidates, and which of two segments is first.

    Raises:
        UserError: there are too few segments, or none is wanted.
    """
    if n_pairs < 1:
        raise UserError(f"at least 1 pair must be asked for, got {n_pairs}")
    _, different = np.unique([segments.digest(row) for row in range(len(segments))], return_index=True)
    if len(different) < 2:
        raise UserError(f"pairs need two different segments, got {len(different)}; record more episodes")
    drawn = rng.choice(different, size=(CANDIDATES_PER_PAIR * n_pairs, 2))
    drawn = drawn[drawn[:, 0] != drawn[:, 1]]
    _, once = np.unique(np.sort(drawn, axis=1), axis=0, return_index=True)
    drawn = drawn[np.sort(once)]
    order = (-disagreement(model, segments, pairs=drawn)).argsort(kind="stable")
    uses: dict[int, int] = {}
    found: list[tuple[int, int]] = []
    for first, second in drawn[order].tolist():
        if len(found) < n_pairs and max(uses.get(first, 0), uses.get(second, 0)) < MAX_USES:
            found.append((first, second))
            uses[first], uses[second] = uses.get(first, 0) + 1, uses.get(second, 0) + 1
    # In no order: what people have labelled at any moment must be like what they have not.
    return rng.permutation(np.array(found, dtype=np.int64).reshape(-1, 2))


def select(
    segments: Segments, model: RewardModel | None = None, *, n_pairs: int, seed: int, name: int | str
) -> NDArray[np.int64]:
    """Return the pairs of segments that people should compare, shape (n, 2).

    Args:
        segments: at least two different ones.
        model: whose disagreement counts; None takes random ones.
        n_pairs: how many are wanted.
        seed: root of what is drawn.
        name: of the segments among others of the same seed.

    Raises:
        UserError: there are too few segments, or none is wanted.
    """
    if model is None:
        parts = parts_of(segments.about, ("observation", "action"))
        model = without_labels(segments, parts=parts, settings=PreferenceSettings(seed=seed))
    return choose(model, segments, n_pairs=n_pairs, rng=generator(seed, "candidates", name))
