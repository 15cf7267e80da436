"""Whether an outcome given its circumstances has changed, where circumstances repeat: chi-square within strata.

Baseline and window are two samples in each stratum (a state, or a state and an action). Within a stratum their outcomes
are compared by Pearson's test of homogeneity; statistics and degrees of freedom add up over strata. Counts of a Markov
chain's transitions behave as independent samples do, so that the autocorrelation of states plays no part.

The effect is the root of the mean over strata of Le Cam's distance Λ = ½ Σ_k (p_k - q_k)² / (p_k + q_k) of the two
conditional distributions, in [0, 1]: 0 is no change, 1 are outcomes that have nothing in common, and a fair coin that
falls heads with 0.6 is 0.1 away, by this as by the L-infinity distance of the other layers. A stratum has the weight
n m / (n + m). What chance adds, (K - 1) / 4 (1/n + 1/m) for K outcomes, is taken off: the effect does not depend on the
sizes of the samples.

Outcomes that are expected fewer than five times in either sample are left out of their stratum: a choice by the pooled
counts, which the null hypothesis does not mind.

Source: Billingsley, "Statistical methods in Markov chains", Annals of Mathematical Statistics 32 (1961); Le Cam,
"Asymptotic methods in statistical decision theory" (1986), section 4.2.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

MIN_EXPECTED = 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class Homogeneity:
    """Result of the test.

    Attributes:
        statistic: χ².
        degrees: degrees of freedom; 0 if nothing could be compared.
        p_value: 1 if nothing could be compared.
        effect: in [0, 1].
        compared: share of the window's rows in strata and outcomes that were compared.
    """

    statistic: float
    degrees: int
    p_value: float
    effect: float
    compared: float


def homogeneity(
    baseline: tuple[NDArray[np.int64], NDArray[np.int64]], window: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> Homogeneity:
    """Return the test of two samples, each given as (stratum, outcome) of its rows, non-negative numbers."""
    stratum, counts = _table(baseline, window)
    while len(counts):
        within = _sums(stratum, counts)
        expected = counts.sum(axis=1, keepdims=True) * within / within.sum(axis=1, keepdims=True)
        enough = (expected >= MIN_EXPECTED).all(axis=1)
        if enough.all():
            break
        stratum, counts = stratum[enough], counts[enough]  # fewer rows in a stratum expect less of the others
    outcomes = np.bincount(stratum) if len(stratum) else np.zeros(0, dtype=np.int64)
    several = outcomes[stratum] > 1 if len(stratum) else np.zeros(0, dtype=np.bool_)
    stratum, counts = stratum[several], counts[several]
    if not len(counts):
        return Homogeneity(0.0, 0, 1.0, 0.0, 0.0)
    within = _sums(stratum, counts)
    expected = counts.sum(axis=1, keepdims=True) * within / within.sum(axis=1, keepdims=True)
    statistic = float(((counts - expected) ** 2 / expected).sum())
    first = np.unique(stratum, return_index=True)[1]
    degrees = len(counts) - len(first)
    effect = _effect(counts / within, within.prod(axis=1) / within.sum(axis=1), first=first)
    compared = float(counts[:, 1].sum() / len(window[0]))
    return Homogeneity(statistic, degrees, float(chdtrc(degrees, statistic)), effect, compared)


def _effect(shares: NDArray[np.float64], weight: NDArray[np.float64], *, first: NDArray[np.int64]) -> float:
    """Return the effect of shares of outcomes, shape (k, 2), whose strata have weights, shape (k,), and first rows."""
    apart = (shares[:, 0] - shares[:, 1]) ** 2 / (2.0 * shares.sum(axis=1))
    chance = (len(shares) - len(first)) / 4.0
    return float(np.sqrt(max(0.0, float(weight @ apart) - chance) / weight[first].sum()))


def _table(
    baseline: tuple[NDArray[np.int64], NDArray[np.int64]], window: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the stratum of each pair that occurs, numbered from 0, and its counts in both samples, shape (k, 2)."""
    strata, outcomes = (np.concatenate(both) for both in zip(baseline, window, strict=True))
    n_outcomes = 1 + int(outcomes.max(initial=0))
    different, index = np.unique(strata * n_outcomes + outcomes, return_inverse=True)
    side = np.repeat([0, 1], [len(baseline[0]), len(window[0])])
    counts = np.bincount(index * 2 + side, minlength=2 * len(different)).reshape(-1, 2)
    return np.unique(different // n_outcomes, return_inverse=True)[1], counts.astype(np.float64)


def _sums(stratum: NDArray[np.int64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the totals of each row's stratum in both samples, shape (k, 2)."""
    totals = np.stack([np.bincount(stratum, weights=counts[:, side]) for side in (0, 1)], axis=1)
    return np.asarray(totals[stratum], dtype=np.float64)
