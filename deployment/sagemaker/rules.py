"""What no client checks of an endpoint on SageMaker: the rules between the settings of its file.

Findings name the settings of the endpoint file. Sources: the pages of the developer guide on serverless and
asynchronous inference, shadow variants, deployment guardrails ("Exclusions") and automatic scaling, and the API
reference of each request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from policylab.deployment.sagemaker.models import ENDPOINT
from policylab.deployment.sagemaker.updates import PERIOD_S
from policylab.errors import did_you_mean
from policylab.findings import Finding
from policylab.launchers.sagemaker.training_rules import is_secret

if TYPE_CHECKING:
    from policylab.deployment.endpoint import EndpointConfig
    from policylab.deployment.sagemaker.settings import HostingSettings

MAX_UPDATE_S = 28_800
MAX_BODY_BYTES = {"real-time": 6_291_456, "serverless": 4 * 2**20}
MAX_TRANSFORM_MB = 100

Rule = Callable[["EndpointConfig", "HostingSettings"], Iterator[Finding]]


def rule_findings(config: EndpointConfig, hosting: HostingSettings) -> Iterator[Finding]:
    """Apply every rule."""
    for rule in _RULES:
        yield from rule(config, hosting)


def _machines(config: EndpointConfig, hosting: HostingSettings) -> Iterator[Finding]:
    names = [name for name, _ in config.bundles()]
    for name in hosting.instances:
        if name not in names:
            hint = did_you_mean(name, names).removeprefix("; ") or f"there are {', '.join(names)}"
            yield Finding(f"sagemaker.instances.{name}", "must name a variant or a shadow", name, hint)
    if hosting.serverless is not None and hosting.instances:
        yield Finding("sagemaker.instances", "serverless variants have no machines", [*hosting.instances], "remove it")


def _shadows(config: EndpointConfig, hosting: HostingSettings) -> Iterator[Finding]:
    if config.shadows and (len(config.shadows) > 1 or len(config.variants) > 1):
        rule = "SageMaker takes one shadow, beside one variant"
        value = f"{len(config.variants)} variants and {len(config.shadows)} shadows"
        yield Finding("shadows", rule, value, "keep one of each")


def _serverless(config: EndpointConfig, hosting: HostingSettings) -> Iterator[Finding]:
    if hosting.serverless is None:
        return
    given: tuple[tuple[str, Any, str], ...] = (
        ("sagemaker.vpc", hosting.vpc and "a VPC", "private network"),
        ("sagemaker.models", hosting.models, "many models"),
        ("asynchronous", config.asynchronous and "a section", "queue"),
        ("capture", config.capture and "a section", "data capture"),
        ("shadows", [one.name for one in config.shadows], "shadows"),
        ("variants", len(config.variants) > 1 and f"{len(config.variants)} variants", "several variants"),
        ("guardrail.kind", config.guardrail.kind != "all_at_once" and config.guardrail.kind, "guardrails"),
    )
    for path, value, what in given:
        if value:
            yield Finding(path, f"serverless endpoints have no {what}", value, "remove it or sagemaker.serverless")


def _scaling(config: EndpointConfig, hosting: HostingSettings) -> Iterator[Finding]:
    scaling = hosting.autoscaling
    if scaling is None:
        return
    here = "autoscaling" if scaling is config.autoscaling else "sagemaker.autoscaling"
    if scaling.min_capacity == 0 and hosting.asynchronous is None:
        yield Finding(f"{here}.min_capacity", "only asynchronous endpoints scale to 0", 0, "set at least 1")
    if scaling.backlog is not None and hosting.asynchronous is None:
        rule = "only asynchronous endpoints have a backlog"
        yield Finding(f"{here}.backlog", rule, scaling.backlog, "give requests_per_s")
    for name in ("requests_per_s", "concurrent_requests"):
        if hosting.serverless is not None and (target := getattr(scaling, name)) is not None:
            rule = "serverless variants scale by the use of their provisioned concurrency"
            yield Finding(f"{here}.{name}", rule, target, "give utilization")
    if scaling.utilization is not None and (
        hosting.serverless is None or hosting.serverless.provisioned_concurrency is None
    ):
        rule = "is of provisioned concurrency, and there is none"
        remedy = "set sagemaker.serverless.provisioned_concurrency, or give requests_per_s"
        yield Finding(f"{here}.utilization", rule, scaling.utilization, remedy)
    for variant in config.variants if hosting.serverless is None else ():
        shape = hosting.instances.get(variant.name, hosting)
        if not max(1, scaling.min_capacity) <= shape.instance_count <= scaling.max_capacity:
            rule = f"variant {variant.name} begins outside min_capacity and max_capacity, and is scaled at once"
            yield Finding(here, rule, shape.instance_count, "change instance_count", severity="warning")
        if shape.instance_type.startswith("ml.t2."):
            rule = f"variant {variant.name} has machines that do not scale automatically"
            yield Finding(here, rule, shape.instance_type, "choose another instance_type")


def _guardrail(config: EndpointConfig, hosting: HostingSettings) -> Iterator[Finding]:
    guardrail = config.guardrail
    if hosting.serverless is not None:
        return
    if str(guardrail.kind) == "rolling":
        if len(config.variants) > 1:
            rule = "rolling updates take one variant"
            yield Finding("guardrail.kind", rule, f"{len(config.variants)} variants", "choose canary or linear")
        if hosting.termination_wait_s:
            rule = "a rolling update ends old machines batch by batch"
            yield Finding("sagemaker.termination_wait_s", rule, hosting.termination_wait_s, "remove it")
    if guardrail.bake_s < PERIOD_S:
        rule = f"alarms have a value every {PERIOD_S} s, so none rolls back in a shorter time"
        yield Finding("guardrail.bake_s", rule, guardrail.bake_s, "bake longer", severity="warning")
    steps = sum(share > 0.0 for share in guardrail.steps)
    total_s = steps * math.ceil(guardrail.bake_s) + hosting.termination_wait_s
    if total_s >= (hosting.max_update_s or MAX_UPDATE_S):
        limit = hosting.max_update_s or MAX_UPDATE_S
        rule = f"all waits of an update must end before its longest time of {limit} s"
        yield Finding(
            "guardrail", rule, f"{total_s} s", "bake shorter, in fewer steps, or raise sagemaker.max_update_s"
        )


def _capture(config: EndpointConfig, hosting: HostingSettings) -> Iterator[Finding]:
    if config.capture is None:
        return
    percent = config.capture.sampling * 100
    if abs(percent - round(percent)) > 1e-9 or percent < 1:
        rule = f"SageMaker samples whole percents, so {max(1, round(percent))} % are captured"
        yield Finding("capture.sampling", rule, config.capture.sampling, "round it", severity="warning")


def _bodies(config: EndpointConfig, hosting: HostingSettings) -> Iterator[Finding]:
    if hosting.asynchronous is not None or "body_bytes" not in config.limits.model_fields_set:
        return
    kind = "real-time" if hosting.serverless is None else "serverless"
    if config.limits.body_bytes > MAX_BODY_BYTES[kind]:
        rule = f"SageMaker takes bodies of at most {MAX_BODY_BYTES[kind]} bytes on {kind} endpoints"
        remedy = "send smaller batches, or make the endpoint asynchronous"
        yield Finding("limits.body_bytes", rule, config.limits.body_bytes, remedy, severity="warning")


def _environment(config: EndpointConfig, hosting: HostingSettings) -> Iterator[Finding]:
    for name in hosting.environment:
        path = f"sagemaker.environment.{name}"
        if is_secret(name):
            rule = "a request holds no secrets: everyone who may describe the model reads them"
            yield Finding(path, rule, "(hidden)", "let the container fetch it (role_arn, AWS Secrets Manager)")
        elif name == ENDPOINT or name.startswith("SAGEMAKER_"):
            yield Finding(path, "is set for the container", hosting.environment[name], "choose another name")


def _transform(config: EndpointConfig, hosting: HostingSettings) -> Iterator[Finding]:
    job = hosting.transform
    if job is None:
        return
    total_mb = job.max_concurrent * job.max_payload_mb
    if total_mb > MAX_TRANSFORM_MB:
        rule = f"max_concurrent times max_payload_mb is at most {MAX_TRANSFORM_MB} MB"
        yield Finding("sagemaker.transform", rule, total_mb, "lower one of them")
    if job.strategy == "MultiRecord" and not job.split:
        rule = "records are put together only if the input is split"
        yield Finding("sagemaker.transform.strategy", rule, job.strategy, "set split: true, or strategy: SingleRecord")
    if job.content_type == "application/json" and job.split:
        rule = "lines put together are no JSON document"
        yield Finding("sagemaker.transform.content_type", rule, job.content_type, "use application/jsonlines")


_RULES: tuple[Rule, ...] = (
    _machines,
    _shadows,
    _serverless,
    _scaling,
    _guardrail,
    _capture,
    _bodies,
    _environment,
    _transform,
)
