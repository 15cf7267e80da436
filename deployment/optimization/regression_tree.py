"""A regression tree grown by variance reduction, as the arrays of a `TreePolicy`.

With targets that are one-hot or probabilities, the squared error of a node is its Gini impurity (Breiman, Friedman,
Olshen, Stone, "Classification and regression trees" (1984), section 4.3), so that one rule grows both sorts of tree.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policylab.agents.tree_policy import LEAF

Floats = NDArray[np.float64]
MIN_ROWS = 5
"""In each leaf."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Split:
    feature: int
    threshold: float
    gain: float


def grow(x: Floats, y: Floats, *, depth: int) -> dict[str, NDArray[Any]]:
    """Return the tree of at most ``depth`` levels that predicts the rows of ``y`` from those of ``x``.

    Args:
        x: shape (n, n_features), finite.
        y: shape (n, n_outputs); leaves hold the mean of theirs.
        depth: at least 1.

    >>> tree = grow(np.arange(10.0)[:, None], (np.arange(10.0)[:, None] > 4.0) * 1.0, depth=3)
    >>> tree["threshold"].tolist(), tree["outputs"].ravel().tolist()
    ([4.5, 0.0, 0.0], [0.5, 0.0, 1.0])
    """
    nodes: list[tuple[int, float, int, int, Floats]] = []
    waiting: deque[tuple[NDArray[np.int64], int, int]] = deque([(np.arange(len(x)), 0, LEAF)])
    while waiting:  # level by level, so that children stand behind their parents
        rows, level, parent = waiting.popleft()
        node = len(nodes)
        if parent != LEAF:
            feature, threshold, left, _, mean = nodes[parent]
            nodes[parent] = (feature, threshold, left if left != LEAF else node, node if left != LEAF else LEAF, mean)
        split = _best(x[rows], y[rows]) if level < depth else None
        nodes.append((LEAF if split is None else split.feature, 0.0 if split is None else split.threshold,
                      LEAF, LEAF, y[rows].mean(axis=0)))  # fmt: skip
        if split is not None:
            left_rows = x[rows, split.feature] <= split.threshold
            waiting.extend([(rows[left_rows], level + 1, node), (rows[~left_rows], level + 1, node)])
    features, thresholds, lefts, rights, outputs = zip(*nodes, strict=True)
    whole = {"feature": features, "left": lefts, "right": rights}
    return {
        **{name: np.array(numbers, dtype=np.int32) for name, numbers in whole.items()},
        "threshold": np.array(thresholds, dtype=np.float64),
        "outputs": np.stack(outputs).astype(np.float32),
    }


def _best(x: Floats, y: Floats) -> _Split | None:
    """Return the split that reduces the squared error most, or None where none does."""
    if len(x) < 2 * MIN_ROWS or (y == y[0]).all():
        return None
    splits = [split for feature in range(x.shape[1]) if (split := _of_feature(x[:, feature], y, feature=feature))]
    return max(splits, key=lambda split: split.gain, default=None)


def _of_feature(numbers: Floats, y: Floats, *, feature: int) -> _Split | None:
    order = np.argsort(numbers, kind="stable")
    ordered, n = numbers[order], len(numbers)
    below = y[order].cumsum(axis=0)[:-1]
    counts = np.arange(1, n)[:, None]
    # What the squared error falls by is a sum of squares of means, up to what is the same for every split.
    score = (below**2 / counts + (below[-1] + y[order[-1]] - below) ** 2 / (n - counts)).sum(axis=1)
    possible = ordered[1:] > ordered[:-1]
    possible[: MIN_ROWS - 1] = possible[n - MIN_ROWS :] = False
    if not possible.any():
        return None
    place = int(np.where(possible, score, -np.inf).argmax())
    gain = float(score[place] - (y.sum(axis=0) ** 2).sum() / n)
    if gain <= 1e-9 * n:
        return None
    middle = 0.5 * (ordered[place] + ordered[place + 1])
    return _Split(feature, float(middle if middle < ordered[place + 1] else ordered[place]), gain)
