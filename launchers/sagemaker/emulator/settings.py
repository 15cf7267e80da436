"""`EmulatorSettings`: what the emulator is told besides requests, and which requests it cannot execute faithfully."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from policylab.aws.request_view import View
from policylab.errors import ConfigError
from policylab.findings import Finding
from policylab.launchers.sagemaker.emulator.cluster import Isolation
from policylab.launchers.sagemaker.emulator.injections import Injection


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorSettings:
    """How jobs are executed.

    Attributes:
        isolation: ``namespaces`` refuses to do without, ``processes`` does not try, ``auto`` takes what is possible.
        parallel: jobs at a time; others wait in Starting.
        grace_s: seconds between SIGTERM and SIGKILL; 120 on the service.
        linger_s: seconds that the other hosts may go on after one has failed, before they are stopped.
        sync_s: seconds between two looks at the checkpoints.
        respawn_s: seconds between an interruption and the next start.
        disk_mb: size of each host's /opt/ml; needs isolation; default: what the machine has.
        folders: channel -> local folder that stands in for its source.
        injections: trouble for every job.
        keep: leave the hosts' files when a job has ended.
        region: in the names of jobs.
    """

    isolation: Isolation = "auto"
    parallel: int = 2
    grace_s: float = 120.0
    linger_s: float = 120.0
    sync_s: float = 0.5
    respawn_s: float = 0.5
    disk_mb: int | None = None
    folders: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    injections: tuple[Injection, ...] = ()
    keep: bool = False
    region: str = "eu-west-1"

    def __post_init__(self) -> None:
        least = {"parallel": 1, "grace_s": 0, "linger_s": 0, "sync_s": 0, "respawn_s": 0, "disk_mb": 1}
        for name, minimum in least.items():
            value = getattr(self, name)
            if value is not None and not minimum <= value < math.inf:
                raise ConfigError(f"emulator: {name} must be at least {minimum} and finite, got {value}")


def impossible(request: Mapping[str, Any], settings: EmulatorSettings) -> Iterator[Finding]:
    """Say what of a valid request cannot be executed here."""
    view = View(request)
    algorithm = view["AlgorithmSpecification"]
    entrypoint = algorithm["ContainerEntrypoint"]
    if not entrypoint.size:
        rule = "there is no image here whose own entrypoint could run"
        yield entrypoint.found(rule, "give ContainerEntrypoint and ContainerArguments")
    if view["ServerlessJobConfig"].given:
        yield view["ServerlessJobConfig"].found("serverless jobs have no hosts to emulate", "use ResourceConfig")
    local = view["CheckpointConfig"]["LocalPath"]
    if local.given and not _below_opt_ml(local.text):
        yield local.found("must be a folder below /opt/ml here", "use /opt/ml/checkpoints")
    known = {channel["ChannelName"].text for channel in view["InputDataConfig"].items()}
    for name in sorted(settings.folders.keys() - known):
        yield Finding(
            "InputDataConfig", f"a folder is given for {name!r}, which is no channel", sorted(known), "rename it"
        )
    for channel in view["InputDataConfig"].items():
        if channel["ChannelName"].text not in settings.folders:
            yield from _impossible_source(channel)
        if channel["RecordWrapperType"].text == "RecordIO":
            yield channel["RecordWrapperType"].found("records are not wrapped here", "use None")


def _below_opt_ml(path: str) -> bool:
    parts = path.rstrip("/").split("/")
    return parts[:3] == ["", "opt", "ml"] and len(parts) > 3 and not {"", ".", ".."} & set(parts[1:])


def _impossible_source(channel: View) -> Iterator[Finding]:
    name = channel["ChannelName"].text
    for other in ("FileSystemDataSource", "DatasetSource"):
        source = channel["DataSource"][other]
        if source.given:
            remedy = f"let a local folder stand in for it: --channel {name}=FOLDER"
            yield source.found("cannot be reached from here", remedy, value=name)
    kind = channel["DataSource"]["S3DataSource"]["S3DataType"]
    if kind.given and kind.text not in ("S3Prefix", "ManifestFile"):
        yield kind.found("S3Prefix and ManifestFile are emulated", f"or use --channel {name}=FOLDER")


_WITHOUT_EFFECT = {
    "VpcConfig": "the hosts have a private network of their own",
    "EnableInterContainerTrafficEncryption": "traffic between the hosts is not encrypted",
    "DebugHookConfig": "no debugger runs",
    "DebugRuleConfigurations": "no debugger runs",
    "TensorBoardOutputConfig": "nothing is uploaded for TensorBoard",
    "ProfilerConfig": "no profiler runs",
    "ProfilerRuleConfigurations": "no profiler runs",
    "ExperimentConfig": "no experiment is recorded",
    "RemoteDebugConfig": "no remote debugging",
    "InfraCheckConfig": "the hosts are this machine",
    "MlflowConfig": "nothing is recorded in MLflow by the service",
    "ModelPackageConfig": "no model package is registered",
    "SessionChainingConfig": "there are no credentials",
}


def unchecked(request: Mapping[str, Any], *, isolated: bool, disk_mb: int | None) -> list[str]:
    """Say, in sentences, what a finished emulation of ``request`` does not prove."""
    resources = request["ResourceConfig"]
    said = [
        "TrainingImage: commands run on this machine's files and programs",
        "ResourceConfig: every host is this machine, whatever its instance type",
        "RoleArn: no permission is checked",
    ]
    if not isolated:
        said += [
            "hosts are plain processes: the names algo-N do not resolve, ports are shared, the command is not process "
            "1, and /opt/ml in its arguments and environment is replaced by the host's folder (POLICYLAB_ML_ROOT)",
            "files outside the host's folder are this machine's own, and writing them changes them",
        ]
    if not isolated and request.get("EnableNetworkIsolation"):
        said.append("EnableNetworkIsolation: the network is this machine's")
    if isolated and not request.get("EnableNetworkIsolation"):
        said.append("network: there is no way out of the job here, but there is one on the service")
    if disk_mb is None:
        said.append("VolumeSizeInGB: the disk is this machine's")
    if resources.get("KeepAlivePeriodInSeconds"):
        said.append("KeepAlivePeriodInSeconds: hosts end with their job, and the next begins cold")
    keys = ("VolumeKmsKeyId", "KmsKeyId")
    if any(key in section for key in keys for section in (resources, request["OutputDataConfig"])):
        said.append("KMS keys: nothing is encrypted")
    said += [f"{name}: {text}" for name, text in _WITHOUT_EFFECT.items() if request.get(name)]
    return said
