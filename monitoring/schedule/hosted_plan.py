"""`hosted_plan`: a monitor file as SageMaker monitoring schedules, checked before anything is sent."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from policylab.aws.service_model import structure_findings
from policylab.deployment.sagemaker.plan import Call
from policylab.errors import ConfigError, MissingExtraError
from policylab.findings import Finding
from policylab.monitoring.outcomes.period import offset
from policylab.monitoring.schedule import hosted_preprocessor
from policylab.monitoring.schedule.checks import endpoint_of
from policylab.monitoring.schedule.cron import Cron
from policylab.monitoring.schedule.hosted_requests import PREPROCESSOR, Analysis, calls_of, home, hosted_schedule
from policylab.monitoring.schedule.hosting_settings import MonitorHosting
from policylab.monitoring.schedule.monitor_file import DataCheck, MonitorConfig, QualityCheckSettings

BASELINE = ("constraints.json", "statistics.json")
MAX_HOURLY_S = {"DataQuality": 3600, "ModelQuality": 1800, "ModelBias": 1800, "ModelExplainability": 3600}
"""Longest job of an hourly schedule (API reference, MonitoringStoppingCondition)."""


@dataclasses.dataclass(frozen=True, slots=True)
class HostedPlan:
    """The requests of one monitor file.

    Attributes:
        name: of the monitor.
        calls: a job definition and a schedule for each analysis.
        uploads: place in S3 -> the file that must lie there.
        losses: what SageMaker cannot express.
        findings: rules that the file breaks.
        unchecked: why requests were not checked against the service model, or None.
    """

    name: str
    calls: tuple[Call, ...]
    uploads: dict[str, Path]
    losses: tuple[str, ...]
    findings: tuple[Finding, ...]
    unchecked: str | None = None

    def document(self) -> dict[str, Any]:
        """Return the plan as a JSON document, as that of an endpoint."""
        told = {
            f"{severity}s": [str(one) for one in self.findings if one.severity == severity]
            for severity in ("error", "warning")
        }
        return {
            "name": self.name,
            "requests": [dataclasses.asdict(call) for call in self.calls],
            "uploads": {uri: str(path) for uri, path in self.uploads.items()},
            "not_expressible": list(self.losses),
            **told,
            "unchecked": self.unchecked,
        }


def hosted_plan(config: MonitorConfig) -> HostedPlan:
    """Return all requests of a monitor file, checked.

    Raises:
        ConfigError: the file has no ``sagemaker`` section.
        UserError: the endpoint is not named and cannot be told from its traffic.
    """
    hosting = config.sagemaker
    if hosting is None:
        raise ConfigError(
            "the monitor file has no section `sagemaker`; add one with role_arn, image and s3_prefix "
            "(docs/monitoring.md)"
        )
    endpoint, schedule = endpoint_of(config), hosted_schedule(Cron.parse(config.schedule))
    analyses, uploads = _analyses(config, hosting, endpoint=endpoint)
    findings = [*_rules(config, hosting, analyses=analyses, uploads=uploads)]
    timing = schedule or ("cron(0 * ? * * *)", 1)  # the finding says that it is not the file's
    calls = tuple(
        call
        for one in analyses
        for call in calls_of(one, hosting, monitor=config.name, endpoint=endpoint, schedule=timing)
    )
    plan = HostedPlan(config.name, calls, uploads, tuple(_losses(config, hosting)), tuple(findings))
    try:
        for call in calls:
            for found in structure_findings(call.operation, call.request, service=call.service):
                findings.append(dataclasses.replace(found, path=f"{call.operation}.{found.path}"))
    except MissingExtraError as error:
        return dataclasses.replace(plan, unchecked=str(error))
    return dataclasses.replace(plan, findings=tuple({str(found): found for found in findings}.values()))


def _analyses(
    config: MonitorConfig, hosting: MonitorHosting, *, endpoint: str
) -> tuple[list[Analysis], dict[str, Path]]:
    """Return what is analysed, and the files that it needs in S3."""
    found, uploads = list[Analysis](), dict[str, Path]()
    environment = {"publish_cloudwatch_metrics": "Enabled", **hosting.environment}
    analyzer = {"ImageUri": hosting.image, "Environment": environment}
    late = next((offset(one.late) for one in config.checks if isinstance(one, QualityCheckSettings)), offset("PT0S"))
    truth = f"{hosting.s3_prefix.rstrip('/')}/ground-truth/{endpoint}"
    for check in config.checks:
        if isinstance(check, DataCheck):
            place = home(hosting, config.name, name="data")
            limits, statistics = (f"{place}/baseline/{name}" for name in BASELINE)
            uploads |= {limits: check.baseline / BASELINE[0], statistics: check.baseline / BASELINE[1]}
            uploads[f"{place}/{PREPROCESSOR}"] = Path(hosted_preprocessor.__file__)
            application = {**analyzer, "RecordPreprocessorSourceUri": f"{place}/{PREPROCESSOR}"}
            found.append(Analysis("DataQuality", "data", application, constraints=limits, statistics=statistics))
    clarify = {"ImageUri": hosting.clarify_image or "", "Environment": environment}
    if (quality := hosting.quality) is not None:
        application = {**analyzer, "ProblemType": quality.problem_type}
        labelled: dict[str, Any] = {"captured": quality, "ground_truth": quality.ground_truth or truth, "late": late}
        found.append(Analysis("ModelQuality", "quality", application, constraints=quality.constraints, **labelled))
    if (bias := hosting.bias) is not None:
        application = {**clarify, "ConfigUri": bias.config}
        labelled = {"captured": bias, "ground_truth": bias.ground_truth or truth, "late": late}
        found.append(Analysis("ModelBias", "bias", application, constraints=bias.constraints, **labelled))
    if (own := hosting.attribution) is not None:
        application = {**clarify, "ConfigUri": own.config}
        found.append(
            Analysis("ModelExplainability", "attribution", application, captured=own, constraints=own.constraints)
        )
    return found, uploads


def _rules(
    config: MonitorConfig, hosting: MonitorHosting, *, analyses: list[Analysis], uploads: dict[str, Path]
) -> Iterator[Finding]:
    schedule = hosted_schedule(Cron.parse(config.schedule))
    if schedule is None:
        rule = "SageMaker schedules every hour, once a day, or every so many hours that divide the day, at minute 0"
        yield Finding("schedule", rule, config.schedule, "write such as '0 * * * *', '0 6 * * *' or '0 */6 * * *'")
    for one in analyses:
        longest = MAX_HOURLY_S[one.kind]
        if schedule is not None and schedule[1] == 1 and hosting.max_runtime_s > longest:
            rule = f"an hourly {one.kind} job may take {longest} s"
            yield Finding("sagemaker.max_runtime_s", rule, hosting.max_runtime_s, "lower it, or check less often")
    if hosting.clarify_image is None and (hosting.bias or hosting.attribution):
        yield Finding(
            "sagemaker.clarify_image", "bias and attribution run in Clarify's image", None, "name that of the region"
        )
    if not analyses:
        rule = "has nothing that SageMaker analyses"
        yield Finding("checks", rule, [one.kind for one in config.checks], "add {kind: data}, or sagemaker.quality")
    for path in uploads.values():
        if not path.is_file():
            yield Finding("checks", "the baseline must exist", str(path), "make it with `policylab monitor baseline`")


def _losses(config: MonitorConfig, hosting: MonitorHosting) -> Iterator[str]:
    for check in config.checks:
        if isinstance(check, DataCheck):
            yield (
                "checks.data: SageMaker's analyzer knows neither autocorrelation nor the error of sketches, and takes "
                "false_alarm_rate, false_discovery_rate, correlation_threshold, minimum and maximum for nothing"
            )
            if check.columns:
                yield "checks.data.columns: all columns are analysed"
        elif not isinstance(check, QualityCheckSettings):
            own = f"; Clarify's own is made by sagemaker.{check.kind}" if check.kind in ("attribution", "bias") else ""
            yield f"checks.{check.kind}: SageMaker does not know it{own}; run `policylab monitor schedule` for it"
        elif hosting.quality is None:
            yield (
                "checks.quality: SageMaker knows no returns; sagemaker.quality compares answers with ground truth "
                "instead"
            )
        else:
            yield "checks.quality: of its settings `late` alone is taken; answers are compared with ground truth"
    if config.variant is not None:
        yield "variant: SageMaker analyses the traffic of all variants"
    yield "alarms, targets: SageMaker sends metrics to CloudWatch; set alarms there"
