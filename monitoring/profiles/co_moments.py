"""`CoMoments`: how columns of numbers go together, whatever each is like by itself; in bounded memory, mergeable.

| symbol | meaning | shape |
|---|---|---|
| z | normal scores of the baseline (`policylab.monitoring.profiles.scores`) | |
| n, S, Q, C | Σ 1, Σ z_i, Σ z_i², Σ z_i z_j over the rows that hold i and j: sums, which merge exactly | (p, p) |
| r | Pearson's correlation of the scores | (p, p) |
| ψ | what a row adds to r: z_i z_j - r/2 (z_i² + z_j²), z standardised | |
| σ² | variance of the means of batches of ψ, times the length of a batch | (p, p) |

The standard error of r is σ / sqrt(n), also where successive rows resemble each other: a batch lasts five
autocorrelation times of both columns and of their squares. σ² comes from the first `OPENING` rows, as the
autocorrelation times of columns do. Of these every row is taken, of later pieces at most as many, drawn evenly, which
count for the rest: at a million rows the error is far below a change that matters.

Source: Künsch, Annals of Statistics 17 (1989); Devlin, Gnanadesikan and Kettenring, Biometrika 62 (1975) (influence).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from policylab.monitoring.profiles.autocorrelation import autocorrelation_time
from policylab.monitoring.profiles.cells import Cells
from policylab.monitoring.profiles.scores import Scores
from policylab.seeding import generator

Floats = NDArray[np.float64]
OPENING = 16_384
MAX_COLUMNS = 64
"""Columns whose correlations are kept, the first ones of numbers."""
LEAST_PRESENT = 0.5
MAX_BATCHES, MIN_BATCHES = 128, 8
TIMES = 5.0


class CoMoments:
    """See the module.

    Args:
        scores: of the baseline; None takes those of the first rows.

    Attributes:
        scores: None before they are known.
        sums: n, Σ weight², S, Q, C, shape (5, p, p).
        variance: σ²; NaN where there were too few rows for an estimate, shape (p, p).
        degrees: of freedom of σ², shape (p, p).
    """

    def __init__(self, scores: Scores | None = None) -> None:
        self.scores = scores
        self.sums = np.zeros((5, 0, 0))
        self.variance, self.degrees = np.zeros((0, 0)), np.zeros((0, 0))
        self._waiting: list[dict[str, Floats]] | None = []
        self._n_waiting = 0
        self._rng = generator(0, "co-moments")
        if scores is not None:
            self._begin(scores)

    def alike(self) -> CoMoments:
        """Return empty moments of the same scores, which can be compared with these."""
        self.settle()
        return CoMoments(self.scores)

    def _begin(self, scores: Scores) -> None:
        p = len(scores.names)
        self.scores, self.sums = scores, np.zeros((5, p, p))
        self.variance, self.degrees = np.full((p, p), np.nan), np.zeros((p, p))

    def update(self, chunk: Mapping[str, Cells]) -> None:
        """Take some more rows."""
        n, start = max((cells.n for cells in chunk.values()), default=0), 0
        if self._waiting is not None:
            start = min(n, OPENING - self._n_waiting)
            self._wait(chunk, start)
        if start == n:
            return
        step = math.ceil((n - start) / OPENING)
        rows = np.arange(start, n, step)
        if step > 1:
            rows = np.minimum(rows + self._rng.integers(step, size=len(rows)), n - 1)  # no period of the data is met
        assert self.scores is not None
        nothing = np.full(len(rows), np.nan)
        columns = [chunk[name].spread()[rows] if name in chunk else nothing for name in self.scores.names]
        self._add(columns, weight=(n - start) / len(rows))

    def _wait(self, chunk: Mapping[str, Cells], n: int) -> None:
        assert self._waiting is not None
        known = dict.fromkeys(name for part in self._waiting for name in part)
        if self.scores is None:
            new = [name for name, cells in chunk.items() if cells.numbers.size and name not in known]
            names = {*known, *new[: MAX_COLUMNS - len(known)]}
        else:
            names = set(self.scores.names)
        self._waiting.append({name: chunk[name].spread()[:n] for name in chunk if name in names})
        self._n_waiting += n
        if self._n_waiting == OPENING:
            self.settle()

    def settle(self) -> None:
        """Count what has waited; scores are fixed from then on, and so is σ²."""
        waiting, self._waiting = self._waiting, None
        if not waiting:
            return
        sizes = [max((len(x) for x in part.values()), default=0) for part in waiting]
        names = list(dict.fromkeys(name for part in waiting for name in part))
        columns = {
            name: np.concatenate([part.get(name, np.full(n, np.nan)) for part, n in zip(waiting, sizes, strict=True)])
            for name in names
        }
        if self.scores is None:
            self._begin(Scores.of(columns, least_present=LEAST_PRESENT))
            assert self.scores is not None
        nothing = np.full(sum(sizes), np.nan)
        z, present = self._add([columns.get(name, nothing) for name in self.scores.names], weight=1.0)
        self.variance, self.degrees = _long_run(z, present)

    def _add(self, columns: list[Floats], *, weight: float) -> tuple[Floats, Floats]:
        """Add rows that count ``weight`` each; return their scores and where there are any, shapes (n, p)."""
        assert self.scores is not None
        if not columns or not len(columns[0]):
            return np.zeros((0, len(columns))), np.zeros((0, len(columns)))
        z, present = self.scores(columns)
        n = present.T @ present
        self.sums += np.stack(
            [weight * n, weight**2 * n, *(weight * one for one in (z.T @ present, (z * z).T @ present, z.T @ z))]
        )
        return z, present

    def merge(self, other: CoMoments) -> None:
        """Take all that ``other`` has seen; of other scores nothing can be taken, and nothing is left."""
        self.settle()
        other.settle()
        if other.scores is None:
            return
        if self.scores is None:
            self._begin(other.scores)
        if self.scores != other.scores:
            self._begin(Scores((), ()))
            return
        weights = [side.worth * np.nan_to_num(side.variance) for side in (self, other)]
        counted = [np.where(np.isnan(side.variance), 0.0, side.worth) for side in (self, other)]
        freedom = [np.maximum(side.degrees, 1.0) for side in (self, other)]
        with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 is NaN: no estimate
            self.variance = (weights[0] + weights[1]) / (counted[0] + counted[1])
            found = (weights[0] + weights[1]) ** 2 / (weights[0] ** 2 / freedom[0] + weights[1] ** 2 / freedom[1])
        self.degrees = np.nan_to_num(found)  # Satterthwaite's
        self.sums = self.sums + other.sums

    @property
    def worth(self) -> Floats:
        """How many rows of equal weight the rows of each pair are worth, shape (p, p)."""
        n, squares = self.sums[:2]
        return np.asarray(np.divide(n * n, squares, out=np.zeros_like(n), where=squares > 0))

    def correlation(self) -> Floats:
        """Return r, shape (p, p); NaN where a column does not vary."""
        self.settle()
        n, _, s, q, c = self.sums
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = q - s * s / n
            scale = np.sqrt(spread * spread.T)
            found = np.where((spread > 1e-9 * n) & (1e-9 * n < spread.T), (c - s * s.T / n) / scale, np.nan)
        return np.asarray(np.clip(found, -1.0, 1.0))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the sums as arrays; the reverse of `from_arrays`. The names are left out."""
        self.settle()
        scores = Scores((), ()) if self.scores is None else self.scores
        return {**scores.arrays(), "sums": self.sums, "variance": self.variance, "degrees": self.degrees}

    @classmethod
    def from_arrays(cls, names: list[str], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return what `arrays` described.

        Raises:
            KeyError, ValueError: the arrays do not describe any.
        """
        found = cls(Scores.from_arrays(names, arrays))
        found._waiting = None
        p = len(names)
        found.sums, found.variance, found.degrees = (arrays[key] for key in ("sums", "variance", "degrees"))
        shapes = [found.sums.shape == (5, p, p), found.variance.shape == (p, p), found.degrees.shape == (p, p)]
        if not all(shapes) or not np.isfinite(found.sums).all() or (found.sums[:2] < 0).any():
            raise ValueError("the sums of pairs are impossible")
        return found


def _long_run(z: Floats, present: Floats) -> tuple[Floats, Floats]:
    """Return σ² and its degrees of freedom, shapes (p, p), of scores and where there are any, shapes (n, p)."""
    n, p = z.shape
    variance, degrees = np.full((p, p), np.nan), np.zeros((p, p))
    length = math.ceil(n / MAX_BATCHES)
    if not p or n < MIN_BATCHES:
        return variance, degrees
    count = np.maximum(present.sum(axis=0), 1.0)
    z = (z - z.sum(axis=0) / count) * present
    deviation = np.sqrt((z * z).sum(axis=0) / count)
    z = np.divide(z, deviation, out=np.zeros_like(z), where=deviation > 0)
    lasting = np.array([max(autocorrelation_time(x), autocorrelation_time(x * x)) for x in z.T])
    needed = np.where(lasting < 2.0, 1, np.ceil(TIMES * lasting))
    needed = np.maximum(needed[:, None], needed)
    psi, rows = _batches(z, present, length=length)
    while len(psi) >= MIN_BATCHES:
        total = np.maximum(rows.sum(axis=0), 1.0)
        means = psi.sum(axis=0) / total
        found = ((psi - rows * means) ** 2).sum(axis=0) / total * len(psi) / (len(psi) - 1)
        chosen = np.isnan(variance) & (length >= needed)
        variance[chosen], degrees[chosen] = found[chosen], len(psi) - 1
        half = len(psi) // 2
        psi, rows = (one[: 2 * half].reshape(half, 2, p, p).sum(axis=1) for one in (psi, rows))
        length *= 2
    return variance, degrees


def _batches(z: Floats, present: Floats, *, length: int) -> tuple[Floats, Floats]:
    """Return the sums of ψ and the counts of rows of successive batches, shapes (B, p, p)."""
    p = z.shape[1]
    whole = len(z) // length * length
    of_batch = [one[:whole].reshape(-1, length, p) for one in (z, z * z, present)]
    values, squares, there = of_batch
    products = values.transpose(0, 2, 1) @ values
    own = squares.transpose(0, 2, 1) @ there
    rows = there.transpose(0, 2, 1) @ there
    sizes = own.sum(axis=0)
    scale = np.sqrt(sizes * sizes.T)
    with np.errstate(divide="ignore", invalid="ignore"):
        r = products.sum(axis=0) / scale
        psi = (products - r / 2 * (own + own.transpose(0, 2, 1))) * (rows.sum(axis=0) / scale)
    return psi, rows
