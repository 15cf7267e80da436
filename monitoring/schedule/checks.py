"""All checks of a monitor over one window of time."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from datetime import datetime
from pathlib import Path

from policylab.agents.bundle import Bundle, load_bundle
from policylab.errors import PolicylabError, UserError
from policylab.experiments.report.text import counted
from policylab.monitoring.alarms.measurement import Measurement, of_causes, of_data, of_quality
from policylab.monitoring.causes.analysis import MIN_STEPS, DriftSettings, diagnose
from policylab.monitoring.causes.steps import read_steps
from policylab.monitoring.ope.captured_log import only_endpoint
from policylab.monitoring.outcomes import constraints, report
from policylab.monitoring.outcomes.joined import OutcomeQuery, read_outcomes
from policylab.monitoring.outcomes.measures import measure
from policylab.monitoring.outcomes.period import offset
from policylab.monitoring.profiles.profile import Profile, profile_of
from policylab.monitoring.quality import report as data_report
from policylab.monitoring.quality.check import check
from policylab.monitoring.quality.constraints import Constraints, read_constraints, with_false_discovery_rate
from policylab.monitoring.schedule.check_result import CheckResult
from policylab.monitoring.schedule.cut import Part, Unfinished, cut
from policylab.monitoring.schedule.monitor_file import (
    AttributionCheck,
    BiasCheck,
    Check,
    DataCheck,
    DivergenceCheck,
    MonitorConfig,
    QualityCheckSettings,
)
from policylab.monitoring.schedule.policy_checks import attribution_check, bias_check, divergence_check

logger = logging.getLogger(__name__)


def run_checks(config: MonitorConfig, *, start: datetime, end: datetime) -> list[CheckResult]:
    """Return what every check finds in the decisions from ``start`` on and before ``end``.

    A check that cannot be done has failed, which is a measurement of its own; the others go on.
    """
    bundle = None if config.policy is None else load_bundle(config.policy)
    endpoint = endpoint_of(config)
    found = []
    for one in config.checks:
        late = offset("PT0S") if isinstance(one, DataCheck) else offset(one.late)
        over = None if isinstance(one, DataCheck) else end
        part = Part(endpoint, config.variant, start - late, end - late, over=over)
        with tempfile.TemporaryDirectory(prefix="policylab-window-") as folder:
            try:
                n, unfinished = cut(config.data, Path(folder), part=part)
                result = _run(one, Path(folder), bundle=bundle) if n else CheckResult(one.kind, "no data", "", (), {})
                found.append(_with_note(result, unfinished))
            except PolicylabError as error:
                logger.warning("the check %s failed: %s", one.kind, error)
                failed = Measurement(f"{one.kind}.failed", 1.0, None, True, str(error))
                found.append(CheckResult(one.kind, "failed", str(error), (failed,), {}))
    return found


def _with_note(result: CheckResult, unfinished: Unfinished) -> CheckResult:
    text = "; ".join(part for part in (result.text, unfinished.text) if part)
    return dataclasses.replace(result, text=text)


def endpoint_of(config: MonitorConfig) -> str:
    """Return the name of the endpoint that is watched.

    Raises:
        UserError: it is not named and the folder holds none or several.
    """
    return config.endpoint or only_endpoint(config.data)


def _run(settings: Check, window: Path, *, bundle: Bundle | None) -> CheckResult:
    if isinstance(settings, DataCheck):
        return _data(settings, window)
    if isinstance(settings, QualityCheckSettings):
        return _quality(settings, window, bundle=bundle)
    assert bundle is not None  # a monitor file with one of the others names a policy
    if isinstance(settings, DivergenceCheck):
        return divergence_check(settings, window, bundle=bundle)
    if isinstance(settings, AttributionCheck):
        return attribution_check(settings, window, bundle=bundle)
    if isinstance(settings, BiasCheck):
        return bias_check(settings, window, bundle=bundle)
    baseline, now = (read_steps(path, bundle=bundle) for path in (settings.baseline, window))
    if len(now) < MIN_STEPS:
        return CheckResult("causes", "no data", f"{len(now)} steps; at least {MIN_STEPS} are needed", (), {})
    found = diagnose(baseline, now, settings=DriftSettings(false_alarm_rate=settings.false_alarm_rate))
    status = "violations" if found.drifted else "passed"
    return CheckResult("causes", status, found.verdict, tuple(of_causes(found)), dataclasses.asdict(found))


def _data(settings: DataCheck, window: Path) -> CheckResult:
    limits, rate = _data_rules(settings), settings.false_alarm_rate
    reference = Profile.load(settings.baseline / "profile.npz")
    profile = profile_of([window], columns=settings.columns, like=reference)
    found = check(profile, reference, constraints=limits, false_alarm_rate=rate)
    text = f"{counted(len(found.violations), 'violations')} in {found.n_window:,} rows"
    measured = tuple(of_data(found, false_alarm_rate=rate))
    return CheckResult("data", data_report.status(found), text, measured, data_report.as_document(found))


def _data_rules(settings: DataCheck) -> Constraints:
    path = settings.baseline / "constraints.json"
    limits = read_constraints(path)
    if settings.false_discovery_rate is not None:
        return with_false_discovery_rate(limits, settings.false_discovery_rate)
    q = limits.monitoring_config.false_discovery_rate
    if q is not None and "false_alarm_rate" in settings.model_fields_set:
        raise UserError(
            "a check keeps a false_alarm_rate or a false_discovery_rate, got false_alarm_rate "
            f"{settings.false_alarm_rate:g} in the monitor file and false_discovery_rate {q:g} in {path}; "
            "leave one of them out"
        )
    return limits


def _quality(settings: QualityCheckSettings, window: Path, *, bundle: Bundle | None) -> CheckResult:
    limits = constraints.read_outcome_constraints(settings.baseline / "constraints.json")
    statistics = settings.baseline / "statistics.json"
    query = OutcomeQuery(missing_reward=settings.missing_reward)
    found = measure(read_outcomes(window, bundle=bundle, query=query), bundle=bundle, settings=settings)
    broken = constraints.violations(found, limits, spreads=constraints.read_spreads(statistics))
    leaves = constraints.read_statistics(statistics)
    usual = {name: (leaf.value, leaf.deviation) for name, leaf in leaves.items() if leaf.deviation is not None}
    measured = tuple(of_quality(found, broken, baseline=usual))
    text = f"{found.n_decisions:,} decisions in {found.n_episodes:,} episodes"
    return CheckResult("quality", report.status(found, broken), text, measured, report.as_document(found, broken))
