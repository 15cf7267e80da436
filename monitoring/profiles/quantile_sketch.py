"""`QuantileSketch`: the distribution of a stream of numbers in bounded memory, mergeable, with a stated error.

A randomised compactor hierarchy. Values are sorted in blocks; of each block every 8th value is kept, from a random
offset, with the weight 8. Values of weight 2^i stand on level i; a level that has grown to twice the capacity is sorted
and every second value promoted, from a random offset. A stream of few different numbers keeps their exact counts.

Keeping every w-th of a sorted run changes the rank of any x by a random number of mean 0 within an interval of width w
(Hermite's identity). All such numbers are independent, so with V = Σ (w · weight)² over all that was compacted

    P(|rank error of x| >= t) <= 2 exp(-2 t² / V)                                    (Hoeffding 1963, theorem 2)

and for all x at once a union over a grid of ranks. V is added up as it happens, also over merges: the stated error is
that of this sketch, not of the worst one. It is 0 as long as nothing was compacted.

Apache DataSketches' KLL sketch is the well-kept alternative: it takes 1.3 times as long per value, its random numbers
cannot be seeded (equal data would not leave equal files), and its error is an a-priori one.

Source: Agarwal et al., "Mergeable summaries", ACM TODS 38 (2013), section 3; Karnin, Lang and Liberty, FOCS 2016.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CAPACITY = 2_048
STEP = 8
BLOCK = STEP * CAPACITY
"""Values that are sorted at once: large enough to lose little, small enough for the processor's cache."""
MAX_FEW = 256
"""So many different numbers have exact counts."""
CONFIDENCE = 0.99
GRID = 10 * CAPACITY


