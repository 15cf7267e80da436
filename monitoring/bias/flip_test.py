"""FT, the counterfactual flip test: are members of d treated as the most similar members of a are?

FT = (F+ - F-) / nd. F+ counts members of d who are refused while their nearest neighbours in a are accepted, F- those
who are accepted while theirs are refused. A neighbourhood decides by majority of its five nearest rows, by one if a has
at most nine. Features are compared as they are: scale them beforehand if they differ in unit.

smclarify's code returns the opposite sign; ``as_smclarify`` reproduces it.

Source: SageMaker Developer Guide, "Counterfactual Fliptest (FT)"; Black, Yeom and Fredrikson, FAT* 2020.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from policylab.errors import UserError
from policylab.monitoring.bias.metrics import ratio

Floats = NDArray[np.float64]
K, K_OF_FEW, FEW = 5, 1, 9


@dataclasses.dataclass(frozen=True, slots=True)
class FlipTest:
    """What the test counted.

    Attributes:
        n_worse: F+, members of d refused where their neighbours are accepted.
        n_better: F-, members of d accepted where their neighbours are refused.
        n_d: members of d.
        as_smclarify: the sign is turned.
    """

    n_worse: int
    n_better: int
    n_d: int
    as_smclarify: bool = False

    @property
    def value(self) -> float:
        """FT, in [-1, 1]."""
        return self._of(self.n_worse, self.n_better)

    def _of(self, worse: int, better: int) -> float:
        found = float(ratio(worse - better, self.n_d))
        return -found if self.as_smclarify else found

    def resampled(self, n_resamples: int, *, rng: np.random.Generator) -> Floats:
        """Return FT of resampled members of d, shape (n_resamples,); their neighbours stay the same."""
        shares = np.array([self.n_worse, self.n_better, self.n_d - self.n_worse - self.n_better]) / self.n_d
        drawn = rng.multinomial(self.n_d, shares, size=n_resamples)
        found: Floats = (drawn[:, 0] - drawn[:, 1]) / self.n_d
        return -found if self.as_smclarify else found


def flip_test(
    features: Floats, facet_d: NDArray[np.bool_], *, predicted: NDArray[np.bool_], as_smclarify: bool = False
) -> FlipTest:
    """Return the flip test of N rows.

    Args:
        features: numbers without facet and label, shape (N, F).
        facet_d: which rows belong to the disfavoured facet, shape (N,).
        predicted: which rows are accepted, shape (N,).
        as_smclarify: turn the sign, as smclarify's code does.

    Raises:
        UserError: a facet is empty, or there are no features.
    """
    n_a = int((~facet_d).sum())
    if not n_a or not facet_d.any() or features.ndim != 2 or not features.shape[1]:
        raise UserError("the flip test needs rows of both facets and at least one numeric feature")
    k = K_OF_FEW if n_a <= FEW else K
    _, near = cKDTree(features[~facet_d]).query(features[facet_d], k=k)
    accepted = predicted[~facet_d][near.reshape(-1, k)].sum(axis=1) * 2 > k
    own = predicted[facet_d]
    return FlipTest(int((~own & accepted).sum()), int((own & ~accepted).sum()), int(facet_d.sum()), as_smclarify)
