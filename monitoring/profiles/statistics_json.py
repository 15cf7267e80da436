"""A profile as ``statistics.json``, in the schema of Amazon SageMaker Model Monitor.

Source: Developer Guide, "Schema for Statistics (statistics.json file)". Its ``kll`` sketch holds levels of values,
those of level i standing for 2^i each, which is how `QuantileSketch` keeps them.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from policylab.monitoring.profiles.column import ColumnProfile
from policylab.monitoring.profiles.profile import Profile
from policylab.monitoring.profiles.quantile_sketch import CAPACITY, share_below

N_BUCKETS = 10
LARGEST = sys.float_info.max
SHRINKING = 0.64
"""Deequ's ``c``: how much smaller the levels of its own sketch become; ours stay equal, the reader only sums."""


def statistics_document(profile: Profile) -> dict[str, Any]:
    """Return the statistics of every column that holds a value."""
    features = [_feature(name, column) for name, column in profile.columns.items()]
    return {"version": 0, "dataset": {"item_count": profile.n_rows}, "features": features}


def _feature(name: str, column: ColumnProfile) -> dict[str, Any]:
    if column.type in ("Integral", "Fractional"):
        return {"name": name, "inferred_type": column.type, "numerical_statistics": _numerical(column)}
    return {"name": name, "inferred_type": column.type, "string_statistics": _textual(column)}


def _numerical(column: ColumnProfile) -> dict[str, Any]:
    total = column.mean * column.n_numbers
    return {
        "common": {"num_present": column.n_numbers, "num_missing": column.n - column.n_numbers},
        "mean": column.mean,
        "sum": _within(total),
        "std_dev": _within(column.std_dev),
        "min": column.low,
        "max": column.high,
        "distribution": {
            "kll": {
                "buckets": _buckets(column),
                "sketch": {
                    "parameters": {"c": SHRINKING, "k": float(CAPACITY)},
                    "data": [values.tolist() for values in column.sketch.levels()],
                },
            }
        },
    }


def _buckets(column: ColumnProfile) -> list[dict[str, float]]:
    """Return `N_BUCKETS` equally wide ones from the smallest to the largest number, half-open but for the last."""
    edges = column.low + (column.high / N_BUCKETS - column.low / N_BUCKETS) * np.arange(N_BUCKETS + 1)
    edges[-1] = column.high
    values, weights = column.sketch.weighted()
    below = share_below(values, weights, points=np.nextafter(edges[1:-1], -np.inf))
    counts = np.diff(np.round(np.r_[0.0, below, 1.0] * column.n_numbers)).astype(int)
    return [
        {"lower_bound": float(low), "upper_bound": float(high), "count": int(count)}
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]


def _textual(column: ColumnProfile) -> dict[str, Any]:
    categories = column.categories()
    known = categories if categories is not None else dict(column.texts)
    buckets = [{"value": value, "count": count} for value, count in known.items()]
    return {
        "common": {"num_present": column.n_present, "num_missing": column.n_missing},
        "distinct_count": len(buckets),
        "distribution": {"categorical": {"buckets": buckets}},
    }


def _within(value: float) -> float:
    """Return a number that JSON can hold: the largest in place of infinity."""
    return max(-LARGEST, min(LARGEST, float(value)))
