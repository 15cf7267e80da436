"""`Counts`: the table of facet, label, prediction and group that every bias metric but one is a function of.

| symbol | meaning |
|---|---|
| a, d | favoured and disfavoured facet, positions 0 and 1 of the first axis |
| l | value of the label; some values are the positive outcome |
| n(1), n(0) | rows with the positive and the other outcomes; n'(.) of the prediction |

Counts may have leading axes: those of resampled tables. Resampling rows with replacement is drawing the table from the
multinomial distribution with the observed shares, so that a bootstrap costs the same for a thousand and a billion rows.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from policylab.monitoring.profiles.autocorrelation import N_FOR_TIME, categories_time

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """Rows by facet, label value, prediction and group.

    Attributes:
        table: shape (..., 2, L, 2, G): facet (a, d), label value, prediction (refused, accepted), group. Without
            predictions all stand under 0; without groups G is 1.
        positive: which label values are the positive outcome, shape (L,).
        time: how many successive rows are worth one independent one, at least 1.
    """

    table: Floats
    positive: NDArray[np.bool_]
    time: float = 1.0

    def of_facet(self) -> Floats:
        """Return na and nd, shape (..., 2)."""
        return np.asarray(self.table.sum(axis=(-3, -2, -1)))

    def of_label(self) -> Floats:
        """Return the rows of each facet and label value, shape (..., 2, L)."""
        return np.asarray(self.table.sum(axis=(-2, -1)))

    def confusion(self) -> Floats:
        """Return the rows of each facet, outcome (0, 1) and prediction (0, 1), shape (..., 2, 2, 2)."""
        over_groups = self.table.sum(axis=-1)
        negative, positive = (over_groups[..., rows, :].sum(axis=-2) for rows in (~self.positive, self.positive))
        return np.stack([negative, positive], axis=-2)

    def outcomes_by_group(self, *, predicted: bool) -> Floats:
        """Return the rows of each facet, outcome (0, 1) and group, shape (..., 2, 2, G)."""
        if predicted:
            return np.asarray(self.table.sum(axis=-3))
        over_predictions = self.table.sum(axis=-2)
        parts = [over_predictions[..., rows, :].sum(axis=-2) for rows in (~self.positive, self.positive)]
        return np.stack(parts, axis=-2)

    def resampled(self, n_resamples: int, *, rng: np.random.Generator) -> Counts:
        """Return ``n_resamples`` tables of as many rows as these are worth, drawn with replacement."""
        n = int(self.table.sum())
        drawn = rng.multinomial(max(1, round(n / self.time)), self.table.ravel() / n, size=n_resamples)
        return dataclasses.replace(self, table=drawn.reshape(n_resamples, *self.table.shape).astype(np.float64))


def tabulated(
    facet_d: NDArray[np.bool_],
    label: NDArray[np.int64],
    *,
    positive: NDArray[np.bool_],
    predicted: NDArray[np.bool_] | None = None,
    group: NDArray[np.int64] | None = None,
) -> Counts:
    """Return the counts of N rows.

    Args:
        facet_d: which rows belong to the disfavoured facet, shape (N,).
        label: the label value of each row as an index below L, shape (N,).
        positive: which label values are positive, shape (L,).
        predicted: which rows are predicted to be positive, shape (N,).
        group: of each row, from 0, shape (N,).
    """
    n_groups = 1 if group is None else int(group.max(initial=0)) + 1
    shape = (2, len(positive), 2, n_groups)
    nothing = np.zeros(len(label), dtype=np.int64)
    of_prediction = nothing if predicted is None else predicted.astype(np.int64)
    cell = np.ravel_multi_index(
        (facet_d.astype(np.int64), label, of_prediction, nothing if group is None else group), shape
    )
    table = np.bincount(cell, minlength=int(np.prod(shape))).reshape(shape).astype(np.float64)
    return Counts(table, positive, time=categories_time(cell[:N_FOR_TIME]))
