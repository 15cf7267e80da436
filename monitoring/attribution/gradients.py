"""Integrated gradients: what each feature adds along the straight way from a background input to the one explained.

φ_i(x) = mean over background b of (x_i - b_i) ∫_0^1 ∂f/∂x_i (b + α (x - b)) dα, and Σ_i φ_i = f(x) - mean f(b)
(completeness). The integral is a midpoint sum of ``n_points``; derivatives are central differences of the network's own
outputs, so that no second framework is needed. Networks compute in 32 bits: the step is a hundredth of a feature's
spread, which leaves some 1e-5 of rounding and, where the network is smooth, 1e-4 of curvature.

Source: Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", ICML 2017, equations 1 and 3; the mean
over backgrounds is expected gradients, Erion et al., Nature Machine Intelligence 3 (2021).
"""

from __future__ import annotations

import numpy as np

from policylab.errors import UserError
from policylab.monitoring.attribution.shapley import Floats, Function

N_POINTS = 32
RELATIVE_STEP = 0.01


def integrated_gradients(function: Function, inputs: Floats, *, background: Floats, n_points: int = N_POINTS) -> Floats:
    """Return what every feature adds to every output of every input, shape (n, F, L).

    Args:
        function: maps inputs (n, F) to outputs (n, L).
        inputs: to be explained, shape (n, F).
        background: where the ways begin, shape (B, F).
        n_points: of the integral, at least 1.

    Raises:
        UserError: there is nothing to explain, or an output is not finite.
    """
    if not len(inputs) or background.ndim != 2 or background.shape[1] != inputs.shape[1] or not len(background):
        raise UserError(
            f"explanations need inputs and background of the same features, got shapes {inputs.shape} and "
            f"{background.shape}"
        )
    if n_points < 1:
        raise UserError(f"the integral needs at least 1 point, got {n_points}")
    spread = np.concatenate([inputs, background]).std(axis=0)
    step = RELATIVE_STEP * np.where(spread > 0, spread, 1.0)
    return np.stack([_explained(function, x, background=background, step=step, n_points=n_points) for x in inputs])


def _explained(function: Function, x: Floats, *, background: Floats, step: Floats, n_points: int) -> Floats:
    n_features = len(x)
    alphas = (np.arange(n_points) + 0.5) / n_points
    way = background[:, None, :] + alphas[None, :, None] * (x - background)[:, None, :]
    places = way.reshape(-1, 1, n_features)
    moved = step * np.eye(n_features)[None]
    up, down = (np.float32(places + sign * moved).astype(np.float64) for sign in (1.0, -1.0))
    width = np.einsum("pff->pf", up - down)  # as far apart as 32-bit numbers came to be
    found = np.concatenate([up.reshape(-1, n_features), down.reshape(-1, n_features)])
    outputs = function(found)
    if not np.isfinite(outputs).all():
        raise UserError("the policy's outputs are not finite between observed inputs; it has no attributions")
    above, below = outputs.reshape(2, len(places), n_features, -1)
    slopes = ((above - below) / width[:, :, None]).reshape(len(background), n_points, n_features, -1).mean(axis=1)
    found_values: Floats = ((x - background)[:, :, None] * slopes).mean(axis=0)
    return found_values


def completeness_gap(values: Floats, function: Function, *, inputs: Floats, background: Floats) -> float:
    """Return the largest difference of Σ_i φ_i from f(x) - mean f(b), relative to the largest output difference."""
    wanted = function(inputs) - function(background).mean(axis=0)
    scale = float(np.abs(wanted).max())
    return float(np.abs(values.sum(axis=1) - wanted).max()) / scale if scale > 0 else 0.0
