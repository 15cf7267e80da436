"""CreateEndpointConfig: variants with their shares and machines, shadows, capture, keys and modes.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpointConfig.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from policylab.deployment.sagemaker.models import hashed_name, tags_of

if TYPE_CHECKING:
    from policylab.deployment.endpoint import CaptureSettings, EndpointConfig
    from policylab.deployment.sagemaker.settings import HostingSettings


def configuration_request(
    config: EndpointConfig, hosting: HostingSettings, *, models: Mapping[str, str]
) -> dict[str, Any]:
    """Return the literal CreateEndpointConfig request.

    Args:
        config: the endpoint file.
        hosting: its ``sagemaker`` section.
        models: variant or shadow -> name of its model.
    """
    request: dict[str, Any] = {
        "ProductionVariants": [
            {**_variant(hosting, one.name, model=models[one.name]), "InitialVariantWeight": one.weight}
            for one in config.variants
        ]
    }
    if config.shadows:
        total = sum(one.weight for one in config.variants)
        request["ShadowProductionVariants"] = [
            {**_variant(hosting, one.name, model=models[one.name]), "InitialVariantWeight": one.sampling * total}
            for one in config.shadows
        ]
    if config.capture is not None:
        request["DataCaptureConfig"] = _capture(config.capture, hosting)
    if hosting.volume_kms_key:
        request["KmsKeyId"] = hosting.volume_kms_key
    if hosting.asynchronous is not None:
        request["AsyncInferenceConfig"] = _asynchronous(config, hosting)
    return {
        "EndpointConfigName": hashed_name(config.name, content=request),
        **request,
        "Tags": tags_of(config, hosting),
    }


def _variant(hosting: HostingSettings, name: str, *, model: str) -> dict[str, Any]:
    variant: dict[str, Any] = {"VariantName": name, "ModelName": model}
    if hosting.serverless is not None:
        serverless = {
            "MemorySizeInMB": hosting.serverless.memory_mb,
            "MaxConcurrency": hosting.serverless.max_concurrency,
        }
        if hosting.serverless.provisioned_concurrency is not None:
            serverless["ProvisionedConcurrency"] = hosting.serverless.provisioned_concurrency
        return {**variant, "ServerlessConfig": serverless}
    shape = hosting.instances.get(name, hosting)
    variant |= {"InstanceType": shape.instance_type, "InitialInstanceCount": shape.instance_count}
    for field, value in (
        ("VolumeSizeInGB", hosting.volume_gb),
        ("ContainerStartupHealthCheckTimeoutInSeconds", hosting.startup_timeout_s),
        ("ModelDataDownloadTimeoutInSeconds", hosting.download_timeout_s),
    ):
        if value is not None:
            variant[field] = value
    return variant


def _capture(capture: CaptureSettings, hosting: HostingSettings) -> dict[str, Any]:
    request: dict[str, Any] = {
        "EnableCapture": True,
        "InitialSamplingPercentage": max(1, round(capture.sampling * 100)),
        "DestinationS3Uri": f"{hosting.s3_prefix.rstrip('/')}/captured",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"], "JsonContentTypes": ["application/json"]},
    }
    if hosting.output_kms_key:
        request["KmsKeyId"] = hosting.output_kms_key
    return request


def _asynchronous(config: EndpointConfig, hosting: HostingSettings) -> dict[str, Any]:
    settings = hosting.asynchronous
    assert settings is not None
    home = f"{hosting.s3_prefix.rstrip('/')}/async/{config.name}"
    output: dict[str, Any] = {
        "S3OutputPath": settings.output or f"{home}/output",
        "S3FailurePath": settings.failures or f"{home}/failures",
    }
    if hosting.output_kms_key:
        output["KmsKeyId"] = hosting.output_kms_key
    topics = {"SuccessTopic": settings.success_topic, "ErrorTopic": settings.error_topic}
    if any(topics.values()):
        output["NotificationConfig"] = {name: topic for name, topic in topics.items() if topic}
        if settings.include_response_in:
            output["NotificationConfig"]["IncludeInferenceResponseIn"] = [*settings.include_response_in]
    request: dict[str, Any] = {"OutputConfig": output}
    if settings.max_concurrent_per_instance is not None:
        request["ClientConfig"] = {"MaxConcurrentInvocationsPerInstance": settings.max_concurrent_per_instance}
    return request
