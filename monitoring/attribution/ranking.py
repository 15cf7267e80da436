"""nDCG: whether features are ranked as they were, as Amazon SageMaker Clarify measures the drift of attributions.

With a(f) the baseline's score of feature f, f' the features in the order of their scores now and f'' in that of the
baseline: DCG = Σ_i a(f'_i) / log2(i + 1), iDCG = Σ_i a(f''_i) / log2(i + 1), i from 1, nDCG = DCG / iDCG; 1 if the
order is the same. Features that tie now share their places: each counts with their mean score, as in scikit-learn.

Source: SageMaker Developer Guide, "Monitor feature attribution drift for models in production"; Järvelin and
Kekäläinen, ACM TOIS 20 (2002).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def ndcg(baseline: Floats, now: Floats) -> float:
    """Return nDCG of two score vectors, shape (F,), at least 0 each.

    The example of the guide, where the least important feature became the most important one:

    >>> round(ndcg(np.array([0.70, 0.50, 0.05]), np.array([0.10, 0.20, 0.70])), 2)
    0.69
    """
    discount = 1.0 / np.log2(np.arange(2, len(baseline) + 2))
    ideal = float(np.sort(baseline)[::-1] @ discount)
    if ideal == 0.0:
        return 1.0 if not now.any() else 0.0
    _, place = np.unique(-now, return_inverse=True)
    sizes = np.bincount(place)
    ends = sizes.cumsum()
    totals = np.r_[0.0, discount.cumsum()]
    per_place = (totals[ends] - totals[ends - sizes]) / sizes
    return float(baseline @ per_place[place]) / ideal
