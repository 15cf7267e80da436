"""Checks of pairs of undrifted streams: what `benchmarks.false_alarms` counts.

A pair is a baseline and a window of n values (or steps, rows, episodes) of the same generator, independent or AR(1)
with `PHI`, and for what is no number its sign or quarters. Each function draws a pair and returns whether the check
calls it drifted at the stated rate, by part where one pair serves several checks; thresholds of materiality are 0 where
there are any, so that chance alone is tested.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.signal import lfilter
from scipy.stats import norm

from policylab.monitoring.attribution.drift import attribution_drift
from policylab.monitoring.bias.analysis import Question, analyse, violations
from policylab.monitoring.bias.rows import Rows
from policylab.monitoring.bias.selection import Selection
from policylab.monitoring.causes.analysis import DriftSettings, diagnose
from policylab.monitoring.causes.divergence import Correlation, divergence
from policylab.monitoring.causes.steps import Steps
from policylab.monitoring.false_discovery import discoveries
from policylab.monitoring.outcomes import constraints as outcome_constraints
from policylab.monitoring.outcomes.joined import Outcomes
from policylab.monitoring.outcomes.measures import OutcomeSettings, measure
from policylab.monitoring.profiles.cells import of_arrow, of_numbers
from policylab.monitoring.profiles.profile import Profile
from policylab.monitoring.quality.check import QualityCheck, check
from policylab.monitoring.quality.constraints import MonitoringConfig, suggested
from policylab.monitoring.sequential.mean_shift import mean_shift
from policylab.monitoring.sequential.reference import Reference
from policylab.monitoring.sequential.watch import watch

RATE = 0.05
PHI = 0.9
ROWS = 131_072
LONGEST = 8
Alarms = Callable[..., float | dict[str, bool]]


def stream(rng: np.random.Generator, n: int, *, phi: float) -> Any:
    if phi == 0.0:
        return rng.standard_normal(n)
    first = rng.standard_normal()  # stationary from the start
    return lfilter([np.sqrt(1 - phi**2)], [1.0, -phi], rng.standard_normal(n), zi=[phi * first])[0]


# ------------------------------------------------------------------ data


def profile(rng: np.random.Generator, n: int, *, phi: float, like: Profile | None = None) -> Profile:
    """Four columns of numbers, of which two go together, one of them with empty cells; and one of categories."""
    x = [stream(rng, n, phi=phi) for _ in range(4)]
    x[1] = 0.6 * x[0] + 0.8 * x[1]
    heavy = np.where(stream(rng, n, phi=phi) < norm.ppf(0.05), np.nan, np.sinh(2 * x[3]))
    kinds = np.searchsorted(norm.ppf([0.4, 0.7, 0.9]), stream(rng, n, phi=phi)).astype(np.int8)
    texts = pa.DictionaryArray.from_arrays(kinds, ["a", "b", "c", "d"])
    found = Profile(like)
    for start in range(0, n, ROWS):
        part = slice(start, start + ROWS)
        columns = {f"x{i}": of_numbers(x[i][part]) for i in range(3)}
        found.update({**columns, "heavy": of_numbers(heavy[part]), "kind": of_arrow(texts[part])})
    return found


def data(rng: np.random.Generator, n: int, *, phi: float) -> dict[str, bool]:
    baseline = profile(rng, n, phi=phi)
    window, limits = profile(rng, n, phi=phi, like=baseline), suggested(baseline)

    def found(**rules: Any) -> QualityCheck:
        config = limits.monitoring_config.model_dump()
        config["distribution_constraints"] |= rules.pop("distribution_constraints", {})
        changed = limits.model_copy(update={"monitoring_config": MonitoringConfig.model_validate({**config, **rules})})
        return check(window, baseline, constraints=changed, false_alarm_rate=RATE)

    usual = found()
    apart = any(one.distances["linf_simple"].beyond_chance for one in usual.columns)
    pairs = any(one.change.beyond_chance for one in usual.pairs)
    return {
        "distances": apart,
        "correlations": pairs,
        "completeness": _any(usual, "completeness_check"),
        "all of these together": apart or pairs or bool(usual.violations),
        "chi-square": _any(found(distribution_constraints=CHI_SQUARE), "baseline_drift_check"),
        "false_discovery_rate": bool(found(distribution_constraints=ZERO, false_discovery_rate=RATE).violations),
    }


def _any(found: QualityCheck, kind: str) -> bool:
    return any(one.constraint_check_type == kind for one in found.violations)


ZERO = {"comparison_threshold": 0.0, "categorical_comparison_threshold": 0.0, "correlation_threshold": 0.0}
CHI_SQUARE = {"categorical_drift_method": "ChiSquared", "categorical_comparison_threshold": RATE}


def rare(rng: np.random.Generator, n: int, *, phi: float) -> dict[str, bool]:
    """Of a column that is negative, and one that is empty, once in n rows on average: a baseline often never is."""

    def sampled() -> Profile:
        found = Profile()
        x, empty = (stream(rng, n, phi=phi) for _ in range(2))
        low = x - norm.ppf(1.0 / n)
        found.update({"low": of_numbers(low), "gaps": of_numbers(np.where(empty < norm.ppf(1.0 / n), np.nan, x))})
        return found

    baseline = sampled()
    found = check(sampled(), baseline, constraints=suggested(baseline), false_alarm_rate=RATE)
    missing, negative = _any(found, "completeness_check"), _any(found, "data_type_check")
    return {"missing cells": missing, "negatives": negative, "either": missing or negative}


# ------------------------------------------------------------------ outcomes, bias, attributions, rewards


def outcomes(rng: np.random.Generator, n: int, *, phi: float) -> bool:
    def sampled() -> Any:
        lengths = 1 + (3 * np.exp(stream(rng, n, phi=phi) / 2)).astype(int)
        starts = np.cumsum(lengths) - lengths
        reward = np.repeat(stream(rng, n, phi=phi), lengths) + rng.standard_normal(lengths.sum())
        ended = np.zeros(len(reward), dtype=bool)
        ended[starts + lengths - 1] = True
        return measure(Outcomes(reward, starts, ended), settings=OutcomeSettings(success_above=0.0))

    baseline, window = sampled(), sampled()
    limits = outcome_constraints.suggested(baseline)
    spreads = {one.name: one.std_error * one.effective**0.5 for one in baseline.metrics.values()}
    return any(outcome_constraints.violations(window, limits, spreads=spreads))


def bias(rng: np.random.Generator, n: int, *, phi: float, times: int) -> bool:
    def rows(m: int) -> Rows:
        facet, label, score = (stream(rng, m, phi=phi) for _ in range(3))
        return Rows({"facet": facet, "label": label + 0.2 * facet, "score": score + label})

    question = Question(Selection.parse("facet>0", option="facet"), Selection.parse("label>0", option="label"),
                        Selection.parse("score>0", option="prediction"), None)  # fmt: skip
    measured = analyse(rows(times * n), question).metrics
    baseline, errors = ({one.name: getattr(one, name) for one in measured} for name in ("value", "std_error"))
    found = analyse(rows(n), question, level=1 - RATE / 19)  # as the check of a monitor file
    return bool(violations(found, baseline, errors=errors))


def attribution(rng: np.random.Generator, n: int, *, phi: float) -> bool:
    from policylab.monitoring.attribution import drift

    weights = np.array([[1.0, 0.5], [0.9, 0.6], [0.2, 0.3]])
    drift.outputs_of = lambda _: lambda x: np.tanh(x @ weights)
    sides = [np.stack([stream(rng, n, phi=phi) for _ in range(3)], axis=1) for _ in range(2)]
    found = attribution_drift(None, baseline=sides[0], window=sides[1], seed=int(rng.integers(2**31)))
    return any(one.drifted for one in found)


def rewards(rng: np.random.Generator, n: int, *, phi: float) -> bool:
    def sampled(side: str) -> Correlation:
        truth = stream(rng, n, phi=phi)
        return Correlation.of(0.6 * truth + 0.8 * stream(rng, n, phi=phi), truth, side=side)

    return divergence(sampled("baseline"), sampled("window"), false_alarm_rate=RATE).p_value < RATE


# ------------------------------------------------------------------ causes


LENGTH, OVER = 40, 0.03


def play(rng: np.random.Generator, n: int, *, move: float, plane: bool) -> Steps:
    """Return n steps of a walk along a line of nine states, or of a plane; a smaller ``move`` leaves it slower.

    Episodes end by chance or after `LENGTH` steps; all are played at once, and what came after their ends forgotten.
    """
    ends = rng.geometric(OVER, size=n // 10 + LENGTH)
    lengths = np.minimum(ends, LENGTH)
    n_episodes = int(np.searchsorted(lengths.cumsum(), n)) + 1
    ends, lengths = ends[:n_episodes], lengths[:n_episodes]
    x: Any = rng.normal(size=(n_episodes, 2)) if plane else rng.integers(9, size=n_episodes)
    made = []
    for _ in range(LENGTH):
        p = np.full(n_episodes, 0.3) if plane else 0.2 + 0.06 * x
        action = (rng.random(n_episodes) < p).astype(np.int64)
        sign = 2 * action - 1
        if plane:
            after = (1 - 0.2 * move) * x + 0.3 * sign[:, None] + 0.5 * rng.normal(size=x.shape) * np.sqrt(move)
        else:
            after = np.clip(x + sign * (rng.random(n_episodes) < move), 0, 8)
        total = x.sum(axis=1) if plane else x
        reward = 0.1 * total + 0.5 * rng.normal(size=n_episodes)
        made.append((x, action, reward, after, np.log(np.where(action, p, 1 - p))))
        x = after
    there = np.arange(LENGTH) < lengths[:, None]
    observation, action, reward, following, log_p = (np.stack(one, axis=1)[there] for one in zip(*made, strict=True))
    starts = lengths.cumsum() - lengths
    ended = np.zeros(len(reward), dtype=bool)
    ended[starts + lengths - 1] = True
    terminated = ended & np.repeat(ends <= LENGTH, lengths)
    return Steps(observation, action, reward, following, terminated, ended, log_p, starts)


def causes(rng: np.random.Generator, n: int, *, phi: float, plane: bool) -> bool:
    sides = [play(rng, n, move=1 - phi, plane=plane) for _ in range(2)]
    settings = DriftSettings(false_alarm_rate=RATE, effect_threshold=0.0, unseen_threshold=0.0)
    return diagnose(*sides, settings=settings).drifted


# ------------------------------------------------------------------ sequential


def sums(rng: np.random.Generator, n: int, *, phi: float) -> float:
    """Values until cumulative sums alarm, at most `LONGEST` n, as a multiple of the run length n that was asked for."""
    values = [{"x": stream(rng, m, phi=phi)} for m in (n, LONGEST * n)]
    (found,) = watch(*values, run_length=n, seed=int(rng.integers(2**31)))
    return LONGEST if found.alarm_at is None else found.alarm_at / n


def mean(rng: np.random.Generator, n: int, *, phi: float) -> bool:
    reference = Reference.of(stream(rng, n, phi=phi))
    return mean_shift(reference.standardised(stream(rng, n, phi=phi)), reference, alpha=RATE).alarm is not None


def discovery(rng: np.random.Generator, n: int, *, phi: float, dependent: bool) -> bool:
    """Of n p-values, successive ones of which resemble each other."""
    return bool(discoveries(2 * norm.sf(np.abs(stream(rng, n, phi=phi))), rate=RATE, dependent=dependent).any())


# ------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One check: what is counted, the share that it promises, the largest feasible n; ``least``: a mean is promised."""

    alarms: Alarms
    bound: float = RATE
    most: int = 1_000_000
    least: bool = False


LINES = {
    "data": Line(data),
    "data of rare": Line(rare),
    "quality": Line(outcomes, bound=0.015),
    "bias, baseline of n": Line(partial(bias, times=1)),
    "bias, baseline of 10 n": Line(partial(bias, times=10), most=100_000),
    "causes, states": Line(partial(causes, plane=False)),
    "causes, plane": Line(partial(causes, plane=True)),
    "attribution": Line(attribution),
    "divergence": Line(rewards),
    "stream, mean": Line(mean),
    "stream, run length": Line(sums, bound=1.0, least=True),
    "Benjamini-Hochberg": Line(partial(discovery, dependent=False)),
    "Benjamini-Yekutieli": Line(partial(discovery, dependent=True)),
}
