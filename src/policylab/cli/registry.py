"""``policylab registry register|list|approve|reject``: versions of policies, in SageMaker's registry or MLflow's."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from policylab.cli.output import columns, emit
from policylab.cli.region import region_of

if TYPE_CHECKING:
    from policylab.deployment.model_registry.versions import ModelRegistry, Version


def register(arguments: argparse.Namespace) -> int:
    """Add a bundle as a version that waits for approval."""
    version = _registry(arguments).register(Path(arguments.bundle), name=arguments.name)
    emit(arguments, dataclasses.asdict(version), text=lambda: _text(version))
    return 0


def listing(arguments: argparse.Namespace) -> int:
    """List the versions under a name, the newest first."""
    found = _registry(arguments).list(arguments.name)
    heading = ["version", "status", "confirmed", "selected", "environment", "digest"]
    rows = [[str(one.version), one.status, *(_short(one, name) for name in heading[2:])] for one in found]
    document = [dataclasses.asdict(one) for one in found]
    emit(arguments, document, text=lambda: columns([heading, *rows]) if rows else "no versions yet")
    return 0


def approve(arguments: argparse.Namespace) -> int:
    """Let a version be served."""
    return _decide(arguments, approve=True)


def reject(arguments: argparse.Namespace) -> int:
    """Keep a version from being served."""
    return _decide(arguments, approve=False)


def _decide(arguments: argparse.Namespace, *, approve: bool) -> int:
    registry = _registry(arguments)
    version = registry.decide(arguments.name, arguments.number, approve=approve, reason=arguments.reason)
    emit(arguments, dataclasses.asdict(version), text=lambda: _text(version))
    return 0


def _registry(arguments: argparse.Namespace) -> ModelRegistry:
    if arguments.registry == "sagemaker":
        from policylab.deployment.model_registry.model_packages import ModelPackages
        from policylab.experiments.project import shared_setting
        from policylab.launchers.sagemaker.object_store import S3Store
        from policylab.launchers.sagemaker.service import client

        region = region_of(arguments)
        service, store = client("sagemaker", region=region), S3Store(client("s3", region=region))
        s3_prefix = getattr(arguments, "s3_prefix", None) or shared_setting("sagemaker", "s3_prefix")
        return ModelPackages(service, store, s3_prefix=s3_prefix, image=getattr(arguments, "image", None))
    from policylab.deployment.model_registry.mlflow_versions import MlflowVersions
    from policylab.experiments.tracking.settings import MlflowTracking, parse

    settings = parse({"kind": "mlflow", "uri": arguments.uri}, place="--uri")
    assert isinstance(settings, MlflowTracking)
    return MlflowVersions(settings.resolved(experiment=arguments.name, folder=Path.cwd()))


def _short(version: Version, name: str) -> str:
    value = version.facts.get(f"policylab.{name}", "-")
    return value[:12]


def _text(version: Version) -> str:
    rows = [["version", f"{version.name} {version.version}"], ["status", version.status], ["address", version.uri]]
    rows += [["reason", version.reason]] if version.reason else []
    return columns(rows + [[name.removeprefix("policylab."), value] for name, value in sorted(version.facts.items())])
