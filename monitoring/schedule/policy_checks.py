"""Checks of a window that ask about a policy: its proxy reward, the features it decides by, how it treats groups."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from policylab.agents.bundle import Bundle, load_bundle
from policylab.envs.reward_model import RewardModel
from policylab.experiments.report.text import counted
from policylab.monitoring.alarms.measurement import Measurement
from policylab.monitoring.attribution.drift import attribution_drift
from policylab.monitoring.bias.analysis import (
    Measured,
    Question,
    analyse,
    analysis_document,
    baseline_values,
    violations,
)
from policylab.monitoring.bias.metrics import POST_TRAINING, PRE_TRAINING
from policylab.monitoring.bias.rows import episode_rows
from policylab.monitoring.bias.selection import Selection
from policylab.monitoring.causes.divergence import MIN_BLOCKS, Correlation, blocks_of, divergence
from policylab.monitoring.causes.learned_proxy import return_pairs
from policylab.monitoring.causes.steps import read_steps
from policylab.monitoring.schedule.check_result import CheckResult
from policylab.monitoring.schedule.monitor_file import AttributionCheck, BiasCheck, DivergenceCheck


def divergence_check(settings: DivergenceCheck, window: Path, *, bundle: Bundle) -> CheckResult:
    """Compare a learned reward with the reported one."""
    model = RewardModel.load(settings.proxy)
    then, now = (
        return_pairs(path, model, bundle=bundle, missing_reward=settings.missing_reward)
        for path in (settings.baseline, window)
    )
    block, n_blocks = blocks_of(*now)
    if n_blocks < MIN_BLOCKS:
        text = f"{counted(len(now[0]), 'episodes')}; at least {MIN_BLOCKS} times {block} are needed"
        return CheckResult("divergence", "no data", text, (), {})
    sides = [Correlation.of(*pairs, side=side) for pairs, side in ((then, str(settings.baseline)), (now, "window"))]
    found = divergence(sides[0], sides[1], false_alarm_rate=settings.false_alarm_rate)
    measured = Measurement(
        "divergence.correlation", found.window.value, found.p_value, found.diverged,
        f"{found.verdict}: correlation {found.window.value:.4g} instead of {found.baseline.value:.4g}",
    )  # fmt: skip
    document = {**dataclasses.asdict(found), "z": found.z if math.isfinite(found.z) else None}
    status = "violations" if found.diverged else "passed"
    return CheckResult("divergence", status, found.verdict, (measured,), document)


def attribution_check(settings: AttributionCheck, window: Path, *, bundle: Bundle) -> CheckResult:
    """Compare the features that the policy decides by."""
    then = None if settings.then is None else load_bundle(settings.then)
    baseline, now = (read_steps(path, bundle=bundle).observation for path in (settings.baseline, window))
    found = attribution_drift(bundle, baseline=baseline, window=now, then=then)
    measured = tuple(
        Measurement(f"attribution.{one.label}", one.ndcg.value, None, one.drifted, f"nDCG {one.ndcg}") for one in found
    )
    n_drifted = sum(one.drifted for one in found)
    text = f"{n_drifted} of {counted(len(found), 'outputs')} decided by other features"
    document = {"outputs": [dataclasses.asdict(one) for one in found]}
    return CheckResult("attribution", "violations" if n_drifted else "passed", text, measured, document)


def bias_check(settings: BiasCheck, window: Path, *, bundle: Bundle) -> CheckResult:
    """Compare how two groups of episodes fare."""
    question = Question(
        Selection.parse(settings.facet, option="facet"),
        Selection.parse(settings.label, option="label"),
        None if settings.prediction is None else Selection.parse(settings.prediction, option="prediction"),
        settings.group,
    )
    rows = episode_rows(window, bundle=bundle, columns=question.columns)
    n_d = int(question.facet.mask(rows.columns[question.facet.column]).sum())
    if not 0 < n_d < len(rows):
        text = f"{n_d:,} of {counted(len(rows), 'episodes')} are of the facet {question.facet}: nothing to compare"
        return CheckResult("bias", "no data", text, (), {})
    n_metrics = len(PRE_TRAINING) + (len(POST_TRAINING) + 1 if question.prediction else 0)  # and the flip test
    found = analyse(rows, question, level=1.0 - settings.false_alarm_rate / n_metrics)
    values, errors = baseline_values(settings.baseline / "analysis.json", question)
    broken = violations(found, values, errors=errors)
    drifted = {one.metric_name for one in broken}
    measured = tuple(
        Measurement(f"bias.{one.name}", one.value, None, one.name in drifted, _bias_detail(one))
        for one in found.metrics
    )
    text = f"{counted(len(broken), 'violations')} in {counted(len(rows), 'episodes')}, {n_d:,} of {question.facet}"
    return CheckResult("bias", "violations" if broken else "passed", text, measured, analysis_document(found))


def _bias_detail(one: Measured) -> str:
    return f"{one.title} {one.value:.4g} [{one.low:.4g}, {one.high:.4g}], {one.direction}; {one.neutral:g} without bias"
