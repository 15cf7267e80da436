"""`HostedEndpoint`: the verbs of an endpoint on SageMaker, each of which may be given again.

Models and configurations are never changed: their names say what they are, so one that exists already is the one that
is wanted. The endpoint's tag ``policylab:previous`` names the configuration before the last update, for `rollback`.

Every call is repeated as AWS advises (`policylab.launchers.sagemaker.service`); waiting looks at the endpoint with
growing pauses.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from policylab.agents.bundle_archive import pack
from policylab.deployment.sagemaker.models import DIGITS, MAX_NAME
from policylab.deployment.sagemaker.plan import HostingPlan, Request
from policylab.deployment.sagemaker.scaling import resource_id
from policylab.deployment.sagemaker.updates import weights_request
from policylab.errors import RunError, UserError, did_you_mean
from policylab.launchers.sagemaker.object_store import ObjectStore
from policylab.launchers.sagemaker.service import ServiceRefusalError, patiently

PREVIOUS = "policylab:previous"
CHANGING = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"})
BROKEN = frozenset({"Failed", "OutOfService", "UpdateRollbackFailed"})
FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 30.0
WAIT_S = 8 * 3600.0
"""Longest wait for an endpoint, the longest time of an update."""


@dataclasses.dataclass(frozen=True, slots=True)
class Clients:
    """Clients of boto3 and the store that bundles are put into.

    Attributes:
        sagemaker: models, configurations, endpoints.
        cloudwatch: alarms.
        scaling: Application Auto Scaling.
        store: of objects.
    """

    sagemaker: Any
    cloudwatch: Any
    scaling: Any
    store: ObjectStore


class HostedEndpoint:
    """One endpoint of an account and region, there or not.

    Args:
        name: of the endpoint.
        clients: of the services.
        sleep: waits between two looks; another clock in tests.
        changed: is told each new status while an endpoint is waited for.
    """

    def __init__(
        self,
        name: str,
        clients: Clients,
        *,
        sleep: Callable[[float], object] = time.sleep,
        changed: Callable[[str], object] = lambda status: None,
    ) -> None:
        self.name = name
        self._clients = clients
        self._sleep = sleep
        self._changed = changed

    def create(self, plan: HostingPlan) -> dict[str, Any]:
        """Create the endpoint and wait until it answers.

        Raises:
            UserError: there is one of this name with another configuration, or AWS refuses.
            RunError: the endpoint fails, or AWS does.
        """
        existing = self.found()
        wanted = plan.configuration["EndpointConfigName"]
        if existing is not None and existing["EndpointConfigName"] != wanted:
            raise UserError(
                f"there is an endpoint {self.name} with configuration {existing['EndpointConfigName']}; bring it to "
                "this file by `policylab endpoint update`, or delete it first"
            )
        self._prepare(plan)
        if existing is None:
            self._once(self._clients.sagemaker.create_endpoint, plan.create)
        self._wait()
        self._scale(plan)
        return self.status()

    def update(self, plan: HostingPlan) -> dict[str, Any]:
        """Move the endpoint to the configuration of ``plan`` by its guardrail, and wait for the end of that.

        Raises:
            UserError: there is no such endpoint, it is changing already, or AWS refuses.
            RunError: the update was rolled back or failed.
        """
        current = self._settled("updated")
        before, wanted = current["EndpointConfigName"], plan.configuration["EndpointConfigName"]
        if before != wanted:
            self._check_variants(current, plan)
            self._prepare(plan)
            self._tag(current["EndpointArn"], before)
            self._unscale(current)
            patiently(self._clients.sagemaker.update_endpoint, **plan.update)
            self._wait()
            reached = self._described()["EndpointConfigName"]
            if reached != wanted:
                raise RunError(f"the update of {self.name} was rolled back: it is still at {reached}")
        self._scale(plan)
        return self.status()

    def weights(self, weights: Mapping[str, float]) -> dict[str, Any]:
        """Change the shares of variants.

        Raises:
            UserError: it has no such variant, or a weight is none.
        """
        current = self._settled("weighed")
        known = [one["VariantName"] for one in current["ProductionVariants"]]
        for variant, weight in weights.items():
            if variant not in known:
                raise UserError(f"{self.name} has no variant {variant!r}{did_you_mean(variant, known)}")
            if not 0.0 <= weight < float("inf"):
                raise UserError(f"the weight of {variant} must be a number of at least 0, got {weight}")
        patiently(self._clients.sagemaker.update_endpoint_weights_and_capacities, **weights_request(self.name, weights))
        self._wait()
        return self.status()

    def rollback(self) -> dict[str, Any]:
        """Return to the version before the last update.

        While an update is under way only its alarms can stop it: the first of them is set off. After it, the endpoint
        is updated to the configuration that it had before.

        Raises:
            UserError: there is nothing to return to.
        """
        current = self._described()
        if current["EndpointStatus"] == "Updating":
            return self._stop_update(current)
        previous = self._settled("rolled back") and self._previous(current["EndpointArn"])
        if previous is None or previous == current["EndpointConfigName"]:
            raise UserError(f"no update of {self.name} was made from policylab, so there is nothing to return to")
        self._tag(current["EndpointArn"], current["EndpointConfigName"])
        self._unscale(current)
        patiently(self._clients.sagemaker.update_endpoint, EndpointName=self.name, EndpointConfigName=previous)
        self._wait()
        return self.status()

    def delete(self) -> dict[str, Any]:
        """Delete the endpoint, its configurations, models and alarms; bundles and captured data stay in S3."""
        current = self.found()
        if current is not None:
            self._unscale(current)
            if current["EndpointStatus"] != "Deleting":
                patiently(self._clients.sagemaker.delete_endpoint, EndpointName=self.name)
            self._wait(gone=True)
        removed = [*self._remove_configurations()]
        if current is None and not removed:
            raise UserError(f"there is no endpoint {self.name} in this region")
        return {"name": self.name, "deleted": [self.name] * (current is not None) + removed}

    def status(self) -> dict[str, Any]:
        """Return how the endpoint stands.

        Raises:
            UserError: there is none.
        """
        record = self._described()
        total = sum(one.get("CurrentWeight") or 0.0 for one in record["ProductionVariants"])
        pending = record.get("PendingDeploymentSummary") or {}
        return {
            "name": self.name,
            "status": record["EndpointStatus"],
            "configuration": record["EndpointConfigName"],
            "reason": record.get("FailureReason") or None,
            "variants": [
                {
                    "name": one["VariantName"],
                    "weight": one.get("CurrentWeight") or 0.0,
                    "share": (one.get("CurrentWeight") or 0.0) / total if total else 0.0,
                    "instances": one.get("CurrentInstanceCount"),
                    "status": [stage["Status"] for stage in one.get("VariantStatus") or ()],
                }
                for one in record["ProductionVariants"]
            ],
            "shadows": [one["VariantName"] for one in record.get("ShadowProductionVariants") or ()],
            "update": pending.get("EndpointConfigName"),
        }

    def found(self) -> Request | None:
        """Return the service's record of the endpoint, or None if there is none."""
        try:
            return patiently(self._clients.sagemaker.describe_endpoint, EndpointName=self.name)
        except ServiceRefusalError as refused:
            if refused.code == "ResourceNotFound":
                return None
            raise

    def _described(self) -> Request:
        record = self.found()
        if record is None:
            raise UserError(f"there is no endpoint {self.name} in this region; see `policylab endpoint create`")
        return record

    def _settled(self, how: str) -> Request:
        record = self._described()
        if record["EndpointStatus"] in CHANGING:
            raise UserError(f"{self.name} is {record['EndpointStatus']} and cannot be {how} now; wait for its end")
        return record

    def _check_variants(self, current: Request, plan: HostingPlan) -> None:
        """Guardrails need the variants of before (developer guide, "Exclusions")."""
        before = {one["VariantName"] for one in current["ProductionVariants"]}
        after = {one["VariantName"] for one in plan.configuration["ProductionVariants"]}
        if before != after and "DeploymentConfig" in plan.update:
            raise UserError(
                f"an update keeps the names of variants: {self.name} has {', '.join(sorted(before))}, the file "
                f"{', '.join(sorted(after))}"
            )

    # ------------------------------------------------------------------ what an endpoint stands on

    def _prepare(self, plan: HostingPlan) -> None:
        """Upload bundles; create models, alarms and the configuration where they are not there yet."""
        for uri, bundle in plan.uploads.items():
            if not self._clients.store.exists(uri):
                self._upload(bundle, uri)
        for request in plan.models:
            self._once(self._clients.sagemaker.create_model, request)
        for request in plan.alarms:
            patiently(self._clients.cloudwatch.put_metric_alarm, **request)
        self._once(self._clients.sagemaker.create_endpoint_config, plan.configuration)

    def _upload(self, bundle: Path, uri: str) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            archive = Path(scratch) / "model.tar.gz"
            if bundle.is_dir():
                pack(bundle, archive)
            self._clients.store.put_file(archive if bundle.is_dir() else bundle, uri)

    def _once(self, operation: Callable[..., Any], request: Request) -> None:
        """Create what is named by its content: that it is there already is as good."""
        try:
            patiently(operation, **request)
        except ServiceRefusalError as refused:
            if "already exist" not in str(refused) and refused.code != "ResourceInUse":
                raise

    def _scale(self, plan: HostingPlan) -> None:
        for request in plan.targets:
            patiently(self._clients.scaling.register_scalable_target, **request)
        for request in plan.policies:
            patiently(self._clients.scaling.put_scaling_policy, **request)

    def _unscale(self, current: Request) -> None:
        """Take variants out of automatic scaling, which must not touch an endpoint that is updated or deleted."""
        places = [resource_id(self.name, one["VariantName"]) for one in current["ProductionVariants"]]
        query = {"ServiceNamespace": "sagemaker", "ResourceIds": places}
        page = patiently(self._clients.scaling.describe_scalable_targets, **query)
        for target in page["ScalableTargets"]:
            place = {name: target[name] for name in ("ServiceNamespace", "ResourceId", "ScalableDimension")}
            patiently(self._clients.scaling.deregister_scalable_target, **place)

    def _remove_configurations(self) -> Iterator[str]:
        for name in self._configurations():
            record = patiently(self._clients.sagemaker.describe_endpoint_config, EndpointConfigName=name)
            patiently(self._clients.sagemaker.delete_endpoint_config, EndpointConfigName=name)
            yield name
            self._remove_alarms(name)
            variants = [*record["ProductionVariants"], *(record.get("ShadowProductionVariants") or ())]
            for model in sorted({one["ModelName"] for one in variants}):
                try:
                    patiently(self._clients.sagemaker.delete_model, ModelName=model)
                    yield model
                except ServiceRefusalError as refused:  # two configurations may share one
                    if refused.code != "ResourceNotFound":
                        raise

    def _configurations(self) -> list[str]:
        """Return the configurations of this endpoint, by the form of their names."""
        stem = self.name[: MAX_NAME - DIGITS - 1].rstrip("-")
        own, found = re.compile(rf"{re.escape(stem)}-[0-9a-f]{{{DIGITS}}}"), []
        query: dict[str, Any] = {"NameContains": stem}
        while True:
            page = patiently(self._clients.sagemaker.list_endpoint_configs, **query)
            found += [one["EndpointConfigName"] for one in page["EndpointConfigs"]]
            if not page.get("NextToken"):
                return [name for name in found if own.fullmatch(name)]
            query["NextToken"] = page["NextToken"]

    def _remove_alarms(self, configuration: str) -> None:
        page = patiently(self._clients.cloudwatch.describe_alarms, AlarmNamePrefix=f"{configuration}-")
        names = [alarm["AlarmName"] for alarm in page.get("MetricAlarms", ())]
        if names:
            patiently(self._clients.cloudwatch.delete_alarms, AlarmNames=names)

    # ------------------------------------------------------------------ the last update

    def _previous(self, arn: str) -> str | None:
        tags = patiently(self._clients.sagemaker.list_tags, ResourceArn=arn)["Tags"]
        return next((str(tag["Value"]) for tag in tags if tag["Key"] == PREVIOUS), None)

    def _tag(self, arn: str, previous: str) -> None:
        tags = [{"Key": PREVIOUS, "Value": previous}]
        patiently(self._clients.sagemaker.add_tags, ResourceArn=arn, Tags=tags)

    def _stop_update(self, current: Request) -> dict[str, Any]:
        deployment = current.get("LastDeploymentConfig") or {}
        alarms = (deployment.get("AutoRollbackConfiguration") or {}).get("Alarms") or []
        if not alarms:
            raise UserError(f"the update of {self.name} has no alarm, so SageMaker cannot be made to roll it back")
        patiently(
            self._clients.cloudwatch.set_alarm_state,
            AlarmName=alarms[0]["AlarmName"],
            StateValue="ALARM",
            StateReason="policylab endpoint rollback",
        )
        self._wait()
        return self.status()

    def _wait(self, *, gone: bool = False) -> None:
        """Wait until the endpoint no longer changes.

        Raises:
            RunError: it has failed, or goes on changing for hours.
        """
        waited_s, pause_s, last = 0.0, FIRST_PAUSE_S, ""
        while True:
            record = self.found()
            status = "Deleted" if record is None else str(record["EndpointStatus"])
            if status != last:
                self._changed(status)
                last = status
            if record is None or (status not in CHANGING and not gone):
                break
            if waited_s >= WAIT_S:
                raise RunError(f"{self.name} is still {status} after {waited_s / 3600:.0f} hours")
            self._sleep(pause_s)
            waited_s, pause_s = waited_s + pause_s, min(LONGEST_PAUSE_S, pause_s * 1.5)
        if record is None:
            if not gone:
                raise RunError(f"{self.name} was deleted meanwhile")
        elif status in BROKEN:
            raise RunError(f"{self.name} is {status}: {record.get('FailureReason') or 'SageMaker gives no reason'}")
