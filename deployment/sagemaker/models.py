"""CreateModel: the policy of each variant, in the image, with what its container must know of the endpoint file.

| where | what |
|---|---|
| S3_PREFIX/models/DIGEST/model.tar.gz | a bundle, uploaded once for all endpoints; the registry uses the same place |

Names end with a hash of what the request says, so that equal requests have equal names and nothing is ever changed in
place.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModel.html
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policylab.agents.bundle import load_bundle
from policylab.files import content_hash

if TYPE_CHECKING:
    from policylab.deployment.endpoint import EndpointConfig, ShadowSettings, VariantSettings
    from policylab.deployment.sagemaker.settings import HostingSettings

MAX_NAME = 63
DIGITS = 10
"""Characters of the hash at the end of a name: 40 bits."""

ENDPOINT = "POLICYLAB_ENDPOINT"
"""Variable with the parts of the endpoint file that hold inside a container, as JSON."""

MODEL, MODELS = "/opt/ml/model", "/opt/ml/models"
CONTAINER_SECTIONS = ("limits", "sessions", "fallback", "bounds")


def hashed_name(stem: str, *, content: Any) -> str:
    """Return a name of at most 63 characters that ends with a hash of ``content``.

    >>> hashed_name("lake", content=1)
    'lake-6b86b273ff'
    """
    return f"{stem[: MAX_NAME - DIGITS - 1].rstrip('-')}-{content_hash(content)[:DIGITS]}"


def tags_of(config: EndpointConfig, hosting: HostingSettings) -> list[dict[str, str]]:
    """Return the tags of everything that belongs to an endpoint."""
    return [{"Key": key, "Value": value} for key, value in {**hosting.tags, "policylab:endpoint": config.name}.items()]


def model_request(
    config: EndpointConfig, hosting: HostingSettings, *, variant: VariantSettings | ShadowSettings
) -> dict[str, Any]:
    """Return the literal CreateModel request of one variant or shadow.

    Raises:
        BundleError: its bundle is refused.
    """
    container = {
        "Image": hosting.image,
        **(_many(hosting) if hosting.models is not None else _one(hosting, variant.bundle)),
        "Environment": {**hosting.environment, ENDPOINT: _container_file(config, variant)},
    }
    request: dict[str, Any] = {"PrimaryContainer": container, "ExecutionRoleArn": hosting.role_arn}
    if hosting.vpc:
        request["VpcConfig"] = {
            "Subnets": list(hosting.vpc.subnets),
            "SecurityGroupIds": list(hosting.vpc.security_group_ids),
        }
    if hosting.network_isolation:
        request["EnableNetworkIsolation"] = True
    name = hashed_name(f"{config.name}-{variant.name}", content=request)
    return {"ModelName": name, **request, "Tags": tags_of(config, hosting)}


def model_data(hosting: HostingSettings, bundle: Path) -> str:
    """Return where a bundle lies in S3.

    Raises:
        BundleError: it is refused.
    """
    return f"{hosting.s3_prefix.rstrip('/')}/models/{load_bundle(bundle, memory=True).digest}/model.tar.gz"


def _one(hosting: HostingSettings, bundle: Path) -> dict[str, Any]:
    return {"Mode": "SingleModel", "ModelDataUrl": model_data(hosting, bundle)}


def _many(hosting: HostingSettings) -> dict[str, Any]:
    return {
        "Mode": "MultiModel",
        "ModelDataUrl": f"{str(hosting.models).rstrip('/')}/",
        "MultiModelConfig": {"ModelCacheSetting": "Enabled" if hosting.cache_models else "Disabled"},
    }


def _container_file(config: EndpointConfig, variant: VariantSettings | ShadowSettings) -> str:
    """Return the endpoint file of one container: this variant alone, without what SageMaker does around it."""
    document: dict[str, Any] = {"name": config.name}
    if config.sagemaker is not None and config.sagemaker.models is not None:
        said = {} if config.models is None else config.models.model_dump(mode="json", exclude_defaults=True)
        document["models"] = {**said, "folder": MODELS, "exploration": variant.exploration}
    else:
        document["variants"] = [{"name": variant.name, "bundle": MODEL, "exploration": variant.exploration}]
    for section in CONTAINER_SECTIONS:
        settings = getattr(config, section)
        if settings is not None:
            said = settings.model_dump(mode="json", exclude_defaults=True)
            if said:
                document[section] = said
    return json.dumps(document, separators=(",", ":"), sort_keys=True)
