"""Point estimates, intervals, comparisons and curves against published examples, SciPy and invariants."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from policylab.errors import UserError
from policylab.experiments.statistics import (
    Interval,
    area_under_curve,
    bootstrap,
    independent_difference,
    iqm,
    is_binary,
    learning_curve,
    mean,
    mean_interval,
    median,
    optimality_gap,
    paired_difference,
    performance_profile,
    probability_of_improvement,
    seed_warning,
    steps_to_threshold,
    tolerance_interval,
    wilson,
)

N_RESAMPLES = 500
AGGREGATES = {"mean": mean, "median": median, "iqm": iqm, "optimality_gap": optimality_gap}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def score_tables(max_tasks: int = 3) -> st.SearchStrategy[np.ndarray]:
    shapes = st.tuples(st.integers(2, 12), st.integers(1, max_tasks))
    return arrays(np.float64, shapes, elements=st.floats(-100, 100, allow_subnormal=False).map(lambda x: round(x, 3)))


# Point estimates


def test_iqm_by_hand() -> None:
    # Ten scores: int(10 / 4) = 2 fall away on each side, (3 + 4 + 5 + 6 + 7 + 8) / 6 remains.
    assert iqm([1, 2, 3, 4, 5, 6, 7, 8, 9, 1000]) == pytest.approx(5.5)
    assert iqm([[1.0, 8.0], [2.0, -50.0]]) == pytest.approx(1.5)  # pooled: -50, 1, 2, 8


@given(scores=score_tables())
@settings(max_examples=50, deadline=None)
def test_iqm_is_the_25_percent_trimmed_mean(scores: np.ndarray) -> None:
    assert iqm(scores) == pytest.approx(stats.trim_mean(scores, 0.25, axis=None), abs=1e-9)
    assert iqm(scores, axis=0) == pytest.approx(stats.trim_mean(scores, 0.25, axis=0), abs=1e-9)


def test_optimality_gap_ignores_what_is_above_the_threshold() -> None:
    assert optimality_gap([[0.2, 1.0], [5.0, 0.8]]) == pytest.approx((0.8 + 0 + 0 + 0.2) / 4)
    assert optimality_gap([3.0, 1.0], threshold=2.0) == pytest.approx(0.5)


@pytest.mark.parametrize("name", AGGREGATES)
def test_estimates_ignore_the_order_of_runs(name: str) -> None:
    scores = rng(1).normal(size=(11, 4))
    assert AGGREGATES[name](scores[::-1]) == pytest.approx(AGGREGATES[name](scores))


# Intervals of one sample


@pytest.mark.parametrize("name", AGGREGATES)
@given(scores=score_tables(), level=st.sampled_from([0.5, 0.9, 0.95]))
@settings(max_examples=25, deadline=None)
def test_a_bootstrap_interval_holds_its_estimate(name: str, scores: np.ndarray, level: float) -> None:
    interval = bootstrap(scores, AGGREGATES[name], rng=rng(), level=level, n_resamples=N_RESAMPLES)
    assert interval.value == AGGREGATES[name](scores)
    assert interval.low <= interval.value <= interval.high
    assert scores.min() - 1e-9 <= interval.low or name == "optimality_gap"
    assert (interval.n, interval.level) == (len(scores), level)


@pytest.mark.parametrize("name", ["mean", "median", "iqm"])
@given(scores=score_tables(), scale=st.sampled_from([0.25, 2.0, 1024.0]), shift=st.integers(-100, 100))
@settings(max_examples=25, deadline=None)
def test_a_bootstrap_interval_follows_the_unit_of_the_scores(
    name: str, scores: np.ndarray, scale: float, shift: int
) -> None:
    plain = bootstrap(scores, AGGREGATES[name], rng=rng(), n_resamples=N_RESAMPLES)
    moved = bootstrap(scores * scale + shift, AGGREGATES[name], rng=rng(), n_resamples=N_RESAMPLES)
    expected = [plain.value * scale + shift, plain.low * scale + shift, plain.high * scale + shift]
    assert [moved.value, moved.low, moved.high] == pytest.approx(expected, abs=1e-6)


def test_bootstrap_agrees_with_scipy() -> None:
    scores = rng(3).exponential(size=25)
    ours = bootstrap(scores, rng=rng(), n_resamples=20_000)
    theirs = stats.bootstrap((scores,), np.mean, method="percentile", n_resamples=20_000, rng=rng(1))
    # Both bounds carry Monte-Carlo error of about 1 % of the width.
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.03 * width)


def test_runs_are_resampled_within_their_task() -> None:
    # No scatter within a task, a lot between tasks: a stratified interval has no width.
    scores = np.tile([0.0, 100.0, -40.0], (8, 1))
    interval = bootstrap(scores, rng=rng(), n_resamples=N_RESAMPLES)
    assert (interval.low, interval.value, interval.high) == pytest.approx((20.0, 20.0, 20.0))


def test_chunks_do_not_change_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = rng(5).normal(size=(10, 2))
    whole = bootstrap(scores, iqm, rng=rng())
    monkeypatch.setattr("policylab.experiments.statistics.estimates._MAX_DRAWS", 1000)
    assert bootstrap(scores, iqm, rng=rng()) == whole


def coverage_of_the_mean(n: int, n_repetitions: int) -> float:
    source = rng(42)
    covered = 0
    for _ in range(n_repetitions):
        interval = bootstrap(source.normal(1.0, 2.0, n), rng=source, n_resamples=1000)
        covered += interval.low <= 1.0 <= interval.high
    return covered / n_repetitions


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    # The percentile interval of a normal mean covers by t-quantile 1.91: 92.9 % for n = 20; 1000 repetitions
    # have a standard error of 0.8 points.
    assert coverage_of_the_mean(20, 1000) == pytest.approx(0.93, abs=0.03)


def test_three_seeds_under_cover_and_the_warning_says_so() -> None:
    assert coverage_of_the_mean(3, 1000) < 0.85
    assert "under-covers" in seed_warning(3)


def test_wilson_published_example() -> None:
    # 8 successes of 10 at 95 %: (0.490, 0.943), by Wilson's formula with z = 1.959964.
    interval = wilson(8, 10)
    assert (interval.low, interval.high) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)


@given(n=st.integers(1, 200), share=st.floats(0, 1), level=st.floats(0.5, 0.999))
@settings(max_examples=60, deadline=None)
def test_wilson_agrees_with_scipy(n: int, share: float, level: float) -> None:
    successes = round(share * n)
    interval = wilson(successes, n, level=level)
    theirs = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert interval.low <= interval.value <= interval.high


def test_episode_successes_get_wilson_and_everything_else_the_bootstrap() -> None:
    successes = [1, 1, 1, 0, 1, 1, 1, 0, 1, 1]
    assert mean_interval(successes, rng=rng(), per_episode=True) == wilson(8, 10)
    assert mean_interval([True] * 3, rng=rng(), per_episode=True).low == pytest.approx(0.4385, abs=1e-4)
    assert mean_interval([0.5, 1, 0], rng=rng(), per_episode=True).method == "stratified bootstrap"
    assert mean_interval(successes, rng=rng()).method == "stratified bootstrap"
    assert is_binary([0.0, 1.0])
    assert not is_binary([0.0, 0.5])


def test_a_single_seed_has_no_interval() -> None:
    for interval in (
        bootstrap([0.7], rng=rng()),
        mean_interval([0.7], rng=rng()),
        paired_difference([0.7], [0.5], rng=rng()),
        independent_difference([0.7], [0.5, 0.6], rng=rng()),
        probability_of_improvement([0.7, 0.8], [0.5], rng=rng()),
        tolerance_interval([0.7]),
    ):
        assert (interval.low, interval.high) == (None, None)
        assert "a single seed has no interval" in str(interval)


def test_an_interval_prints_its_bounds() -> None:
    assert str(Interval(12.3456, 11.0, 13.9, level=0.95, n=10, method="x")) == "12.35 [11, 13.9]"


def test_seed_warning_grows_quiet_with_the_seeds() -> None:
    assert "no interval" in seed_warning(1)
    assert "only 4 seeds" in seed_warning(4)
    assert "5 seeds" in seed_warning(5)
    assert seed_warning(10) is None


def test_tolerance_interval_needs_46_runs_for_90_percent() -> None:
    # Wilks' table: the range of 46 runs holds 90 % with confidence 95 %; 45 are not enough; 93 for 95 % / 95 %.
    for n, coverage, enough in ((46, 0.9, True), (45, 0.9, False), (93, 0.95, True), (92, 0.95, False)):
        interval = tolerance_interval(np.arange(n), coverage=coverage)
        assert (interval.low, interval.high) == (0, n - 1)
        assert (interval.level >= 0.95) == enough


def test_tolerance_interval_leaves_extremes_out_when_it_can() -> None:
    source = rng(9)
    held = []
    for _ in range(300):
        interval = tolerance_interval(source.normal(size=200))
        held.append(stats.norm.cdf(interval.high) - stats.norm.cdf(interval.low) >= 0.9)
    # At least 95 % of such intervals hold 90 % of the distribution (standard error 1.3 points).
    assert np.mean(held) > 0.91
    assert tolerance_interval(np.arange(200)).low > 0


# Comparisons


@given(a=score_tables(1), b=score_tables(1))
@settings(max_examples=40, deadline=None)
def test_probability_of_improvement_is_mann_whitney(a: np.ndarray, b: np.ndarray) -> None:
    interval = probability_of_improvement(a, b, rng=rng(), n_resamples=N_RESAMPLES)
    u = stats.mannwhitneyu(a.ravel(), b.ravel(), method="exact").statistic
    assert interval.value == pytest.approx(u / (a.size * b.size))
    assert interval.low - 1e-12 <= interval.value <= interval.high + 1e-12
    reverse = probability_of_improvement(b, a, rng=rng(), n_resamples=N_RESAMPLES)
    assert interval.value + reverse.value == pytest.approx(1.0)


def test_probability_of_improvement_by_hand() -> None:
    # 3 beats 1 and 2, 2 beats 1 and ties 2: (1 + 1 + 1 + 0.5) / 4.
    assert probability_of_improvement([2, 3], [1, 2], rng=rng()).value == pytest.approx(3.5 / 4)
    # A second task in which the first never wins: the mean over tasks.
    two_tasks = probability_of_improvement([[2, 0], [3, 0]], [[1, 1], [2, 1]], rng=rng())
    assert two_tasks.value == pytest.approx(3.5 / 8)


def test_one_that_always_wins_is_certain() -> None:
    interval = probability_of_improvement([5, 6, 7], [1, 2, 3, 4], rng=rng())
    assert (interval.low, interval.value, interval.high) == pytest.approx((1.0, 1.0, 1.0))


def test_pairing_removes_the_scatter_the_seeds_share() -> None:
    seeds = rng(2).normal(0, 10, 20)
    a, b = seeds + 1.0 + rng(3).normal(0, 0.1, 20), seeds
    paired, apart = paired_difference(a, b, rng=rng()), independent_difference(a, b, rng=rng())
    assert paired.value == pytest.approx(apart.value)
    assert paired.low > 0.9
    assert apart.low < 0 < apart.high
    assert paired.method == "paired bootstrap"


def test_independent_difference_agrees_with_scipy() -> None:
    a, b = rng(4).normal(2, 1, 30), rng(5).normal(1, 3, 20)
    ours = independent_difference(a, b, rng=rng(), n_resamples=20_000)
    theirs = stats.bootstrap(
        (a, b), lambda x, y, axis: x.mean(axis) - y.mean(axis), method="percentile", n_resamples=20_000, rng=rng(1)
    ).confidence_interval
    assert ours.value == pytest.approx(a.mean() - b.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.03 * (theirs.high - theirs.low))


@given(a=score_tables(2))
@settings(max_examples=20, deadline=None)
def test_swapping_the_samples_negates_the_difference(a: np.ndarray) -> None:
    b = a[::-1] + 1.0
    assert paired_difference(a, b, rng=rng(), n_resamples=50).value == pytest.approx(
        -paired_difference(b, a, rng=rng(), n_resamples=50).value
    )
    assert independent_difference(a, b, rng=rng(), n_resamples=50).value == pytest.approx(-1.0, abs=1e-6)


# Curves


def test_learning_curve_is_the_mean_with_a_band() -> None:
    curves = rng(6).normal(size=(12, 40)).cumsum(axis=1)
    band = learning_curve(np.arange(40) * 100, curves, rng=rng())
    assert band.value == pytest.approx(curves.mean(axis=0))
    assert (band.low <= band.value).all()
    assert (band.value <= band.high).all()
    assert (band.n, band.level, band.x[-1]) == (12, 0.95, 3900)
    # One point of the band is the bootstrap interval of that evaluation.
    point = bootstrap(curves[:, 17], rng=rng(1))
    assert (band.low[17], band.high[17]) == pytest.approx((point.low, point.high), abs=0.05 * (point.high - point.low))


def test_learning_curve_of_a_single_seed_has_no_band() -> None:
    band = learning_curve([0, 1], [[3.0, 4.0]], rng=rng())
    assert band.value.tolist() == [3.0, 4.0]
    assert np.isnan([band.low, band.high]).all()


def test_learning_curve_is_unknown_where_a_run_has_no_value() -> None:
    band = learning_curve([0, 1, 2], [[1.0, np.nan, 3.0], [3.0, 5.0, 3.0]], rng=rng())
    assert np.isnan([band.value[1], band.low[1], band.high[1]]).all()
    assert (band.low[0], band.value[0], band.high[0]) == (1.0, 2.0, 3.0)
    assert (band.low[2], band.value[2], band.high[2]) == (3.0, 3.0, 3.0)


def test_performance_profile_by_hand() -> None:
    scores = [[0.1, 0.5], [0.5, 0.9]]
    band = performance_profile(scores, [0.0, 0.1, 0.5, 0.9], rng=rng())
    assert band.value.tolist() == [1.0, 0.75, 0.25, 0.0]


@given(scores=score_tables())
@settings(max_examples=25, deadline=None)
def test_performance_profile_falls_from_one_to_zero(scores: np.ndarray) -> None:
    thresholds = np.linspace(scores.min() - 1, scores.max() + 1, 9)
    band = performance_profile(scores, thresholds, rng=rng(), n_resamples=N_RESAMPLES)
    assert (band.value[0], band.value[-1]) == (1.0, 0.0)
    assert (np.diff(band.value) <= 1e-12).all()
    assert (band.low >= -1e-12).all()
    assert (band.high <= 1 + 1e-12).all()


def test_steps_to_threshold_finds_the_first_crossing() -> None:
    steps, curves = [0, 100, 200], [[0.0, 0.9, 0.1], [0.5, 0.5, 0.5], [0.0, 0.1, 0.2]]
    assert steps_to_threshold(steps, curves, threshold=0.5).tolist() == [100.0, 0.0, np.inf]


def test_area_under_curve_is_the_mean_height() -> None:
    # Uneven steps: (0 + 2) / 2 over 100 steps and 2 over 300 steps, divided by 400.
    assert area_under_curve([0, 100, 400], [[0, 2, 2], [1, 1, 1]]).tolist() == [1.75, 1.0]


# Reproducibility

SCRIPT = """
import numpy as np
from policylab.experiments.statistics import *
a, b = np.random.default_rng(1).normal(size=(2, 12, 3))
r = np.random.default_rng(7)
for interval in (bootstrap(a, iqm, rng=r), mean_interval(a[:, 0], rng=r), paired_difference(a, b, rng=r),
                 independent_difference(a, b, rng=r), probability_of_improvement(a, b, rng=r)):
    print(interval.value.hex(), interval.low.hex(), interval.high.hex(), interval.method)
