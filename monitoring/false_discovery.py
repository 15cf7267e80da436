"""Control of the false-discovery rate: among what many tests call drifted, how large a share is false on average.

| correction | valid for |
|---|---|
| Benjamini-Hochberg | independent or positively dependent tests |
| Benjamini-Yekutieli | tests that depend on each other in any way; (1 + 1/2 + ... + 1/n) times as strict |

Source: Benjamini and Hochberg, J. R. Stat. Soc. B 57 (1995), procedure (1); Benjamini and Yekutieli, Annals of
Statistics 29 (2001), theorem 1.3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from policylab.errors import UserError


def adjusted_p_values(p_values: ArrayLike, *, dependent: bool = False) -> NDArray[np.float64]:
    """Return for each test the smallest false-discovery rate at which it is a discovery, shape (n,).

    Args:
        p_values: in [0, 1], shape (n,), in any order; conservative ones (upper bounds) stay conservative.
        dependent: Benjamini-Yekutieli, which assumes nothing of how the tests depend on each other.

    Raises:
        UserError: a p-value is none, such as NaN of a test that could not be made.

    >>> adjusted_p_values([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.04, 0.04]
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0.0) & (p <= 1.0)).all():
        raise UserError(f"p-values must be a list of numbers in [0, 1], got {str(p.tolist())[:80]}; leave others out")
    n = len(p)
    ranks = np.arange(1, n + 1)
    strictness = (1.0 / ranks).sum() if dependent else 1.0
    order = p.argsort(kind="stable")
    stepped = np.minimum.accumulate((p[order] * n * strictness / ranks)[::-1])[::-1]
    adjusted = np.empty(n)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def discoveries(p_values: ArrayLike, *, rate: float, dependent: bool = False) -> NDArray[np.bool_]:
    """Return which tests are discoveries, shape (n,), so that on average at most the share ``rate`` of them is false.

    Args:
        p_values: in [0, 1], shape (n,).
        rate: false-discovery rate, in (0, 1).
        dependent: as in `adjusted_p_values`.

    Raises:
        UserError: a p-value or the rate is out of range.
    """
    if not 0.0 < rate < 1.0:
        raise UserError(f"the false-discovery rate must be between 0 and 1, got {rate:g}")
    return np.asarray(adjusted_p_values(p_values, dependent=dependent) <= rate)
