"""What an endpoint needs on SageMaker and not on this machine: the ``sagemaker`` section of the endpoint file.

Field names follow the launcher's (`policylab.launchers.sagemaker.settings`); limits are those of the service.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from policylab.config import Settings
from policylab.deployment.mode_settings import NotifiedTopic, TopicArn
from policylab.deployment.scaling_settings import Autoscaling
from policylab.launchers.sagemaker.settings import S3Uri, Vpc

DEFAULT_INSTANCE = "ml.m5.large"
SERVERLESS_MEMORY_MB = (1024, 2048, 3072, 4096, 5120, 6144)


class Instances(Settings):
    """Machines of one variant."""

    instance_type: str = DEFAULT_INSTANCE
    instance_count: PositiveInt = 1


class ServerlessHosting(Settings):
    """No machines: capacity by request, at most ``max_concurrency`` requests at once for each variant."""

    memory_mb: Literal[1024, 2048, 3072, 4096, 5120, 6144] = 2048
    max_concurrency: int = Field(default=5, ge=1, le=200)
    provisioned_concurrency: int | None = Field(default=None, ge=1, le=200, description="kept warm; default: none")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.provisioned_concurrency is not None and self.provisioned_concurrency > self.max_concurrency:
            raise ValueError("provisioned_concurrency must not exceed max_concurrency")
        return self


class AsynchronousHosting(Settings):
    """Requests and answers through S3; the endpoint then takes no others."""

    max_concurrent_per_instance: int | None = Field(default=None, ge=1, le=1000, description="default: SageMaker's")
    output: S3Uri | None = Field(default=None, description="default: S3_PREFIX/async/NAME/output")
    failures: S3Uri | None = Field(default=None, description="default: S3_PREFIX/async/NAME/failures")
    success_topic: TopicArn | None = Field(default=None, description="ARN of an SNS topic")
    error_topic: TopicArn | None = Field(default=None, description="ARN of an SNS topic")
    include_response_in: tuple[NotifiedTopic, ...] = Field(
        default=(), max_length=2, description="topics whose messages hold the response, if it is at most 128 KB"
    )


class TransformSettings(Settings):
    """A batch transform job with the policy of one variant."""

    input: S3Uri = Field(description="an object, or a prefix of objects with one observation per line")
    output: S3Uri | None = Field(default=None, description="default: S3_PREFIX/transform/NAME")
    variant: str | None = Field(default=None, description="whose policy; default: the first variant's")
    content_type: Literal["application/jsonlines", "application/json", "text/csv"] = "application/jsonlines"
    instance_type: str = DEFAULT_INSTANCE
    instance_count: PositiveInt = 1
    strategy: Literal["MultiRecord", "SingleRecord"] = "MultiRecord"
    split: bool = Field(default=True, description="one record per line; false: a file is one record")
    max_payload_mb: int = Field(
        default=1, ge=0, le=100, description="of records sent together; answers are many times as large"
    )
    max_concurrent: int = Field(default=1, ge=0, description="requests at once for each machine; 0: the container says")
    join_input: bool = Field(default=False, description="write each observation beside its answer")
    gzip: bool = Field(default=False, description="whether the input is compressed")


class HostingSettings(Settings):
    """The endpoint on SageMaker."""

    role_arn: str = Field(description="execution role of the containers")
    image: str = Field(min_length=1, max_length=255, description="container image in ECR, of this project's Dockerfile")
    s3_prefix: S3Uri = Field(description="below it lie models/, captured/, async/ and transform/")
    region: str | None = Field(default=None, pattern=r"^[a-z]{2}(-[a-z]+)+-\d$", description="default: the profile's")
    instance_type: str = Field(default=DEFAULT_INSTANCE, description="of every variant that `instances` does not name")
    instance_count: PositiveInt = 1
    instances: dict[str, Instances] = Field(default_factory=dict, description="variant or shadow -> its machines")
    volume_gb: int | None = Field(default=None, ge=1, le=512, description="default: the instance type's")
    startup_timeout_s: int | None = Field(default=None, ge=60, le=3600, description="until /ping; default: SageMaker's")
    download_timeout_s: int | None = Field(default=None, ge=60, le=3600, description="of a bundle from S3")
    serverless: ServerlessHosting | None = Field(default=None, description="instead of machines")
    asynchronous: AsynchronousHosting | None = None
    autoscaling: Autoscaling | None = None
    transform: TransformSettings | None = Field(default=None, description="`to-sagemaker` also prints this job")
    models: S3Uri | None = Field(
        default=None, description="multi-model: prefix of archives that requests name; variants then share it"
    )
    cache_models: bool = Field(default=True, description="of a multi-model endpoint: keep models in memory and on disk")
    vpc: Vpc | None = None
    network_isolation: bool = Field(default=False, description="no way out of the container")
    volume_kms_key: str | None = None
    output_kms_key: str | None = Field(default=None, description="for captured data, asynchronous and batch output")
    environment: dict[str, str] = Field(default_factory=dict)
    tags: dict[str, str] = Field(default_factory=dict)
    alarms: tuple[str, ...] = Field(
        default=(), max_length=10, description="CloudWatch alarms of yours that also roll an update back"
    )
    termination_wait_s: int = Field(
        default=0, ge=0, le=3600, description="how long the old machines stay after an update"
    )
    max_update_s: int | None = Field(default=None, ge=600, le=28_800, description="longest time of an update")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.serverless is not None and self.asynchronous is not None:
            raise ValueError("an endpoint is serverless or asynchronous, not both")
        return self
