"""``policylab monitor``: baselines, and windows of data checked against them."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policylab.cli.output import columns, emit
from policylab.errors import plain

if TYPE_CHECKING:
    from policylab.monitoring.bias.analysis import Analysis, BiasViolation
    from policylab.monitoring.profiles.profile import Profile
    from policylab.monitoring.quality.check import QualityCheck
    from policylab.monitoring.quality.constraints import Constraints

STATISTICS, CONSTRAINTS, PROFILE = "statistics.json", "constraints.json", "profile.npz"
VIOLATIONS = "constraint_violations.json"
MAX_SHOWN = 10
"""Pairs of columns whose correlations changed, of which the terminal tells."""


def baseline(arguments: argparse.Namespace) -> int:
    """Profile data that is as it should be, and suggest constraints."""
    from policylab.errors import UserError
    from policylab.monitoring.profiles.profile import profile_of
    from policylab.monitoring.quality.constraints import document, suggested

    profile = profile_of(map(Path, arguments.data), columns=_names(arguments.columns))
    if not profile.n_rows:
        raise UserError(f"{', '.join(arguments.data)}: no rows; a baseline needs data")
    out = Path(arguments.out)
    _write_profile(out, profile)
    constraints = document(suggested(profile))
    _write(out / CONSTRAINTS, constraints)
    rows = [["column", "type", "present", "missing", "mean", "std", "min", "max"]]
    for name, column in profile.columns.items():
        numeric = column.n_numbers > 0
        numbers = (column.mean, column.std_dev, column.low, column.high)
        shown = [f"{value:.4g}" if numeric else "-" for value in numbers]
        rows.append([name, column.type, f"{column.n_present:,}", f"{column.n_missing:,}", *shown])
    result = {"path": str(out), "n_rows": profile.n_rows, "columns": [f["name"] for f in constraints["features"]]}
    emit(arguments, result, text=lambda: f"{columns(rows)}\n{profile.n_rows:,} rows, baseline in {out}")
    return 0


def check(arguments: argparse.Namespace) -> int:
    """Check data against a baseline; exit code 1 if it violates a constraint."""
    from policylab.files import write_atomic
    from policylab.monitoring.profiles.profile import Profile, profile_of
    from policylab.monitoring.quality import report
    from policylab.monitoring.quality.check import check as compare
    from policylab.monitoring.quality.check import violations_document
    from policylab.monitoring.quality.constraints import of_columns

    folder, out = Path(arguments.baseline), Path(arguments.out)
    constraints, rate = _rules(arguments, folder / CONSTRAINTS)
    reference = Profile.load(folder / PROFILE)
    names = _names(arguments.columns)
    if names:
        constraints = of_columns(constraints, names)
    window = profile_of(map(Path, arguments.data), columns=names, like=reference)
    found = compare(window, reference, constraints=constraints, false_alarm_rate=rate)
    document = report.as_document(found)
    _write_profile(out, window)
    _write(out / VIOLATIONS, violations_document(found))
    _write(out / "report.json", document)
    write_atomic(out / "report.html", report.html(found))
    emit(arguments, {**document, "path": str(out)}, text=lambda: _text(found, out))
    return 1 if found.violations else 0


def _rules(arguments: argparse.Namespace, path: Path) -> tuple[Constraints, float]:
    """Return the constraints of a baseline and the false-alarm rate; at most one kind of rate may be asked for."""
    from policylab.errors import UserError
    from policylab.monitoring.quality.check import FALSE_ALARM_RATE
    from policylab.monitoring.quality.constraints import read_constraints, with_false_discovery_rate

    constraints, share, rate = read_constraints(path), arguments.false_discovery_rate, arguments.false_alarm_rate
    place = f"false_discovery_rate in {path}" if share is None else "--false-discovery-rate"
    if share is not None:
        constraints = with_false_discovery_rate(constraints, _share(share, option=place))
    if rate is None:
        return constraints, FALSE_ALARM_RATE
    if constraints.monitoring_config.false_discovery_rate is not None:
        raise UserError(
            f"a check keeps a false-alarm rate or a false-discovery rate, got --false-alarm-rate {rate:g} and {place}; "
            "leave one of them out"
        )
    return constraints, _share(rate, option="--false-alarm-rate")


def bias(arguments: argparse.Namespace) -> int:
    """Measure the bias of a data set; exit code 1 if it has drifted from a baseline."""
    from policylab.agents.bundle import load_bundle
    from policylab.errors import UserError
    from policylab.monitoring.bias.analysis import Question, analyse, analysis_document, baseline_values, violations
    from policylab.monitoring.bias.rows import episode_rows, read_rows
    from policylab.monitoring.bias.selection import Selection

    question = Question(
        Selection.parse(arguments.facet, option="--facet"),
        Selection.parse(arguments.label, option="--label"),
        Selection.parse(arguments.prediction, option="--prediction") if arguments.prediction else None,
        arguments.group,
    )
    path = Path(arguments.data)
    if arguments.per_episode:
        bundle = load_bundle(Path(arguments.policy)) if arguments.policy else None
        rows = episode_rows(path, bundle=bundle, columns=question.columns)
    elif arguments.policy:
        raise UserError("--policy reads captured traffic episode by episode; add --per-episode")
    else:
        rows = read_rows(path, columns=question.columns, optional=True)
    found = analyse(rows, question, level=_share(arguments.level, option="--level"))
    values, errors = baseline_values(Path(arguments.baseline), question) if arguments.baseline else ({}, {})
    broken = violations(found, values, errors=errors)
    document = analysis_document(found)
    written = {"version": "1.0", "violations": [dataclasses.asdict(violation) for violation in broken]}
    if arguments.out:
        _write(Path(arguments.out) / "analysis.json", document)
        _write(Path(arguments.out) / VIOLATIONS, written)
    intervals = {metric.name: [_finite(metric.low), _finite(metric.high)] for metric in found.metrics}
    facets = {"n_a": found.n_a, "n_d": found.n_d, "n_left_out": found.n_left_out, "notes": list(found.notes)}
    emit(arguments, {**document, **written, "intervals": intervals, **facets}, text=lambda: _bias_text(found, broken))
    return 1 if broken else 0


def _bias_text(found: Analysis, broken: list[BiasViolation]) -> str:
    rows = [["metric", "value", "interval", "direction", "no bias at"]]
    for metric in found.metrics:
        interval = f"[{metric.low:.4g}, {metric.high:.4g}]"
        rows.append([metric.title, f"{metric.value:.4g}", interval, metric.direction, f"{metric.neutral:g}"])
    facet = plain(str(found.question.facet))
    lines = [f"d: {facet}, {found.n_d:,} rows; a: all others, {found.n_a:,} rows"]
    if found.n_left_out:
        lines.append(f"{found.n_left_out:,} rows left out for a missing value")
    lines += [f"note: {plain(note)}" for note in found.notes]
    lines += [f"violation: {violation.metric_name}: {violation.description}" for violation in broken]
    return "\n".join([columns(rows), *lines])


def causes(arguments: argparse.Namespace) -> int:
    """Say which part of a system has drifted; exit code 1 if any has."""
    from policylab.agents.bundle import load_bundle
    from policylab.monitoring.causes.analysis import DriftSettings, diagnose
    from policylab.monitoring.causes.steps import read_steps

    rate = _share(arguments.false_alarm_rate, option="--false-alarm-rate")
    bundle = load_bundle(Path(arguments.policy)) if arguments.policy else None
    baseline, window = (read_steps(Path(path), bundle=bundle) for path in (arguments.baseline, arguments.window))
    found = diagnose(baseline, window, settings=DriftSettings(false_alarm_rate=rate))
    rows = [["layer", "role", "effect", "p-value", "drifted", "what was compared"]]
    for layer in found.layers:
        verdict = "DRIFT" if layer.drifted else "-"
        rows.append([layer.name, layer.role, f"{layer.effect:.4g}", f"{layer.p_value:.2g}", verdict, layer.detail])
    emit(arguments, dataclasses.asdict(found), text=lambda: f"{columns(rows)}\n{found.verdict}")
    return 1 if found.drifted else 0


def attribution(arguments: argparse.Namespace) -> int:
    """Say whether a policy decides by the same features; exit code 1 if their ranking has drifted."""
    from policylab.agents.bundle import load_bundle
    from policylab.monitoring.attribution.drift import attribution_drift, violations_document
    from policylab.monitoring.causes.steps import read_steps

    then = load_bundle(Path(arguments.then)) if arguments.then else None
    bundle = load_bundle(Path(arguments.policy))
    baseline, window = (
        read_steps(Path(path), bundle=bundle).observation for path in (arguments.baseline, arguments.window)
    )
    found = attribution_drift(bundle, baseline=baseline, window=window, then=then)
    document = {"outputs": [dataclasses.asdict(output) for output in found]}
    if arguments.out:
        _write(Path(arguments.out) / VIOLATIONS, violations_document(found))
        _write(Path(arguments.out) / "report.json", document)
    rows = [["output", "nDCG", "verdict", "mean |Shapley value| of each feature, then and now"]]
    for output in found:
        pairs = zip(output.baseline, output.window, strict=True)
        scores = "  ".join(f"{first:.3g} {second:.3g}" for first, second in pairs)
        rows.append([output.label, str(output.ndcg), "DRIFT" if output.drifted else "-", scores])
    emit(arguments, document, text=lambda: columns(rows))
    return 1 if any(output.drifted for output in found) else 0


def stream(arguments: argparse.Namespace) -> int:
    """Watch columns of a stream one value after the other; exit code 1 if one alarms."""
    from policylab.errors import UserError
    from policylab.monitoring.bias.rows import read_rows
    from policylab.monitoring.sequential.watch import watch

    names = _names(arguments.columns)
    if not all(names) or not names:
        raise UserError(f"--columns must name columns, got '{arguments.columns}'; separate them with commas")
    if not 0 < arguments.run_length < math.inf:
        raise UserError(f"--run-length must be a number above 0, got {arguments.run_length:g}")
    sides = [
        {name: _numbers(read_rows(Path(path), columns=(name,)).columns[name], name=name) for name in names}
        for path in (arguments.baseline, arguments.window)
    ]
    found = watch(*sides, run_length=arguments.run_length)
    rows = [["column", "verdict", "mean is off by", "batch", "limit"]]
    for column in found:
        verdict = "no alarm"
        if column.alarm_at is not None:
            way = "up" if column.upwards else "down"
            verdict = f"ALARM at value {column.alarm_at:,}: {way} since about {column.change_at:,}"
        shift = f"[{column.shift.low:.4g}, {column.shift.high:.4g}]"
        rows.append([column.name, verdict, shift, str(column.batch), f"{column.limit:.3g}"])
    document = {"columns": [dataclasses.asdict(column) for column in found]}
    emit(arguments, document, text=lambda: columns(rows))
    return 1 if any(column.alarm_at is not None for column in found) else 0


def divergence(arguments: argparse.Namespace) -> int:
    """Say whether a proxy still goes with the true reward; exit code 1 if it does not."""
    from policylab.monitoring.bias.rows import read_rows
    from policylab.monitoring.causes.divergence import Correlation
    from policylab.monitoring.causes.divergence import divergence as compare

    rate = _share(arguments.false_alarm_rate, option="--false-alarm-rate")
    names = (arguments.proxy, arguments.true)
    sides = []
    for given in (arguments.baseline, arguments.window):
        columns_ = read_rows(Path(given), columns=names).columns
        sides.append(Correlation.of(*_finite_pairs(*(columns_[name] for name in names), names=names), side=given))
    found = compare(*sides, false_alarm_rate=rate)
    rows = [["", "pairs", "correlation", "mean proxy", "mean true reward"]]
    for name, side in (("baseline", found.baseline), ("window", found.window)):
        rows.append([name, f"{side.n:,}", f"{side.value:.4g}", *(f"{mean:.4g}" for mean in side.means)])
    document = {**dataclasses.asdict(found), "z": _finite(found.z), "verdict": found.verdict}
    emit(arguments, document, text=lambda: f"{columns(rows)}\n{found.verdict} (p-value {found.p_value:.2g})")
    return 1 if found.diverged else 0


def _finite_pairs(proxy: Any, truth: Any, *, names: tuple[str, str]) -> tuple[Any, Any]:
    import numpy as np

    first, second = (_plain_numbers(values, name=name) for values, name in zip((proxy, truth), names, strict=True))
    usable = np.isfinite(first) & np.isfinite(second)
    return first[usable], second[usable]


def _numbers(values: Any, *, name: str) -> Any:
    import numpy as np

    found = _plain_numbers(values, name=name)
    return found[np.isfinite(found)]


def _plain_numbers(values: Any, *, name: str) -> Any:
    from policylab.errors import UserError

    if values.dtype.kind not in "iufb":
        raise UserError(f"column {name!r} holds no numbers")
    return values.astype("float64")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _text(found: QualityCheck, out: Path) -> str:
    from policylab.monitoring.quality.report import PAIR_HEAD, most_changed, pair_cells, status

    rows = [["column", "values", "effective", "L-infinity", "chance", "sketch error", "PSI"]]
    for column in found.columns:
        simple, psi = column.distances.get("linf_simple"), column.distances.get("psi")
        numbers = ["-"] * 4 if simple is None or psi is None else [
            f"{value:.4g}" for value in (simple.value, simple.noise, simple.error, psi.value)
        ]  # fmt: skip
        rows.append([column.name, f"{column.n_window:,}", f"{column.effective:,.0f}", *numbers])
    lines = [f"violation: {plain(v.feature_name)}: {v.constraint_check_type}: {plain(v.description)}"
             for v in found.violations]  # fmt: skip
    summary = f"{status(found)}: {found.n_window:,} rows against {found.n_baseline:,}; report in {out}"
    changed = [pair_cells(one) for one in most_changed(found) if one.change.beyond_chance][:MAX_SHOWN]
    pairs = [columns([list(PAIR_HEAD), *changed])] if changed else []
    notes = [f"note: {note}" for note in found.notes]
    return "\n".join([columns(rows), *pairs, *lines, *notes, summary])


def _names(given: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in given.split(",")) if given else ()


def _share(given: float, *, option: str) -> float:
    from policylab.errors import UserError

    if not 0.0 < given < 1.0:
        raise UserError(f"{option} must be between 0 and 1, got {given:g}")
    return given


def _write_profile(out: Path, profile: Profile) -> None:
    from policylab.monitoring.profiles.statistics_json import statistics_document

    _write(out / STATISTICS, statistics_document(profile))
    profile.save(out / PROFILE)


def _write(path: Path, document: Any) -> None:
    from policylab.files import write_atomic

    write_atomic(path, json.dumps(document, indent=1, allow_nan=False) + "\n")
