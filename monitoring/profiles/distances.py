"""Distances between two distributions: what each is, how much of it is error of the sketches, how much is chance.

| name | definition | what chance alone makes of it |
|---|---|---|
| linf_simple | max abs(F1 - F2), Kolmogorov and Smirnov's; of categories max abs(p - q) | c sqrt(1/n + 1/m) |
| linf_robust | max(0, linf_simple - c sqrt(1/n + 1/m)) | |
| chi_square | Σ (o - e)² / e after merging rare categories, as Deequ | its p-value, of what n and m are worth |
| psi | Σ (p - q) ln(p / q) | χ²_{B-1} (1/n + 1/m) |
| jensen_shannon | ½ KL(p, M) + ½ KL(q, M), M = ½ (p + q), in nats | one eighth of that of psi |
| wasserstein | ∫ abs(F1 - F2) dx, in standard deviations of the baseline | z ∫ sqrt(F (1 - F)) dx sqrt(1/n + 1/m) |

n and m are effective sizes: numbers that follow each other in a stream are worth n / τ independent ones
(`policylab.monitoring.profiles.column.autocorrelation_time`). psi and jensen_shannon are over the different values
where both sides have few of them, else over 10 bins that the baseline fills equally; each gets a pseudo-count of ½, so
that an empty one does not make psi infinite. c = sqrt(-ln(α / 2) / 2) for the false-alarm rate α (Massart 1990).

No p-value is made from sketches: their error alone rejects a true null hypothesis at a million values.

Source: awslabs/deequ, `Distance.scala`; Lin, IEEE Trans. Inf. Theory 37 (1991); Yurdakul 2018 (psi by chance).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, chdtri, ndtri

from policylab.monitoring.profiles.column import ColumnProfile
from policylab.monitoring.profiles.quantile_sketch import Steps, share_below

Floats = NDArray[np.float64]
N_BINS = 10
PSEUDO_COUNT = 0.5
SMALLEST_STD = 1e-150
"""Quotients by smaller standard deviations may be no numbers."""
DEEQU_C = 1.8
"""Deequ's constant of `linf_robust`, a false-alarm rate of about 0.003."""
MIN_OF_TWO = 10
MIN_OF_MANY = 5
RARE_SHARE = 0.2


@dataclasses.dataclass(frozen=True, slots=True)
class Distance:
    """One distance.

    Attributes:
        value: as measured.
        error: how far the sketches may be off, with 99 % confidence; 0 for exact counts.
        noise: what chance alone exceeds with the false-alarm rate that was asked for.
    """

    value: float
    error: float = 0.0
    noise: float = 0.0

    @property
    def beyond_chance(self) -> bool:
        """Whether neither chance nor the sketches explain it."""
        return self.value > self.error + self.noise


@dataclasses.dataclass(frozen=True, slots=True)
class ChiSquare:
    """Pearson's statistic, its degrees of freedom and p-value; NaN where fewer than two categories are left."""

    statistic: float
    degrees: int
    p_value: float


def linf_factor(false_alarm_rate: float) -> float:
    """Return c of `linf_robust` for a false-alarm rate.

    >>> round(linf_factor(0.003), 4)
    1.8031
    """
    return float(np.sqrt(-np.log(false_alarm_rate / 2) / 2))


def linf_p_value(simple: float, *, spread: float, error: float = 0.0) -> float:
    """Return an upper bound on the chance that undrifted data are as far apart, for control over many columns.

    Args:
        simple: L-infinity distance of numbers.
        spread: 1/n + 1/m of the effective sizes.
        error: how far the sketches may be off, which is taken off first: the bound is no p-value of the sketches.

    >>> round(linf_p_value(0.2, spread=1 / 100 + 1 / 100), 4)
    0.0366
    """
    return min(1.0, 2.0 * float(np.exp(-2.0 * max(0.0, simple - error) ** 2 / spread)))


def linf_spread(distance: Distance, *, false_alarm_rate: float) -> float:
    """Return 1/n + 1/m of the effective sizes behind an L-infinity distance, whose noise is of ``false_alarm_rate``."""
    return (distance.noise / linf_factor(false_alarm_rate)) ** 2


