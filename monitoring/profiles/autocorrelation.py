"""How many successive values of a stream are worth one independent value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MIN_FOR_TIME = 12
N_FOR_TIME = 16_384
"""Values from which the autocorrelation is estimated: the first ones, in their order."""
COMMON, MAX_COMMON = 0.01, 8
"""Categories whose autocorrelation is estimated: those of at least this share, the most frequent ones."""


class FirstValues:
    """The autocorrelation time of the first `N_FOR_TIME` values of a stream, in whatever pieces they come.

    Args:
        estimate: returns the time of pieces in their order.
    """

    def __init__(self, estimate: Callable[[Sequence[Any]], float]) -> None:
        self._estimate = estimate
        self._pieces: list[Any] = []
        self._n = self._n_measured = 0
        self._time = 1.0

    def take(self, piece: Any) -> None:
        """Take some more values, something with a length and slices."""
        if self._n < N_FOR_TIME and len(piece):
            self._pieces.append(piece[: N_FOR_TIME - self._n])
            self._n += len(self._pieces[-1])
            if self._n == N_FOR_TIME:
                self.fix(self.time)

    @property
    def time(self) -> float:
        """At least 1."""
        if self._n_measured < self._n:
            self._time, self._n_measured = self._estimate(self._pieces), self._n
        return self._time

    def fix(self, time: float) -> None:
        """Let the time be what it is said to be, whatever values follow; those that were kept are forgotten."""
        self._time, self._pieces = time, []
        self._n = self._n_measured = N_FOR_TIME


def of_numbers(pieces: Sequence[Floats]) -> float:
    """Return the time of numbers in pieces, shapes (n,)."""
    x = np.concatenate(pieces).astype(np.float64)
    return autocorrelation_time(x) if x.min() < x.max() else 1.0


def of_texts(pieces: Sequence[Any]) -> float:
    """Return the time of texts in pieces, arrow arrays without nulls."""
    texts = np.concatenate([np.asarray(one.to_pylist(), dtype=object) for one in pieces])
    return categories_time(np.unique(texts, return_inverse=True)[1])


def categories_time(codes: NDArray[np.int64]) -> float:
    """Return how many successive categories are worth one independent one: of the common one that lasts longest.

    Args:
        codes: of the categories in the order of time, from 0, shape (n,).
    """
    counts = np.bincount(codes)
    common = [code for code in np.argsort(-counts)[:MAX_COMMON] if counts[code] >= COMMON * len(codes)]
    return max((autocorrelation_time((codes == code).astype(np.float64)) for code in common), default=1.0)


def autocorrelation_time(x: Floats) -> float:
    """Return τ = 1 + 2 Σ ρ_k, how many successive values are worth one independent value, at least 1.

    The sum ends where the sum of two neighbouring autocorrelations is no longer positive, and its terms may not grow:
    the initial monotone sequence.

    Args:
        x: successive values, shape (n,).

    Source: Geyer, "Practical Markov chain Monte Carlo", Statistical Science 7 (1992), section 3.3.

    >>> autocorrelation_time(np.ones(100))
    1.0
    """
    n = len(x)
    if n < MIN_FOR_TIME:
        return 1.0
    scale = float(np.abs(x).max())
    centred = x / scale - (x / scale).mean() if scale > 0 else x
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(centred, size)
    covariance = np.fft.irfft(spectrum * spectrum.conj(), size)[:n]
    if covariance[0] <= 1e-20 * n:
        return 1.0
    rho = covariance / covariance[0]
    pairs = rho[: 2 * (n // 6)].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs <= 0)
    pairs = np.minimum.accumulate(pairs[: negative[0]] if negative.size else pairs)
    return float(max(1.0, 2.0 * pairs.sum() - 1.0))
