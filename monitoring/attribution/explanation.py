"""Explanations of a policy: which features its outputs depend on overall, and what moved them in single decisions."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from policylab.agents.bundle import Bundle
from policylab.agents.onnx_policy import OnnxPolicy
from policylab.errors import UserError
from policylab.experiments.report.style import house_style
from policylab.files import write_atomic
from policylab.monitoring.attribution.gradients import completeness_gap, integrated_gradients
from policylab.monitoring.attribution.policy_outputs import outputs_of
from policylab.monitoring.attribution.shapley import Floats, shapley_values
from policylab.seeding import generator

Method = Literal["shapley", "gradients"]
N_BACKGROUND, N_EXPLAINED = 32, 100
MAX_SHOWN = 20
"""Features in a figure: the largest ones."""
UP, DOWN = "#2563eb", "#dc2626"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Attributions of n observations.

    Attributes:
        method: how they were computed.
        observations: shape (n, F).
        values: shape (n, F, L): they sum over features to ``outputs`` minus ``expected``.
        outputs: shape (n, L).
        expected: mean output of the background, shape (L,).
        gap: how far the sums are off, relative to the largest difference.
    """

    method: Method
    observations: Floats
    values: Floats
    outputs: Floats
    expected: Floats
    gap: float

    def overall(self) -> Floats:
        """Return the mean absolute value of each feature for each output, shape (F, L)."""
        found: Floats = np.abs(self.values).mean(axis=0)
        return found


def explain(
    bundle: Bundle, observations: Floats, *, decisions: Sequence[int] = (), method: Method = "shapley", seed: int = 0
) -> Explanation:
    """Return the attributions of some observations: of ``decisions`` first, then of drawn ones.

    Args:
        bundle: the policy.
        observations: flattened, shape (n, F); the background is drawn from them.
        decisions: rows that must be among the explained ones.
        method: Shapley values, or integrated gradients of a network.
        seed: chooses background, further observations, and orders of Shapley's.

    Raises:
        UserError: there is no such row, or the policy cannot be explained so.
    """
    if observations.ndim != 2 or not len(observations):
        raise UserError(f"explanations need observations that are lists of numbers, got shape {observations.shape}")
    if wrong := [row for row in decisions if not 0 <= row < len(observations)]:
        raise UserError(f"there is no decision {wrong[0]}; there are 0 to {len(observations) - 1}")
    function, rng = outputs_of(bundle), generator(seed, "explanation")
    flat = observations.astype(np.float64)
    background = flat[rng.choice(len(flat), min(len(flat), N_BACKGROUND), replace=False)]
    others = [row for row in rng.permutation(len(flat)).tolist() if row not in set(decisions)]
    inputs = flat[[*decisions, *others[: max(0, N_EXPLAINED - len(decisions))]]]
    if method == "gradients":
        space = bundle.observation_space
        if (
            not isinstance(bundle.policy, OnnxPolicy)
            or not isinstance(space, spaces.Box)
            or np.dtype(space.dtype).kind != "f"
        ):
            raise UserError(
                "gradients need a network over observations of floating-point numbers; use --method shapley"
            )
        values = integrated_gradients(function, inputs, background=background)
    else:
        values = shapley_values(function, inputs, background=background, rng=rng)
    expected = function(background).mean(axis=0)
    gap = completeness_gap(values, function, inputs=inputs, background=background)
    return Explanation(method, inputs, values, function(inputs), expected, gap)


def document(found: Explanation, *, decisions: Sequence[int]) -> dict[str, Any]:
    """Return the explanation as JSON."""
    return {
        "method": found.method,
        "n_explained": len(found.values),
        "completeness_gap": found.gap,
        "expected_outputs": found.expected.tolist(),
        "overall": found.overall().tolist(),
        "decisions": [
            {
                "row": row,
                "observation": found.observations[i].tolist(),
                "outputs": found.outputs[i].tolist(),
                "attributions": found.values[i].tolist(),
            }
            for i, row in enumerate(decisions)
        ],
    }


def write_figures(found: Explanation, folder: Path, *, decisions: Sequence[int]) -> list[Path]:
    """Write ``overall.png``, and ``decision-ROW.png`` of each decision; return their paths.

    Raises:
        StorageError: a write failed.
    """
    paths = [folder / "overall.png", *(folder / f"decision-{row}.png" for row in decisions)]
    write_atomic(paths[0], _bars(found.overall(), title="Mean absolute attribution of each feature"))
    for i, (row, path) in enumerate(zip(decisions, paths[1:], strict=True)):
        seen = [f"feature {f} = {value:.4g}" for f, value in enumerate(found.observations[i])]
        write_atomic(path, _bars(found.values[i], title=f"Decision {row}: what moved the outputs", names=seen))
    return paths


def _bars(values: Floats, *, title: str, names: Sequence[str] | None = None) -> bytes:
    """Return a PNG with a panel of bars for each output, the features in one order, the largest on top."""
    from matplotlib.figure import Figure

    n_features, n_outputs = values.shape
    labels = names or [f"feature {i}" for i in range(n_features)]
    order = np.abs(values).sum(axis=1).argsort(kind="stable")[-MAX_SHOWN:]
    with house_style():
        figure = Figure(figsize=(3.0 + 2.6 * n_outputs, 1.4 + 0.32 * len(order)), layout="constrained")
        panels = figure.subplots(1, n_outputs, sharey=True, sharex=True, squeeze=False)[0]
        for i, panel in enumerate(panels):
            shown = values[order, i]
            panel.barh(range(len(order)), shown, color=[UP if value >= 0 else DOWN for value in shown])
            panel.axvline(0.0, color="0.4", linewidth=0.8)
            panel.set_title(f"output {i}")
        panels[0].set_yticks(range(len(order)), [labels[i] for i in order])
        figure.suptitle(title)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
