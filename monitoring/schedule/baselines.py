"""Baselines of all checks of a monitor from one stretch of captured traffic."""

from __future__ import annotations

import json
from pathlib import Path

from policylab.files import write_atomic
from policylab.monitoring.outcomes import constraints as outcome_constraints
from policylab.monitoring.outcomes.measures import Measured
from policylab.monitoring.profiles.profile import Profile
from policylab.monitoring.profiles.statistics_json import statistics_document
from policylab.monitoring.quality.constraints import document, suggested


def write_data_baseline(folder: Path, profile: Profile) -> None:
    """Write what `policylab monitor check` compares with."""
    _write(folder / "statistics.json", statistics_document(profile))
    _write(folder / "constraints.json", document(suggested(profile)))
    profile.save(folder / "profile.npz")


def write_quality_baseline(folder: Path, found: Measured) -> None:
    """Write what `policylab monitor quality` compares with."""
    _write(folder / "statistics.json", outcome_constraints.statistics_document(found))
    _write(folder / "constraints.json", outcome_constraints.suggested(found).model_dump(mode="json"))


def _write(path: Path, content: object) -> None:
    write_atomic(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
