"""One row of `policylab verify`: what was measured, what is published, and how close the two must be.

A row passes if |measured - published| <= tolerance, and the tolerance is made of parts that can be named:

| part | when | size |
|---|---|---|
| rounding | always | half of the last published digit |
| sampling | measured or published by simulation | `STANDARD_ERRORS` standard errors of the difference |
| slack | stated with its reason | as the check says |
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from decimal import Decimal

import numpy as np
from numpy.typing import ArrayLike

STANDARD_ERRORS = 4.0
"""Half-width of the sampling part: a right implementation fails one row in 16,000 at a new seed."""
ARITHMETIC = 1e-11
"""Relative rounding error of a planner, granted to every row."""


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """A simulated number and its standard error."""

    value: float
    standard_error: float

    @classmethod
    def of(cls, samples: ArrayLike) -> Estimate:
        """Return the mean of independent samples, shape (n,), n >= 2.

        >>> Estimate.of([1.0, 2.0, 3.0]).value
        2.0
        """
        values = np.asarray(samples, dtype=np.float64)
        return cls(float(values.mean()), float(values.std(ddof=1) / math.sqrt(values.size)))


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One verified number; ``source`` ends with what the tolerance is made of."""

    name: str
    measured: float
    published: float
    tolerance: float
    source: str
    passed: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One number to recompute.

    Attributes:
        name: what is computed, unique among the checks.
        published: the decimal as published; its last digit says how precise it is.
        source: where it is published.
        measure: recomputes it with the project's own code, exactly or as an `Estimate`.
        slack: further tolerance, in units of the number.
        reason: why there is slack.
        published_error: standard error of the published number, if it comes from a simulation.
        slow: takes more than some seconds, and is computed on request only.
    """

    name: str
    published: str
    source: str
    measure: Callable[[], float | Estimate]
    slack: float = 0.0
    reason: str = ""
    published_error: float = 0.0
    slow: bool = False

    def run(self) -> Row:
        """Measure and compare.

        >>> Check(name="pi", published="3.14", source="school", measure=lambda: 22 / 7).run().passed
        True
        """
        measured = self.measure()
        estimate = measured if isinstance(measured, Estimate) else Estimate(float(measured), 0.0)
        sampling = STANDARD_ERRORS * math.hypot(estimate.standard_error, self.published_error)
        published = float(self.published)
        tolerance = half_digit(self.published) + sampling + self.slack + ARITHMETIC * abs(published)
        return Row(
            name=self.name,
            measured=estimate.value,
            published=published,
            tolerance=tolerance,
            source=f"{self.source} [{self._justification(sampling)}]",
            passed=bool(abs(estimate.value - published) <= tolerance),
        )

    def _justification(self, sampling: float) -> str:
        parts = ["last digit"]
        if sampling:
            parts.append(f"{STANDARD_ERRORS:g} standard errors {sampling:.2g}")
        if self.slack:
            parts.append(f"{self.slack:g}: {self.reason}")
        return " + ".join(parts)


def half_digit(published: str) -> float:
    """Return half a unit of the last digit of a decimal.

    >>> half_digit("-13"), half_digit("0.74")
    (0.5, 0.005)
    """
    exponent = Decimal(published).as_tuple().exponent
    assert isinstance(exponent, int)  # only infinities and NaN have none
    return float(Decimal(5).scaleb(exponent - 1))
