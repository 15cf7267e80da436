"""How many machines or replicas an endpoint has, and the switch to Ray Serve: sections of the endpoint file."""

from __future__ import annotations

import math
import os
from typing import Any, Self

from pydantic import Field, PositiveInt, model_validator

from policylab.config import Settings


class Autoscaling(Settings):
    """Target tracking: so many machines, replicas or so much warm serverless capacity that the target is held."""

    min_capacity: int = Field(default=1, ge=0, description="on SageMaker, 0 needs an asynchronous endpoint")
    max_capacity: PositiveInt
    requests_per_s: float | None = Field(
        default=None, gt=0.0, description="load of one machine to aim at; half of what it was measured to bear is usual"
    )
    concurrent_requests: float | None = Field(
        default=None, gt=0.0, description="requests at the same time in one machine or replica to aim at"
    )
    backlog: float | None = Field(default=None, gt=0.0, description="waiting requests per machine, if asynchronous")
    utilization: float | None = Field(
        default=None, ge=0.1, le=0.9, description="share of provisioned concurrency in use, if serverless"
    )
    scale_in_cooldown_s: int = Field(default=300, ge=0, le=86_400)
    scale_out_cooldown_s: int = Field(default=60, ge=0, le=86_400)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.min_capacity > self.max_capacity:
            raise ValueError("min_capacity must not exceed max_capacity")
        targets = (self.requests_per_s, self.concurrent_requests, self.backlog, self.utilization)
        if sum(target is not None for target in targets) != 1:
            raise ValueError(
                "give one target: requests_per_s, concurrent_requests, backlog (asynchronous) "
                "or utilization (serverless)"
            )
        return self


class RayServeSettings(Settings):
    """The endpoint is a Ray Serve deployment, of as many replicas as `autoscaling` says."""

    address: str = Field(
        default="local",
        pattern=r"^(local|auto|\[?[\w.:-]+\]?:\d{1,5})$",
        description="local: a cluster started for this endpoint alone; auto: the one of RAY_ADDRESS or of this "
        "machine; HOST:PORT: the head of a cluster that this machine belongs to, whose nodes see the bundles "
        "at the same paths",
    )
    cpus_per_replica: float = Field(default=1.0, gt=0.0, le=1024.0, description="processors that a replica holds")
    start_timeout_s: float = Field(default=120.0, gt=0.0, le=3600.0, description="until the first replicas answer")
    runtime_env: dict[str, Any] = Field(
        default={}, description="Ray's runtime environment of the replicas: env_vars, pip, working_dir, ..."
    )

    def local_cpus(self, max_replicas: int) -> int:
        """Return the processors that a local cluster is told it has: the cores, or more if all replicas need more."""
        return max(len(os.sched_getaffinity(0)), math.ceil(max_replicas * self.cpus_per_replica))
