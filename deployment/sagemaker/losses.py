"""What an endpoint file says that SageMaker cannot do, each as one sentence that begins with the setting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policylab.deployment.endpoint import EndpointConfig
    from policylab.deployment.sagemaker.settings import HostingSettings

_CAPTURE_OF_THIS_MACHINE = ("queue", "write_s", "max_file_bytes", "max_disk_use")


def losses(config: EndpointConfig, hosting: HostingSettings) -> Iterator[str]:
    """Yield what gets lost."""
    yield from _guardrail(config)
    if config.comparison is not None:
        yield "comparison: SageMaker compares no rewards; judge the captured lines and the ground truth yourself"
    if config.capture is not None:
        yield "capture.folder: captured lines go to S3; they hold request and answer, with the propensity in the answer"
        changed = config.capture.model_fields_set.intersection(_CAPTURE_OF_THIS_MACHINE)
        for name in sorted(changed):
            yield f"capture.{name}: how captured lines are written is SageMaker's matter"
        yield (
            "capture: rewards have no route through SageMaker; write them to S3 as ground truth "
            "(`policylab.deployment.capture.format`)"
        )
    if len(config.variants) > 1:
        yield (
            "variants: a container does not know the shares, so `variant_probability` in its answers is 1; the true "
            "one is the variant's share at that time"
        )
    if config.shadows:
        yield "shadows: a shadow's answers are captured as its own lines, not beside the decision that was returned"
    if _several_machines(config, hosting):
        yield (
            "limits.remembered_ids: a retry gets its decision again only from the machine that made it; limits hold "
            "for each machine"
        )


def _guardrail(config: EndpointConfig) -> Iterator[str]:
    if config.guardrail.promotion is not None:
        yield "guardrail.promotion: SageMaker judges no rewards; alarms and time alone decide"
    yield (
        "guardrail.alarms: judged minute by minute, on failed requests alone: an answer by the fallback action is a "
        "success to SageMaker"
    )


def _several_machines(config: EndpointConfig, hosting: HostingSettings) -> bool:
    if hosting.serverless is not None or hosting.autoscaling is not None:
        return True
    return any(hosting.instances.get(one.name, hosting).instance_count > 1 for one in config.variants)
