"""Thresholds: when measurements are an alarm.

| kind | alarm if |
|---|---|
| fixed | a value is above, or below, a number |
| baseline | the check calls it a violation of its baseline |
| run_length | p < 1 / (windows · m): without a change, one alarm in so many windows on average, or fewer |
| false_discovery | Benjamini and Yekutieli's procedure over all m: a share ``rate`` of alarms is false on average at \
most, however the measurements depend on each other |

``least`` is the smallest value that matters: with enough data everything is significant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from policylab.config import Settings
from policylab.monitoring.alarms.measurement import Measurement
from policylab.monitoring.false_discovery import discoveries

Found = list[Measurement]


class Fixed(Settings):
    """Numbers that somebody chose."""

    kind: Literal["fixed"]
    above: float | None = Field(default=None, description="alarm above this")
    below: float | None = Field(default=None, description="alarm below this")

    @model_validator(mode="after")
    def _any(self) -> Self:
        if self.above is None and self.below is None:
            raise ValueError("a fixed threshold needs above or below")
        return self

    def exceeded(self, measured: Sequence[Measurement]) -> Found:
        """Return the measurements that are an alarm."""
        high = math.inf if self.above is None else self.above
        low = -math.inf if self.below is None else self.below
        return [one for one in measured if one.value > high or one.value < low]


class FromBaseline(Settings):
    """What the check itself calls a violation."""

    kind: Literal["baseline"]

    def exceeded(self, measured: Sequence[Measurement]) -> Found:
        """Return the measurements that are an alarm."""
        return [one for one in measured if one.violated]


class RunLength(Settings):
    """By how seldom a false alarm may be."""

    kind: Literal["run_length"]
    windows: float = Field(default=1000.0, gt=1.0, description="expected windows before a false alarm of any of them")
    least: float = Field(default=0.0, ge=0.0, description="smallest value that matters")

    def exceeded(self, measured: Sequence[Measurement]) -> Found:
        """Return the measurements that are an alarm."""
        tested = [one for one in measured if one.p_value is not None]
        rate = 1.0 / (self.windows * max(1, len(tested)))
        return [one for one in tested if (one.p_value or 0.0) < rate and one.value >= self.least]


class FalseDiscovery(Settings):
    """By how many of the alarms may be false."""

    kind: Literal["false_discovery"]
    rate: float = Field(default=0.05, gt=0.0, lt=1.0, description="expected share of false ones among the alarms")
    least: float = Field(default=0.0, ge=0.0, description="smallest value that matters")

    def exceeded(self, measured: Sequence[Measurement]) -> Found:
        """Return the measurements that are an alarm."""
        tested = [one for one in measured if one.p_value is not None]
        if not tested:
            return []
        chosen = discoveries([one.p_value or 0.0 for one in tested], rate=self.rate, dependent=True)
        return [one for one, found in zip(tested, chosen, strict=True) if found and one.value >= self.least]


Threshold = Annotated[Fixed | FromBaseline | RunLength | FalseDiscovery, Field(discriminator="kind")]
