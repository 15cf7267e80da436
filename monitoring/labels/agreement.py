"""Agreement of labellers beyond chance: Cohen's kappa of two, Fleiss' kappa of several.

κ = (P - P_e) / (1 - P_e) with P the share of agreement and P_e what chance would give. NaN where all labels are the
same choice, since then chance alone would agree.

Source: Cohen, Educational and Psychological Measurement 20 (1960); Fleiss, Psychological Bulletin 76 (1971).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> float:
    """Return the agreement of two labellers on the same pairs.

    >>> cohen_kappa(["first", "first", "second", "second"], ["first", "first", "second", "first"])
    0.5
    """
    choices = sorted({*first, *second})
    n = len(first)
    if not n:
        return float("nan")
    agreed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    chance = sum(first.count(choice) * second.count(choice) for choice in choices) / n**2
    return (agreed - chance) / (1 - chance) if chance < 1 else float("nan")


def fleiss_kappa(counts: ArrayLike) -> float:
    """Return the agreement of several labellers.

    Args:
        counts: how many chose each choice for each pair, shape (n_pairs, n_choices); rows have one sum, at least 2.
    """
    table = np.asarray(counts, dtype=np.float64)
    n_labels = table.sum(axis=1)
    if not len(table) or n_labels.min() < 2 or n_labels.min() != n_labels.max():
        return float("nan")
    n = n_labels[0]
    agreed = float((((table**2).sum(axis=1) - n) / (n * (n - 1))).mean())
    chance = float(((table.sum(axis=0) / table.sum()) ** 2).sum())
    return (agreed - chance) / (1 - chance) if chance < 1 else float("nan")
