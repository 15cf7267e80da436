"""What a job is told of whoever sends it: where its run goes on after a failure, and where it is tracked."""

from __future__ import annotations

import importlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESUME, TRACKING = "POLICYLAB_RESUME_COMMAND", "POLICYLAB_TRACKING"
"""Environment variables of a job: see `policylab.launchers.sagemaker.container.settings`."""

ORDER = "policylab.experiments.tracking.from_job:order_of"
"""Tells what jobs need to track themselves; named here and imported there."""


def sender_environment(run_dir: Path) -> dict[str, str]:
    """Return the variables that the jobs of a run directory get."""
    module, _, function = ORDER.partition(":")
    order = getattr(importlib.import_module(module), function)(run_dir)
    resume = {RESUME: f"policylab resume {shlex.quote(str(run_dir))}"}
    return resume if order is None else {**resume, TRACKING: order}


def without_sender(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request without those variables: what it is wherever it is sent from.

    >>> without_sender({"Environment": {"POLICYLAB_RESUME_COMMAND": "policylab resume runs/a", "A": "1"}})
    {'Environment': {'A': '1'}}
    """
    kept = {name: value for name, value in request.get("Environment", {}).items() if name not in (RESUME, TRACKING)}
    return {**request, "Environment": kept}


def extras_to_track(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the extras that a job needs to reach the tracker it is told of.

    >>> extras_to_track({}), extras_to_track({"POLICYLAB_TRACKING": '{"uri": "arn:aws:sagemaker:x"}'})
    ((), ('sagemaker',))
    """
    order = json.loads(environment.get(TRACKING, "{}"))
    return ("sagemaker",) if str(order.get("uri")).startswith("arn:") else ()
