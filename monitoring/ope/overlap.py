"""Overlap of two policies, and when their log says nothing about the other: refuse instead of printing a number.

| diagnostic | meaning | trouble |
|---|---|---|
| effective episodes | (Σ c)² / Σ c² (Kong 1992): how many episodes of the target's own the log is worth | few |
| mean weight | its expectation is 1 if every action of the target could be logged | far from 1 |
| largest weight | share of all weight that one episode has | near 1 |
| unsupported | share of the target's decisions that the behaviour never takes: 1 - E[ρ], ρ = π_e / π_b | above 0 |
| unlogged | share of the target's probability on pairs of state and action that are not in the log | above 0 |

At a visited state E[ρ] is the target's probability of all actions that the behaviour policy takes there, so the mean of
1 - ρ over steps is an unbiased estimate of the missing support, from logged propensities alone.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from policylab.config import Settings
from policylab.monitoring.ope.log import Log
from policylab.monitoring.ope.states import States
from policylab.monitoring.ope.target import Target

Floats = NDArray[np.float64]
MAX_LOG_RATIO = 300.0
"""Larger ratios are as hopeless, and their squares are no numbers."""
SURE = 3.0
"""Standard errors by which missing support must exceed what is allowed before it counts as missing."""


class OverlapSettings(Settings):
    """When to refuse."""

    min_effective_episodes: float = Field(10.0, ge=1.0, description="least effective sample size, in episodes")
    max_unsupported: float = Field(
        0.01, ge=0.0, lt=1.0, description="most of the target's decisions that the logging policy may never take"
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Overlap:
    """How much the log says about the target policy; see the module's table.

    Attributes:
        n_episodes: episodes in the log.
        effective_episodes: Kong's effective sample size of the whole-trajectory weights; 0 if all are 0.
        mean_weight: of whole trajectories.
        largest_weight: the largest weight's share of all weight; 1 if all are 0.
        unsupported: 1 - mean ρ over steps; below 0 by chance where support is full.
        unsupported_error: its standard error, over episodes.
        unlogged: share of the target's probability at logged states on pairs never logged; None where states do not
            repeat or actions cannot be listed.
        largest_ratio: the largest ρ of a step.
    """

    n_episodes: int
    effective_episodes: float
    mean_weight: float
    largest_weight: float
    unsupported: float
    unsupported_error: float
    unlogged: float | None
    largest_ratio: float

    def refusals(self, settings: OverlapSettings) -> list[str]:
        """Return why no value should be given, one sentence each; empty if one can be."""
        found = []
        missing = self.unsupported - settings.max_unsupported
        if missing > 0 and missing > SURE * self.unsupported_error:
            found.append(
                f"the logging policy never takes {self.unsupported:.1%} of the target's actions where it was (at most "
                f"{settings.max_unsupported:.1%} allowed): nothing is known of what they earn; log with exploration"
            )
        if not np.isfinite(self.effective_episodes) or self.effective_episodes < settings.min_effective_episodes:
            found.append(
                f"{self.n_episodes:,} episodes are worth {self.effective_episodes:.3g} of the target's own (at least "
                f"{settings.min_effective_episodes:g} needed): the policies differ too much; log more episodes, or "
                "with a policy closer to the target"
            )
        return found


def effective_sample_size(weight: Floats) -> float:
    """Return (Σ w)² / Σ w²; 0 if all weights are 0, NaN if one is infinite.

    >>> effective_sample_size(np.array([1.0, 1.0, 0.0, 0.0]))
    2.0
    """
    largest = float(weight.max())
    if largest == 0 or not np.isfinite(largest):
        return 0.0 if largest == 0 else float("nan")
    scaled = weight / largest  # squares of large weights overflow
    return float(scaled.sum() ** 2 / (scaled**2).sum())


def overlap(log: Log, target: Target, *, weight: Floats, states: States | None) -> Overlap:
    """Return how much ``log`` says about ``target``.

    Args:
        log: N steps in E episodes.
        target: the target policy on it.
        weight: c_{T-1} of each episode, shape (E,).
        states: of the log; None where observations do not repeat.
    """
    ratio = np.exp(np.minimum(target.log_probability - log.log_propensity, MAX_LOG_RATIO))
    lacking = np.add.reduceat(1.0 - ratio, log.starts[:-1])
    share = float(lacking.sum() / len(log))
    # A ratio estimate: missing per step, over episodes that differ in length.
    residual = lacking - share * log.lengths
    error = float(np.sqrt((residual**2).sum()) / len(log))
    total = float(weight.sum())
    return Overlap(
        n_episodes=log.n_episodes,
        effective_episodes=effective_sample_size(weight),
        mean_weight=float(weight.mean()),
        largest_weight=float(weight.max() / total) if 0 < total < np.inf else 1.0,
        unsupported=share,
        unsupported_error=error,
        unlogged=_unlogged(target, states),
        largest_ratio=float(ratio.max()),
    )


def _unlogged(target: Target, states: States | None) -> float | None:
    if states is None or target.choices is None:
        return None
    seen = np.zeros((states.n, target.choices.here.shape[1]), dtype=np.bool_)
    seen[states.here, target.choices.action] = True
    return float((target.choices.here * ~seen[states.here]).sum(axis=1).mean())
