"""Undrifted streams, independent or not, alarm no more often than asked; `benchmarks/false_alarms.py` measures more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from benchmarks.undrifted import bias, data, outcomes

N_PAIRS, MOST = 40, 6
"""At a rate of 5 %, more than 6 of 40 would happen three times in a hundred; the bounds are mostly far from exact."""


def share(alarms: Callable[..., Any], *, n: int, phi: float) -> dict[str, int]:
    found = [alarms(np.random.default_rng([seed, n]), n, phi=phi) for seed in range(N_PAIRS)]
    parts = [one if isinstance(one, dict) else {"": one} for one in found]
    return {name: sum(part[name] for part in parts) for name in parts[0]}


@pytest.mark.parametrize("phi", [0.0, 0.9], ids=["independent", "autocorrelated"])
@pytest.mark.parametrize(
    "check", [data, lambda *a, **k: bias(*a, times=1, **k), outcomes], ids=["data", "bias", "quality"]
)
def test_undrifted_streams_alarm_as_rarely_as_asked(check: Callable[..., Any], phi: float) -> None:
    found = share(check, n=400, phi=phi)
    assert max(found.values()) <= MOST, found
