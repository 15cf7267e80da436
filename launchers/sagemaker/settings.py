"""`SageMakerSettings`: what an experiment file says of the training jobs that execute its runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from policylab.config import Settings

InputMode = Literal["File", "FastFile", "Pipe"]
NO_ACCOUNT = {
    "role_arn": "arn:aws:iam::000000000000:role/emulated",
    "image": "000000000000.dkr.ecr.us-east-1.amazonaws.com/emulated:1",
    "s3_prefix": "s3://emulated/policylab",
}
"""Settings of a request that is executed on this machine."""

S3Uri = Annotated[str, Field(pattern=r"^s3://[^/\s]+(/\S*)?$", description="s3://BUCKET/PREFIX")]


class InstanceGroup(Settings):
    """Machines of one type in a heterogeneous cluster."""

    name: str = Field(min_length=1, max_length=64, description="learner, rollout, evaluation, or any other name")
    instance_type: str
    instance_count: PositiveInt = 1


class Spot(Settings):
    """Managed spot training: spare machines at a discount, which may be taken away."""

    max_wait_s: PositiveInt = Field(description="longest time from the request to the end, interruptions included")


class Vpc(Settings):
    """The private network that the containers join."""

    subnets: tuple[str, ...] = Field(min_length=1, max_length=16)
    security_group_ids: tuple[str, ...] = Field(min_length=1, max_length=5)


class S3Source(Settings):
    """Objects below a prefix; a directory bucket (S3 Express One Zone) is named like any other bucket."""

    kind: Literal["s3"] = "s3"
    uri: S3Uri
    sharded: bool = Field(default=False, description="whether each host gets its share instead of everything")


class EfsSource(Settings):
    """A folder of an Elastic File System."""

    kind: Literal["efs"] = "efs"
    file_system_id: str = Field(pattern=r"^fs-[0-9a-f]{8,}$")
    directory: str = Field(default="/", pattern=r"^/")
    writable: bool = False


class FsxSource(Settings):
    """A folder of an FSx for Lustre file system; its path begins with the mount name."""

    kind: Literal["fsx"] = "fsx"
    file_system_id: str = Field(pattern=r"^fs-[0-9a-f]{8,}$")
    directory: str = Field(pattern=r"^/")
    writable: bool = False


class Channel(Settings):
    """One input of the job, found in the container at /opt/ml/input/data/NAME."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    source: Annotated[S3Source | EfsSource | FsxSource, Field(discriminator="kind")]
    input_mode: InputMode = "File"
    content_type: str | None = None
    groups: tuple[str, ...] = Field(default=(), max_length=5, description="instance groups that get it; default: all")


class SageMakerSettings(Settings):
    """Run on SageMaker, one training job per run.

    What a job has in common with every other is here; its name, its code, its checkpoints and its tags follow from the
    experiment (see `policylab.launchers.sagemaker.training_request`).
    """

    kind: Literal["sagemaker"] = "sagemaker"
    role_arn: str = Field(description="execution role of the jobs")
    image: str = Field(min_length=1, description="container image; one of AWS's PyTorch images, or your own")
    s3_prefix: S3Uri = Field(description="below it lie code/, runs/, checkpoints/ and output/")
    region: str | None = Field(default=None, pattern=r"^[a-z]{2}(-[a-z]+)+-\d$", description="default: the profile's")
    instance_type: str | None = Field(default=None, description="of a homogeneous cluster; default: ml.m5.xlarge")
    instance_count: PositiveInt = 1
    instance_groups: tuple[InstanceGroup, ...] = Field(default=(), max_length=5, description="instead of one type")
    head_group: str | None = Field(default=None, description="group whose first host leads; default: the first group")
    volume_gb: PositiveInt = Field(default=30, description="disk of each host")
    max_runtime_s: PositiveInt = Field(default=86_400, le=28 * 86_400)
    spot: Spot | None = None
    keep_alive_s: int = Field(default=0, ge=0, le=21_600, description="how long a warm pool waits for the next job")
    attempts: int = Field(default=0, ge=0, le=30, description="retries after internal errors of the service")
    channels: tuple[Channel, ...] = Field(default=(), max_length=18)
    vpc: Vpc | None = None
    volume_kms_key: str | None = None
    output_kms_key: str | None = None
    encrypt_traffic: bool = Field(default=False, description="between the containers of a job; slower")
    network_isolation: bool = Field(
        default=False, description="no way out of the container; the image holds everything"
    )
    environment: dict[str, str] = Field(default_factory=dict)
    tags: dict[str, str] = Field(default_factory=dict)
    parallel: PositiveInt = Field(default=4, description="jobs at a time")
    max_cost_usd: float | None = Field(
        default=None, gt=0,
        description="hard limit for all jobs of the experiment: none is sent that might pass it if every job under way "
        "took all of max_runtime_s; by the price table, in its currency",
    )  # fmt: skip
    price_table: str | None = Field(default=None, description="YAML file with your own prices instead of ours")
    include: tuple[str, ...] = Field(default=(), description="modules and packages of yours that the runs import")
    extras: tuple[str, ...] | None = Field(
        default=None, description="of policylab, installed in the container; default: those of agent and environment"
    )
    emulate: bool = Field(default=False, description="execute the very requests on this machine; nothing is sent")

    @model_validator(mode="before")
    @classmethod
    def _emulated_without_an_account(cls, data: Any) -> Any:
        """What only AWS looks at may be left out of a request that stays here."""
        return {**NO_ACCOUNT, **data} if isinstance(data, dict) and data.get("emulate") is True else data

    @model_validator(mode="after")
    def _one_kind_of_cluster(self) -> Self:
        if self.instance_groups and (self.instance_type is not None or self.instance_count != 1):
            raise ValueError(
                "`instance_groups` replaces `instance_type` and `instance_count`; keep one of the two forms"
            )
        names = [group.name for group in self.instance_groups]
        if len(set(names)) < len(names):
            raise ValueError(f"the names of `instance_groups` must differ, got {', '.join(names)}")
        if self.head_group is not None and self.head_group not in names:
            raise ValueError(
                f"`head_group` must name one of the instance groups ({', '.join(names) or 'there are none'})"
            )
        return self

    @property
    def outlives(self) -> bool:
        """Whether jobs go on when the command that follows them ends."""
        return not self.emulate

    @property
    def n_workers(self) -> int:
        """Runs at once."""
        return self.parallel

    @property
    def n_instances(self) -> int:
        """Machines of one job."""
        return sum(group.instance_count for group in self.instance_groups) or self.instance_count
