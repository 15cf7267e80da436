"""Columns of a stream watched together: one alarm each by cumulative sums, and the interval of the shift."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from policylab.monitoring.sequential.cusum import HALF_SHIFT, first_alarm, limit_for
from policylab.monitoring.sequential.mean_shift import MeanShift, mean_shift
from policylab.monitoring.sequential.reference import Reference
from policylab.seeding import generator

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Watched:
    """One column.

    Attributes:
        name: of the column.
        batch: values that are averaged.
        limit: h of the cumulative sums.
        alarm_at: the value after which the sums alarmed; None if they did not.
        change_at: the first value after the change, as far as the sums know; None without an alarm.
        upwards: whether it went up; None without an alarm.
        shift: the always valid test of the mean.
    """

    name: str
    batch: int
    limit: float
    alarm_at: int | None
    change_at: int | None
    upwards: bool | None
    shift: MeanShift


def watch(
    baseline: Mapping[str, Floats],
    stream: Mapping[str, Floats],
    *,
    run_length: float,
    half_shift: float = HALF_SHIFT,
    seed: int = 0,
) -> list[Watched]:
    """Return what every column of a stream did.

    Args:
        baseline: finite values of each column in the order of time.
        stream: the same columns afterwards.
        run_length: expected values of the stream before a false alarm of any column.
        half_shift: half the shift to be found soonest, in standard deviations of batch means.
        seed: of the streams that set the limits.

    Raises:
        UserError: a baseline is too short or constant, or the run length too short.
    """
    found = []
    for name, values in baseline.items():
        reference = Reference.of(values, name=name)
        limit = limit_for(reference, run_length * len(baseline), rng=generator(seed, "cusum", name), k=half_shift)
        z = reference.standardised(stream[name])
        alarm = first_alarm(z, limit=limit, k=half_shift)
        size = reference.batch
        found.append(
            Watched(
                name,
                batch=size,
                limit=limit,
                alarm_at=None if alarm is None else (alarm.at + 1) * size - 1,
                change_at=None if alarm is None else alarm.change * size,
                upwards=None if alarm is None else alarm.upwards,
                shift=mean_shift(z, reference),
            )
        )
    return found
