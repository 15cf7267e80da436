"""One run as the literal CreateTrainingJob request.

| where | what |
|---|---|
| S3_PREFIX/code/HASH/ | the source bundle, shared by every job with the same code and configuration |
| S3_PREFIX/runs/HASH/ | the run's ``spec.json`` |
| S3_PREFIX/checkpoints/EXPERIMENT-HASH/TRIAL-ROLE-INDEX/ | its run folder, whichever job carries it on |
| S3_PREFIX/output/JOB/output/ | model artefact and output, by the service |

Nothing of an experiment travels as a hyperparameter: the containers of AWS pass those through a shell.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from typing import Any

from policylab.aws.metrics import metric_regex
from policylab.launchers.sagemaker.settings import Channel, EfsSource, FsxSource, SageMakerSettings

MAX_NAME = 63
NAME_DIGITS = 10
"""Characters of the hash at the end of a name: 40 bits."""

CHECKPOINTS = "/opt/ml/checkpoints"
COMMAND = "cd /opt/ml/input/data/code && exec python3 bootstrap.py"
"""``exec`` makes Python process 1, so that SIGTERM reaches it."""

DEFAULT_INSTANCE = "ml.m5.xlarge"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """What distinguishes one training job from the others of its experiment.

    Attributes:
        experiment: name of the experiment.
        config_hash: sha256 of the resolved configuration.
        trial: number of the configuration.
        role: ``tune`` or ``confirm``.
        index: number of the seed.
        stop_at_steps: environment steps at which this job stops; a promotion goes on from there in a new job.
        code_hash: sha256 of the source bundle.
        spec_hash: sha256 of the run's spec.json.
        attempt: how many jobs for the same work have ended without doing it.
        metrics: names printed as ``[metric] NAME=VALUE``.
    """

    experiment: str
    config_hash: str
    trial: int
    role: str
    index: int
    stop_at_steps: int
    code_hash: str
    spec_hash: str
    attempt: int = 0
    metrics: Sequence[str] = ("eval/return_mean",)

    @property
    def place(self) -> str:
        """The run's folder below those of its experiment, the same for every job that carries it on."""
        return f"{self.trial:04d}-{self.role}-{self.index:03d}"

    @property
    def study(self) -> str:
        """The experiment with the beginning of its hash: what the jobs of one study share."""
        return study_name(self.experiment, self.config_hash)


def study_name(experiment: str, config_hash: str) -> str:
    """Return what the jobs of one experiment share as a tag.

    >>> study_name("taxi_tune", "0" * 64)
    'taxi_tune-0000000000'
    """
    return f"{experiment}-{config_hash[:NAME_DIGITS]}"


def job_name(run: TrainingRun) -> str:
    """Return the job's name, a function of what it does: a repeated call finds the job instead of starting another.

    >>> run = TrainingRun(experiment="taxi_tune", config_hash="0" * 64, trial=3, role="tune", index=1,
    ...     stop_at_steps=1000, code_hash="1" * 64, spec_hash="2" * 64)
    >>> job_name(run)
    'taxi-tune-t3-tune1-a847a90c79'
    """
    facts = [run.study, run.place, str(run.stop_at_steps), run.code_hash, run.spec_hash]
    facts += [f"attempt {run.attempt}"] if run.attempt else []
    digest = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:NAME_DIGITS]
    tail = f"t{run.trial}-{run.role}{run.index}-{digest}"
    head = re.sub(r"[^a-zA-Z0-9]+", "-", run.experiment).strip("-")[: MAX_NAME - 1 - len(tail)].rstrip("-")
    return f"{head}-{tail}" if head else tail


def run_prefix(settings: SageMakerSettings, run: TrainingRun) -> str:
    """Return where the run's folder lies while jobs carry it on: what the container sees at `CHECKPOINTS`."""
    return f"{settings.s3_prefix.rstrip('/')}/checkpoints/{run.study}/{run.place}"


def code_prefix(settings: SageMakerSettings, run: TrainingRun) -> str:
    """Return where the source bundle lies."""
    return f"{settings.s3_prefix.rstrip('/')}/code/{run.code_hash}/"


def spec_prefix(settings: SageMakerSettings, run: TrainingRun) -> str:
    """Return where the run's spec.json lies."""
    return f"{settings.s3_prefix.rstrip('/')}/runs/{run.spec_hash}/"


