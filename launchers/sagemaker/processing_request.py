"""A description of `policylab process` as the literal CreateProcessingJob request, and what must lie in S3 for it.

| where | what |
|---|---|
| S3_PREFIX/code/HASH/ | the source bundle |
| S3_PREFIX/inputs/HASH/NAME | an input that was a file of this machine |
| S3_PREFIX/processing/JOB/ | description.yaml, and the output below output/ |

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateProcessingJob.html
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from policylab.errors import UserError
from policylab.files import content_hash
from policylab.launchers.sagemaker.object_store import ObjectStore
from policylab.launchers.sagemaker.settings import SageMakerSettings
from policylab.launchers.sagemaker.source_bundle import SourceBundle
from policylab.launchers.sagemaker.training_request import DEFAULT_INSTANCE

ROOT = "/opt/ml/processing"
DESCRIPTION = "POLICYLAB_PROCESS"
"""Variable that names the description inside the container; `bootstrap` reads it."""

COMMAND = f"cd {ROOT}/input/code && exec python3 bootstrap.py"
MAX_RUNTIME_S = 777_600
"""Longest processing job."""


@dataclasses.dataclass(frozen=True, slots=True)
class OutgoingProcess:
    """A processing job that can be sent.

    Attributes:
        request: the literal request.
        files: name in the store -> content, or the file that holds it.
        output: where the result will lie.
    """

    request: dict[str, Any]
    files: Mapping[str, bytes | Path]
    output: str

    @property
    def name(self) -> str:
        """The job's name, a function of what it does: sent again, it is the same job."""
        return str(self.request["ProcessingJobName"])

    def upload(self, store: ObjectStore) -> None:
        """Put everything where the request says it is; what is there already is not sent again.

        Raises:
            StorageError: the store refused.
        """
        for uri, content in self.files.items():
            if not store.exists(uri):
                if isinstance(content, Path):
                    store.put_file(content, uri)
                else:
                    store.put_bytes(content, uri)


def outgoing_process(
    settings: SageMakerSettings, process: Mapping[str, Any], *, bundle: SourceBundle, attempt: int = 0
) -> OutgoingProcess:
    """Return the job of a description.

    Args:
        settings: of the launcher.
        process: ``name``, ``input`` and ``output`` of the description, and whatever else it says.
        bundle: the code.
        attempt: how many jobs of the same work have failed.

    Raises:
        UserError: the input does not exist.
    """
    prefix = settings.s3_prefix.rstrip("/")
    files: dict[str, bytes | Path] = {
        f"{prefix}/code/{bundle.hash}/{name}": content for name, content in bundle.files.items()
    }
    place, held = _input(str(process["input"]), prefix=prefix)
    files |= held
    inside = f"{ROOT}/input/data/{place.rpartition('/')[2]}"
    described = {**process, "input": inside, "output": f"{ROOT}/output"}
    facts = {"process": described, "input": place, "code": bundle.hash, "image": settings.image}
    digest = content_hash({**facts, "attempt": attempt} if attempt else facts)
    stem = re.sub(r"[^a-zA-Z0-9]+", "-", str(process["name"])).strip("-")
    name = f"{stem}-{digest[:10]}"
    home = f"{prefix}/processing/{name}"
    files[f"{home}/description/process.yaml"] = yaml.safe_dump({"process": described}, sort_keys=False).encode()
    inputs = {"code": f"{prefix}/code/{bundle.hash}", "description": f"{home}/description", "data": place}
    return OutgoingProcess(_request(settings, name, inputs=inputs, home=home), files, f"{home}/output")


def _input(given: str, *, prefix: str) -> tuple[str, dict[str, bytes | Path]]:
    """Return where the input lies in S3, and the file to upload for that."""
    if given.startswith("s3://"):
        return given.rstrip("/"), {}
    path = Path(given)
    if not path.is_file():
        hint = "pack it: a bundle is also read from its model.tar.gz" if path.is_dir() else "give a file, or s3://..."
        raise UserError(f"{given}: no such file; {hint}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    uri = f"{prefix}/inputs/{digest}/{path.name}"
    return uri, {uri: path}


def _request(settings: SageMakerSettings, name: str, *, inputs: Mapping[str, str], home: str) -> dict[str, Any]:
    cluster: dict[str, Any] = {
        "InstanceType": settings.instance_type or DEFAULT_INSTANCE,
        "InstanceCount": 1,
        "VolumeSizeInGB": settings.volume_gb,
    }
    if settings.volume_kms_key:
        cluster["VolumeKmsKeyId"] = settings.volume_kms_key
    output: dict[str, Any] = {
        "OutputName": "output",
        "S3Output": {"S3Uri": f"{home}/output", "LocalPath": f"{ROOT}/output", "S3UploadMode": "EndOfJob"},
    }
    request: dict[str, Any] = {
        "ProcessingJobName": name,
        "RoleArn": settings.role_arn,
        "AppSpecification": {"ImageUri": settings.image, "ContainerEntrypoint": ["/bin/bash", "-c", COMMAND]},
        "ProcessingInputs": [_processing_input(key, uri) for key, uri in inputs.items()],
        "ProcessingOutputConfig": {"Outputs": [output]},
        "ProcessingResources": {"ClusterConfig": cluster},
        "StoppingCondition": {"MaxRuntimeInSeconds": min(settings.max_runtime_s, MAX_RUNTIME_S)},
        "Environment": {**settings.environment, DESCRIPTION: f"{ROOT}/input/description/process.yaml"},
        "Tags": [{"Key": key, "Value": value} for key, value in {**settings.tags, "policylab:process": name}.items()],
    }
    if settings.output_kms_key:
        request["ProcessingOutputConfig"]["KmsKeyId"] = settings.output_kms_key
    if network := _network(settings):
        request["NetworkConfig"] = network
    return request


def _processing_input(name: str, uri: str) -> dict[str, Any]:
    source = {
        "S3Uri": uri,
        "LocalPath": f"{ROOT}/input/{name}",
        "S3DataType": "S3Prefix",
        "S3InputMode": "File",
        "S3DataDistributionType": "FullyReplicated",
    }
    return {"InputName": name, "S3Input": source}


def _network(settings: SageMakerSettings) -> dict[str, Any]:
    network: dict[str, Any] = {}
    if settings.network_isolation:
        network["EnableNetworkIsolation"] = True
    if settings.encrypt_traffic:
        network["EnableInterContainerTrafficEncryption"] = True
    if settings.vpc:
        network["VpcConfig"] = {
            "Subnets": list(settings.vpc.subnets),
            "SecurityGroupIds": list(settings.vpc.security_group_ids),
        }
    return network
