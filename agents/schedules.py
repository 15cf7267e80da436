"""Schedules: how a learning rate or an exploration parameter changes while an agent learns.

| kind | value at step t of T budgeted steps, h = fraction · T |
|---|---|
| constant | value |
| linear | start + (end - start) t / h, then end |
| exponential | start (end / start)^(t / h), then end; or start · decay^t |
| inverse_visits | start / N, N the number of visits (1 at the first) |

The settings are what an experiment file says; `Schedule` is the resolved form, plain numbers that both
executions of an agent evaluate with the same `value_at`.
"""
# ruff: noqa: PLR0917 - rules take positional arguments

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from policylab.agents.rule import rule
from policylab.config import Settings

LINEAR, EXPONENTIAL, INVERSE_VISITS = 0, 1, 2
FOREVER = 2**62
"""A horizon no run reaches."""


class Constant(Settings):
    """The same value throughout; a bare number is short for it."""

    kind: Literal["constant"] = "constant"
    value: float = Field(description="the value")


class Linear(Settings):
    """A straight line from `start` to `end` over a fraction of the whole budget, then `end`."""

    kind: Literal["linear"] = "linear"
    start: float = Field(description="value at the first step")
    end: float = Field(description="value from the end of the fraction on")
    fraction: float = Field(1.0, gt=0.0, le=1.0, description="part of the whole step budget the change takes")


class Exponential(Settings):
    """A geometric change: from `start` to `end` over a fraction of the budget, or by `decay` per step without end."""

    kind: Literal["exponential"] = "exponential"
    start: float = Field(gt=0.0, description="value at the first step")
    end: float | None = Field(None, gt=0.0, description="value from the end of the fraction on")
    decay: float | None = Field(None, gt=0.0, le=1.0, description="factor per step, instead of `end`")
    fraction: float = Field(1.0, gt=0.0, le=1.0, description="part of the whole step budget the change takes")

    @model_validator(mode="after")
    def _one_of_end_and_decay(self) -> Self:
        if (self.end is None) == (self.decay is None):
            raise ValueError("an exponential schedule needs exactly one of `end` and `decay`")
        if self.decay is not None and "fraction" in self.model_fields_set and self.fraction != 1.0:
            raise ValueError("`fraction` belongs to `end`; a schedule by `decay` has none")
        return self


class InverseVisits(Settings):
    """``start / N``: N(s, a), the updates of the pair, for a learning rate; N(s), the visits, for exploration."""

    kind: Literal["inverse_visits"] = "inverse_visits"
    start: float = Field(1.0, gt=0.0, description="value at the first visit")


AnySchedule = Constant | Linear | Exponential | InverseVisits


def _number_is_constant(given: Any) -> Any:
    if isinstance(given, int | float) and not isinstance(given, bool):
        return {"kind": "constant", "value": given}
    if not isinstance(given, dict | Settings):
        raise ValueError("expected a number, or a schedule such as {kind: linear, start: 1.0, end: 0.1}")
    return given


ScheduleSettings = Annotated[
    AnySchedule,
    Field(discriminator="kind"),
    BeforeValidator(_number_is_constant, json_schema_input_type=float | AnySchedule),
]


def within(low: float, high: float, *, open_start: bool = False, open_end: bool = False) -> AfterValidator:
    """Return a validator that keeps every value a schedule takes in [low, high].

    Args:
        low: lower bound.
        high: upper bound.
        open_start: whether a constant, or a first value, must be greater than ``low``.
        open_end: whether a last value must be greater than ``low``.
    """

    def check(schedule: AnySchedule) -> AnySchedule:
        found = []
        for name in ("value", "start", "end"):
            number = getattr(schedule, name, None)
            is_open = open_end if name == "end" else open_start
            if number is not None and not (low < number <= high if is_open else low <= number <= high):
                bounds = f"greater than {low:g}" if is_open else f"at least {low:g}"
                limit = "" if math.isinf(high) else f" and at most {high:g}"
                found.append(f"{name} must be {bounds}{limit}, got {number:g}")
        if found:
            raise ValueError("; ".join(found))
        return schedule

    return AfterValidator(check)


class Schedule(NamedTuple):
    """A schedule as plain numbers; see the module's table and `value_at`."""

    kind: int
    start: float
    end: float
    rate: float
    horizon: int


def resolve(settings: AnySchedule, budget_steps: int) -> Schedule:
    """Return the schedule stretched over ``budget_steps`` environment steps.

    >>> value_at(resolve(Linear(start=1.0, end=0.0, fraction=0.5), 100), 25, 0)
    0.5
    """
    match settings:
        case Constant():
            return Schedule(LINEAR, settings.value, settings.value, 0.0, 0)
        case Linear():
            horizon = max(int(settings.fraction * budget_steps), 1)
            return Schedule(LINEAR, settings.start, settings.end, (settings.end - settings.start) / horizon, horizon)
        case Exponential(end=float(end)):
            horizon = max(int(settings.fraction * budget_steps), 1)
            return Schedule(EXPONENTIAL, settings.start, end, math.log(end / settings.start) / horizon, horizon)
        case Exponential():
            return Schedule(EXPONENTIAL, settings.start, 0.0, math.log(settings.decay or 1.0), FOREVER)
        case InverseVisits():
            return Schedule(INVERSE_VISITS, settings.start, 0.0, 0.0, 0)


@rule
def value_at(schedule: Schedule, time: int, visits: int) -> float:
    """Return the value at step ``time`` (from 0), or after ``visits`` visits for `inverse_visits`."""
    if schedule.kind == INVERSE_VISITS:
        return schedule.start / max(visits, 1)
    if time >= schedule.horizon:
        return schedule.end
    if schedule.kind == LINEAR:
        return schedule.start + schedule.rate * time
    return schedule.start * math.exp(schedule.rate * time)
