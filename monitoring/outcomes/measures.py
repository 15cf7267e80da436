"""What deployed policies are worth, as metrics with intervals.

| metric | of | worse |
|---|---|---|
| reward_mean | decisions with a reward | lower |
| reward_coverage | decisions, the share that has a reward | lower |
| return_mean | episodes whose rewards all arrived, undiscounted | lower |
| success_rate | the same, the share whose return exceeds `success_above` | lower |
| regret | the exact optimum minus return_mean, where a table gives the optimum | higher |
| length_mean | episodes | |
| overestimation | V(s_0) - G over episodes, see `policylab.monitoring.outcomes.values` | higher |
| td_error_mean | δ over decisions | |
| td_error_squared | δ² over decisions | higher |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from pydantic import Field

from policylab.agents.bundle import Bundle
from policylab.config import Settings
from policylab.envs.settings import EnvSettings
from policylab.errors import PolicylabError
from policylab.experiments.evaluation import ExactEvaluator, exact_table
from policylab.monitoring.outcomes.joined import Outcomes
from policylab.monitoring.outcomes.means import Metric, mean_of, rate_of, ratio_of
from policylab.monitoring.outcomes.values import CalibrationBin, calibration, regression_metrics, values_on


class OutcomeSettings(Settings):
    """What is measured."""

    level: float = Field(default=0.95, gt=0.5, lt=1.0, description="confidence of each interval")
    success_above: float | None = Field(
        default=None, description="an episode succeeded if its return exceeds this; default: not measured"
    )
    discount: float | None = Field(
        default=None,
        ge=0.0,
        le=1.0,
        description="that the policy's action values were learned with; default: no values",
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """The quality of policies over some outcomes.

    Attributes:
        n_decisions: decisions.
        n_episodes: episodes they belong to.
        metrics: by name, those that could be measured.
        regression: SageMaker's regression metrics of V(s_0) as a prediction of G.
        calibration: the same, in bins.
        left_out: how much was left out, by reason.
        notes: why something was not measured.
    """

    n_decisions: int
    n_episodes: int
    metrics: Mapping[str, Metric]
    regression: Mapping[str, float]
    calibration: tuple[CalibrationBin, ...]
    left_out: Mapping[str, int]
    notes: tuple[str, ...]


def measure(outcomes: Outcomes, *, bundle: Bundle | None = None, settings: OutcomeSettings | None = None) -> Measured:
    """Return the metrics of outcomes.

    Args:
        outcomes: decisions with their rewards.
        bundle: the policy that served; gives the optimum of its environment and its values. None leaves both out.
        settings: what is measured.
    """
    asked = settings or OutcomeSettings()
    level, lengths, returns = asked.level, outcomes.lengths.astype(np.float64), outcomes.returns()
    rewarded = np.isfinite(outcomes.reward)
    known = outcomes.totals(rewarded.astype(np.float64))
    found = [
        ratio_of("reward_mean", outcomes.totals(np.where(rewarded, outcomes.reward, 0.0)), counts=known,
                 level=level, worse="lower"),
        ratio_of("reward_coverage", known, counts=lengths, level=level, worse="lower"),
        mean_of("return_mean", returns, level=level, worse="lower"),
        mean_of("length_mean", lengths, level=level, worse=None),
    ]  # fmt: skip
    if asked.success_above is not None:
        found.append(rate_of("success_rate", returns[np.isfinite(returns)] > asked.success_above, level=level))
    notes = _late(outcomes, rewarded=int(rewarded.sum()))
    made = Measured(len(outcomes), len(outcomes.starts), {}, {}, (), outcomes.left_out, ())
    if bundle is not None and len(outcomes):
        regret, why = _regret(bundle, found[2])
        found.append(regret)
        notes += why
        if asked.discount is not None:
            made, more, why = _valued(made, outcomes, bundle=bundle, settings=asked)
            found += more
            notes += why
    metrics = {metric.name: metric for metric in found if metric is not None}
    return dataclasses.replace(made, metrics=metrics, notes=tuple(notes))


def _late(outcomes: Outcomes, *, rewarded: int) -> list[str]:
    notes = []
    if rewarded < len(outcomes):
        notes.append(
            f"{len(outcomes) - rewarded:,} of {len(outcomes):,} decisions have no reward yet; episodes with one of "
            "them have no return"
        )
    if outcomes.n_unmatched:
        notes.append(f"{outcomes.n_unmatched:,} rewarded ids are of no decision that was captured")
    return notes


def _regret(bundle: Bundle, returns: Metric | None) -> tuple[Metric | None, list[str]]:
    entry = bundle.manifest.environment
    try:
        table = exact_table(EnvSettings(id=entry.id, kwargs=entry.kwargs, max_episode_steps=entry.max_episode_steps))
        optimum = None if table is None else ExactEvaluator(table).optimum()
    except (PolicylabError, ValueError) as error:
        return None, [f"the optimum of {entry.id} is not known: {error}"]
    if optimum is None or returns is None:
        return None, [] if optimum is not None else [f"the optimum of {entry.id} is not known: it has no exact table"]
    low, high = optimum - returns.high, optimum - returns.low
    return dataclasses.replace(
        returns, name="regret", value=optimum - returns.value, low=low, high=high, worse="higher"
    ), []


def _valued(
    made: Measured, outcomes: Outcomes, *, bundle: Bundle, settings: OutcomeSettings
) -> tuple[Measured, list[Metric | None], list[str]]:
    discount, level = settings.discount, settings.level
    assert discount is not None
    values = values_on(outcomes, bundle, discount=discount)
    if values is None:
        kind = bundle.manifest.policy.kind
        return made, [], [f"a policy of the kind '{kind}' has no action values to check"]
    realised = outcomes.returns(discount)
    known = np.isfinite(values.td_error)
    counts = outcomes.totals(known.astype(np.float64))
    errors = np.where(known, values.td_error, 0.0)
    made = dataclasses.replace(
        made,
        regression=regression_metrics(values.at_start, realised),
        calibration=tuple(calibration(values.at_start, realised)),
    )
    return made, [
        mean_of("overestimation", values.at_start - realised, level=level, worse="higher"),
        ratio_of("td_error_mean", outcomes.totals(errors), counts=counts, level=level, worse=None),
        ratio_of("td_error_squared", outcomes.totals(errors**2), counts=counts, level=level, worse="higher"),
    ], []  # fmt: skip
