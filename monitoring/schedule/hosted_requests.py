"""The literal requests of a monitor on SageMaker: a job definition of each kind of analysis, and its schedule.

Source: the API reference of CreateDataQualityJobDefinition, CreateModelQualityJobDefinition,
CreateModelBiasJobDefinition, CreateModelExplainabilityJobDefinition and CreateMonitoringSchedule.
"""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

from policylab.deployment.sagemaker.models import hashed_name
from policylab.deployment.sagemaker.plan import Call
from policylab.monitoring.schedule.cron import Cron
from policylab.monitoring.schedule.hosting_settings import CapturedAttributes, MonitorHosting

ROOT = "/opt/ml/processing"
PREPROCESSOR = "preprocessor.py"
HOURS = frozenset(range(24))
Request = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Analysis:
    """One kind of analysis.

    Attributes:
        kind: SageMaker's name of it, which is its `MonitoringType` and the middle of its operation.
        name: of its folder and schedule.
        application: image and what it runs, with its environment.
        captured: where requests and answers hold what is analysed; None takes everything.
        constraints: place in S3 of the baseline's constraints; None without any.
        statistics: the same of its statistics.
        ground_truth: place in S3 of the labels; None of an analysis without any.
        late: how long labels take.
    """

    kind: str
    name: str
    application: Request
    captured: CapturedAttributes | None = None
    constraints: str | None = None
    statistics: str | None = None
    ground_truth: str | None = None
    late: timedelta = timedelta(0)


def home(hosting: MonitorHosting, monitor: str, *, name: str) -> str:
    """Return the place in S3 of one analysis of a monitor."""
    return f"{hosting.s3_prefix.rstrip('/')}/monitors/{monitor}/{name}"


def hosted_schedule(cron: Cron) -> tuple[str, int] | None:
    """Return a schedule as SageMaker writes it and the hours between its moments; None if it has no such form.

    It knows every hour, once a day, and every so many hours.

    >>> hosted_schedule(Cron.parse("0 3/6 * * *"))
    ('cron(0 3/6 ? * * *)', 6)
    """
    every_day = (cron.days, cron.months, cron.weekdays) == (
        frozenset(range(1, 32)),
        frozenset(range(1, 13)),
        frozenset(range(7)),
    )
    if cron.minutes != frozenset([0]) or not every_day:
        return None
    first, step = min(cron.hours), 24 // len(cron.hours)
    if cron.hours == HOURS:
        return "cron(0 * ? * * *)", 1
    if cron.hours != frozenset(range(first, 24, step)) or first >= step:
        return None
    return (f"cron(0 {first} ? * * *)" if step == 24 else f"cron(0 {first}/{step} ? * * *)"), step


def calls_of(
    analysis: Analysis, hosting: MonitorHosting, *, monitor: str, endpoint: str, schedule: tuple[str, int]
) -> list[Call]:
    """Return CreateXJobDefinition and CreateMonitoringSchedule of one analysis.

    Args:
        analysis: what is analysed.
        hosting: the ``sagemaker`` section of the monitor file.
        monitor: its name.
        endpoint: whose captured traffic.
        schedule: of `hosted_schedule`.
    """
    kind, tags = analysis.kind, [{"Key": key, "Value": value} for key, value in hosting.tags.items()]
    tags.append({"Key": "policylab:monitor", "Value": monitor})
    baseline = {
        f"{part}Resource": {"S3Uri": uri}
        for part, uri in (("Constraints", analysis.constraints), ("Statistics", analysis.statistics))
        if uri is not None
    }
    place = home(hosting, monitor, name=analysis.name)
    output: Request = {"S3Uri": f"{place}/reports", "LocalPath": f"{ROOT}/output", "S3UploadMode": "EndOfJob"}
    request: Request = {
        **({f"{kind}BaselineConfig": baseline} if baseline else {}),
        f"{kind}AppSpecification": analysis.application,
        f"{kind}JobInput": _input(analysis, endpoint=endpoint, hours=schedule[1]),
        f"{kind}JobOutputConfig": {
            "MonitoringOutputs": [{"S3Output": output}],
            **({"KmsKeyId": hosting.output_kms_key} if hosting.output_kms_key else {}),
        },
        **_machines(hosting),
    }
    name = hashed_name(f"{monitor}-{analysis.name}", content=request)
    timing: Request = {
        "ScheduleConfig": {"ScheduleExpression": schedule[0]},
        "MonitoringJobDefinitionName": name,
        "MonitoringType": kind,
    }
    begin: Request = {"MonitoringScheduleName": f"{monitor}-{analysis.name}", "MonitoringScheduleConfig": timing}
    definition = Call("sagemaker", f"Create{kind}JobDefinition", {"JobDefinitionName": name, **request, "Tags": tags})
    return [definition, Call("sagemaker", "CreateMonitoringSchedule", {**begin, "Tags": tags})]


def _input(analysis: Analysis, *, endpoint: str, hours: int) -> Request:
    source: Request = {
        "EndpointName": endpoint,
        "LocalPath": f"{ROOT}/input/endpoint",
        "S3InputMode": "File",
        "S3DataDistributionType": "FullyReplicated",
    }
    captured = analysis.captured
    for field, value in (
        ("FeaturesAttribute", captured and captured.features_attribute),
        ("InferenceAttribute", captured and captured.inference_attribute),
        ("ProbabilityAttribute", captured and captured.probability_attribute),
        ("ProbabilityThresholdAttribute", captured and captured.probability_threshold),
    ):
        if value is not None:
            source[field] = value
    if analysis.late:
        source["StartTimeOffset"] = before(analysis.late + timedelta(hours=hours))
        source["EndTimeOffset"] = before(analysis.late)
    request: Request = {"EndpointInput": source}
    if analysis.ground_truth is not None:
        request["GroundTruthS3Input"] = {"S3Uri": analysis.ground_truth}
    return request


def before(duration: timedelta) -> str:
    """Return an offset of whole minutes, rounded up, as SageMaker writes it.

    >>> before(timedelta(hours=2)), before(timedelta(minutes=90))
    ('-PT2H', '-PT90M')
    """
    minutes = -(-duration // timedelta(minutes=1))
    return f"-PT{minutes // 60}H" if minutes % 60 == 0 else f"-PT{minutes}M"


def _machines(hosting: MonitorHosting) -> Request:
    cluster: Request = {
        "InstanceType": hosting.instance_type,
        "InstanceCount": hosting.instance_count,
        "VolumeSizeInGB": hosting.volume_gb,
    }
    if hosting.volume_kms_key:
        cluster["VolumeKmsKeyId"] = hosting.volume_kms_key
    network: Request = {"EnableNetworkIsolation": True} if hosting.network_isolation else {}
    if hosting.vpc:
        groups, subnets = list(hosting.vpc.security_group_ids), list(hosting.vpc.subnets)
        network["VpcConfig"] = {"SecurityGroupIds": groups, "Subnets": subnets}
    return {
        "JobResources": {"ClusterConfig": cluster},
        **({"NetworkConfig": network} if network else {}),
        "RoleArn": hosting.role_arn,
        "StoppingCondition": {"MaxRuntimeInSeconds": hosting.max_runtime_s},
    }