def linf_robust(simple: float, *, n: float, m: float, c: float = DEEQU_C) -> float:
    """Return what is left of a distance between n and m values without what chance explains."""
    return max(0.0, simple - c * float(np.sqrt((n + m) / (n * m))))


def linf_categories(first: Mapping[str, int], second: Mapping[str, int]) -> float:
    """Return max abs(p - q) over the categories of either side.

    >>> linf_categories({"a": 1, "b": 1}, {"b": 1, "c": 3})
    0.75
    """
    p, q = shares(first, second, pseudo_count=0.0)
    return float(np.abs(p - q).max())


def shares(
    first: Mapping[str, int], second: Mapping[str, int], *, pseudo_count: float = PSEUDO_COUNT
) -> tuple[Floats, Floats]:
    """Return the shares of all categories of either side, in one order, shapes (k,)."""
    names = list(dict.fromkeys([*first, *second]))
    counts = np.array([[side.get(name, 0) for name in names] for side in (first, second)], dtype=np.float64)
    counts += pseudo_count
    p, q = counts / counts.sum(axis=1, keepdims=True)
    return p, q


def chi_square(sample: Mapping[str, int], baseline: Mapping[str, int], *, inflation: float = 1.0) -> ChiSquare:
    """Return the test of ``sample`` against ``baseline`` by Deequ's rules.

    Baseline counts are scaled to the sample's total over the baseline's categories. The smallest expected category
    is merged into the second smallest until, of two, both have 10 expected, or, of more, at most a fifth have fewer
    than 5. Categories that the baseline does not know play no part: `linf_categories` sees those.

    Args:
        sample: observed counts.
        baseline: counts that are expected, up to a factor.
        inflation: divides the statistic for the p-value: how many successive values are worth one, times 1 + m / n,
            since a baseline of n values is not known exactly. 1 is Deequ's test.
    """
    observed = np.array([sample.get(name, 0) for name in baseline], dtype=np.float64)
    expected = np.array(list(baseline.values()), dtype=np.float64)
    if expected.sum() == 0 or observed.sum() == 0:
        return ChiSquare(float("nan"), 0, float("nan"))
    expected *= observed.sum() / expected.sum()
    order = expected.argsort(kind="stable")
    observed, expected = observed[order], expected[order]
    while len(expected) >= 2 and not _enough(expected):
        merged = expected[0] + expected[1], observed[0] + observed[1]
        at = int(np.searchsorted(expected[2:], merged[0]))
        expected = np.insert(expected[2:], at, merged[0])
        observed = np.insert(observed[2:], at, merged[1])
    if len(expected) < 2:
        return ChiSquare(float("nan"), 0, float("nan"))
    statistic = float(((observed - expected) ** 2 / expected).sum())
    degrees = len(expected) - 1
    return ChiSquare(statistic, degrees, float(chdtrc(degrees, statistic / inflation)))


def _enough(expected: Floats) -> bool:
    if len(expected) == 2:
        return bool((expected >= MIN_OF_TWO).all())
    return int((expected < MIN_OF_MANY).sum()) <= int(RARE_SHARE * len(expected))


def psi(p: Floats, q: Floats) -> float:
    """Return Σ (p - q) ln(p / q) for positive shares.

    >>> p = np.array([426, 437, 429, 391, 469, 433, 360, 443, 371, 418.0]); p /= p.sum()
    >>> q = np.array([428, 425, 414, 427, 440, 447, 380, 386, 444, 386.0]); q /= q.sum()
    >>> round(psi(p, q), 15)
    0.007406694184014
    """
    return float(((p - q) * np.log(p / q)).sum())


def jensen_shannon(p: Floats, q: Floats) -> float:
    """Return ½ KL(p, M) + ½ KL(q, M) with M = ½ (p + q), in nats: 0 to ln 2. Shares may be 0."""
    m = (p + q) / 2
    ratios = [np.log(np.divide(side, m, out=np.ones_like(side), where=side > 0)) for side in (p, q)]
    return max(0.0, float(p @ ratios[0] + q @ ratios[1]) / 2)


