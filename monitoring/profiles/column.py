"""`ColumnProfile`: what one column of a table holds, in bounded memory and mergeable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from policylab.monitoring.profiles.cells import Cells
from policylab.monitoring.profiles.quantile_sketch import QuantileSketch

Floats = NDArray[np.float64]
Type = Literal["Integral", "Fractional", "String", "Unknown"]
MAX_CATEGORIES = 10_000
"""Different texts that are counted; further ones are counted together."""
CONFORMING = 0.9
"""Share of the present values that must be of a type for the column to be of it (1 - SageMaker's threshold of 0.1)."""
MIN_FOR_TIME = 12
N_FOR_TIME = 16_384
"""Values from which the autocorrelation is estimated: the first ones, in their order."""


class ColumnProfile:
    """Counts, types, moments, distribution and categories of a column.

    Attributes:
        n_missing: empty cells, NaN and infinities.
        n_infinite: infinities.
        n_whole: numbers of a whole type.
        mean: of the numbers.
        m2: sum of squared deviations from the mean.
        low: smallest number; infinity without any.
        high: largest number.
        sketch: distribution of the numbers.
        texts: count of each text, of the first `MAX_CATEGORIES` different ones.
        n_other_texts: texts that are not counted one by one.
        autocorrelation_time: how many successive numbers are worth one independent one, at least 1.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.n_missing = 0
        self.n_infinite = 0
        self.n_whole = 0
        self.mean = 0.0
        self.m2 = 0.0
        self.low, self.high = np.inf, -np.inf
        self.sketch = QuantileSketch(rng)
        self.texts: Counter[str] = Counter()
        self.n_other_texts = 0
        self.autocorrelation_time = 1.0

    @property
    def n_numbers(self) -> int:
        """Finite numbers."""
        return self.sketch.n

    @property
    def n_texts(self) -> int:
        """Texts that are no numbers."""
        return self.texts.total() + self.n_other_texts

    @property
    def n_present(self) -> int:
        """Numbers and texts."""
        return self.n_numbers + self.n_texts

    @property
    def n(self) -> int:
        """Rows."""
        return self.n_present + self.n_missing

    @property
    def completeness(self) -> float:
        """Share of the rows that hold a value; 1 for no rows."""
        return self.n_present / self.n if self.n else 1.0

    @property
    def std_dev(self) -> float:
        """Standard deviation of the numbers (of the population, as Deequ's)."""
        return float(np.sqrt(self.m2 / self.n_numbers)) if self.n_numbers else 0.0

    @property
    def type(self) -> Type:
        """The narrowest type that `CONFORMING` of the present values are of."""
        if not self.n_present:
            return "Unknown"
        if self.share_of("Integral") >= CONFORMING:
            return "Integral"
        return "Fractional" if self.share_of("Fractional") >= CONFORMING else "String"

    def share_of(self, type_: Type) -> float:
        """Return the share of present values that are of a type: a whole number is a fractional one, all are text."""
        n_conforming = {"Integral": self.n_whole, "Fractional": self.n_numbers}.get(type_, self.n_present)
        return n_conforming / self.n_present if self.n_present else 1.0

    def categories(self) -> dict[str, int] | None:
        """Return the count of each different value as text; None if there are too many to count."""
        counts = self.sketch.counts()
        if counts is None or self.n_other_texts:
            return None
        whole = self.n_whole == self.n_numbers
        numbers = {str(int(value)) if whole else repr(value): count for value, count in counts.items()}
        return dict(Counter(self.texts) + Counter(numbers))

    def update(self, cells: Cells) -> None:
        """Take the cells of some more rows."""
        self.n_missing += cells.n_missing
        self.n_infinite += cells.n_infinite
        self.n_whole += cells.n_whole
        if cells.texts is not None:
            self._count(cells.texts)
        if cells.numbers.size:
            self._measure(cells.numbers)

    def _measure(self, x: Floats) -> None:
        if not self.n_numbers:
            self.autocorrelation_time = autocorrelation_time(x[:N_FOR_TIME])
        shifted = x - x[0]  # sums of squares of large numbers cancel
        mean = float(shifted.mean())
        m2 = max(0.0, float(shifted @ shifted) - len(x) * mean * mean)
        self._add_moments(len(x), mean + float(x[0]), m2=m2)
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        self.sketch.update(x)

    def _add_moments(self, n: int, mean: float, *, m2: float) -> None:
        """Source: Chan, Golub and LeVeque, The American Statistician 37 (1983)."""
        together = self.n_numbers + n
        apart = mean - self.mean
        self.mean += apart * n / together
        self.m2 += m2 + apart * (apart * self.n_numbers * n / together)

    def _count(self, texts: Any) -> None:
        for entry in texts.value_counts().to_pylist():
            self._count_one(entry["values"], entry["counts"])

    def _count_one(self, text: str, count: int) -> None:
        if text in self.texts or len(self.texts) < MAX_CATEGORIES:
            self.texts[text] += count
        else:
            self.n_other_texts += count

    def merge(self, other: ColumnProfile) -> None:
        """Take all that ``other`` has seen."""
        if other.n_numbers:
            n = self.n_numbers
            time = (n * self.autocorrelation_time + other.n_numbers * other.autocorrelation_time) / (
                n + other.n_numbers
            )
            self.autocorrelation_time = time
            self._add_moments(other.n_numbers, other.mean, m2=other.m2)
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.sketch.merge(other.sketch)
        self.n_missing += other.n_missing
        self.n_infinite += other.n_infinite
        self.n_whole += other.n_whole
        self.n_other_texts += other.n_other_texts
        for text, count in other.texts.items():
            self._count_one(text, count)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the profile as arrays; the reverse of `from_arrays`."""
        facts = [getattr(self, name) for name in _FACTS]
        texts = list(self.texts)
        return {
            "profile": np.array(facts, dtype=np.float64),
            "texts": np.frombuffer(b"".join(text.encode("utf-8") for text in texts), dtype=np.uint8),
            "text_sizes": np.array([len(text.encode("utf-8")) for text in texts], dtype=np.int64),
            "text_counts": np.array([self.texts[text] for text in texts], dtype=np.int64),
            **self.sketch.arrays(),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], *, rng: np.random.Generator) -> Self:
        """Return the profile that `arrays` described.

        Raises:
            KeyError, ValueError: the arrays do not describe one.
        """
        found = cls(rng)
        for name, value in zip(_FACTS, arrays["profile"].tolist(), strict=True):
            setattr(found, name, int(value) if name.startswith("n_") else value)
        found.sketch = QuantileSketch.from_arrays(arrays, rng=rng)
        ends = arrays["text_sizes"].cumsum()
        content = arrays["texts"].tobytes()
        starts = ends - arrays["text_sizes"]
        texts = [content[a:b].decode("utf-8") for a, b in zip(starts, ends, strict=True)]
        found.texts = Counter(dict(zip(texts, arrays["text_counts"].tolist(), strict=True)))
        counts = [found.n_missing, found.n_infinite, found.n_whole, found.n_other_texts, *found.texts.values()]
        if min(counts) < 0 or not (np.isfinite(found.mean) and found.m2 >= 0 and found.autocorrelation_time >= 1):
            raise ValueError("the numbers of the column are impossible")
        return found


_FACTS = (
    "n_missing", "n_infinite", "n_whole", "n_other_texts", "mean", "m2", "low", "high", "autocorrelation_time",
)  # fmt: skip


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
