"""SageMaker's model registry: a group of model packages for each name.

Only boto3's plain calls are used: the classes of SDK v3 mis-case fields (aws/sagemaker-core#225).

| where | what |
|---|---|
| S3_PREFIX/models/DIGEST/model.tar.gz | the bundle, uploaded once |
| S3_PREFIX/models/DIGEST/metrics.json | the bundle's metrics, which the package names as its model quality |

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModelPackage.html
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from policylab.agents.bundle import load_bundle
from policylab.agents.bundle_archive import pack
from policylab.aws.service_model import structure_findings
from policylab.deployment.model_registry.versions import Status, Version, facts_of, version_of
from policylab.errors import UserError
from policylab.findings import raise_errors
from policylab.launchers.sagemaker.object_store import ObjectStore
from policylab.launchers.sagemaker.service import ServiceRefusalError, patiently

OPERATION = "CreateModelPackage"
STATUSES: Mapping[str, Status] = {
    "PendingManualApproval": "pending", "Approved": "approved", "Rejected": "rejected",
}  # fmt: skip
CONTENT_TYPES = ["application/json"]


class ModelPackages:
    """Model packages of one account and region.

    Args:
        service: ``boto3.client("sagemaker")``.
        store: of objects.
        s3_prefix: where bundles are put.
        image: the container image that serves them.
    """

    def __init__(self, service: Any, store: ObjectStore, *, s3_prefix: str | None, image: str | None) -> None:
        self._service = service
        self._store = store
        self._s3_prefix = s3_prefix
        self._image = image

    def register(self, bundle: Path, *, name: str) -> Version:
        """Add a bundle as a package of the group ``name``, which is made if absent."""
        facts = facts_of(bundle)
        for version in self._versions(name):
            if version.facts.get("policylab.digest") == facts["policylab.digest"]:
                return version
        request = self.request(facts, name=name)
        raise_errors(structure_findings(OPERATION, request), about=OPERATION)
        place = self._place(facts)
        with tempfile.TemporaryDirectory() as scratch:
            archive = Path(scratch) / "model.tar.gz"
            if bundle.is_dir():
                pack(bundle, archive)
            self._store.put_file(archive if bundle.is_dir() else bundle, f"{place}/model.tar.gz")
        metrics = json.dumps(load_bundle(bundle, memory=True).manifest.metrics, indent=1)
        self._store.put_bytes(metrics.encode(), f"{place}/metrics.json")
        self._ensure_group(name)
        arn = patiently(self._service.create_model_package, **request)["ModelPackageArn"]
        return self._version(arn)

    def request(self, facts: Mapping[str, str], *, name: str) -> dict[str, Any]:
        """Return the literal CreateModelPackage request of a bundle with these facts.

        Raises:
            UserError: no image or no place in S3 is known.
        """
        if not self._image:
            raise UserError("which image serves the policy? give --image, the URI of a container image in ECR")
        place = self._place(facts)
        return {
            "ModelPackageGroupName": name,
            "ModelPackageDescription": f"{facts['policylab.policy']} policy for {facts['policylab.environment']}",
            "ModelApprovalStatus": "PendingManualApproval",
            "InferenceSpecification": {
                "Containers": [{"Image": self._image, "ModelDataUrl": f"{place}/model.tar.gz"}],
                "SupportedContentTypes": CONTENT_TYPES,
                "SupportedResponseMIMETypes": CONTENT_TYPES,
            },
            "ModelMetrics": {
                "ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": f"{place}/metrics.json"}}
            },
            "CustomerMetadataProperties": dict(facts),
        }

    def list(self, name: str) -> list[Version]:
        """Return the packages of the group ``name``, the newest first."""
        try:
            patiently(self._service.describe_model_package_group, ModelPackageGroupName=name)
        except ServiceRefusalError:
            raise UserError(f"there is no model package group '{name}' in this region") from None
        return [*self._versions(name)]

    def decide(self, name: str, version: int, *, approve: bool, reason: str | None) -> Version:
        """Set a package's approval status."""
        found = version_of(self.list(name), version, name=name)
        request = {
            "ModelPackageArn": found.uri,
            "ModelApprovalStatus": "Approved" if approve else "Rejected",
            **({"ApprovalDescription": reason} if reason else {}),
        }
        patiently(self._service.update_model_package, **request)
        return self._version(found.uri)

    def _place(self, facts: Mapping[str, str]) -> str:
        if not self._s3_prefix:
            raise UserError("where in S3 are policies kept? give --s3-prefix s3://BUCKET/PREFIX")
        return f"{self._s3_prefix.rstrip('/')}/models/{facts['policylab.digest']}"

    def _ensure_group(self, name: str) -> None:
        try:
            patiently(self._service.create_model_package_group, ModelPackageGroupName=name)
        except ServiceRefusalError as refused:
            if "already exists" not in str(refused) and refused.code != "ResourceInUse":
                raise

    def _versions(self, name: str) -> Iterator[Version]:
        query: dict[str, Any] = {"ModelPackageGroupName": name, "SortBy": "CreationTime", "SortOrder": "Descending"}
        while True:
            page = patiently(self._service.list_model_packages, **query)
            for one in page["ModelPackageSummaryList"]:
                yield self._version(one["ModelPackageArn"])
            if not page.get("NextToken"):
                return
            query["NextToken"] = page["NextToken"]

    def _version(self, arn: str) -> Version:
        record = patiently(self._service.describe_model_package, ModelPackageName=arn)
        return Version(
            name=record["ModelPackageGroupName"],
            version=record["ModelPackageVersion"],
            status=STATUSES[record["ModelApprovalStatus"]],
            facts=record.get("CustomerMetadataProperties") or {},
            uri=arn,
            reason=record.get("ApprovalDescription"),
            created_utc=record["CreationTime"].isoformat(timespec="seconds"),
        )
