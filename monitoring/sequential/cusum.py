"""Page's two-sided cumulative sums, and the limit that makes false alarms as rare as asked.

S+_t = max(0, S+_{t-1} + z_t - k) and S-_t = max(0, S-_{t-1} - z_t - k); alarm when either reaches h. k is half the
shift, in standard deviations, that is to be found soonest. The change is placed where the sum that alarmed last left 0.

The limit h belongs to an expected run length: how many values pass on average before a false alarm. For independent
normal values Siegmund's approximation gives it; for a baseline as it is, streams are drawn from it in blocks (which
keeps what dependence is left), and moved and stretched by the uncertainty of the baseline's own mean and standard
deviation, without which a long run length could not be kept with a short baseline.

Source: Page, Biometrika 41 (1954); Siegmund, "Sequential Analysis" (1985), section 2.6; Politis and Romano, "The
stationary bootstrap", JASA 89 (1994).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from policylab.errors import UserError
from policylab.monitoring.sequential.reference import Reference

Floats = NDArray[np.float64]
HALF_SHIFT = 0.5
"""k for a shift of one standard deviation."""
BLOCK = 15
"""Mean length of the blocks that are drawn, in batches: where one begins, what is left of dependence is lost."""
MAX_STEPS, N_STREAMS = 5_000, 400
REACH = 20.0
"""So many times the length of the streams is the longest run length that is read off them."""
SPAN = 4.0


@dataclasses.dataclass(frozen=True, slots=True)
class Alarm:
    """Where a cumulative sum reached its limit.

    Attributes:
        at: position of the standardised value that did it.
        change: position of the first value after the change, as far as the sum knows.
        upwards: whether the stream went up.
    """

    at: int
    change: int
    upwards: bool


def sums(z: Floats, *, k: float = HALF_SHIFT) -> Floats:
    """Return S+ along the last axis, without a limit; S- is that of -z.

    >>> sums(np.array([1.0, -2.0, 1.5, 1.5])).tolist()
    [0.5, 0.0, 1.0, 2.0]
    """
    walk = (z - k).cumsum(axis=-1)
    found: Floats = walk - np.minimum(np.minimum.accumulate(walk, axis=-1), 0.0)
    return found


def first_alarm(z: Floats, *, limit: float, k: float = HALF_SHIFT) -> Alarm | None:
    """Return the first alarm of either sum over standardised values, shape (n,); None without one."""
    found = []
    for upwards in (True, False):
        s = sums(z if upwards else -z, k=k)
        over = np.flatnonzero(s >= limit)
        if over.size:
            at = int(over[0])
            at_zero = np.flatnonzero(s[:at] == 0.0)
            found.append(Alarm(at, int(at_zero[-1]) + 1 if at_zero.size else 0, upwards))
    return min(found, key=lambda alarm: alarm.at, default=None)


def run_length(limit: float, *, shift: float = 0.0, k: float = HALF_SHIFT) -> float:
    """Return Siegmund's approximation of the two-sided run length of independent normal values.

    For k = 0.5, h = 5: 469 without a shift (tabulated 465), 10.3 with a shift of one (10.4).

    >>> round(run_length(5.0), 1), round(run_length(5.0, shift=1.0), 2)
    (469.1, 10.34)
    """
    b = limit + 1.166
    rates = []
    for drift in (shift - k, -shift - k):
        length = b * b if abs(drift) < 1e-9 else (math.expm1(-2 * drift * b) + 2 * drift * b) / (2 * drift * drift)
        rates.append(1.0 / length)
    return 1.0 / sum(rates)


def normal_limit(wanted: float, *, k: float = HALF_SHIFT) -> float:
    """Return h for a run length of independent normal values, at least 10."""
    return float(brentq(lambda limit: math.log(run_length(limit, k=k) / wanted), 0.1, 100.0))


def limit_for(reference: Reference, wanted: float, *, rng: np.random.Generator, k: float = HALF_SHIFT) -> float:
    """Return h for an expected run length of streams like the baseline.

    Args:
        reference: the baseline.
        wanted: expected values (not batches) before a false alarm.
        rng: draws the streams.
        k: half the shift to be found, in standard deviations of batch means.

    Raises:
        UserError: the run length is less than ten batches.
    """
    batches = wanted / reference.batch
    if batches < 10:
        raise UserError(
            f"the run length {wanted:g} is less than ten batches of {reference.batch} values, which are worth one "
            f"independent value each; ask for at least {10 * reference.batch:,}"
        )
    n_steps = int(min(batches, MAX_STEPS))
    z = _streams(reference, n_steps, rng=rng)
    largest = np.maximum(sums(z, k=k).max(axis=1), sums(-z, k=k).max(axis=1))
    reached = min(batches, REACH * n_steps)
    # The time to a false alarm is nearly exponential: a share exp(-n / run length) of streams has none in n steps.
    near, limit = np.quantile(largest, np.exp(-n_steps / np.array([reached / SPAN, reached])))
    # Beyond, the run length grows as exp(θ h), with θ = 2 k for normal values and less for long tails.
    growth = min(2 * k, math.log(SPAN) / max(limit - near, 1e-9))
    return float(limit + math.log(batches / reached) / growth)


def _streams(reference: Reference, n_steps: int, *, rng: np.random.Generator) -> Floats:
    """Return streams drawn from the baseline, shape (N_STREAMS, n_steps)."""
    m = len(reference.z)
    begins = rng.random((N_STREAMS, n_steps)) < 1.0 / BLOCK
    begins[:, 0] = True
    fresh = rng.integers(m, size=(N_STREAMS, n_steps))
    last = np.maximum.accumulate(np.where(begins, np.arange(n_steps), 0), axis=1)
    place = np.take_along_axis(fresh, last, axis=1) + np.arange(n_steps) - last
    # How far the baseline's mean and standard deviation may be off: neighbouring batches still go together a little.
    together = max(0.0, float(reference.z[:-1] @ reference.z[1:]) / m)
    offset = rng.standard_normal((N_STREAMS, 1)) * math.sqrt((1.0 + 2.0 * together) / m)
    scale = np.sqrt((m - 1) / rng.chisquare(m - 1, size=(N_STREAMS, 1)))
    found: Floats = reference.z[place % m] * scale + offset
    return found
