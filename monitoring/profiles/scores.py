"""`Scores`: columns of numbers as normal scores of a baseline, so that their dependence is what is left of them.

z = Φ⁻¹(F(x)), F the distribution of the column in the baseline: straight between its quantiles at `KNOTS`, and straight
on beyond them to ±`FARTHEST`. Of normal numbers it is a change of unit, of any others what makes them normal: shift,
scale and outliers of a column hardly touch its correlations with others. Equal numbers have one score, the mean of
theirs.

Source: van der Waerden, Indagationes Mathematicae 14 (1952); Hájek, Šidák and Sen, "Theory of rank tests" (1999), 3.1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Floats = NDArray[np.float64]
KNOTS = np.linspace(-2.8, 2.8, 57)
FARTHEST = 6.0


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """The scores of p columns.

    Attributes:
        names: of the columns.
        points: of each column, increasing numbers, shape (k,), and their scores, shape (k,).
    """

    names: tuple[str, ...]
    points: tuple[tuple[Floats, Floats], ...]

    @classmethod
    def of(cls, columns: Mapping[str, Floats], *, least_present: float) -> Self:
        """Return the scores of those columns that vary; numbers are shape (n,), NaN where there is none.

        Args:
            columns: numbers by name.
            least_present: share of the rows that must hold a number.
        """
        found = {}
        for name, x in columns.items():
            present = x[~np.isnan(x)]
            if len(present) >= max(2, least_present * len(x)) and present.min() < present.max():
                found[name] = _points(present)
        return cls(tuple(found), tuple(found.values()))

    def __call__(self, columns: Sequence[Floats]) -> tuple[Floats, Floats]:
        """Return the scores of numbers, shape (n, p), 0 where there is none, and where there are, as 1 and 0."""
        found = np.stack([np.interp(x, *point) for x, point in zip(columns, self.points, strict=True)], axis=1)
        missing = np.isnan(found)
        found[missing] = 0.0
        return found, 1.0 - missing

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scores) or self.names != other.names:
            return False
        pairs = zip(self.points, other.points, strict=True)
        return all(np.array_equal(a, b) for one, two in pairs for a, b in zip(one, two, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the points as arrays; the reverse of `from_arrays`."""
        flat = [
            np.concatenate([point[side] for point in self.points]) if self.points else np.zeros(0) for side in (0, 1)
        ]
        return {"points": np.stack(flat), "sizes": np.array([len(x) for x, _ in self.points], dtype=np.int64)}

    @classmethod
    def from_arrays(cls, names: Sequence[str], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the scores that `arrays` described.

        Raises:
            KeyError, ValueError: the arrays do not describe any.
        """
        x, z = arrays["points"]
        ends = arrays["sizes"].cumsum()
        points = tuple((x[a:b], z[a:b]) for a, b in zip(ends - arrays["sizes"], ends, strict=True))
        whole = len(points) == len(names) and all(len(x) >= 2 and (np.diff(x) > 0).all() for x, _ in points)
        if not whole or not (np.isfinite(x).all() and np.isfinite(z).all()):
            raise ValueError("the scores are impossible")
        return cls(tuple(names), points)


def _points(x: Floats) -> tuple[Floats, Floats]:
    z = KNOTS
    at = np.quantile(x, ndtr(z), method="inverted_cdf")
    low, high = min(at[0], float(x.min())), max(at[-1], float(x.max()))
    different, index, counts = np.unique(at, return_inverse=True, return_counts=True)
    score = np.bincount(index.ravel(), weights=z) / counts
    if len(different) < 2:  # one value but for a few
        return np.array([low, high]), np.array([z[0], z[-1]])
    far = [at[len(z) // 2] + (end - at[len(z) // 2]) * FARTHEST / z[-1] for end in (at[0], at[-1])]
    before, after = far[0] < different[0] and np.isfinite(far[0]), far[1] > different[-1] and np.isfinite(far[1])
    return (
        np.r_[[far[0]] if before else [], different, [far[1]] if after else []],
        np.r_[[-FARTHEST] if before else [], score, [FARTHEST] if after else []],
    )
