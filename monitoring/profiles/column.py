"""`ColumnProfile`: what one column of a table holds, in bounded memory and mergeable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from policylab.monitoring.profiles.autocorrelation import FirstValues, of_numbers, of_texts
from policylab.monitoring.profiles.cells import Cells
from policylab.monitoring.profiles.quantile_sketch import QuantileSketch

Floats = NDArray[np.float64]
Type = Literal["Integral", "Fractional", "String", "Unknown"]
MAX_CATEGORIES = 10_000
"""Different texts that are counted; further ones are counted together."""
CONFORMING = 0.9
"""Share of the present values that must be of a type for the column to be of it (1 - SageMaker's threshold of 0.1)."""


class ColumnProfile:
    """Counts, types, moments, distribution and categories of a column.

    Attributes:
        n_missing: empty cells, NaN and infinities.
        n_infinite: infinities.
        n_whole: numbers of a whole type.
        n_negative: numbers below 0.
        mean: of the numbers.
        m2: sum of squared deviations from the mean.
        low: smallest number; infinity without any.
        high: largest number.
        sketch: distribution of the numbers.
        texts: count of each text, of the first `MAX_CATEGORIES` different ones.
        n_other_texts: texts that are not counted one by one.
        number_time: how many successive numbers are worth one independent one.
        text_time: the same of texts, of the common one that lasts longest.
        missing_time: the same of whether rows hold a value.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.n_missing = 0
        self.n_infinite = 0
        self.n_whole = 0
        self.n_negative = 0
        self.mean = 0.0
        self.m2 = 0.0
        self.low, self.high = np.inf, -np.inf
        self.sketch = QuantileSketch(rng)
        self.texts: Counter[str] = Counter()
        self.n_other_texts = 0
        self.number_time = FirstValues(of_numbers)
        self.text_time = FirstValues(of_texts)
        self.missing_time = FirstValues(of_numbers)

    @property
    def autocorrelation_time(self) -> float:
        """How many successive numbers are worth one independent one, at least 1."""
        return self.number_time.time

    @property
    def time(self) -> float:
        """The same of numbers and texts together."""
        return max(self.number_time.time, self.text_time.time)

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
        self.missing_time.take(np.ones(cells.n, dtype=np.bool_) if cells.present is None else cells.present)
        self.n_missing += cells.n_missing
        self.n_infinite += cells.n_infinite
        self.n_whole += cells.n_whole
        if cells.texts is not None:
            self._count(cells.texts)
        if cells.numbers.size:
            self._measure(cells.numbers)

    def _measure(self, x: Floats) -> None:
        self.number_time.take(x)
        shifted = x - x[0]  # sums of squares of large numbers cancel
        mean = float(shifted.mean())
        m2 = max(0.0, float(shifted @ shifted) - len(x) * mean * mean)
        self._add_moments(len(x), mean + float(x[0]), m2=m2)
        low = float(x.min())
        self.low, self.high = min(self.low, low), max(self.high, float(x.max()))
        self.n_negative += int(np.count_nonzero(x < 0.0)) if low < 0.0 else 0
        self.sketch.update(x)

    def _add_moments(self, n: int, mean: float, *, m2: float) -> None:
        """Source: Chan, Golub and LeVeque, The American Statistician 37 (1983)."""
        together = self.n_numbers + n
        apart = mean - self.mean
        self.mean += apart * n / together
        self.m2 += m2 + apart * (apart * self.n_numbers * n / together)

    def _count(self, texts: Any) -> None:
        self.text_time.take(texts)
        for entry in texts.value_counts().to_pylist():
            self._count_one(entry["values"], entry["counts"])

    def _count_one(self, text: str, count: int) -> None:
        if text in self.texts or len(self.texts) < MAX_CATEGORIES:
            self.texts[text] += count
        else:
            self.n_other_texts += count

    def merge(self, other: ColumnProfile) -> None:
        """Take all that ``other`` has seen."""
        for name, of in _TIMES.items():
            n, more = getattr(self, of), getattr(other, of)
            if more:
                times = [getattr(side, name).time for side in (self, other)]
                getattr(self, name).fix((n * times[0] + more * times[1]) / (n + more))
        if other.n_numbers:
            self._add_moments(other.n_numbers, other.mean, m2=other.m2)
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.sketch.merge(other.sketch)
        self.n_missing += other.n_missing
        self.n_infinite += other.n_infinite
        self.n_whole += other.n_whole
        self.n_negative += other.n_negative
        self.n_other_texts += other.n_other_texts
        for text, count in other.texts.items():
            self._count_one(text, count)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the profile as arrays; the reverse of `from_arrays`."""
        facts = [getattr(self, name) for name in _FACTS] + [getattr(self, name).time for name in _TIMES]
        facts.append(self.n_negative)
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
        facts = arrays["profile"].tolist()
        for name, value in zip(_FACTS, facts[: len(_FACTS)], strict=True):
            setattr(found, name, int(value) if name.startswith("n_") else value)
        for name, value in zip(_TIMES, facts[len(_FACTS) :], strict=False):  # earlier profiles have the first alone
            getattr(found, name).fix(value)
        found.sketch = QuantileSketch.from_arrays(arrays, rng=rng)
        own = facts[len(_FACTS) + len(_TIMES) :]  # not of earlier profiles: of theirs all count, or none
        found.n_negative = int(own[0]) if own else found.n_numbers * (found.low < 0.0)
        ends = arrays["text_sizes"].cumsum()
        content = arrays["texts"].tobytes()
        starts = ends - arrays["text_sizes"]
        texts = [content[a:b].decode("utf-8") for a, b in zip(starts, ends, strict=True)]
        found.texts = Counter(dict(zip(texts, arrays["text_counts"].tolist(), strict=True)))
        counts = [getattr(found, name) for name in _FACTS if name.startswith("n_")]
        counts += [found.n_negative, *found.texts.values()]
        times = min(getattr(found, name).time for name in _TIMES)
        if min(counts) < 0 or not (np.isfinite(found.mean) and found.m2 >= 0 and times >= 1):
            raise ValueError("the numbers of the column are impossible")
        return found


_FACTS = ("n_missing", "n_infinite", "n_whole", "n_other_texts", "mean", "m2", "low", "high")
_TIMES = {"number_time": "n_numbers", "text_time": "n_texts", "missing_time": "n"}
"""Autocorrelation times, and what they are weighted by."""
