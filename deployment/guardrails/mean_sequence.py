"""`MeanSequence`: a confidence interval of a mean that stays valid however often one looks at it.

| symbol | meaning |
|---|---|
| x_i in [low, high] | observations; c = high - low |
| m_i | running mean of the observations before x_i |
| s_t = sum_{i<=t} (x_i - E[x_i given the past]) | what is bounded |
| v_t = sum_{i<=t} (x_i - m_i)^2 | its intrinsic time |

Source: Howard, Ramdas, McAuliffe and Sekhon (2021), "Time-uniform, nonparametric, nonasymptotic confidence sequences",
Annals of Statistics 49(2): theorem 4 (empirical Bernstein: s_t crosses no sub-exponential boundary of scale c in v_t)
and proposition 9 (the gamma-exponential mixture as that boundary). The observations may depend on the past; what is
covered is the average of their conditional means.
"""

from __future__ import annotations

import math

from pydantic import Field

from policylab.config import Settings


def log_mixture(s: float, v: float, *, rho: float, c: float) -> float:
    """Return the logarithm of the one-sided gamma-exponential mixture supermartingale, s >= 0.

    >>> log_mixture(0.0, 10.0, rho=10.0, c=1.0) < 0.0 < log_mixture(20.0, 10.0, rho=10.0, c=1.0)
    True
    """
    from scipy.special import gammainc, gammaln

    k, m, z = rho / c**2, (v + rho) / c**2, (c * s + v + rho) / c**2
    lead = k * math.log(k) - gammaln(k) - math.log(gammainc(k, k))
    return float(lead + gammaln(m) + math.log(gammainc(m, z)) - m * math.log(z) + (c * s + v) / c**2)


def boundary(v: float, *, alpha: float, v_opt: float, c: float) -> float:
    """Return the value that s exceeds at no time with probability 1 - alpha.

    Args:
        v: intrinsic time, at least 0.
        alpha: probability of ever exceeding it, in (0, 1/2).
        v_opt: intrinsic time at which the boundary is tightest.
        c: scale; largest difference of two observations.

    >>> boundary(100.0, alpha=0.05, v_opt=100.0, c=1.0) < boundary(100.0, alpha=0.01, v_opt=100.0, c=1.0)
    True
    """
    from scipy.optimize import brentq

    level = 2.0 * alpha  # the one-sided boundary is tuned at twice its level
    rho = v_opt / (2.0 * math.log(1.0 / level) + math.log(1.0 + 2.0 * math.log(1.0 / level)))
    target = math.log(1.0 / alpha)
    upper = c + math.sqrt(v + rho)
    while log_mixture(upper, v, rho=rho, c=c) < target:
        upper *= 2.0
    return float(brentq(lambda s: log_mixture(s, v, rho=rho, c=c) - target, 0.0, upper, xtol=1e-9 * upper))


class MeanState(Settings):
    """What a `MeanSequence` is made of, as it is stored."""

    n: int = Field(default=0, ge=0)
    total: float = 0.0
    v: float = Field(default=0.0, ge=0.0)


class MeanSequence:
    """The running mean of bounded observations.

    Args:
        low: lowest possible observation.
        high: highest.
        v_opt: intrinsic time at which the interval is to be tightest, in squared units of the observations.
        state: to go on from.

    >>> rewards = MeanSequence(0.0, 1.0, v_opt=25.0)
    >>> for reward in [0.0, 1.0] * 50: rewards.observe(reward)
    >>> low, high = rewards.interval(0.05)
    >>> low < 0.5 < high
    True
    """

    def __init__(self, low: float, high: float, *, v_opt: float, state: MeanState | None = None) -> None:
        self.low = low
        self.high = high
        self._v_opt = v_opt
        start = state or MeanState()
        self.n, self._total, self._v = start.n, start.total, start.v

    @property
    def mean(self) -> float | None:
        """Mean of what was observed."""
        return self._total / self.n if self.n else None

    @property
    def state(self) -> MeanState:
        """What to go on from."""
        return MeanState(n=self.n, total=self._total, v=self._v)

    def observe(self, value: float) -> None:
        """Take one observation, which lies between the bounds."""
        predicted = self._total / self.n if self.n else (self.low + self.high) / 2.0
        self._v += (value - predicted) ** 2
        self._total += value
        self.n += 1

    def interval(self, alpha: float) -> tuple[float, float]:
        """Return the ends of the interval that covers the mean, at all times together, with probability 1 - alpha."""
        if self.n == 0:
            return self.low, self.high
        half = boundary(self._v, alpha=alpha / 2.0, v_opt=self._v_opt, c=self.high - self.low) / self.n
        mean = self._total / self.n
        return max(self.low, mean - half), min(self.high, mean + half)
