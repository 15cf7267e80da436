"""The `ModelRegistry` protocol: a bundle becomes a version, which waits for approval."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from policylab.agents.bundle import Bundle, load_bundle
from policylab.errors import UserError

Status = Literal["pending", "approved", "rejected"]
MAX_VALUE = 256
"""Characters of one fact; SageMaker's limit."""


@dataclasses.dataclass(frozen=True, slots=True)
class Version:
    """A registered policy.

    Attributes:
        name: of the group, or registered model.
        version: counted from 1.
        status: whether it may be served.
        facts: lineage and headline numbers, see `facts_of`.
        uri: where it is addressed: an ARN, or ``models:/NAME/VERSION``.
        reason: of the decision, or None.
        created_utc: ISO 8601, or None.
    """

    name: str
    version: int
    status: Status
    facts: Mapping[str, str]
    uri: str
    reason: str | None = None
    created_utc: str | None = None


class ModelRegistry(Protocol):
    """Keeps versions of policies."""

    def register(self, bundle: Path, *, name: str) -> Version:
        """Add a bundle as a version that waits for approval; one that is there already is returned as it stands.

        Raises:
            BundleError: the bundle is damaged.
            UserError, RunError: the registry refuses or fails.
        """
        ...

    def list(self, name: str) -> list[Version]:
        """Return the versions under a name, the newest first.

        Raises:
            UserError: there is no such name.
        """
        ...

    def decide(self, name: str, version: int, *, approve: bool, reason: str | None) -> Version:
        """Approve or reject a version.

        Raises:
            UserError: there is no such version.
        """
        ...


def facts_of(bundle: Path) -> dict[str, str]:
    """Return what a registry keeps of a bundle: digest, lineage, environment and headline numbers, as short texts.

    Raises:
        BundleError: the bundle is damaged.
    """
    loaded: Bundle = load_bundle(bundle, memory=True)
    manifest = loaded.manifest
    lineage = manifest.lineage
    found = {
        "digest": loaded.digest,
        "config_hash": lineage.config_hash,
        "git_commit": lineage.git_commit,
        "seeds": " ".join(map(str, lineage.seeds)),
        "policylab_version": lineage.policylab_version,
        "trained_utc": lineage.created_utc,
        "environment": manifest.environment.id,
        "policy": manifest.policy.kind,
        **_numbers(manifest.metrics),
    }
    return {f"policylab.{name}": str(value)[:MAX_VALUE] for name, value in found.items() if value not in (None, "")}


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the selected and confirmed values with their intervals, and the gap to the optimum."""
    found: dict[str, float] = {}
    for role in ("selected", "confirmed", "run"):
        entry = metrics.get(role)
        if isinstance(entry, Mapping) and isinstance(entry.get("value"), int | float):
            found[role] = entry["value"]
            if isinstance(entry.get("ci"), list | tuple):
                found[f"{role}_low"], found[f"{role}_high"] = entry["ci"]
    exact = metrics.get("exact")
    if isinstance(exact, Mapping) and isinstance(exact.get("optimality_gap"), int | float):
        found["optimality_gap"] = exact["optimality_gap"]
    return found


def version_of(versions: list[Version], version: int, *, name: str) -> Version:
    """Return one of the versions of ``name``.

    Raises:
        UserError: there is none of this number.
    """
    for found in versions:
        if found.version == version:
            return found
    known = ", ".join(str(one.version) for one in reversed(versions)) or "none yet"
    raise UserError(f"{name} has no version {version} (it has: {known})")
