"""Whether an outcome given its circumstances has changed, where circumstances do not repeat: nearest neighbours.

Steps of the window are matched one to one with steps of the baseline whose observations are nearest (in standard
deviations of the baseline, and of the same action where the action is a circumstance). Matched steps have the
circumstances of the window, so that a change of which observations occur is not mistaken for a change of what follows
from them. What has no near neighbour is unseen, and not compared.

A neighbour is near, not in the same place. What that does to a number is taken off to first order: by a regression on
the baseline's observations within each leaf (Abadie and Imbens 2011). A deterministic environment shows the rest else.

The matched steps are divided into leaves by halving them again and again at the median of the widest dimension. Within
a leaf, numbers become quarters of both samples together; then leaves are strata, and quarters or listed actions
outcomes, of `policylab.monitoring.causes.strata`.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.special import kolmogorov

from policylab.monitoring.causes.strata import Homogeneity, homogeneity

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
NEAR = 0.99
"""Quantile of the distances between the halves of the baseline up to which a neighbour is near."""
MAX_ROWS = 20_000
MIN_ROWS = 20
MAX_HALVINGS = 5
LEAF_ROWS = 80
"""Matched steps that a leaf has at least: quarters of both samples then expect ten."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """Pairs of steps that are near each other, each step in one pair at most.

    Attributes:
        window: positions in the window, shape (k,).
        baseline: positions in the baseline, shape (k,).
        stratum: the leaf and group of each pair, shape (k,).
        place: the baseline's points of the pairs, in standard deviations, shape (k, d).
        gap: from there to the window's points, shape (k, d).
        unseen: which steps of the window have no near neighbour, shape (m,).
    """

    window: Codes
    baseline: Codes
    stratum: Codes
    place: Floats
    gap: Floats
    unseen: NDArray[np.bool_]


def matches(baseline: Floats, window: Floats, *, groups: tuple[Codes, Codes] | None = None) -> Matches:
    """Return the matches of two samples of points.

    Args:
        baseline: shape (n, d).
        window: shape (m, d).
        groups: of the points, from 0, shapes (n,) and (m,): only points of one group match.
    """
    centre, scale = baseline.mean(axis=0), baseline.std(axis=0)
    scale[scale == 0] = 1.0
    first, second = (baseline - centre) / scale, (window - centre) / scale
    of_first, of_second = groups or (np.zeros(len(first), dtype=np.int64), np.zeros(len(second), dtype=np.int64))
    limit = _near(first, of_first)
    distance, index = np.full(len(second), np.inf), np.zeros(len(second), dtype=np.int64)
    for group in np.unique(of_second):
        rows, candidates = np.flatnonzero(of_second == group), np.flatnonzero(of_first == group)
        if candidates.size:
            found, place = cKDTree(first[candidates]).query(second[rows])
            distance[rows], index[rows] = found, candidates[place]
    near = np.flatnonzero(distance <= limit)
    order = near[distance[near].argsort(kind="stable")]  # the nearest gets the neighbour that several want
    paired = order[np.unique(index[order], return_index=True)[1]]
    stratum = np.zeros(len(paired), dtype=np.int64)
    for group in np.unique(of_second[paired]):
        rows = np.flatnonzero(of_second[paired] == group)
        stratum[rows] = 2**MAX_HALVINGS * group + leaves(second[paired[rows]])
    place = first[index[paired]]
    return Matches(paired, index[paired], stratum, place, second[paired] - place, unseen=distance > limit)


def _near(points: Floats, group: Codes) -> float:
    """Return the distance that a share `NEAR` of one half of the points has to the other half."""
    found = []
    for one in np.unique(group):
        rows = np.flatnonzero(group == one)
        if len(rows) >= 2 * MIN_ROWS:
            found.append(cKDTree(points[rows[::2]]).query(points[rows[1::2]])[0])
    return float(np.quantile(np.concatenate(found), NEAR)) if found else np.inf


def leaves(points: Floats) -> Codes:
    """Return the leaf of each point, shape (k,): halves of halves, each at the median of the widest dimension."""
    leaf = np.zeros(len(points), dtype=np.int64)
    for _ in range(min(MAX_HALVINGS, int(np.log2(max(1, len(points) // LEAF_ROWS))))):
        upper = np.zeros(len(points), dtype=np.bool_)
        for one in np.unique(leaf):
            rows = np.flatnonzero(leaf == one)
            widest = points[rows, int(np.ptp(points[rows], axis=0).argmax())]
            upper[rows] = widest > np.median(widest)
        leaf = 2 * leaf + upper
    return leaf


def matched_outcomes(found: Matches, baseline: Floats | Codes, *, window: Floats | Codes) -> Homogeneity:
    """Return the comparison of an outcome between matched steps; of several numbers, that of the most different one.

    Args:
        found: the matches.
        baseline: the outcome in the baseline: integers of a list, shape (n,), or numbers, shape (n, k).
        window: in the window, as ``baseline``.
    """
    first, second = baseline[found.baseline], window[found.window]
    if first.ndim == 1:
        outcomes = [(first.astype(np.int64), second.astype(np.int64))]
    else:
        outcomes = [
            _quarters(found.stratum, first=one, second=other)
            for one, other in zip(_moved(found, first.astype(np.float64)).T, second.T, strict=True)
        ]
    tests = [homogeneity((found.stratum, one), (found.stratum, other)) for one, other in outcomes]
    best = min(tests, key=lambda test: (test.p_value, -test.effect))
    # Bonferroni over the numbers of an outcome; what is compared are the pairs among the window's steps.
    compared = best.compared * len(found.window) / max(1, len(found.unseen))
    return dataclasses.replace(best, p_value=min(1.0, best.p_value * len(tests)), compared=compared)


def _moved(found: Matches, outcome: Floats) -> Floats:
    """Return the baseline's outcomes, shape (k, n), as they would be where the window's points are.

    Numbers that repeat, such as 0 and 1, stay as they are: they do not vary smoothly with the place.
    """
    moved = outcome.copy()
    smooth = np.array([len(np.unique(column)) > len(column) / 2 for column in outcome.T])
    for one in np.unique(found.stratum):
        rows = np.flatnonzero(found.stratum == one)
        if len(rows) >= 4 * (1 + found.place.shape[1]):
            design = np.column_stack([np.ones(len(rows)), found.place[rows]])
            slopes = np.linalg.lstsq(design, outcome[rows], rcond=None)[0][1:]
            moved[rows] += np.where(smooth, found.gap[rows] @ slopes, 0.0)
    return moved


def _quarters(stratum: Codes, *, first: Floats, second: Floats) -> tuple[Codes, Codes]:
    """Return the quarter of each number within both samples of its stratum."""
    codes = np.zeros((2, len(stratum)), dtype=np.int64)
    for one in np.unique(stratum):
        rows = np.flatnonzero(stratum == one)
        cuts = np.unique(np.quantile(np.concatenate([first[rows], second[rows]]), [0.25, 0.5, 0.75]))
        codes[0, rows], codes[1, rows] = np.searchsorted(cuts, first[rows]), np.searchsorted(cuts, second[rows])
    return codes[0], codes[1]


@dataclasses.dataclass(frozen=True, slots=True)
class TwoSamples:
    """Kolmogorov and Smirnov's distance of two samples, and its p-value; (0, 1) if there are too few to compare."""

    distance: float
    p_value: float


def two_samples(first: Floats, second: Floats, *, time: float = 1.0) -> TwoSamples:
    """Return the comparison of two samples of numbers.

    Args:
        first: shape (n,).
        second: shape (m,).
        time: how many successive numbers are worth one independent one.
    """
    if min(len(first), len(second)) / time < MIN_ROWS:
        return TwoSamples(0.0, 1.0)
    ordered = [np.sort(side) for side in (first, second)]
    points = np.concatenate(ordered)
    shares = [np.searchsorted(side, points, side="right") / len(side) for side in ordered]
    distance = float(np.abs(shares[0] - shares[1]).max())
    effective = len(first) * len(second) / (len(first) + len(second)) / time
    return TwoSamples(distance, float(kolmogorov(np.sqrt(effective) * distance)))