print(learning_curve([1, 2, 3], a, rng=r).low.tobytes().hex())
print(performance_profile(a, [0.0, 0.5], rng=r).high.tobytes().hex())
"""


def test_another_process_finds_the_same_intervals() -> None:
    outputs = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "12345")
    ]
    assert outputs[0] == outputs[1]
    assert len(outputs[0].splitlines()) == 7


def test_other_random_numbers_give_another_interval() -> None:
    scores = rng(8).normal(size=10)
    assert bootstrap(scores, rng=rng(0)) == bootstrap(scores, rng=rng(0))
    assert bootstrap(scores, rng=rng(0)) != bootstrap(scores, rng=rng(1))


# Hostile input


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0, np.nan], r"scores must be finite, got nan at index \(1,\)"),
        ([[1.0, 2.0], [np.inf, 0.0]], r"scores must be finite, got inf at index \(1, 0\)"),
        ([], r"scores must not be empty, got shape \(0,\)"),
        (0.5, r"scores must have 1 or 2 dimension\(s\), got shape \(\)"),
        (np.zeros((2, 2, 2)), r"got shape \(2, 2, 2\)"),
        ([[1.0], [2.0, 3.0]], "scores must be numbers of one shape"),
        (["a", "b"], "scores must be numbers of one shape"),
    ],
)
def test_scores_that_are_none_are_refused(scores: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        bootstrap(scores, rng=rng())


@pytest.mark.parametrize("level", [0.0, 1.0, 95, -0.5, np.nan])
def test_a_level_that_is_none_is_refused(level: float) -> None:
    with pytest.raises(UserError, match="level must be between 0 and 1"):
        bootstrap([1.0, 2.0], rng=rng(), level=level)
    with pytest.raises(UserError, match="level must be between 0 and 1"):
        wilson(1, 2, level=level)
    with pytest.raises(UserError, match="level must be between 0 and 1"):
        learning_curve([0], [[1.0]], rng=rng(), level=level)


@pytest.mark.parametrize("n_resamples", [0, -3])
def test_no_resamples_are_refused(n_resamples: int) -> None:
    with pytest.raises(UserError, match="n_resamples must be >= 1"):
        bootstrap([1.0, 2.0], rng=rng(), n_resamples=n_resamples)
    with pytest.raises(UserError, match="n_resamples must be >= 1"):
        independent_difference([1.0, 2.0], [1.0, 2.0], rng=rng(), n_resamples=n_resamples)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(successes: int, n: int) -> None:
    with pytest.raises(UserError, match="successes must be from 0 to n"):
        wilson(successes, n)


def test_samples_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="paired scores must have one shape"):
        paired_difference([1.0, 2.0], [1.0, 2.0, 3.0], rng=rng())
    with pytest.raises(UserError, match="both samples must have the same tasks"):
        probability_of_improvement([[1.0, 2.0]], [[1.0]], rng=rng())


@pytest.mark.parametrize(
    ("steps", "curves", "message"),
    [
        ([0, 1, 2], [[1.0, 2.0]], "one column per step"),
        ([0, 0], [[1.0, 2.0]], "steps must increase"),
        ([0, 1], [[1.0, np.nan]], "curves must be finite"),
        ([0, 1], [1.0, 2.0], "curves must have 2"),
        ([0], [[1.0]], "at least two points"),
    ],
)
def test_curves_that_do_not_fit_are_refused(steps: list[int], curves: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        area_under_curve(steps, curves)


def test_an_infinite_curve_is_refused() -> None:
    with pytest.raises(UserError, match=r"curves must be finite, got inf at index \(0, 1\)"):
        learning_curve([0, 1], [[1.0, np.inf]], rng=rng())


def test_tolerance_of_everything_is_refused() -> None:
    with pytest.raises(UserError, match="coverage must be between 0 and 1"):
        tolerance_interval([1.0, 2.0], coverage=1.0)
