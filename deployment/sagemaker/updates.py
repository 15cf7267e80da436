"""CreateEndpoint, UpdateEndpoint and their guardrail: how traffic moves, and the CloudWatch alarms that roll it back.

An alarm judges the machines of the new configuration alone, as on this machine: it has the dimension
EndpointConfigName, and its name begins with the configuration's.

Sources: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DeploymentConfig.html and the developer guide,
"Auto-Rollback Configuration and Monitoring".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from policylab.deployment.sagemaker.models import tags_of

if TYPE_CHECKING:
    from policylab.deployment.endpoint import EndpointConfig
    from policylab.deployment.guardrails.settings import Guardrail
    from policylab.deployment.sagemaker.settings import HostingSettings

PERIOD_S = 60
"""Of a metric's values; SageMaker's are no finer."""

MICROSECONDS = 1000.0
"""In a millisecond: ModelLatency counts them."""

_TYPES = {"all_at_once": "ALL_AT_ONCE", "canary": "CANARY", "linear": "LINEAR"}


def create_request(config: EndpointConfig, hosting: HostingSettings, *, configuration: str) -> dict[str, Any]:
    """Return the literal CreateEndpoint request."""
    return {
        "EndpointName": config.name,
        "EndpointConfigName": configuration,
        "Tags": tags_of(config, hosting),
    }


def update_request(
    config: EndpointConfig, hosting: HostingSettings, *, configuration: str, alarms: tuple[str, ...]
) -> dict[str, Any]:
    """Return the literal UpdateEndpoint request."""
    request: dict[str, Any] = {"EndpointName": config.name, "EndpointConfigName": configuration}
    if hosting.serverless is None:
        request["DeploymentConfig"] = deployment_config(config.guardrail, hosting, alarms=alarms)
    return request


def weights_request(name: str, weights: Mapping[str, float]) -> dict[str, Any]:
    """Return the literal UpdateEndpointWeightsAndCapacities request.

    >>> weights_request("lake", {"stable": 1})["DesiredWeightsAndCapacities"]
    [{'VariantName': 'stable', 'DesiredWeight': 1.0}]
    """
    wanted = [{"VariantName": variant, "DesiredWeight": float(weight)} for variant, weight in weights.items()]
    return {"EndpointName": name, "DesiredWeightsAndCapacities": wanted}


def deployment_config(guardrail: Guardrail, hosting: HostingSettings, *, alarms: tuple[str, ...]) -> dict[str, Any]:
    """Return the DeploymentConfig of a guardrail."""
    wait_s = math.ceil(guardrail.bake_s)
    limit = {} if hosting.max_update_s is None else {"MaximumExecutionTimeoutInSeconds": hosting.max_update_s}
    if guardrail.kind not in _TYPES:
        policy = {"MaximumBatchSize": _percent(guardrail.size), "WaitIntervalInSeconds": wait_s, **limit}
        found: dict[str, Any] = {"RollingUpdatePolicy": policy}
    else:
        routing: dict[str, Any] = {"Type": _TYPES[guardrail.kind], "WaitIntervalInSeconds": wait_s}
        if guardrail.kind == "canary":
            routing["CanarySize"] = _percent(guardrail.size)
        if guardrail.kind == "linear":
            routing["LinearStepSize"] = _percent(guardrail.size)
        policy = {"TerminationWaitInSeconds": hosting.termination_wait_s, **limit}
        found = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, **policy}}
    if alarms:
        found["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": name} for name in alarms]}
    return found


def _percent(share: float) -> dict[str, Any]:
    return {"Type": "CAPACITY_PERCENT", "Value": max(1, round(share * 100))}


def alarm_requests(config: EndpointConfig, *, configuration: str) -> Iterator[dict[str, Any]]:
    """Yield the literal PutMetricAlarm requests of CloudWatch, two at most for each variant."""
    alarms = config.guardrail.alarms
    for variant in config.variants:
        about = f"of variant {variant.name} in {configuration}"
        errors = f"IF(FILL(requests, 0) >= {alarms.min_requests}, FILL(faults, 0) / requests, 0)"  # fewer prove nothing
        yield {
            "AlarmName": f"{configuration}-{variant.name}-errors",
            "AlarmDescription": f"share of failed requests {about}",
            "Metrics": [
                {"Id": "rate", "Expression": errors, "Label": "share of failed requests", "ReturnData": True},
                _metric("faults", "Invocation5XXErrors", config.name, variant.name, configuration),
                _metric("requests", "Invocations", config.name, variant.name, configuration),
            ],
            "Threshold": alarms.error_rate,
            **_evaluation(),
        }
        if alarms.latency_ms is not None:
            yield {
                "AlarmName": f"{configuration}-{variant.name}-latency",
                "AlarmDescription": f"99th percentile of the time for an answer {about}",
                "Namespace": "AWS/SageMaker",
                "MetricName": "ModelLatency",
                "ExtendedStatistic": "p99",
                "Dimensions": _dimensions(config.name, variant.name, configuration),
                "Period": PERIOD_S,
                "Unit": "Microseconds",
                "Threshold": alarms.latency_ms * MICROSECONDS,
                **_evaluation(),
            }


def _metric(identifier: str, name: str, *place: str) -> dict[str, Any]:
    metric = {"Namespace": "AWS/SageMaker", "MetricName": name, "Dimensions": _dimensions(*place)}
    return {
        "Id": identifier,
        "MetricStat": {"Metric": metric, "Period": PERIOD_S, "Stat": "Sum"},
        "ReturnData": False,
    }


def _dimensions(*place: str) -> list[dict[str, str]]:
    names = ("EndpointName", "VariantName", "EndpointConfigName")
    return [{"Name": name, "Value": value} for name, value in zip(names, place, strict=True)]


def _evaluation() -> dict[str, Any]:
    return {
        "EvaluationPeriods": 1,
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "notBreaching",
    }
