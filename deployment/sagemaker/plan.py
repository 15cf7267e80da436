"""`HostingPlan`: all requests of an endpoint on SageMaker, checked before anything is sent."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policylab.aws.service_model import structure_findings
from policylab.deployment.endpoint import ShadowSettings, VariantSettings
from policylab.deployment.mode_settings import VARIANT
from policylab.deployment.sagemaker.configuration import configuration_request
from policylab.deployment.sagemaker.losses import losses
from policylab.deployment.sagemaker.models import model_data, model_request
from policylab.deployment.sagemaker.rules import rule_findings
from policylab.deployment.sagemaker.scaling import policy_requests, target_requests
from policylab.deployment.sagemaker.settings import AsynchronousHosting, HostingSettings, ServerlessHosting
from policylab.deployment.sagemaker.transform import transform_request
from policylab.deployment.sagemaker.updates import alarm_requests, create_request, update_request, weights_request
from policylab.errors import ConfigError, MissingExtraError
from policylab.findings import Finding, raise_errors

if TYPE_CHECKING:
    from policylab.deployment.endpoint import EndpointConfig

Request = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """One request.

    Attributes:
        service: botocore's name of it.
        operation: as in the API reference.
        request: the literal one.
    """

    service: str
    operation: str
    request: Request


@dataclasses.dataclass(frozen=True, slots=True)
class HostingPlan:
    """The requests of one endpoint file.

    Attributes:
        name: of the endpoint.
        uploads: place in S3 -> the bundle that must lie there.
        models: CreateModel, one for each variant and shadow.
        alarms: PutMetricAlarm, of the new configuration.
        configuration: CreateEndpointConfig.
        create: CreateEndpoint.
        update: UpdateEndpoint.
        weights: UpdateEndpointWeightsAndCapacities, with the weights of the file.
        targets: RegisterScalableTarget.
        policies: PutScalingPolicy.
        transform: CreateTransformJob, or None.
        losses: what SageMaker cannot express.
        findings: rules that the file breaks.
        unchecked: why requests were not checked against the service models, or None.
    """

    name: str
    uploads: Mapping[str, Path]
    models: tuple[Request, ...]
    alarms: tuple[Request, ...]
    configuration: Request
    create: Request
    update: Request
    weights: Request
    targets: tuple[Request, ...]
    policies: tuple[Request, ...]
    transform: Request | None
    losses: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    unchecked: str | None = None

    def calls(self) -> Iterator[Call]:
        """Yield every request, in the order in which they make sense."""
        yield from (Call("sagemaker", "CreateModel", request) for request in self.models)
        yield from (Call("cloudwatch", "PutMetricAlarm", request) for request in self.alarms)
        yield Call("sagemaker", "CreateEndpointConfig", self.configuration)
        yield Call("sagemaker", "CreateEndpoint", self.create)
        yield from (Call("application-autoscaling", "RegisterScalableTarget", request) for request in self.targets)
        yield from (Call("application-autoscaling", "PutScalingPolicy", request) for request in self.policies)
        yield Call("sagemaker", "UpdateEndpoint", self.update)
        yield Call("sagemaker", "UpdateEndpointWeightsAndCapacities", self.weights)
        if self.transform is not None:
            yield Call("sagemaker", "CreateTransformJob", self.transform)

    def document(self) -> dict[str, Any]:
        """Return the plan as a JSON document."""
        return {
            "name": self.name,
            "requests": [dataclasses.asdict(call) for call in self.calls()],
            "uploads": {uri: str(path) for uri, path in self.uploads.items()},
            "not_expressible": list(self.losses),
            **{
                f"{severity}s": [str(one) for one in self.findings if one.severity == severity]
                for severity in ("error", "warning")
            },
            "unchecked": self.unchecked,
        }

    def require_valid(self) -> HostingPlan:
        """Return the plan.

        Raises:
            ConfigError: every rule that it breaks, one per line.
        """
        raise_errors(self.findings, about="on SageMaker")
        return self


def hosting_plan(config: EndpointConfig) -> HostingPlan:
    """Return all requests of an endpoint file, checked.

    Raises:
        ConfigError: the file has no ``sagemaker`` section.
        BundleError: a bundle is refused.
    """
    hosting = config.sagemaker
    if hosting is None:
        raise ConfigError(
            "the endpoint file has no section `sagemaker`; add one with role_arn, image and s3_prefix (docs/serving.md)"
        )
    config, hosting = _as_hosted(config, hosting)
    plan = _plan(config, hosting)
    findings = [*rule_findings(config, hosting)]
    try:
        for call in plan.calls():
            findings += _structure(call)
    except MissingExtraError as error:
        return dataclasses.replace(plan, findings=tuple(findings), unchecked=str(error))
    return dataclasses.replace(plan, findings=tuple({str(found): found for found in findings}.values()))


def _as_hosted(config: EndpointConfig, hosting: HostingSettings) -> tuple[EndpointConfig, HostingSettings]:
    """Return the endpoint as SageMaker has it: its modes are settings there, and many models have a variant too."""
    if config.asynchronous is not None and hosting.asynchronous is None:
        settings = config.asynchronous
        same = AsynchronousHosting(
            max_concurrent_per_instance=settings.max_concurrent,
            output=settings.output,
            failures=settings.failures,
            success_topic=settings.success_topic,
            error_topic=settings.error_topic,
            include_response_in=settings.include_response_in,
        )
        hosting = hosting.model_copy(update={"asynchronous": same})
    if config.autoscaling is not None and hosting.autoscaling is None:
        hosting = hosting.model_copy(update={"autoscaling": config.autoscaling})
    if config.serverless is not None and hosting.serverless is None:
        same_limit = ServerlessHosting(max_concurrency=config.serverless.max_concurrency)
        hosting = hosting.model_copy(update={"serverless": same_limit})
    if config.models is not None:
        if hosting.models is None:
            raise ConfigError(
                "sagemaker.models: must name the prefix in S3 with the archives of `models`, s3://BUCKET/PREFIX"
            )
        variant = VariantSettings(name=VARIANT, bundle=config.models.folder, exploration=config.models.exploration)
        config = config.model_copy(update={"variants": (variant,)})
    return config, hosting


def _plan(config: EndpointConfig, hosting: HostingSettings) -> HostingPlan:
    parts: list[VariantSettings | ShadowSettings] = [*config.variants, *config.shadows]
    requests = {part.name: model_request(config, hosting, variant=part) for part in parts}
    models = {name: request["ModelName"] for name, request in requests.items()}
    configuration = configuration_request(config, hosting, models=models)
    name = configuration["EndpointConfigName"]
    judged = hosting.serverless is None
    alarms = tuple(alarm_requests(config, configuration=name)) if judged else ()
    watched = (*(alarm["AlarmName"] for alarm in alarms), *hosting.alarms)
    return HostingPlan(
        name=config.name,
        uploads={} if hosting.models else {model_data(hosting, part.bundle): part.bundle for part in parts},
        models=tuple(requests.values()),
        alarms=alarms,
        configuration=configuration,
        create=create_request(config, hosting, configuration=name),
        update=update_request(config, hosting, configuration=name, alarms=watched),
        weights=weights_request(config.name, {one.name: one.weight for one in config.variants}),
        targets=tuple(target_requests(config, hosting)),
        policies=tuple(policy_requests(config, hosting)),
        transform=transform_request(config, hosting, models=models),
        losses=tuple(losses(config, hosting)),
    )


def _structure(call: Call) -> Iterator[Finding]:
    for found in structure_findings(call.operation, call.request, service=call.service):
        yield dataclasses.replace(found, path=f"{call.operation}.{found.path}")