class QuantileSketch:
    """See the module. Values must be finite.

    Args:
        rng: chooses the offsets.

    >>> sketch = QuantileSketch(np.random.default_rng(0))
    >>> sketch.update(np.arange(100_000, dtype=float))
    >>> bool(abs(sketch.quantiles(np.array([0.5]))[0] - 50_000) <= sketch.rank_error() * 100_000)
    True
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.n = 0
        self.variance = 0.0
        self._rng = rng
        self._few: dict[float, int] | None = {}
        self._levels: list[Floats] = []
        self._pending: list[Floats] = []
        self._n_pending = 0
        self._kept: tuple[Floats, NDArray[np.int64]] | None = None  # what `weighted` found, until something is added

    def update(self, values: Floats) -> None:
        """Take finite values, shape (n,)."""
        self._kept = None
        self.n += len(values)
        self._n_pending += len(values)
        self._pending.append(values)
        if self._n_pending >= BLOCK:
            waiting = np.concatenate(self._pending) if len(self._pending) > 1 else self._pending[0]
            whole = len(waiting) // BLOCK * BLOCK
            for block in waiting[:whole].reshape(-1, BLOCK):
                self._take(np.sort(block))
            self._pending, self._n_pending = [waiting[whole:].copy()], len(waiting) - whole

    def merge(self, other: QuantileSketch) -> None:
        """Take all that ``other`` has seen; its error is taken over too."""
        self._kept, other = None, other.settled()
        self.n += other.n
        self.variance += other.variance
        if other._few is not None:
            self._add_counts(other._few)
        for level, values in enumerate(other._levels):
            self._spill()
            self._put(level, values)

    def settled(self) -> QuantileSketch:
        """Return an equal sketch that holds no unsorted values: small, and ready to be written."""
        found = QuantileSketch(self._rng)
        found.n, found.variance = self.n, self.variance
        found._few = None if self._few is None else dict(self._few)
        found._levels = list(self._levels)
        if self._n_pending:
            waiting = np.concatenate(self._pending)
            step = 1
            while len(waiting) // step > CAPACITY:
                step *= 2
            whole = len(waiting) // step * step
            found._take(np.sort(waiting[:whole]), step=step)
            if whole < len(waiting):
                found._take(np.sort(waiting[whole:]), step=1)
        return found

    def weighted(self) -> tuple[Floats, NDArray[np.int64]]:
        """Return the kept values in order and how many values each stands for, shapes (k,); the sum is ``n``."""
        if self._kept is not None:
            return self._kept
        parts = [(values, 2**level) for level, values in enumerate(self._levels) if values.size]
        parts += [(values, 1) for values in self._pending if values.size]
        values = [values for values, _ in parts]
        weights = [np.full(len(values), weight, dtype=np.int64) for values, weight in parts]
        if self._few:
            values.append(np.array(list(self._few), dtype=np.float64))
            weights.append(np.array(list(self._few.values()), dtype=np.int64))
        if not values:
            return np.empty(0), np.empty(0, dtype=np.int64)
        flat, weight = np.concatenate(values), np.concatenate(weights)
        order = flat.argsort(kind="stable")
        self._kept = flat[order], weight[order]
        return self._kept

    def counts(self) -> dict[float, int] | None:
        """Return the exact count of each different number, in order; None if there are more than `MAX_FEW`."""
        if self._few is None:
            return None
        values, weights = self.weighted()
        different, index = np.unique(values, return_inverse=True)
        if len(different) > MAX_FEW:
            return None
        return dict(zip(different.tolist(), np.bincount(index, weights=weights).astype(int).tolist(), strict=True))

    def quantiles(self, shares: Floats) -> Floats:
        """Return the smallest kept values below which at least the given shares lie, in [0, 1]; shape as ``shares``.

        Raises:
            ValueError: the sketch is empty.
        """
        values, weights = self.weighted()
        if not values.size:
            raise ValueError("an empty sketch has no quantiles")
        ranks = weights.cumsum() / self.n
        return np.asarray(values[np.searchsorted(ranks, np.asarray(shares) - 1e-12).clip(max=len(values) - 1)])

    def rank_error(self, confidence: float = CONFIDENCE, *, n_points: int | None = None) -> float:
        """Return a bound on |estimated - true share of values <= x| with this confidence.

        Args:
            confidence: that the bound holds, in (0, 1).
            n_points: for so many x at once, chosen beforehand; None for all x.
        """
        if self.variance == 0 or self.n == 0:
            return 0.0
        for_grid = np.log(2 * (n_points or GRID) / (1 - confidence))
        return float(np.sqrt(for_grid * self.variance / 2) / self.n + (0.0 if n_points else 1 / GRID))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the settled sketch as arrays; the reverse of `from_arrays`."""
        settled = self.settled()
        few = settled._few if settled._few is not None else {}
        return {
            "facts": np.array([settled.n, settled.variance, settled._few is not None], dtype=np.float64),
            "few": np.array([[value, count] for value, count in few.items()], dtype=np.float64).reshape(-1, 2),
            "sizes": np.array([len(values) for values in settled._levels], dtype=np.int64),
            "values": np.concatenate([np.empty(0), *settled._levels]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], *, rng: np.random.Generator) -> Self:
        """Return the sketch that `arrays` described.

        Raises:
            ValueError: the arrays do not describe one.
        """
        n, variance, exact = arrays["facts"].tolist()
        sizes, few = arrays["sizes"], arrays["few"]
        found = cls(rng)
        found.n, found.variance = int(n), float(variance)
        found._few = {value: int(count) for value, count in few.tolist()} if exact else None
        found._levels = np.split(arrays["values"].astype(np.float64), sizes.cumsum()[:-1]) if sizes.size else []
        values, weights = found.weighted()
        if weights.sum() != found.n or not np.isfinite(values).all() or (weights < 0).any() or not variance >= 0:
            raise ValueError("the values of the sketch do not add up")
        return found

    def levels(self) -> list[Floats]:
        """Return the kept values, those on level i standing for 2^i values each."""
        settled = self.settled()
        settled._spill()
        return settled._levels

    def _take(self, ordered: Floats, *, step: int = STEP) -> None:
        """Take a sorted run whose length is a multiple of ``step``."""
        if self._few is not None:
            ends = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])
            if len(ends) <= MAX_FEW:
                counts = np.diff(np.r_[-1, ends])
                self._add_counts(dict(zip(ordered[ends].tolist(), counts.tolist(), strict=True)))
                return
            self._spill()
        if step > 1:
            self.variance += float(step) ** 2
            ordered = ordered[int(self._rng.integers(step)) :: step]
        self._put(step.bit_length() - 1, ordered)

    def _add_counts(self, counts: Mapping[float, int]) -> None:
        if self._few is None:
            self._put_counts(counts)
            return
        for value, count in counts.items():
            self._few[value] = self._few.get(value, 0) + count
        if len(self._few) > MAX_FEW:
            self._spill()

    def _spill(self) -> None:
        """Give up exact counts: put what was counted on the levels."""
        few, self._few = self._few, None
        if few:
            self._put_counts(few)

    def _put_counts(self, counts: Mapping[float, int]) -> None:
        values = np.array(list(counts), dtype=np.float64)
        each = np.array(list(counts.values()), dtype=np.int64)
        for level in range(int(each.max(initial=0)).bit_length()):
            self._put(level, np.sort(values[(each >> level) & 1 == 1]))

    def _put(self, level: int, values: Floats) -> None:
        """Put values on a level, and promote half of it as long as one is full."""
        while values.size:
            while len(self._levels) <= level:
                self._levels.append(np.empty(0))
            together = np.concatenate([self._levels[level], values])
            if len(together) < 2 * CAPACITY:
                self._levels[level] = together
                return
            left = together[:0]
            if len(together) % 2:
                chosen = int(self._rng.integers(len(together)))
                left, together = together[chosen : chosen + 1], np.delete(together, chosen)
            together.sort(kind="stable")  # merges the runs it is made of
            self._levels[level] = left
            self.variance += float(2 ** (level + 1)) ** 2
            values, level = together[int(self._rng.integers(2)) :: 2], level + 1


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """Two distribution functions on the same points, from two sketches.

    Attributes:
        points: all values that either sketch keeps, increasing, shape (k,).
        first: share of values <= point in the first sketch, shape (k,).
        second: in the second one.
    """

    points: Floats
    first: Floats
    second: Floats

    @classmethod
    def of(cls, first: QuantileSketch, second: QuantileSketch) -> Steps:
        """Return the functions of two sketches that are not empty."""
        kept = [sketch.weighted() for sketch in (first, second)]
        points = np.unique(np.concatenate([values for values, _ in kept]))
        return cls(points, *(share_below(values, weights, points=points) for values, weights in kept))


def share_below(values: Floats, weights: NDArray[np.int64], *, points: Floats) -> Floats:
    """Return the share of the weight on values <= each point, shape as ``points``."""
    ranks = np.concatenate([[0], weights.cumsum()])
    found: Floats = ranks[np.searchsorted(values, points, side="right")] / ranks[-1]
    return found
