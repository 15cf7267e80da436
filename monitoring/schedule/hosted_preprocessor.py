"""Runs inside SageMaker's analyzer, alone: a captured request and answer of a policylab endpoint as flat columns.

They are named as `policylab monitor baseline` names them: ``observation``, or ``observation_0``, ..., and ``action``
with the ``propensity`` of the answer.

Source: SageMaker Developer Guide, "Preprocessing and Postprocessing" (``preprocess_handler``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def preprocess_handler(inference_record: Any) -> dict[str, Any]:
    """Return column -> value of one captured pair."""
    asked = json.loads(inference_record.endpoint_input.data)
    answer = json.loads(inference_record.endpoint_output.data)
    row = {"observation": asked["observation"] if isinstance(asked, dict) and "observation" in asked else asked}
    if isinstance(answer, dict):
        row.update({name: answer[name] for name in ("action", "propensity") if name in answer})
    else:
        row["action"] = answer
    return {column: item for name, value in row.items() for column, item in _flat(name, value)}


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, (dict, list)):
        yield name, value
        return
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _flat(f"{name}_{key}", item)
