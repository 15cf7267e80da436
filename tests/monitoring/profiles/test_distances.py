"""Distances by published numbers, by exact computation, and by how often chance exceeds what they call chance."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.signal import lfilter

from policylab.monitoring.profiles.autocorrelation import autocorrelation_time
from policylab.monitoring.profiles.cells import of_numbers
from policylab.monitoring.profiles.column import ColumnProfile
from policylab.monitoring.profiles.distances import (
    between_categories,
    between_numbers,
    chi_square,
    jensen_shannon,
    linf_categories,
    linf_factor,
    linf_robust,
    psi,
)


def counts(text: str) -> dict[str, int]:
    """Return {"a": 10, "b": 2} for "a10 b2"."""
    return {part[0]: int(part[1:]) for part in text.split()}


def column(values: object) -> ColumnProfile:
    found = ColumnProfile(np.random.default_rng(0))
    found.update(of_numbers(np.asarray(values)))
    return found


# The numbers of awslabs/deequ, DistanceSpec, as quoted in its tests.


def test_linf_of_deequ() -> None:
    first, second = counts("a10 b20 c25 d10 e5"), counts("a11 b20 c25 d10 e10")
    simple = linf_categories(first, second)
    assert simple == pytest.approx(0.06015037593984962, abs=1e-15)
    assert linf_robust(simple, n=70, m=76) == 0.0


def test_linf_robust_of_deequ() -> None:
    first, second = counts("a207 b20 c25 d14 e25 g13"), counts("a22 b20 c25 d12 e13 f15")
    n, m = sum(first.values()), sum(second.values())
    simple = linf_categories(first, second)
    assert linf_robust(simple, n=n, m=m, c=linf_factor(0.003)) == pytest.approx(0.2726338046550349, abs=1e-12)
    assert linf_robust(simple, n=n, m=m, c=linf_factor(0.1)) == pytest.approx(0.33774199396969184, abs=1e-12)


@pytest.mark.parametrize(
    ("sample", "baseline", "statistic", "p_value"),
    [
        ("a207 b20 c25 d14 e25 g13", "a223 b20 c25 d12 e13 f15", 28.175042782458068, 3.3640191298478506e-5),
        ("a207 b20 c25 d14 e25", "a223 b20 c25 d12 e13", None, 0.013227994814265176),
        ("a100 b20 c25 d10 e5 f2", "a100 b22 c25 d5 e13 f2", 8.789790456457125, None),
    ],
)
def test_chi_square_of_deequ(sample: str, baseline: str, statistic: float | None, p_value: float | None) -> None:
    found = chi_square(counts(sample), counts(baseline))
    if statistic is not None:
        assert found.statistic == pytest.approx(statistic, rel=1e-12)
    if p_value is not None:
        assert found.p_value == pytest.approx(p_value, rel=1e-9)


def test_chi_square_of_too_little_is_no_number() -> None:
    assert np.isnan(chi_square(counts("a3 b4"), counts("a3 b4")).p_value)
    assert np.isnan(chi_square(counts("a50"), counts("b50")).p_value)


def test_chi_square_is_scipys_where_nothing_is_rare() -> None:
    expected = stats.chisquare([30, 40, 50], [40.0, 40.0, 40.0])
    found = chi_square(counts("a30 b40 c50"), counts("a100 b100 c100"))
    assert (found.statistic, found.p_value) == pytest.approx(tuple(expected))
    slower = chi_square(counts("a30 b40 c50"), counts("a100 b100 c100"), inflation=2.0)
    assert slower.statistic == found.statistic
    assert slower.p_value == pytest.approx(stats.chi2.sf(found.statistic / 2, 2))


def test_psi_and_jensen_shannon_by_hand() -> None:
    # p = (.5, .5), q = (.9, .1): psi = -.4 ln(.5/.9) + .4 ln 5 = .235115 + .643775; M = (.7, .3):
    # js = (.5 ln(.5/.7) + .5 ln(.5/.3) + .9 ln(.9/.7) + .1 ln(.1/.3)) / 2 = .101749
    p, q = np.array([0.5, 0.5]), np.array([0.9, 0.1])
    assert psi(p, q) == pytest.approx(0.878890, abs=1e-6)
    assert jensen_shannon(p, q) == pytest.approx(0.101749, abs=1e-6)
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(np.log(2))


def test_distances_of_numbers_by_hand() -> None:
    # F1 steps at 0, 1, 3 and F2 at 5, 6, 8: each value moves by 5 (scipy's example of wasserstein_distance), and at 3
    # all of one and none of the other is below. The baseline's variance is (16 + 1 + 25) / 9 = 14/3.
    found = between_numbers(column([0.0, 1.0, 3.0]), column([5.0, 6.0, 8.0]), false_alarm_rate=0.01)
    assert found["wasserstein"].value == pytest.approx(5 / np.sqrt(14 / 9))
    assert found["linf_simple"].value == 1.0
    # Everywhere from 0 to 8 one value more of three is below.
    found = between_numbers(column([0.0, 1.0, 3.0]), column([1.0, 3.0, 8.0]), false_alarm_rate=0.01)
    assert found["linf_simple"].value == pytest.approx(1 / 3)
    # ½ is added to each count of 0, 1, 3, 8: shares (3, 3, 3, 1) / 10 against (1, 3, 3, 3) / 10: psi = 2 * .2 ln 3.
    assert found["psi"].value == pytest.approx(0.4 * np.log(3))
    assert found["jensen_shannon"].value == pytest.approx(0.3 * np.log(1.5) + 0.1 * np.log(0.5))


def test_a_baseline_of_a_single_value_is_no_proof_of_drift() -> None:
    many = np.random.default_rng(0).standard_normal(1_500)
    for first, second in (([1.0], many), (many, [1.0])):
        found = between_numbers(column(first), column(second), false_alarm_rate=0.003)
        assert not any(distance.beyond_chance for distance in found.values())


def test_distances_of_small_samples_are_scipys() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal(3_000), rng.standard_normal(2_000) + 0.3
    found = between_numbers(column(first), column(second), false_alarm_rate=0.01)
    assert found["linf_simple"].value == pytest.approx(stats.ks_2samp(first, second).statistic, abs=1e-12)
    expected = stats.wasserstein_distance(first, second) / first.std()
    assert found["wasserstein"].value == pytest.approx(expected, rel=1e-9)
    assert all(distance.error == 0.0 for distance in found.values())
    assert all(distance.beyond_chance for distance in found.values())


def test_distances_of_large_samples_are_scipys_within_their_error() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal(400_000), rng.standard_normal(300_000) + 0.1
    found = between_numbers(column(first), column(second), false_alarm_rate=0.01)
    ks = found["linf_simple"]
    assert 0 < ks.error < 0.004
    assert abs(ks.value - stats.ks_2samp(first, second).statistic) <= ks.error
    edges = np.quantile(first, np.arange(1, 10) / 10)
    p, q = (np.bincount(np.searchsorted(edges, side), minlength=10) / len(side) for side in (first, second))
    for name, exact in (("psi", psi(p, q)), ("jensen_shannon", jensen_shannon(p, q))):
        assert abs(found[name].value - exact) <= found[name].error < 0.01
    wasserstein = found["wasserstein"]
    assert abs(wasserstein.value - stats.wasserstein_distance(first, second) / first.std()) <= wasserstein.error


def test_distances_of_whole_numbers_are_over_their_values() -> None:
    first, second = np.repeat([0, 1, 2], [50, 30, 20]), np.repeat([0, 1, 3], [40, 40, 20])
    found = between_numbers(column(first), column(second), false_alarm_rate=0.01)
    assert found["linf_simple"].value == pytest.approx(0.2)  # at 2: .0 against .2
    p, q = np.array([50.5, 30.5, 20.5, 0.5]) / 102, np.array([40.5, 40.5, 0.5, 20.5]) / 102
    assert found["psi"].value == pytest.approx(psi(p, q))


def ar1(rng: np.random.Generator, n: int, *, phi: float) -> NDArray[np.float64]:
    return np.asarray(lfilter([1.0], [1.0, -phi], rng.standard_normal(n + 1_000))[1_000:])


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_the_autocorrelation_time_is_that_of_the_process(phi: float) -> None:
    # Of an AR(1) process: (1 + phi) / (1 - phi).
    found = np.mean([autocorrelation_time(ar1(np.random.default_rng(seed), 16_384, phi=phi)) for seed in range(20)])
    assert found == pytest.approx((1 + phi) / (1 - phi), rel=0.1)


@pytest.mark.parametrize("phi", [0.0, 0.9])
@pytest.mark.parametrize("name", ["linf_simple", "psi", "jensen_shannon", "wasserstein"])
def test_chance_exceeds_the_noise_as_rarely_as_asked(name: str, phi: float) -> None:
    # 200 pairs of undrifted streams at a rate of 5 %: more than 22 would happen once in a thousand times.
    alarms = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        pair = [column(ar1(rng, 2_000, phi=phi)) for _ in range(2)]
        alarms += between_numbers(*pair, false_alarm_rate=0.05)[name].beyond_chance
    assert alarms <= 22


def test_chance_among_categories_exceeds_the_noise_as_rarely_as_asked() -> None:
    alarms = dict.fromkeys(["linf_simple", "psi", "jensen_shannon"], 0)
    for seed in range(300):
        rng = np.random.default_rng(seed)
        sides = [dict(zip("abcd", rng.multinomial(n, [0.4, 0.3, 0.2, 0.1]).tolist(), strict=True)) for n in (800, 500)]
        for name, distance in between_categories(*sides, false_alarm_rate=0.05).items():
            alarms[name] += distance.beyond_chance
    assert max(alarms.values()) <= 28


def test_the_largest_numbers_do_not_overflow() -> None:
    huge = np.array([1e150, -1e150, 1e149, 0.0] * 10)
    found = between_numbers(column(huge), column(huge * 0.5), false_alarm_rate=0.01)
    assert all(np.isfinite([distance.value, distance.noise]).all() for distance in found.values())
    beyond = column([1.0, np.inf, -np.inf, np.nan, 1e200])
    assert (beyond.n_numbers, beyond.n_missing, beyond.n_infinite) == (1, 4, 3)
