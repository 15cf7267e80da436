"""`ContainerSettings`: what the environment of a training job tells `policylab container`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, ValidationError

from policylab.config import Settings
from policylab.errors import UserError, did_you_mean

PREFIX = "POLICYLAB_"
ELSEWHERE = {"ML_ROOT", "UNPACKED", "PROCESS", "CACHE_DIR"}
"""Names with the prefix that other modules read."""

logger = logging.getLogger(__name__)


class ContainerSettings(Settings):
    """Each field is the environment variable POLICYLAB_FIELD, in capitals."""

    head_group: str | None = Field(default=None, description="group whose first host leads; default: of all hosts")
    rollout_group: str | None = Field(
        default=None, description="group that RLlib's env runners are placed on; default: `rollout`, if there is one"
    )
    evaluation_group: str | None = Field(
        default=None, description="group that plays the episodes of evaluations; default: `evaluation`, if there is one"
    )
    ray_port: int = Field(default=6379, ge=1, le=65_535)
    control_port: int = Field(default=7788, ge=1, le=65_535, description="of the head, where hosts meet")
    ray_options: str = Field(default="", description="further options of `ray start`, as on a command line")
    num_cpus: int | None = Field(default=None, ge=0, description="of this host for Ray; default: those it may use")
    num_gpus: int | None = Field(default=None, ge=0, description="of this host for Ray; default: those Ray finds")
    join_timeout_s: float = Field(default=300.0, gt=0, description="time in which all hosts must have joined")
    heartbeat_s: float = Field(default=5.0, gt=0, description="between two signs of life; six missed ones are a loss")
    grace_s: float = Field(default=100.0, gt=0, description="for saving after SIGTERM; the service kills after 120 s")
    save_every_s: float = Field(default=10.0, gt=0, description="between two snapshots of a run under way")
    on_worker_loss: Literal["fail", "continue"] = "fail"
    job_token: str | None = Field(
        default=None, min_length=16, description="secret of the hosts; default: made of the job's ARN and channels"
    )
    resume_command: str | None = Field(default=None, description="what a failure tells the user to type")
    tracking: str | None = Field(default=None, description="the tracker and the run directory's run there, as JSON")


def read_settings(environment: Mapping[str, str]) -> ContainerSettings:
    """Return the settings in ``environment``.

    Raises:
        UserError: a value is not what its variable takes.
    """
    given = {name.removeprefix(PREFIX): value for name, value in environment.items() if name.startswith(PREFIX)}
    known = {name.upper() for name in ContainerSettings.model_fields}
    for name in sorted(given.keys() - known - ELSEWHERE):
        logger.warning("%s%s is no setting of the container%s", PREFIX, name, did_you_mean(name, known))
    try:
        return ContainerSettings.model_validate({name.lower(): given[name] for name in given.keys() & known})
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(map(str, first["loc"])).upper()
        raise UserError(f"{PREFIX}{name}={first['input']}: {first['msg']}") from None
