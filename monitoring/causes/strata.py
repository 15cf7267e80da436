"""Whether an outcome given its circumstances has changed, where circumstances repeat: chi-square within strata.

Baseline and window are two samples in each stratum (a state, or a state and an action). Within a stratum their outcomes
are compared by Pearson's test of homogeneity; statistics and degrees of freedom add up over strata. Counts of a Markov
chain's transitions behave as independent samples do, so that the autocorrelation of states plays no part.

The effect φ is free of the sample sizes: φ² = Σ_s (χ²_s - dof_s) / Σ_s n_s m_s / (n_s + m_s) estimates the mean of the
χ² distance of the two conditional distributions without bias; 0 is no change, 0.1 small, 0.5 large (Cohen 1988).

Outcomes that are expected fewer than five times in either sample are left out of their stratum: a choice by the pooled
counts, which the null hypothesis does not mind.

Source: Billingsley, "Statistical methods in Markov chains", Annals of Mathematical Statistics 32 (1961).
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
        effect: φ, at least 0.
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
    sizes = within[first]
    weight = float((sizes.prod(axis=1) / sizes.sum(axis=1)).sum())
    effect = float(np.sqrt(max(0.0, statistic - degrees) / weight))
    compared = float(counts[:, 1].sum() / len(window[0]))
    return Homogeneity(statistic, degrees, float(chdtrc(degrees, statistic)), effect, compared)


def _table(
    baseline: tuple[NDArray[np.int64], NDArray[np.int64]], window: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the stratum of each pair that occurs, numbered from 0, and its counts in both samples, shape (k, 2)."""
    pairs = np.concatenate([np.stack(side, axis=1) for side in (baseline, window)])
    different, index = np.unique(pairs, axis=0, return_inverse=True)
    side = np.repeat([0, 1], [len(baseline[0]), len(window[0])])
    counts = np.bincount(index.ravel() * 2 + side, minlength=2 * len(different)).reshape(-1, 2)
    return np.unique(different[:, 0], return_inverse=True)[1].ravel(), counts.astype(np.float64)


def _sums(stratum: NDArray[np.int64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the totals of each row's stratum in both samples, shape (k, 2)."""
    totals = np.stack([np.bincount(stratum, weights=counts[:, side]) for side in (0, 1)], axis=1)
    return np.asarray(totals[stratum], dtype=np.float64)
