"""CreateTransformJob: the policy of one variant over observations in S3.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTransformJob.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from policylab.deployment.sagemaker.models import hashed_name, tags_of
from policylab.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from policylab.deployment.endpoint import EndpointConfig
    from policylab.deployment.sagemaker.settings import HostingSettings


def transform_request(
    config: EndpointConfig, hosting: HostingSettings, *, models: Mapping[str, str]
) -> dict[str, Any] | None:
    """Return the literal CreateTransformJob request, or None without a ``sagemaker.transform`` section.

    Raises:
        ConfigError: it names no variant of the endpoint.
    """
    job = hosting.transform
    if job is None:
        return None
    variant = job.variant or config.variants[0].name
    if variant not in models:
        hint = did_you_mean(variant, models)
        raise ConfigError(f"sagemaker.transform.variant: the endpoint has no variant {variant!r}{hint}")
    source: dict[str, Any] = {
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": job.input}},
        "ContentType": job.content_type,
        "SplitType": "Line" if job.split else "None",
        "CompressionType": "Gzip" if job.gzip else "None",
    }
    output: dict[str, Any] = {
        "S3OutputPath": job.output or f"{hosting.s3_prefix.rstrip('/')}/transform/{config.name}",
        "Accept": job.content_type,
        "AssembleWith": "Line" if job.split else "None",
    }
    if hosting.output_kms_key:
        output["KmsKeyId"] = hosting.output_kms_key
    resources = {"InstanceType": job.instance_type, "InstanceCount": job.instance_count}
    if hosting.volume_kms_key:
        resources["VolumeKmsKeyId"] = hosting.volume_kms_key
    request: dict[str, Any] = {
        "ModelName": models[variant],
        "BatchStrategy": job.strategy,
        "MaxPayloadInMB": job.max_payload_mb,
        "MaxConcurrentTransforms": job.max_concurrent,
        "TransformInput": source,
        "TransformOutput": output,
        "TransformResources": resources,
    }
    if job.join_input:
        request["DataProcessing"] = {"JoinSource": "Input"}
    name = hashed_name(f"{config.name}-transform", content=request)
    return {"TransformJobName": name, **request, "Tags": tags_of(config, hosting)}
