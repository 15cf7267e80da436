"""One searched hyperparameter: its values, its scale, and its place on the unit interval.

Every kind maps its values to ``[0, 1]`` and back. A finite set of values is laid out in cells, one per value, so that
a uniform draw on the unit interval meets each value with the weight its scale gives it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeAlias

import numpy as np
from pydantic import Field, JsonValue, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from policylab.config import KeyPath, Settings
from policylab.files import content_hash
from policylab.tuning.scaling import FROM_SCALE, TO_SCALE, Scale, Scaling, resolve_scaling

Conditions: TypeAlias = dict[str, JsonValue]
"""Path of another parameter -> the value, or the list of values, under which this one exists."""


LARGEST = 2**53
"""Largest whole number up to which all have a floating-point number of their own."""


def raise_findings(title: str, findings: Sequence[tuple[KeyPath, str]]) -> None:
    """Raise all findings, each as an error at its own key; do nothing when there is none."""
    details = [
        # The empty mapping as input keeps the loader from repeating the value: each message holds it.
        InitErrorDetails(type=PydanticCustomError("value_error", "{text}", {"text": text}), loc=path, input={})
        for path, text in findings
    ]
    if details:
        raise ValidationError.from_exception_data(title, details)


class _Parameter(Settings):
    """What every kind has."""

    when: Conditions = Field(
        default_factory=dict, description="path of another parameter -> value or values under which this one exists"
    )

    def places(self, values: Sequence[Any]) -> np.ndarray:
        """Return the places of values on the unit interval, shape (n,)."""
        raise NotImplementedError

    def among(self, unit: np.ndarray, values: Sequence[Any]) -> np.ndarray:
        """Return which snapped points of the unit interval, shape (n,), stand for one of ``values``."""
        raise NotImplementedError

    def to_unit(self, value: Any) -> float:
        """Return the place of a value on the unit interval."""
        return float(self.places([value])[0])


class _Range(_Parameter):
    """A range of numbers on a scale, cut into cells when only some of the numbers are values."""

    low: float
    high: float
    scaling: Scaling = Field(default="auto", description="scale it is searched on")
    step: float | None = Field(default=None, gt=0, description="distance of neighbouring values; makes a grid")

    def _findings(self) -> list[tuple[KeyPath, str]]:
        """Return what is wrong beyond the types."""
        low, high = self.low, self.high
        if not low < high:
            remedy = "a value that is not searched belongs into the configuration itself"
            return [(("high",), f"must be above low, got low {low:g} and high {high:g}; {remedy}")]
        found: list[tuple[KeyPath, str]] = []
        if self.scaling == "logarithmic" and low <= 0:
            found.append((("low",), f"logarithmic scaling needs values above 0, got {low:g}; use linear scaling"))
        if self.scaling == "reverse_logarithmic" and not (low >= 0 and high < 1):
            place, value = ("low", low) if low < 0 else ("high", high)
            found.append(((place,), f"reverse_logarithmic scaling needs 0 <= x < 1 throughout, got {value:g}"))
        if self.step is not None:
            n_steps = (high - low) / self.step
            if round(n_steps) < 1 or abs(n_steps - round(n_steps)) > 1e-6:
                reached = low + max(1, math.floor(n_steps)) * self.step
                found.append((("step",), f"steps of {self.step:g} from {low:g} miss {high:g}; set high to {reached:g}"))
        return found

    @model_validator(mode="after")
    def _check(self) -> Self:
        raise_findings(type(self).__name__, self._findings())
        return self

    @functools.cached_property
    def scale(self) -> Scale:
        """The scale it is searched on."""
        return resolve_scaling(self.scaling, low=self.low, high=self.high)

    @property
    def cell(self) -> float | None:
        """Distance of two neighbouring values, or None when every number of the range is a value."""
        return self.step

    @functools.cached_property
    def size(self) -> int | None:
        """How many values it has, or None."""
        return None if self.cell is None else round((self.high - self.low) / self.cell) + 1

    @functools.cached_property
    def _edges(self) -> tuple[float, float]:
        """Ends of the unit interval on the scale; cells reach half a step beyond the first and the last value."""
        scale = TO_SCALE[self.scale]
        first, last = float(scale(self.low)), float(scale(self.high))
        if self.cell is None:
            return first, last
        second, second_last = float(scale(self.low + self.cell)), float(scale(self.high - self.cell))
        return first - (second - first) / 2, last + (last - second_last) / 2

    def at(self, unit: np.ndarray) -> np.ndarray:
        """Return the numbers at points of the unit interval, any shape."""
        start, end = self._edges
        numbers: np.ndarray = FROM_SCALE[self.scale](start + np.clip(unit, 0.0, 1.0) * (end - start))
        if self.cell is not None:
            numbers = self._numbers(np.rint((numbers - self.low) / self.cell))
        return np.asarray(np.clip(numbers, self.low, self.high))

    def _numbers(self, index: Any) -> Any:
        """Return the values of cells by number: 0.3 where steps add up to 0.30000000000000004, the ends as given."""
        assert self.cell is not None
        assert self.size is not None
        digits = 12 - math.ceil(math.log10(max(abs(self.low), abs(self.high))))
        inner = np.round(self.low + index * self.cell, max(0, digits))
        return np.where(index <= 0, self.low, np.where(index >= self.size - 1, self.high, inner))

    def snap(self, unit: np.ndarray) -> np.ndarray:
        """Return the points of the unit interval, each moved to the place of the value it stands for."""
        return np.asarray(np.clip(unit, 0.0, 1.0) if self.cell is None else self._place(self.at(unit)))

    def _place(self, numbers: Any) -> Any:
        start, end = self._edges
        return np.clip((TO_SCALE[self.scale](numbers) - start) / (end - start), 0.0, 1.0)

    def places(self, values: Sequence[Any]) -> np.ndarray:
        """Return the places of values on the unit interval, shape (n,); what lies outside goes to the nearest end."""
        return np.asarray(self._place(np.clip(np.array(values, dtype=float), self.low, self.high)))

    def among(self, unit: np.ndarray, values: Sequence[Any]) -> np.ndarray:
        """Return which snapped points of the unit interval, shape (n,), stand for one of ``values``."""
        apart = np.abs(self.at(unit)[:, None] - np.array(values, dtype=float))
        return np.asarray((apart < (self.cell or 0.0) / 2).any(axis=1))

    def from_unit(self, unit: float) -> Any:
        """Return the value at a point of the unit interval: `at` for one number, several times as fast."""
        start, end = self._edges
        number = float(FROM_SCALE[self.scale](start + min(max(unit, 0.0), 1.0) * (end - start)))
        if self.cell is not None:
            number = float(self._numbers(np.float64(round((number - self.low) / self.cell))))
        return self._typed(min(max(number, self.low), self.high))

    @property
    def numeric(self) -> bool:
        """Whether its values can be compared by size."""
        return True

    def plain(self, value: Any) -> Any:
        """Return ``value`` as the plain Python type of this kind; what is all but a step's value as that."""
        if self.cell is not None and self.fault(value) is None:
            value = self._numbers(np.float64(round((value - self.low) / self.cell)))
        return self._typed(value)

    def _typed(self, value: Any) -> Any:
        return float(value)

    def fault(self, value: Any) -> str | None:
        """Return why ``value`` is not one of the values, or None."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return f"must be a number, got {value!r}"
        if not self.low <= value <= self.high:
            return f"must be within {self.low:g} and {self.high:g}, got {value!r}"
        if self.cell is not None:
            n_steps = (value - self.low) / self.cell
            if abs(n_steps - round(n_steps)) > 1e-6:
                return f"must be {self.low:g} plus a multiple of {self.cell:g}, got {value!r}"
        return None

    @property
    def gridded(self) -> bool:
        """Whether a ``step`` says which values a grid has."""
        return self.step is not None

    def listed(self) -> tuple[Any, ...]:
        """Return every value of a finite range in order."""
        assert self.size is not None
        return tuple(self._typed(number) for number in self._numbers(np.arange(self.size)))

    def probes(self) -> tuple[Any, ...]:
        """Return values of which a schema that accepts them accepts all others too."""
        return self.plain(self.low), self.plain(self.high)


class Continuous(_Range):
    """A real number between ``low`` and ``high``.

    >>> rate = Continuous(low=1e-4, high=1.0)
    >>> rate.scale, round(rate.from_unit(0.5), 6)
    ('logarithmic', 0.01)
    >>> Continuous(low=0.1, high=0.5, step=0.1).listed()
    (0.1, 0.2, 0.3, 0.4, 0.5)
    """

    kind: Literal["continuous"] = "continuous"


class Integer(_Range):
    """A whole number between ``low`` and ``high``, both included.

    >>> Integer(low=1, high=3).from_unit(0.99), Integer(low=16, high=2048, scaling="logarithmic").from_unit(0.5)
    (3, 178)
    """

    kind: Literal["integer"] = "integer"
    low: int
    high: int
    step: int | None = Field(default=None, gt=0, description="distance of neighbouring values; makes a grid")

    def _findings(self) -> list[tuple[KeyPath, str]]:
        wide = [name for name in ("low", "high") if abs(getattr(self, name)) > LARGEST]
        if wide:
            rule = f"must be within {LARGEST} of 0, up to which all whole numbers are exact; count in a larger unit"
            return [((name,), rule) for name in wide]
        if self.scaling == "reverse_logarithmic":
            return [(("scaling",), "reverse_logarithmic scaling is for continuous ranges; use linear or logarithmic")]
        return super()._findings()

    @property
    def cell(self) -> float | None:
        """Distance of two neighbouring values."""
        return self.step or 1

    def _typed(self, value: Any) -> Any:
        number = float(value)
        return round(number) if abs(number - round(number)) <= 1e-6 else number  # which is none of its values


class Categorical(_Parameter):
    """One of a few values without an order: any JSON values, lists and mappings included.

    >>> Categorical(values=["relu", "tanh"]).from_unit(0.7)
    'tanh'
    """

    kind: Literal["categorical"] = "categorical"
    values: tuple[JsonValue, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        seen: set[str] = set()
        findings: list[tuple[KeyPath, str]] = []
        for position, value in enumerate(self.values):
            if value_key(value) in seen:
                findings.append((("values", position), f"{value!r} is listed twice; keep one of the two"))
            seen.add(value_key(value))
        raise_findings("Categorical", findings)
        return self

    @property
    def size(self) -> int:
        """How many values it has."""
        return len(self.values)

    @property
    def numeric(self) -> bool:
        """Whether its values can be compared by size."""
        return all(map(_is_number, self.values))

    @functools.cached_property
    def _index(self) -> dict[str, int]:
        return {value_key(value): index for index, value in enumerate(self.values)}

    def at(self, unit: np.ndarray) -> np.ndarray:
        """Return the values at points of the unit interval as numbers; NaN stands for what is not a number."""
        numbers = [value if _is_number(value) else math.nan for value in self.values]
        return np.asarray(np.asarray(numbers, dtype=float)[self._cells(unit)])

    def _cells(self, unit: Any) -> Any:
        return np.clip((np.asarray(unit) * self.size).astype(int), 0, self.size - 1)

    def snap(self, unit: np.ndarray) -> np.ndarray:
        """Return the points of the unit interval, each moved to the place of the value it stands for."""
        return np.asarray((self._cells(unit) + 0.5) / self.size)

    def places(self, values: Sequence[Any]) -> np.ndarray:
        """Return the places of values on the unit interval, shape (n,); the middle for an unknown one."""
        middle = (self.size - 1) / 2
        index = [self._index.get(value_key(value), middle) for value in values]
        return np.asarray((np.array(index) + 0.5) / self.size)

    def among(self, unit: np.ndarray, values: Sequence[Any]) -> np.ndarray:
        """Return which snapped points of the unit interval, shape (n,), stand for one of ``values``."""
        return np.asarray(np.isin(self._cells(unit), [self._index.get(value_key(value), -1) for value in values]))

    def from_unit(self, unit: float) -> Any:
        """Return the value at a point of the unit interval."""
        return self.values[min(int(unit * self.size), self.size - 1)]

    def plain(self, value: Any) -> Any:
        """Return the listed value that equals ``value``."""
        return self.values[self._index[value_key(value)]]

    def fault(self, value: Any) -> str | None:
        """Return why ``value`` is not one of the values, or None."""
        if value_key(value) in self._index:
            return None
        return f"must be one of {', '.join(map(repr, self.values))}, got {value!r}"

    @property
    def gridded(self) -> bool:
        """A grid takes every value."""
        return True

    def listed(self) -> tuple[Any, ...]:
        """Return every value in order."""
        return self.values

    def probes(self) -> tuple[Any, ...]:
        """Return values of which a schema that accepts them accepts all others too."""
        return self.values


Parameter = Annotated[Continuous | Integer | Categorical, Field(discriminator="kind")]


def value_key(value: Any) -> str:
    """Return what equal values share: 1 and 1.0 do, 1 and true do not.

    >>> value_key(1) == value_key(1.0), value_key(1) == value_key(True)
    (True, False)
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else content_hash(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
