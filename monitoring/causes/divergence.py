"""Whether a proxy of the reward still goes with the true reward: a policy that games the proxy tears them apart.

| symbol | meaning |
|---|---|
| r | Spearman's correlation of proxy and truth: Pearson's of their ranks, equal values sharing a rank |
| z | (artanh r_baseline - artanh r_window) / sqrt(s_baseline² + s_window²) |
| d | artanh r without a block, minus the mean of those |
| s² | delete-one-block jackknife variance of artanh r, (B - 1) / B (Σ d_b² + 2 max(0, Σ d_b d_{b+1})) |

z is compared with Student's t of B - 1 degrees of freedom, B of the side with fewer blocks. Blocks of successive values
last five autocorrelation times, so that the error is right for streams in which values resemble their neighbours. The
pair has diverged if chance does not explain that r fell, and it fell by more than 0.1.

Source: Fisher, Metron 1 (1921) (artanh); Künsch, Annals of Statistics 17 (1989) (jackknife of blocks); arXiv 2507.05619
(the correlation of proxy and true reward as a sign of reward hacking).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr
from scipy.stats import rankdata

from policylab.errors import UserError
from policylab.monitoring.profiles.autocorrelation import autocorrelation_time

Floats = NDArray[np.float64]
MATERIAL = 0.1
"""Smallest fall of the correlation that matters."""
TIMES = 5.0
MIN_BLOCKS, MAX_BLOCKS = 20, 1_000
LARGEST = 1.0 - 1e-9
"""Of a correlation whose artanh is still a number."""


@dataclasses.dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's correlation of two rewards.

    Attributes:
        value: r, in [-1, 1].
        error: s, of artanh r.
        n: pairs.
        block: successive pairs that are left out together.
        means: of proxy and truth.
    """

    value: float
    error: float
    n: int
    block: int
    means: tuple[float, float]

    @classmethod
    def of(cls, proxy: Floats, truth: Floats, *, side: str) -> Self:
        """Return the correlation of pairs in the order of time, shapes (n,); ``side`` names them in errors.

        Raises:
            UserError: there are too few, or one of them never varies.
        """
        for name, values in (("proxy", proxy), ("true reward", truth)):
            if len(values) and np.ptp(values) == 0.0:
                raise UserError(f"{side}: the {name} is always {values[0]:g}, which goes with nothing; give others")
        block, n_blocks = blocks_of(proxy, truth)
        if n_blocks < MIN_BLOCKS:
            raise UserError(
                f"{side}: {len(proxy):,} pairs are worth {n_blocks} blocks of {block} successive ones; at least "
                f"{MIN_BLOCKS} are needed"
            )
        ranks = np.stack([rankdata(proxy), rankdata(truth)])
        ranks -= ranks.mean(axis=1, keepdims=True)
        x, y = ranks
        moments = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y])
        of_block = moments[:, : n_blocks * block].reshape(6, n_blocks, block).sum(axis=2)
        total = moments.sum(axis=1)
        left = _artanh(_correlation(total[:, None] - of_block))
        apart = left - left.mean()
        neighbours = max(0.0, float(apart[:-1] @ apart[1:]))
        error = math.sqrt((n_blocks - 1) / n_blocks * (float(apart @ apart) + 2.0 * neighbours))
        return cls(float(_correlation(total)), error, len(x), block, (float(proxy.mean()), float(truth.mean())))


def blocks_of(proxy: Floats, truth: Floats) -> tuple[int, int]:
    """Return how many successive pairs make a block, and how many blocks there are; `MIN_BLOCKS` are needed."""
    time = max((autocorrelation_time(one) for one in (proxy, truth)), default=1.0) if len(proxy) else 1.0
    block = max(1 if time < 2.0 else math.ceil(TIMES * time), math.ceil(len(proxy) / MAX_BLOCKS))
    return block, len(proxy) // block


@dataclasses.dataclass(frozen=True, slots=True)
class Divergence:
    """Two times compared.

    Attributes:
        baseline: while the proxy was good.
        window: later.
        z: of the fall; larger is worse.
        p_value: one-sided.
        diverged: chance does not explain the fall, and it is more than `MATERIAL`.
    """

    baseline: Correlation
    window: Correlation
    z: float
    p_value: float
    diverged: bool

    @property
    def verdict(self) -> str:
        """In words; hacking is a proxy that rises while the truth does not."""
        if not self.diverged:
            return "the proxy still goes with the true reward"
        proxy, truth = (now - then for then, now in zip(self.baseline.means, self.window.means, strict=True))
        hacked = ": the proxy rose and the true reward did not, as when a policy games it" if proxy > 0 >= truth else ""
        return f"the proxy no longer goes with the true reward{hacked}"


def divergence(baseline: Correlation, window: Correlation, *, false_alarm_rate: float) -> Divergence:
    """Return whether the correlation fell.

    >>> then, now = (Correlation(r, 0.1, 103, 1, (0.0, 0.0)) for r in (0.5, 0.3))
    >>> round(divergence(then, now, false_alarm_rate=0.05).z, 3)
    1.696
    """
    fall = float(_artanh(np.array([baseline.value, window.value])) @ [1.0, -1.0])
    error = math.hypot(baseline.error, window.error)
    z = fall / error if error > 0.0 else math.copysign(math.inf, fall) if fall else 0.0
    degrees = min(one.n // one.block for one in (baseline, window)) - 1
    p_value = float(stdtr(degrees, -z))
    diverged = p_value < false_alarm_rate and baseline.value - window.value > MATERIAL
    return Divergence(baseline, window, z, p_value, diverged)


def _correlation(moments: Floats) -> Floats:
    """Return Pearson's correlation from n, Σx, Σy, Σx², Σy², Σxy, shape (6, ...); 0 where one does not vary."""
    n, x, y, xx, yy, xy = moments
    spread = np.sqrt(np.maximum(xx - x * x / n, 0.0) * np.maximum(yy - y * y / n, 0.0))
    found: Floats = np.divide(xy - x * y / n, spread, out=np.zeros_like(spread), where=spread > 0.0)
    return found


def _artanh(r: Floats) -> Floats:
    return np.asarray(np.arctanh(np.clip(r, -LARGEST, LARGEST)))
