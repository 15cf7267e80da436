"""`CheckResult`: what one check of a monitor found in a window."""

from __future__ import annotations

import dataclasses
from typing import Any

from policylab.monitoring.alarms.measurement import Measurement


@dataclasses.dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found.

    Attributes:
        kind: of the check.
        status: ``passed``, ``violations``, ``no data`` or ``failed``.
        text: in words: the verdict, or why it failed.
        measurements: numbers that alarms are about.
        document: everything, as JSON.
    """

    kind: str
    status: str
    text: str
    measurements: tuple[Measurement, ...]
    document: dict[str, Any]
