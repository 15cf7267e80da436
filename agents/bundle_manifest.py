"""The manifest of a policy bundle: the schema of ``manifest.json``, version `SCHEMA_VERSION`."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
from typing import Annotated

from pydantic import Field, JsonValue, NonNegativeInt

from policylab.agents.bundle_arrays import ArrayEntry
from policylab.config import Settings

SCHEMA_VERSION = 1
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class PolicyEntry(Settings):
    """Which policy, and its JSON part."""

    kind: str
    config: dict[str, JsonValue]


class EnvironmentEntry(Settings):
    """The environment the policy was trained for."""

    id: str
    version: int | None
    kwargs: dict[str, JsonValue]
    max_episode_steps: int | None
    gymnasium_version: str


class Lineage(Settings):
    """Where the policy came from.

    Attributes:
        git_commit: commit of the code that trained it; None outside a repository.
        config_hash: sha256 of the resolved experiment configuration.
        seeds: the seeds of the runs it came from.
        policylab_version: version that wrote the bundle.
        created_utc: time of writing, ISO 8601.
    """

    git_commit: str | None = None
    config_hash: str | None = None
    seeds: tuple[NonNegativeInt, ...] = ()
    policylab_version: str = Field(default_factory=functools.partial(importlib.metadata.version, "policylab"))
    created_utc: str = Field(default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))


class FileEntry(Settings):
    """Size in bytes and content hash of one file."""

    size: NonNegativeInt
    sha256: Sha256


class GoldenVector(Settings):
    """One observation with the greedy action and the action probabilities that the policy must give."""

    observation: JsonValue
    action: JsonValue
    probabilities: tuple[float, ...]


class Manifest(Settings):
    """Everything in ``manifest.json``; `policylab.agents.bundle` says what it is for."""

    schema_version: int
    policy: PolicyEntry
    observation_space: dict[str, JsonValue]
    action_space: dict[str, JsonValue]
    environment: EnvironmentEntry
    lineage: Lineage
    metrics: dict[str, JsonValue]
    arrays: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")], ArrayEntry]
    files: dict[str, FileEntry]
    golden: Annotated[tuple[GoldenVector, ...], Field(min_length=1, max_length=1024)]
    digest: Sha256