def training_request(settings: SageMakerSettings, run: TrainingRun) -> dict[str, Any]:
    """Return the request; check it with `policylab.launchers.sagemaker.preflight.preflight` before it is sent."""
    request: dict[str, Any] = {
        "TrainingJobName": job_name(run),
        "AlgorithmSpecification": {
            "TrainingImage": settings.image,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["/bin/bash", "-c"],
            "ContainerArguments": [COMMAND],
            "MetricDefinitions": [{"Name": name, "Regex": metric_regex(name)} for name in run.metrics],
            "EnableSageMakerMetricsTimeSeries": True,
        },
        "RoleArn": settings.role_arn,
        "InputDataConfig": _channels(settings, run),
        "OutputDataConfig": {"S3OutputPath": f"{settings.s3_prefix.rstrip('/')}/output"},
        "ResourceConfig": _resources(settings),
        "StoppingCondition": {"MaxRuntimeInSeconds": settings.max_runtime_s},
        "CheckpointConfig": {"S3Uri": run_prefix(settings, run), "LocalPath": CHECKPOINTS},
        "Environment": _environment(settings),
        "Tags": _tags(settings, run),
    }
    _put_options(request, settings)
    return request


def _channels(settings: SageMakerSettings, run: TrainingRun) -> list[dict[str, Any]]:
    groups = [group.name for group in settings.instance_groups]
    own = {"code": code_prefix(settings, run), "run": spec_prefix(settings, run)}
    channels = [_s3_channel(name, uri, sharded=False, groups=groups) for name, uri in own.items()]
    return channels + [_channel(channel, groups=list(channel.groups) or groups) for channel in settings.channels]


def _channel(channel: Channel, *, groups: list[str]) -> dict[str, Any]:
    source = channel.source
    if isinstance(source, EfsSource | FsxSource):
        entry: dict[str, Any] = {
            "ChannelName": channel.name,
            "DataSource": {
                "FileSystemDataSource": {
                    "FileSystemId": source.file_system_id,
                    "FileSystemType": "EFS" if source.kind == "efs" else "FSxLustre",
                    "FileSystemAccessMode": "rw" if source.writable else "ro",
                    "DirectoryPath": source.directory,
                }
            },
        }
    else:
        entry = _s3_channel(channel.name, source.uri, sharded=source.sharded, groups=groups)
    entry["InputMode"] = channel.input_mode
    if channel.content_type:
        entry["ContentType"] = channel.content_type
    return entry


def _s3_channel(name: str, uri: str, *, sharded: bool, groups: list[str]) -> dict[str, Any]:
    source: dict[str, Any] = {
        "S3DataType": "S3Prefix",
        "S3Uri": uri,
        "S3DataDistributionType": "ShardedByS3Key" if sharded else "FullyReplicated",
    }
    if groups:
        source["InstanceGroupNames"] = groups
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, "InputMode": "File"}


def _resources(settings: SageMakerSettings) -> dict[str, Any]:
    resources: dict[str, Any] = {"VolumeSizeInGB": settings.volume_gb}
    if settings.instance_groups:
        resources["InstanceGroups"] = [
            {
                "InstanceGroupName": group.name,
                "InstanceType": group.instance_type,
                "InstanceCount": group.instance_count,
            }
            for group in settings.instance_groups
        ]
    else:
        resources["InstanceType"] = settings.instance_type or DEFAULT_INSTANCE
        resources["InstanceCount"] = settings.instance_count
    if settings.keep_alive_s:
        resources["KeepAlivePeriodInSeconds"] = settings.keep_alive_s
    if settings.volume_kms_key:
        resources["VolumeKmsKeyId"] = settings.volume_kms_key
    return resources


def _environment(settings: SageMakerSettings) -> dict[str, str]:
    head = settings.head_group or next((group.name for group in settings.instance_groups), None)
    own = {} if head is None else {"POLICYLAB_HEAD_GROUP": head}
    return {**own, **settings.environment}


def _tags(settings: SageMakerSettings, run: TrainingRun) -> list[dict[str, str]]:
    own = {
        "policylab:study": run.study,
        "policylab:experiment": run.experiment,
        "policylab:run": run.place,
        "policylab:stop-at-steps": str(run.stop_at_steps),
    }
    return [{"Key": key, "Value": value} for key, value in {**settings.tags, **own}.items()]


def _put_options(request: dict[str, Any], settings: SageMakerSettings) -> None:
    if settings.spot:
        request["EnableManagedSpotTraining"] = True
        request["StoppingCondition"]["MaxWaitTimeInSeconds"] = settings.spot.max_wait_s
    if settings.vpc:
        request["VpcConfig"] = {
            "Subnets": list(settings.vpc.subnets),
            "SecurityGroupIds": list(settings.vpc.security_group_ids),
        }
    if settings.output_kms_key:
        request["OutputDataConfig"]["KmsKeyId"] = settings.output_kms_key
    if settings.network_isolation:
        request["EnableNetworkIsolation"] = True
    if settings.encrypt_traffic:
        request["EnableInterContainerTrafficEncryption"] = True
    if settings.attempts:
        request["RetryStrategy"] = {"MaximumRetryAttempts": settings.attempts}
