"""How often checks alarm where nothing has changed, beside the rate that they promise.

    python -m benchmarks.false_alarms [--only NAME ...] [--values 1000 10000 ...] [--streams 1000] [--seconds 120]

Each line is a check of pairs of undrifted streams of n values (or steps, or episodes), independent or autocorrelated:
AR(1) with 0.9, and for what is no number its sign or quarters. The same generator makes baseline and window. What is
counted is what the check calls beyond chance or drifted at the stated rate, with thresholds of materiality set to 0
where there are any. A line stops after ``--seconds``, and says how many streams that were. The bound is kept where the
share is no larger, or larger by no more than chance: the last column is the probability of as many alarms at the bound.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.signal import lfilter
from scipy.stats import binom, norm

from policylab.errors import UserError
from policylab.monitoring.attribution.drift import attribution_drift
from policylab.monitoring.bias.analysis import Question, analyse, violations
from policylab.monitoring.bias.rows import Rows
from policylab.monitoring.bias.selection import Selection
from policylab.monitoring.causes.analysis import DriftSettings, diagnose
from policylab.monitoring.causes.divergence import Correlation, divergence
from policylab.monitoring.causes.steps import Steps, steps_of
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
    return lfilter([np.sqrt(1 - phi**2)], [1.0, -phi], rng.standard_normal(n + 1_000))[1_000:]


# ------------------------------------------------------------------ data


def profile(rng: np.random.Generator, n: int, *, phi: float, like: Profile | None = None) -> Profile:
    """Four columns of numbers, of which two go together, one of them with empty cells; and one of categories."""
    x = np.stack([stream(rng, n, phi=phi) for _ in range(4)], axis=1)
    x[:, 1] = 0.6 * x[:, 0] + 0.8 * x[:, 1]
    empty = stream(rng, n, phi=phi) < norm.ppf(0.05)
    kinds = np.array(["a", "b", "c", "d"])[np.digitize(stream(rng, n, phi=phi), norm.ppf([0.4, 0.7, 0.9]))]
    found = Profile(like)
    for start in range(0, n, ROWS):
        part = slice(start, start + ROWS)
        columns = {f"x{i}": of_numbers(x[part, i]) for i in range(3)}
        columns["heavy"] = of_numbers(np.where(empty[part], np.nan, np.sinh(2 * x[part, 3])))
        found.update({**columns, "kind": of_arrow(pa.array(kinds[part]))})
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


def play(rng: np.random.Generator, n: int, *, move: float, plane: bool) -> Steps:
    """Return n steps of a walk along a line of nine states, or of a plane; a smaller ``move`` leaves it slower."""
    rows, episode = [], 0
    while len(rows) < n:
        x: Any = rng.normal(size=2) if plane else int(rng.integers(9))
        for t in range(40):
            p = 0.3 if plane else 0.2 + 0.06 * x
            action = int(rng.random() < p)
            moved = rng.random() < move
            sign = 2 * action - 1
            if plane:
                after = (1 - 0.2 * move) * x + 0.3 * sign + 0.5 * rng.normal(size=2) * np.sqrt(move)
            else:
                after = int(np.clip(x + sign * moved, 0, 8))
            reward = float(np.sum(x)) * 0.1 + rng.normal() * 0.5
            over = bool(rng.random() < 0.03)
            rows.append((episode, t, x, action, reward, after, over, t == 39 and not over,
                         np.log(p if action else 1 - p)))  # fmt: skip
            x = after
            if over:
                break
        episode += 1
    names = ("episode_id", "t", "obs", "action", "reward", "next_obs", "terminated", "truncated", "log_propensity")
    return steps_of({name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)})


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
    bound: float
    most: int
    least: bool = False


LINES = {
    "data": Line(data, RATE, 1_000_000),
    "quality (5 metrics of 0.003)": Line(outcomes, 0.015, 100_000),
    "bias, baseline of 10 n": Line(partial(bias, times=10), RATE, 10_000),
    "bias, baseline of n": Line(partial(bias, times=1), RATE, 10_000),
    "attribution": Line(attribution, RATE, 10_000),
    "divergence": Line(rewards, RATE, 100_000),
    "causes, states": Line(partial(causes, plane=False), RATE, 10_000),
    "causes, plane": Line(partial(causes, plane=True), RATE, 10_000),
    "stream, sums: mean run length, of that asked for": Line(sums, 1.0, 10_000, least=True),
    "stream, mean": Line(mean, RATE, 100_000),
    "Benjamini-Hochberg": Line(partial(discovery, dependent=False), RATE, 1_000),
    "Benjamini-Yekutieli": Line(partial(discovery, dependent=True), RATE, 1_000),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", choices=list(LINES), default=list(LINES), metavar="NAME")
    parser.add_argument("--values", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--streams", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=120.0)
    arguments = parser.parse_args()
    print("| check | streams | n | pairs | alarms | share | bound | chance |\n|---|---|---|---|---|---|---|---|")
    for name in arguments.only:
        line = LINES[name]
        for phi in (0.0, PHI):
            for n in (n for n in arguments.values if n <= line.most):
                kind = f"AR(1), {phi}" if phi else "independent"
                found = counted(line, n, phi=phi, n_pairs=arguments.streams, seconds=arguments.seconds)
                for part, told in found.items():
                    print(f"| {name}{part and ': '}{part} | {kind} | {n:,} | {told}", flush=True)


def counted(line: Line, n: int, *, phi: float, n_pairs: int, seconds: float) -> dict[str, str]:
    """Return what is told of each part of a line: of as many pairs as are possible in the time, at least 20."""
    began, made = time.monotonic(), 0
    values: dict[str, list[float]] = {}
    while made < n_pairs and (time.monotonic() - began < seconds or made < 20):
        made += 1
        try:
            found = line.alarms(np.random.default_rng([made, n]), n, phi=phi)
        except UserError:  # too few values for what their memory is
            if made == 20 and not values:
                return {"": "refused: too few values | | | | |"}
            continue
        for name, value in (found if isinstance(found, dict) else {"": found}).items():
            values.setdefault(name, []).append(float(value))
    told = _least if line.least else _told
    return {name: told(np.array(parts), bound=line.bound) for name, parts in values.items()}


def _told(found: Any, *, bound: float) -> str:
    alarms = int(found.sum())
    likely = binom.sf(alarms - 1, len(found), bound)
    return f"{len(found):,} | {alarms} | {found.mean():.3f} | {bound:g} | {likely:.2g} |"


def _least(found: Any, *, bound: float) -> str:
    error = found.std() / len(found) ** 0.5
    return (
        f"{len(found):,} | | {found.mean():.2f} | at least {bound:g} | {norm.cdf((found.mean() - bound) / error):.2g} |"
    )


if __name__ == "__main__":
    main()
