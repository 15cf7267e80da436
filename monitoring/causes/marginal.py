"""The symptoms: what steps and episodes are like, whatever their circumstances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from policylab.monitoring.causes.comparison import Comparison, Floats, Role, columns, listed
from policylab.monitoring.causes.matching import two_samples
from policylab.monitoring.causes.steps import Steps
from policylab.monitoring.profiles.autocorrelation import autocorrelation_time


def marginal(baseline: Steps, window: Steps) -> dict[str, Comparison]:
    """Return the layers that any two samples of steps have."""
    sides = (baseline, window)
    found = {
        "observation": columnwise("symptom", [columns(side.observation) for side in sides], detail="observations"),
        "action": columnwise("symptom", [_action_columns(side.action, sides) for side in sides], detail="actions"),
    }
    if baseline.log_propensity is not None and window.log_propensity is not None:
        found["exploration"] = _exploration(baseline, window)
    values: dict[str, Callable[[Steps], Floats]] = {
        "return": lambda side: side.totals(side.reward)[side.whole],
        "length": lambda side: side.lengths[side.whole].astype(np.float64),
    }
    for name, of in values.items():
        first, second = of(baseline), of(window)
        if not len(first) or not len(second):
            continue
        test = two_samples(first, second)
        means = f"{len(second):,} whole episodes, mean {second.mean():.4g} instead of {first.mean():.4g}"
        found[name] = Comparison("symptom", test.distance, test.p_value, means)
    return found


def _action_columns(action: NDArray[Any], sides: tuple[Steps, Steps]) -> Floats:
    """Return actions as columns: one for each listed action, 1 where it was taken."""
    if not listed(action):
        return columns(action)
    known = np.unique(np.concatenate([side.action for side in sides]))
    return np.asarray((action[:, None] == known).astype(np.float64))


def columnwise(role: Role, sides: list[Floats], *, detail: str, times: bool = True) -> Comparison:
    """Return the comparison of the most different column; successive values are counted for what they are worth."""
    parts = []
    for first, second in zip(sides[0].T, sides[1].T, strict=True):
        time = max(autocorrelation_time(first), autocorrelation_time(second)) if times else 1.0
        parts.append(two_samples(first, second, time=time))
    best = min(range(len(parts)), key=lambda i: (parts[i].p_value, -parts[i].distance))
    which = f"{detail}, most in column {best}" if len(parts) > 1 else detail
    return Comparison(role, parts[best].distance, min(1.0, parts[best].p_value * len(parts)), which)


def _exploration(baseline: Steps, window: Steps) -> Comparison:
    """Return the difference of mean unsureness, tested over episodes, whose steps belong together."""
    means, variances = [], []
    densities = not listed(baseline.action)
    for side in (baseline, window):
        assert side.log_propensity is not None
        unsure = -side.log_propensity if densities else 1.0 - np.exp(np.minimum(side.log_propensity, 0.0))
        mean = float(unsure.mean())
        residual = side.totals(unsure) - mean * side.lengths
        means.append(mean)
        variances.append(float((residual**2).sum()) / len(unsure) ** 2)
    difference, error = means[1] - means[0], float(np.sqrt(sum(variances)))
    p_value = 2.0 * float(ndtr(-abs(difference) / error)) if error > 0 else float(difference == 0)
    return Comparison("symptom", abs(difference), p_value, f"mean {means[1]:.4g} instead of {means[0]:.4g}")


def unseen(
    flags: NDArray[np.bool_], window: Steps, *, rows: NDArray[np.int64], expected: float, n_baseline: int
) -> Comparison:
    """Return the share of unseen observations beyond the share that the baseline itself leads to expect.

    Args:
        flags: which of some steps of the window are unseen, shape (m,).
        window: of which they are.
        rows: which steps they are, shape (m,); those of an episode belong together.
        expected: of repeating states the share of those seen once (Good and Turing, Biometrika 40, 1953); of others the
            share that is beyond the limit by its definition.
        n_baseline: steps of the baseline behind ``expected``.
    """
    m, share = len(flags), float(flags.mean())
    episode = np.searchsorted(window.starts, rows, side="right") - 1
    together = np.bincount(episode, weights=flags) - share * np.bincount(episode)
    variance = max(float((together**2).sum()) / m**2, max(expected, 1.0 / m) / m)
    error = np.sqrt(variance * (1.0 + 2.0 * m / n_baseline))  # the baseline's own share comes from half of it
    p_value = float(ndtr(-(share - expected) / error))
    detail = f"{share:.2%} of the steps, {expected:.2%} expected"
    return Comparison("symptom", max(0.0, share - expected), p_value, detail)
