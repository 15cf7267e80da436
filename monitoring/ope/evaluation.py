"""Off-policy evaluation of a bundle on a log: every estimator that may answer, or the reason why it may not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from policylab.agents.bundle import Bundle
from policylab.errors import UserError
from policylab.experiments.statistics import Interval
from policylab.monitoring.ope.estimates import Estimates
from policylab.monitoring.ope.log import Log
from policylab.monitoring.ope.overlap import Overlap, overlap
from policylab.monitoring.ope.settings import OpeSettings
from policylab.monitoring.ope.target import Target, target_on
from policylab.monitoring.ope.trajectories import Trajectories

MAX_HORIZON = 1_000_000
PREFERRED = ("wdr", "sndr", "pdwis", "snips", "mis", "dm")
"""The first of these that may answer is the answer: little variance at little bias."""


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """What a log says about a policy.

    Attributes:
        estimates: of the expected discounted return, by estimator; only those that may answer.
        refused: why an estimator may not answer, by estimator.
        answer: the name of the estimate to go by; None if every one is refused.
        lower_bounds: one-sided bounds at ``level``, by method; empty where trajectories cannot be weighed.
        logged: the discounted return of the logged episodes themselves: the value of the policy that acted.
        overlap: the diagnostics.
        notes: what a reader must know about the log and the settings.
        discount: γ.
        horizon: most steps of an episode that the values suppose; None without a limit.
        level: of intervals and bounds.
    """

    estimates: Mapping[str, Interval]
    refused: Mapping[str, str]
    answer: str | None
    lower_bounds: Mapping[str, float]
    logged: Interval
    overlap: Overlap
    notes: tuple[str, ...]
    discount: float
    horizon: int | None
    level: float


def evaluate(bundle: Bundle, log: Log, *, settings: OpeSettings | None = None) -> Evaluation:
    """Return what ``log`` says about the value of the bundle's policy.

    Raises:
        UserError: the log does not fit the bundle, or a setting does not fit the log.
        MissingExtraError: the policy's kind needs a package that is not installed.
    """
    chosen = settings or OpeSettings()
    target = target_on(bundle, log, deterministic=chosen.deterministic)
    limit = bundle.manifest.environment.max_episode_steps
    return evaluate_target(log, target, settings=chosen, time_limit=limit)


def evaluate_target(log: Log, target: Target, *, settings: OpeSettings, time_limit: int | None = None) -> Evaluation:
    """Return what ``log`` says about a target policy whose probabilities on it are known.

    Args:
        log: E episodes.
        target: the policy on it.
        settings: how to evaluate.
        time_limit: the environment's, in steps.

    Raises:
        UserError: a setting does not fit the log.
    """
    horizon = _horizon(log, settings.horizon or time_limit)
    log_ratio = target.log_probability - log.log_propensity
    plain = Trajectories.of(log, log_ratio, discount=settings.discount)
    work = Estimates(log, target, plain=plain, settings=settings, horizon=horizon)
    diagnostics = overlap(log, target, weight=plain.weight[:, -1], states=work.states)
    refused = _refusals(work, diagnostics)
    estimates = {}
    for name, estimate in work.by_name().items():
        if name in refused:
            continue
        found = estimate()
        if found is None:
            refused[name] = "needs a list of actions" if name != "mis" else "needs observations that repeat"
        elif not np.isfinite(found.value):
            refused[name] = "no weight is left in a late step, or weights exceed all numbers"
        else:
            estimates[name] = found
    least = {} if "wis" in refused or "snips" in refused else work.lower_bounds()
    return Evaluation(
        estimates={name: estimates[name] for name in work.by_name() if name in estimates},
        refused=refused,
        answer=next((name for name in PREFERRED if name in estimates), None),
        lower_bounds=least,
        logged=work.logged(),
        overlap=diagnostics,
        notes=tuple(_notes(log, settings, bounded=bool(least))),
        discount=settings.discount,
        horizon=horizon,
        level=settings.level,
    )


def _horizon(log: Log, limit: int | None) -> int | None:
    """Return the limit that values must suppose: a log of truncated episodes has one even if nobody states it."""
    longest = int(log.lengths.max())
    if limit is not None and longest > limit:
        raise UserError(f"an episode of the log has {longest} steps, more than the horizon {limit}; give a longer one")
    if limit is not None and limit > MAX_HORIZON:
        raise UserError(f"a horizon of {limit:,} steps exceeds {MAX_HORIZON:,}; give a shorter one with --horizon")
    return limit if limit is not None else longest if log.truncated.any() else None


def _refusals(work: Estimates, diagnostics: Overlap) -> dict[str, str]:
    settings = work.settings
    reasons = diagnostics.refusals(settings)
    if not reasons:
        return {}
    thin = len(reasons) == 1 and "never takes" not in reasons[0]
    enumerated = diagnostics.unlogged is not None and diagnostics.unlogged <= settings.max_unsupported
    may_answer = {"mis", "dm"} if thin and enumerated else set()
    return {name: reasons[0] for name in work.by_name() if name not in may_answer}


def _notes(log: Log, settings: OpeSettings, *, bounded: bool) -> list[str]:
    found = [f"{n:,} episodes left out: {reason}" for reason, n in log.left_out.items()]
    if "had not ended" in log.left_out or "steps are missing" in log.left_out:
        found.append("leaving out episodes favours short ones; values are of the episodes that were kept")
    if bounded and settings.least_return is None:
        found.append("lower bounds suppose that no return is below the least logged one; state it by least_return")
    return found


def as_document(found: Evaluation) -> dict[str, Any]:
    """Return an evaluation as JSON."""
    numbers = dataclasses.asdict(found.overlap)
    return {
        "answer": found.answer,
        "estimates": {name: dataclasses.asdict(interval) for name, interval in found.estimates.items()},
        "refused": dict(found.refused),
        "lower_bounds": dict(found.lower_bounds),
        "logged": dataclasses.asdict(found.logged),
        "overlap": {name: value if value is None or np.isfinite(value) else None for name, value in numbers.items()},
        "notes": list(found.notes),
        "discount": found.discount,
        "horizon": found.horizon,
        "level": found.level,
    }
