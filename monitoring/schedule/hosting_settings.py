"""What a monitor needs to run on SageMaker: the ``sagemaker`` section of the monitor file.

Field names follow the endpoint's (`policylab.deployment.sagemaker.settings`); limits are those of the service.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from policylab.config import Settings
from policylab.deployment.sagemaker.settings import DEFAULT_INSTANCE
from policylab.launchers.sagemaker.settings import S3Uri, Vpc


class CapturedAttributes(Settings):
    """Where a captured request and answer hold what is analysed: JSONPath, or the column of a CSV."""

    features_attribute: str | None = None
    inference_attribute: str | None = None
    probability_attribute: str | None = None
    probability_threshold: float | None = Field(default=None, description="above it a probability is a positive answer")
    constraints: S3Uri | None = Field(default=None, description="constraints.json of a baselining job there")


class HostedQuality(CapturedAttributes):
    """Model quality by SageMaker's analyzer: answers against ground truth."""

    problem_type: Literal["Regression", "BinaryClassification", "MulticlassClassification"]
    ground_truth: S3Uri | None = Field(default=None, description="default: S3_PREFIX/ground-truth/ENDPOINT")


class HostedBias(CapturedAttributes):
    """Bias drift by Clarify."""

    config: S3Uri = Field(description="analysis_config.json of Clarify: facets, label values, methods")
    ground_truth: S3Uri | None = Field(default=None, description="default: S3_PREFIX/ground-truth/ENDPOINT")


class HostedAttribution(CapturedAttributes):
    """Feature-attribution drift by Clarify."""

    config: S3Uri = Field(description="analysis_config.json of Clarify: the SHAP baseline, the model to ask")


class MonitorHosting(Settings):
    """The monitor on SageMaker."""

    role_arn: str = Field(description="execution role of the jobs")
    image: str = Field(min_length=1, max_length=255, description="of data and model quality: the region's analyzer")
    clarify_image: str | None = Field(default=None, max_length=255, description="of bias and attribution: Clarify")
    s3_prefix: S3Uri = Field(description="below it lie monitors/NAME/ and ground-truth/ENDPOINT/")
    quality: HostedQuality | None = None
    bias: HostedBias | None = None
    attribution: HostedAttribution | None = None
    instance_type: str = DEFAULT_INSTANCE
    instance_count: PositiveInt = 1
    volume_gb: int = Field(default=20, ge=1, le=16_384)
    max_runtime_s: int = Field(default=1800, ge=1, le=86_400)
    vpc: Vpc | None = None
    network_isolation: bool = Field(default=False, description="no way out of the container")
    volume_kms_key: str | None = None
    output_kms_key: str | None = None
    environment: dict[str, str] = Field(default_factory=dict)
    tags: dict[str, str] = Field(default_factory=dict)
