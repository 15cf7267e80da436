"""`Reference`: what a stream is like while nothing is wrong, and how its values become nearly independent ones.

Successive values resemble each other, in reinforcement learning above all. They are averaged in batches of several
autocorrelation times: neighbouring batch means hardly depend on each other, and are closer to normal. Detectors then
read z, the batch means standardised by the baseline's.

Source: Runger and Willemain, "Model-based and model-free control of autocorrelated processes", Journal of Quality
Technology 27 (1995) (unweighted batch means).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Self

import numpy as np
from numpy.typing import NDArray

from policylab.errors import UserError
from policylab.monitoring.profiles.autocorrelation import autocorrelation_time

Floats = NDArray[np.float64]
TIMES = 5.0
"""Autocorrelation times a batch lasts: neighbouring means of an AR(1) process then correlate by less than 0.1."""
NEARLY_INDEPENDENT = 2.0
"""Autocorrelation times below are no more than their estimates' noise in short series."""
MIN_BATCHES = 50


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A baseline stream, in batches.

    Attributes:
        batch: values of a batch.
        mean: of the baseline.
        std: of its batch means.
        z: its standardised batch means, shape (M,).
    """

    batch: int
    mean: float
    std: float
    z: Floats

    @classmethod
    def of(cls, values: Floats, *, name: str = "the stream") -> Self:
        """Return the reference of a baseline's finite values in the order of time, shape (n,).

        Raises:
            UserError: there are too few values, or all are equal.
        """
        time = autocorrelation_time(values)
        batch = 1 if time < NEARLY_INDEPENDENT else math.ceil(TIMES * time)
        means = batch_means(values, batch)
        if len(means) < MIN_BATCHES:
            raise UserError(
                f"{name}: the baseline has {len(values):,} values, which are worth {len(means)} batches of {batch}; "
                f"at least {MIN_BATCHES} are needed"
            )
        mean, std = float(means.mean()), float(means.std(ddof=1))
        if std <= 1e-12 * max(1.0, abs(mean)):
            raise UserError(f"{name}: all values of the baseline are {mean:g}; a check for other values is enough")
        return cls(batch, mean, std, (means - mean) / std)

    def standardised(self, values: Floats) -> Floats:
        """Return the standardised means of the whole batches in ``values``; what is left over is not used."""
        found: Floats = (batch_means(values, self.batch) - self.mean) / self.std
        return found


def batch_means(values: Floats, batch: int) -> Floats:
    """Return the means of successive batches, shape (n // batch,).

    >>> batch_means(np.arange(5.0), 2).tolist()
    [0.5, 2.5]
    """
    whole = len(values) // batch * batch
    found: Floats = values[:whole].reshape(-1, batch).mean(axis=1)
    return found