def between_numbers(baseline: ColumnProfile, window: ColumnProfile, *, false_alarm_rate: float) -> dict[str, Distance]:
    """Return the distances between the numbers of two columns, neither of which is empty."""
    steps = Steps.of(baseline.sketch, window.sketch)
    gap = np.abs(steps.first - steps.second)
    n, m = (column.n_numbers / column.autocorrelation_time for column in (baseline, window))
    error = baseline.sketch.rank_error() + window.sketch.rank_error()
    spread = 1 / n + 1 / m
    simple = Distance(float(gap.max()), error, linf_factor(false_alarm_rate) * float(np.sqrt(spread)))
    found = {"linf_simple": simple, **_binned(baseline, window, spread=spread, rate=false_alarm_rate)}
    widths = np.diff(steps.points)
    scale = max(baseline.std_dev, SMALLEST_STD) if baseline.std_dev else 1.0
    together = (n * steps.first + m * steps.second) / (n + m)  # a baseline of few values says little of how they vary
    upright = np.sqrt(together * (1 - together))[:-1]
    z = float(-ndtri(false_alarm_rate / 2))
    found["wasserstein"] = Distance(
        float(gap[:-1] @ widths) / scale,
        error * float(widths.sum()) / scale if error else 0.0,
        z * float(upright @ widths) / scale * float(np.sqrt(spread)),
    )
    return found


def _binned(baseline: ColumnProfile, window: ColumnProfile, *, spread: float, rate: float) -> dict[str, Distance]:
    counts = [column.sketch.counts() for column in (baseline, window)]
    if counts[0] is not None and counts[1] is not None:
        few = [{str(value): count for value, count in side.items()} for side in counts if side is not None]
        return _over_shares(*shares(*few), spread=spread, rate=rate)
    edges = np.unique(baseline.sketch.quantiles(np.arange(1, N_BINS) / N_BINS))
    p, q = (_bin_shares(column, edges) for column in (baseline, window))
    error = sum(column.sketch.rank_error(n_points=len(edges)) for column in (baseline, window))
    return _over_shares(p, q, spread=spread, rate=rate, error=2 * error)


def _over_shares(p: Floats, q: Floats, *, spread: float, rate: float, error: float = 0.0) -> dict[str, Distance]:
    """Return the distances of two vectors of positive shares, each of which may be off by ``error``.

    To first order a distance is then off by at most ``error`` times the sum of its absolute partial derivatives.
    """
    m = (p + q) / 2
    of_psi = np.abs(np.log(p / q)) + np.abs(p - q) / np.minimum(p, q)
    of_js = (np.abs(np.log(p / m)) + np.abs(np.log(q / m))) / 2
    chance = float(chdtri(len(p) - 1, rate)) * spread if len(p) > 1 else 0.0
    return {
        "psi": Distance(psi(p, q), error * float(of_psi.sum()), chance),
        "jensen_shannon": Distance(jensen_shannon(p, q), error * float(of_js.sum()), chance / 8),
    }


def _bin_shares(column: ColumnProfile, edges: Floats) -> Floats:
    """Return the share of the numbers in each bin, with its pseudo-count."""
    below = share_below(*column.sketch.weighted(), points=edges)
    counts = np.diff(below, prepend=0, append=1) * column.n_numbers + PSEUDO_COUNT
    return np.asarray(counts / counts.sum())


def between_categories(
    baseline: Mapping[str, int], window: Mapping[str, int], *, false_alarm_rate: float, time: float = 1.0
) -> dict[str, Distance]:
    """Return the distances between two columns of categories, neither of which is empty; counts are exact."""
    n, m = sum(baseline.values()) / time, sum(window.values()) / time
    spread = 1 / n + 1 / m
    simple = Distance(linf_categories(baseline, window), noise=linf_factor(false_alarm_rate) * float(np.sqrt(spread)))
    return {"linf_simple": simple, **_over_shares(*shares(baseline, window), spread=spread, rate=false_alarm_rate)}
