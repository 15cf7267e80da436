"""The manifest of a policy bundle: the schema of ``manifest.json``, version `SCHEMA_VERSION`."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
from typing import Annotated, Self

from pydantic import Field, JsonValue, NonNegativeInt, model_validator

from policylab.agents.bundle_arrays import ArrayEntry
from policylab.config import Settings

SCHEMA_VERSION = 4
READABLE_VERSIONS = (1, 2, 3, 4)
"""Version 1 knew no files but the arrays, no tolerance (it was 1e-9) and no log-probabilities; version 2 no trees
and no parents; version 3 no memory."""

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
        parent: digest of the bundle that it was made of; None of one that was trained.
        policylab_version: version that wrote the bundle.
        created_utc: time of writing, ISO 8601.
    """

    git_commit: str | None = None
    config_hash: str | None = None
    seeds: tuple[NonNegativeInt, ...] = ()
    parent: Sha256 | None = None
    policylab_version: str = Field(default_factory=functools.partial(importlib.metadata.version, "policylab"))
    created_utc: str = Field(default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))


class FileEntry(Settings):
    """Size in bytes and content hash of one file."""

    size: NonNegativeInt
    sha256: Sha256


class GoldenVector(Settings):
    """One observation with the deterministic action that the policy must give, and how likely it draws actions.

    Attributes:
        probabilities: of all actions, where they can be listed.
        log_probability: of ``action`` where they cannot; a density for continuous actions.
    """

    observation: JsonValue
    action: JsonValue
    probabilities: tuple[float, ...] | None = None
    log_probability: float | None = None

    @model_validator(mode="after")
    def _one_likelihood(self) -> Self:
        if (self.probabilities is None) == (self.log_probability is None):
            raise ValueError("needs either probabilities or a log_probability")
        return self


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
    tolerance: Annotated[float, Field(ge=0.0, le=1e-3)] = 1e-9
    golden: Annotated[tuple[GoldenVector, ...], Field(min_length=1, max_length=1024)]
    digest: Sha256
