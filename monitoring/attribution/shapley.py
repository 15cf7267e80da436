"""Shapley values: how much each feature of an input moves an output away from what it is on average.

The game of an input x: a coalition S of features earns v(S) = E_b[f(x_S, b_rest)], the mean output where the features
outside S are taken from background inputs b. The value of feature i is its mean contribution over all orders,
φ_i = Σ_S |S|! (F - |S| - 1)! / F! (v(S + i) - v(S)), and Σ_i φ_i = f(x) - E_b[f(b)].

All coalitions are computed where that costs no more than `MAX_EVALUATIONS`; beyond, orders are drawn, each with its
reverse and a random background input, which is unbiased.

Source: Shapley 1953; Štrumbelj and Kononenko, JMLR 11 (2010) and KAIS 41 (2014) (sampling; interventional game);
Mitchell et al., JMLR 23:43 (2022) (an order and its reverse).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from policylab.errors import UserError

Floats = NDArray[np.float64]
Function = Callable[[Floats], Floats]
"""Maps inputs of shape (n, F) to outputs of shape (n, L)."""
MAX_EVALUATIONS = 1_000_000
N_ORDERS = 64
"""Pairs of an order and its reverse drawn for each input."""
AT_ONCE = 65_536


def shapley_values(function: Function, inputs: Floats, *, background: Floats, rng: np.random.Generator) -> Floats:
    """Return the value of every feature for every input and output, shape (n, F, L).

    Args:
        function: maps inputs (n, F) to outputs (n, L).
        inputs: to be explained, shape (n, F).
        background: what absent features are taken from, shape (B, F).
        rng: draws orders and background inputs where all coalitions are too many.

    Raises:
        UserError: there are no inputs, no background or no features, or an output is not finite.
    """
    n, n_features = inputs.shape
    if not n or not n_features or background.ndim != 2 or background.shape[1] != n_features or not len(background):
        raise UserError(
            f"explanations need inputs and background of the same features, got shapes {inputs.shape} and "
            f"{background.shape}"
        )
    if n_features < 30 and 2**n_features * n * len(background) <= MAX_EVALUATIONS:
        return np.stack([_exact(function, x, background=background) for x in inputs])
    return np.stack([_sampled(function, x, background=background, rng=rng) for x in inputs])


def shapley_of_game(worth: Floats) -> Floats:
    """Return the Shapley values of a game, shape (F, ...).

    Args:
        worth: what each coalition earns, shape (2^F, ...); bit i of the position tells whether i is in it.

    >>> gloves = np.array([0.0, 0, 0, 0, 0, 1, 1, 1])  # 0 and 1 have a left glove, 2 a right one
    >>> shapley_of_game(gloves).round(4).tolist()
    [0.1667, 0.1667, 0.6667]
    """
    n = len(worth).bit_length() - 1
    coalitions = np.arange(len(worth))
    sizes = np.array([int(coalition).bit_count() for coalition in coalitions])
    weights = np.array([math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n) for size in range(n)])
    found = []
    for player in range(n):
        without = coalitions[(coalitions >> player) & 1 == 0]
        gain = worth[without | (1 << player)] - worth[without]
        found.append(np.tensordot(weights[sizes[without]], gain, axes=1))
    return np.array(found)


def _exact(function: Function, x: Floats, *, background: Floats) -> Floats:
    n_features = len(x)
    present = (np.arange(2**n_features)[:, None] >> np.arange(n_features)) & 1 == 1
    mixed = np.where(present[:, None, :], x, background[None]).reshape(-1, n_features)
    worth = _outputs(function, mixed).reshape(len(present), len(background), -1).mean(axis=1)
    return shapley_of_game(worth)


def _sampled(function: Function, x: Floats, *, background: Floats, rng: np.random.Generator) -> Floats:
    n_features = len(x)
    orders = np.array([rng.permutation(n_features) for _ in range(N_ORDERS)])
    orders = np.concatenate([orders, orders[:, ::-1]])
    others = background[np.tile(rng.integers(len(background), size=N_ORDERS), 2)]
    # Row k of a block has the first k features of its order from x.
    place = orders.argsort(axis=1)
    present = place[:, None, :] < np.arange(n_features + 1)[None, :, None]
    mixed = np.where(present, x, others[:, None, :]).reshape(-1, n_features)
    worth = _outputs(function, mixed).reshape(len(orders), n_features + 1, -1)
    gains = np.diff(worth, axis=1)  # of the k-th feature of each order
    by_feature = np.take_along_axis(gains, place[:, :, None], axis=1)
    found: Floats = by_feature.mean(axis=0)
    return found


def _outputs(function: Function, inputs: Floats) -> Floats:
    found = np.concatenate([function(inputs[i : i + AT_ONCE]) for i in range(0, len(inputs), AT_ONCE)])
    if not np.isfinite(found).all():
        raise UserError(
            "the policy's outputs are not finite for a mixture of observed features; it has no attributions"
        )
    return found
