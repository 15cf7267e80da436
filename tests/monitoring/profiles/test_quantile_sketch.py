"""The sketch keeps its stated error, whatever the order, the ties and the merges."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from policylab.monitoring.profiles.quantile_sketch import BLOCK, CAPACITY, MAX_FEW, QuantileSketch, Steps

Floats = NDArray[np.float64]
N = 300_000


def sketch_of(values: Floats, *, seed: int = 0, piece: int = 50_000) -> QuantileSketch:
    sketch = QuantileSketch(np.random.default_rng(seed))
    for start in range(0, len(values), piece):
        sketch.update(values[start : start + piece])
    return sketch


def largest_rank_error(sketch: QuantileSketch, values: Floats) -> float:
    ordered = np.sort(values)
    kept, weights = sketch.weighted()
    last = np.r_[kept[1:] != kept[:-1], True]  # of equal values, the rank counts them all
    true = np.searchsorted(ordered, kept[last], side="right")
    return float(np.abs(weights.cumsum()[last] - true).max() / len(values))


STREAMS: dict[str, Callable[[np.random.Generator], Floats]] = {
    "normal": lambda rng: rng.standard_normal(N),
    "sorted": lambda rng: np.sort(rng.standard_normal(N)),
    "reversed": lambda rng: -np.sort(rng.standard_normal(N)),
    "heavy tail": lambda rng: rng.standard_cauchy(N) ** 3,
    "ties": lambda rng: np.floor(rng.exponential(100.0, N)),
    "few, then many": lambda rng: np.r_[rng.integers(0, 3, N // 2), rng.standard_normal(N // 2)].astype(float),
    "large": lambda rng: rng.choice([-1.0, 1.0], N) * 1e308 * rng.random(N),
}


@pytest.mark.parametrize("name", STREAMS)
def test_ranks_are_within_the_stated_error(name: str) -> None:
    values = STREAMS[name](np.random.default_rng(1))
    sketch = sketch_of(values)
    assert sketch.n == N
    assert sketch.weighted()[1].sum() == N
    assert largest_rank_error(sketch, values) <= sketch.rank_error() < 0.003


def test_the_error_is_exceeded_as_rarely_as_it_says() -> None:
    misses = 0
    for seed in range(40):
        values = np.random.default_rng(seed).standard_normal(4 * BLOCK)
        sketch = sketch_of(values, seed=1000 + seed)
        misses += largest_rank_error(sketch, values) > sketch.rank_error(0.5)
    assert misses <= 20  # half


def test_a_small_stream_is_exact() -> None:
    values = np.random.default_rng(0).standard_normal(BLOCK - 1)
    sketch = sketch_of(values)
    assert sketch.rank_error() == 0.0
    assert np.array_equal(sketch.weighted()[0], np.sort(values))


def test_few_different_values_are_counted_exactly_however_many() -> None:
    values = np.random.default_rng(0).integers(0, MAX_FEW, N).astype(float)
    sketch = sketch_of(values)
    assert sketch.rank_error() == 0.0
    assert sketch.counts() == {float(v): int(n) for v, n in zip(*np.unique(values, return_counts=True), strict=True)}
    one_more = sketch_of(np.r_[values, np.full(BLOCK, 0.5)])
    assert one_more.counts() is None


def test_merging_a_thousand_hours_is_one_pass_within_the_stated_error() -> None:
    values = np.random.default_rng(3).gamma(2.0, size=1_000_000)
    merged = QuantileSketch(np.random.default_rng(0))
    for hour, part in enumerate(np.split(values, 1_000)):
        merged.merge(sketch_of(part, seed=hour))
    one_pass = sketch_of(values, seed=5000)
    assert merged.n == one_pass.n
    assert largest_rank_error(merged, values) <= merged.rank_error() < 0.004
    steps = Steps.of(merged, one_pass)
    assert np.abs(steps.first - steps.second).max() <= merged.rank_error() + one_pass.rank_error()
    # Memory stays bounded: a few levels of at most twice the capacity.
    assert len(merged.settled().weighted()[0]) <= 2 * CAPACITY * 12


def test_merging_is_the_same_in_any_order_where_counts_are_exact() -> None:
    parts = [np.random.default_rng(i).integers(0, 50, 10_000).astype(float) for i in range(5)]
    found = []
    for order in (range(5), reversed(range(5))):
        merged = QuantileSketch(np.random.default_rng(0))
        for i in order:
            merged.merge(sketch_of(parts[i]))
        found.append(merged.counts())
    assert found[0] == found[1] == sketch_of(np.concatenate(parts)).counts()


@pytest.mark.parametrize("n", [0, 1, 5_000, 100_003])
def test_what_is_stored_is_read_back(n: int) -> None:
    values = np.random.default_rng(0).standard_normal(n)
    sketch = sketch_of(values)
    again = QuantileSketch.from_arrays(sketch.arrays(), rng=np.random.default_rng(0))
    assert again.n == n
    assert again.rank_error() >= sketch.rank_error()
    if n:
        assert largest_rank_error(again, values) <= again.rank_error() or again.rank_error() == 0.0
    assert {k: v.tobytes() for k, v in again.arrays().items()} == {k: v.tobytes() for k, v in again.arrays().items()}


def test_damaged_arrays_are_refused() -> None:
    arrays = sketch_of(np.arange(50_000.0)).arrays()
    arrays["facts"] = arrays["facts"] + np.array([1.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="do not add up"):
        QuantileSketch.from_arrays(arrays, rng=np.random.default_rng(0))


def test_levels_stand_for_powers_of_two() -> None:
    sketch = sketch_of(np.random.default_rng(0).standard_normal(200_000))
    assert sum(len(values) * 2**level for level, values in enumerate(sketch.levels())) == 200_000
    few = sketch_of(np.repeat([1.0, 2.0], [5, 11]))
    assert sum(len(values) * 2**level for level, values in enumerate(few.levels())) == 16
