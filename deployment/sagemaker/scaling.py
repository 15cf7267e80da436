"""Application Auto Scaling of an endpoint's variants: RegisterScalableTarget and PutScalingPolicy (target tracking).

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-auto-scaling.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from policylab.deployment.endpoint import EndpointConfig
    from policylab.deployment.sagemaker.settings import HostingSettings
    from policylab.deployment.scaling_settings import Autoscaling

PER_MINUTE = 60.0
"""SageMakerVariantInvocationsPerInstance counts requests per minute."""


def resource_id(endpoint: str, variant: str) -> str:
    """Return what names a variant in Application Auto Scaling.

    >>> resource_id("lake", "stable")
    'endpoint/lake/variant/stable'
    """
    return f"endpoint/{endpoint}/variant/{variant}"


def _place(endpoint: str, variant: str, *, serverless: bool) -> dict[str, str]:
    counted = "DesiredProvisionedConcurrency" if serverless else "DesiredInstanceCount"
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": resource_id(endpoint, variant),
        "ScalableDimension": f"sagemaker:variant:{counted}",
    }


def target_requests(config: EndpointConfig, hosting: HostingSettings) -> list[dict[str, Any]]:
    """Return the literal RegisterScalableTarget requests, one for each variant."""
    scaling = hosting.autoscaling
    if scaling is None:
        return []
    bounds = {"MinCapacity": scaling.min_capacity, "MaxCapacity": scaling.max_capacity}
    serverless = hosting.serverless is not None
    return [{**_place(config.name, one.name, serverless=serverless), **bounds} for one in config.variants]


def policy_requests(config: EndpointConfig, hosting: HostingSettings) -> list[dict[str, Any]]:
    """Return the literal PutScalingPolicy requests, one for each variant."""
    scaling = hosting.autoscaling
    if scaling is None:
        return []
    serverless = hosting.serverless is not None
    return [
        {
            "PolicyName": f"{config.name}-{one.name}",
            **_place(config.name, one.name, serverless=serverless),
            "PolicyType": "TargetTrackingScaling",
            "TargetTrackingScalingPolicyConfiguration": {
                **_target(scaling, config.name),
                "ScaleInCooldown": scaling.scale_in_cooldown_s,
                "ScaleOutCooldown": scaling.scale_out_cooldown_s,
            },
        }
        for one in config.variants
    ]


def _target(scaling: Autoscaling, endpoint: str) -> dict[str, Any]:
    if scaling.backlog is not None:
        return {
            "TargetValue": scaling.backlog,
            "CustomizedMetricSpecification": {
                "MetricName": "ApproximateBacklogSizePerInstance",
                "Namespace": "AWS/SageMaker",
                "Dimensions": [{"Name": "EndpointName", "Value": endpoint}],
                "Statistic": "Average",
            },
        }
    if scaling.utilization is not None:
        metric, target = "SageMakerVariantProvisionedConcurrencyUtilization", scaling.utilization
    elif scaling.concurrent_requests is not None:
        metric, target = "SageMakerVariantConcurrentRequestsPerModelHighResolution", scaling.concurrent_requests
    else:
        metric, target = "SageMakerVariantInvocationsPerInstance", (scaling.requests_per_s or 0.0) * PER_MINUTE
    return {"TargetValue": target, "PredefinedMetricSpecification": {"PredefinedMetricType": metric}}
