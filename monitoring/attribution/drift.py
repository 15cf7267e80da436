"""Drift of a policy's feature attributions between a baseline and a window of observations.

The score of a feature for an output is the mean of its absolute Shapley values over observations; the ranking by scores
is compared by nDCG. It has drifted if nDCG, and the upper end of its bootstrap interval over observations, are below
0.90. Background inputs come from the baseline for both sides, so that a shift of the observations shows.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policylab.agents.bundle import Bundle
from policylab.errors import UserError
from policylab.experiments.statistics import Interval
from policylab.experiments.statistics.interval import percentile_interval, run_weights
from policylab.monitoring.attribution.policy_outputs import outputs_of
from policylab.monitoring.attribution.ranking import ndcg
from policylab.monitoring.attribution.shapley import shapley_values
from policylab.seeding import generator

Floats = NDArray[np.float64]
THRESHOLD = 0.90
"""Clarify's: below it the ranking has drifted."""
N_EXPLAINED, N_BACKGROUND, N_RESAMPLES = 100, 32, 500


@dataclasses.dataclass(frozen=True, slots=True)
class OutputDrift:
    """One output of the policy, such as an action's value.

    Attributes:
        label: ``label0``, ``label1``, ... as Clarify names outputs.
        ndcg: with its bootstrap interval over observations.
        baseline: mean absolute Shapley value of each feature, in the order of the flattened observation.
        window: the same in the window.
        drifted: the verdict.
    """

    label: str
    ndcg: Interval
    baseline: tuple[float, ...]
    window: tuple[float, ...]
    drifted: bool


def attribution_drift(
    bundle: Bundle,
    *,
    baseline: Floats,
    window: Floats,
    then: Bundle | None = None,
    level: float = 0.95,
    threshold: float = THRESHOLD,
    seed: int = 0,
) -> list[OutputDrift]:
    """Return the drift of each output's attributions.

    Args:
        bundle: the policy of the window.
        baseline: flattened observations, shape (n, F).
        window: flattened observations, shape (m, F).
        then: the policy of the baseline; None if it was the same.
        level: confidence level of the intervals.
        threshold: nDCG below which a ranking has drifted.
        seed: chooses observations, orders and resamples.

    Raises:
        UserError: the policy or the observations have no features that could be ranked.
    """
    if baseline.ndim != 2 or window.shape[1:] != baseline.shape[1:] or baseline.shape[1] < 2:
        raise UserError(
            f"attributions need observations of at least two features, alike in baseline and window, got shapes "
            f"{baseline.shape} and {window.shape}"
        )
    rng = generator(seed, "attribution")
    background = _some(baseline, N_BACKGROUND, rng=rng)
    sides = [
        np.abs(shapley_values(outputs_of(policy), _some(rows, N_EXPLAINED, rng=rng), background=background, rng=rng))
        for policy, rows in ((then or bundle, baseline), (bundle, window))
    ]
    if sides[0].shape[2] != sides[1].shape[2]:
        raise UserError(f"the policies have {sides[0].shape[2]} and {sides[1].shape[2]} outputs; give two of one task")
    return [
        _compared(
            sides[0][:, :, i], now=sides[1][:, :, i], label=f"label{i}", level=level, threshold=threshold, rng=rng
        )
        for i in range(sides[0].shape[2])
    ]


def _some(rows: Floats, n: int, *, rng: np.random.Generator) -> Floats:
    chosen = rows if len(rows) <= n else rows[rng.choice(len(rows), n, replace=False)]
    return chosen.astype(np.float64)


def _compared(
    then: Floats, *, now: Floats, label: str, level: float, threshold: float, rng: np.random.Generator
) -> OutputDrift:
    first, second = then.mean(axis=0), now.mean(axis=0)
    value = ndcg(first, second)
    resampled = [run_weights(len(side), n_tasks=1, n_resamples=N_RESAMPLES, rng=rng)[0] @ side for side in (then, now)]
    spread = np.array([ndcg(one, other) for one, other in zip(*resampled, strict=True)])
    interval = percentile_interval(value, spread, level=level, n=min(len(then), len(now)))
    interval = dataclasses.replace(interval, method="bootstrap over observations")
    drifted = interval.high is not None and interval.high < threshold
    return OutputDrift(label, interval, tuple(first.tolist()), tuple(second.tolist()), drifted)


def violations_document(found: list[OutputDrift], *, threshold: float = THRESHOLD) -> dict[str, Any]:
    """Return the JSON of ``constraint_violations.json`` as Clarify's attribution monitor writes it."""
    return {
        "version": "1.0",
        "violations": [
            {
                "label": output.label,
                "metric_name": "shap",
                "constraint_check_type": "feature_attribution_drift_check",
                "description": f"Feature attribution drift {output.ndcg.value} exceeds threshold {threshold}",
            }
            for output in found
            if output.drifted
        ],
    }
