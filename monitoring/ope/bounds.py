"""High-confidence lower bounds on the value of the target policy, from importance-weighted returns.

The weighted returns X_i = c_{i,T-1} (G_i - g) are at least 0 if no return is below g, and E[X] = V - g. Cutting them at
a threshold only lowers their mean, so that a bound for numbers in [0, threshold] holds for E[X] however long the tail
is. The threshold is chosen on a part of the episodes that the bound does not use.

| method | valid | bound on E[X], Y = min(X, b), δ = 1 - level, n episodes |
|---|---|---|
| hoeffding | always | mean Y - b sqrt(ln(1/δ) / (2 n)) |
| empirical_bernstein | always | mean Y - sqrt(2 var Y ln(2/δ) / n) - 7 b ln(2/δ) / (3 (n - 1)) |
| t | for large n | mean X - t_{1-δ, n-1} sd X / sqrt n |

"Always" supposes that g really bounds the returns from below: state it, or it is the least logged return, which the
result says.

Source: Thomas, Theocharous and Ghavamzadeh, "High confidence off-policy evaluation", AAAI 2015, theorem 1 with one
common threshold; Maurer and Pontil, COLT 2009, theorem 4; Hoeffding 1963.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from policylab.errors import UserError

Floats = NDArray[np.float64]
SHARE_FOR_THRESHOLD = 0.05
"""Of the episodes, as in Thomas et al. 2015, section 4; at least `MIN_FOR_THRESHOLD`."""
MIN_FOR_THRESHOLD = 20


def hoeffding(x: Floats, *, threshold: float, level: float) -> float:
    """Return a lower bound on E[X] for X >= 0, by X cut at ``threshold``.

    >>> round(hoeffding(np.full(200, 0.5), threshold=1.0, level=0.95), 6)
    0.413459
    """
    return float(np.minimum(x, threshold).mean() - threshold * np.sqrt(np.log(1 / (1 - level)) / (2 * len(x))))


def empirical_bernstein(x: Floats, *, threshold: float, level: float) -> float:
    """Return a lower bound on E[X] for X >= 0, by X cut at ``threshold``.

    >>> round(empirical_bernstein(np.full(200, 0.5), threshold=1.0, level=0.95), 6)
    0.456747
    """
    y, n = np.minimum(x, threshold), len(x)
    log_term = np.log(2 / (1 - level))
    return float(y.mean() - np.sqrt(2 * y.var(ddof=1) * log_term / n) - 7 * threshold * log_term / (3 * (n - 1)))


def student_t(x: Floats, *, level: float) -> float:
    """Return Student's lower bound on E[X], which is valid for large samples only."""
    return float(x.mean() - stdtrit(len(x) - 1, level) * x.std(ddof=1) / np.sqrt(len(x)))


def lower_bounds(
    weight: Floats, returns: Floats, *, level: float, rng: np.random.Generator, least_return: float | None = None
) -> dict[str, float]:
    """Return a lower bound on the target's value by each method.

    Args:
        weight: c_{T-1} of each episode, shape (E,).
        returns: G of each episode, shape (E,).
        level: one-sided confidence, in (0, 1).
        rng: chooses the episodes that set the threshold.
        least_return: g, which no return of the task is below; None takes the least logged one.

    Raises:
        UserError: a logged return is below ``least_return``, or there are too few episodes.
    """
    least = float(returns.min()) if least_return is None else least_return
    if returns.min() < least:
        raise UserError(f"a logged return of {returns.min():g} is below the least return {least:g}; give a lower one")
    n_pilot = max(MIN_FOR_THRESHOLD, round(SHARE_FOR_THRESHOLD * len(returns)))
    if len(returns) < 2 * n_pilot:
        raise UserError(f"a high-confidence bound needs at least {2 * n_pilot} episodes, got {len(returns)}")
    x = rng.permutation(weight * (returns - least))
    pilot, rest = x[:n_pilot], x[n_pilot:]
    bounded: dict[str, Callable[..., float]] = {"hoeffding": hoeffding, "empirical_bernstein": empirical_bernstein}
    found = {"t": least + student_t(x, level=level)}
    for name, bound in bounded.items():
        threshold = _best_threshold(bound, pilot, n=len(rest), level=level)
        # A weighted return is never negative, so 0 is a bound as well.
        found[name] = least + max(0.0, bound(rest, threshold=threshold, level=level))
    return found


def _best_threshold(bound: Callable[..., float], pilot: Floats, *, n: int, level: float) -> float:
    """Return the threshold that promises the highest bound for n episodes, going by the pilot's."""
    candidates = np.unique(pilot[pilot > 0])
    if not candidates.size:
        return 1.0
    like = np.tile(pilot, -(-n // len(pilot)))[:n]  # n episodes that look like the pilot's
    promises = [bound(like, threshold=float(candidate), level=level) for candidate in candidates]
    return float(candidates[int(np.argmax(promises))])
