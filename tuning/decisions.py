"""What a scheduler can decide. A decision is data: it is logged before it is carried out, and replayed from the log.

| decision | meaning |
|---|---|
| Start | a new configuration, its first seed, up to a resource |
| Resume | one run goes on from its checkpoint to a larger resource |
| AddSeed | a known configuration is run on one more seed |
| Fork | a new configuration goes on from the checkpoint of another trial's run |
| Stop | a run ends where it stands, or a trial is given up (``seed`` None) |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeAlias

Configuration: TypeAlias = Mapping[str, Any]
"""Dotted parameter path -> value."""


@dataclasses.dataclass(frozen=True, slots=True)
class Start:
    """Run a new configuration on seed number ``seed`` until it has used ``until`` of the resource."""

    trial: int
    configuration: Configuration
    seed: int
    until: int
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Resume:
    """Continue the run of ``trial`` on ``seed`` from its checkpoint until ``until``.

    ``promotion`` says that training up to ``until`` anew was the alternative, so that the checkpoint saves what it
    holds; it is False where the run only paused to be looked at.
    """

    trial: int
    seed: int
    until: int
    reason: str
    promotion: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class AddSeed:
    """Run ``trial`` on one more seed until ``until``."""

    trial: int
    seed: int
    until: int
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Fork:
    """Continue ``parent``'s run on ``seed``, as it was at ``origin``, with a new configuration as ``trial``.

    The parent's run must stand at ``origin``: its checkpoint is copied when the decision is carried out, so every fork
    comes before the decision that lets the parent go on.
    """

    trial: int
    configuration: Configuration
    seed: int
    until: int
    parent: int
    origin: int
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Stop:
    """Give up one run, or with ``seed`` None the whole trial."""

    trial: int
    seed: int | None
    reason: str


Decision: TypeAlias = Start | Resume | AddSeed | Fork | Stop
