"""The settings of the Ray launcher."""

from __future__ import annotations

import math
import os
from typing import Any, Literal

from pydantic import Field, model_validator

from policylab.attempts import Attempts, Retries


class RaySettings(Attempts):
    """Run as Ray actors, on this machine or on a cluster that it belongs to."""

    kind: Literal["ray"] = "ray"
    address: str = Field(
        default="local",
        pattern=r"^(local|auto|\[?[\w.:-]+\]?:\d{1,5})$",
        description="local: a cluster started for this command alone; auto: the one of RAY_ADDRESS or of this machine; "
        "HOST:PORT: the head of a cluster that this machine belongs to",
    )
    workers: int | None = Field(
        default=None, ge=1, le=1024, description="runs at once; default for address local: as many as fit on its cores"
    )
    cpus_per_run: float = Field(
        default=1.0,
        gt=0.0,
        le=1024.0,
        description="processors that each run holds: one for its process, the others for what an agent starts in turn",
    )
    gpus_per_run: float = Field(default=0.0, ge=0.0, le=64.0, description="GPUs, or a part of one, that each run holds")
    resources_per_run: dict[str, float] = Field(
        default={}, description="custom resources of the cluster that each run holds, such as {highmem: 1}"
    )
    retries: Retries = 3
    storage: str | None = Field(
        default=None,
        pattern=r"^[a-z][a-z0-9+]*://.+$",
        description="fsspec URL that carries run folders between nodes, such as s3://BUCKET/PATH; "
        "default: every node sees the run directory at the same path",
    )
    sync_every_s: float = Field(default=5.0, gt=0.0, description="how often a run under way is stored in `storage`")
    start_timeout_s: float = Field(
        default=60.0, ge=0.0, description="how long to wait for a node that is large enough for a run"
    )
    runtime_env: dict[str, Any] = Field(
        default={}, description="Ray's runtime environment of the workers: env_vars, pip, working_dir, ..."
    )

    @model_validator(mode="after")
    def _workers_of_a_cluster(self) -> RaySettings:
        if self.workers is None and self.address != "local":
            raise ValueError(f"workers is required with address {self.address}: how many runs execute there at once")
        return self

    @property
    def n_workers(self) -> int:
        """Runs at once: as set, else as many as fit on the cores this process may use."""
        return self.workers or max(1, int(len(os.sched_getaffinity(0)) / self.cpus_per_run))

    @property
    def local_cpus(self) -> int:
        """Processors that a local cluster is told it has: the cores, or more if more runs at once are asked for."""
        return max(len(os.sched_getaffinity(0)), math.ceil(self.n_workers * self.cpus_per_run))
