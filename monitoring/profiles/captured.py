"""Lines of captured traffic as flat rows: what Amazon SageMaker's data capture, and policylab's endpoints, write.

A captured line becomes ``observation`` and ``action`` (the input and output of the endpoint; lists become
``observation_0``, ...), with the ``propensity`` of policylab's own lines. A ground-truth line becomes ``reward``. Data
is JSON or one row of CSV; what was captured as BASE64 is refused.

Source: SageMaker Developer Guide, "Data capture" and "Ingest ground truth labels and merge them with predictions".
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from typing import Any

PARTS = {"endpointInput": "observation", "endpointOutput": "action"}
FACTS = ("propensity",)


def captured_row(line: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the row of a captured or ground-truth line; None for any other object.

    Raises:
        ValueError: the line is one of these, but damaged or encoded as BASE64.

    >>> captured_row({"groundTruthData": {"data": "1.5", "encoding": "CSV"}, "eventMetadata": {"eventId": "a"}})
    {'reward': 1.5}
    """
    try:
        if "groundTruthData" in line:
            return {"reward": _decoded(line["groundTruthData"])}
        if "captureData" not in line:
            return None
        row = {name: _decoded(line["captureData"][part]) for part, name in PARTS.items() if part in line["captureData"]}
        facts = line.get("policylab", {})
        return {**row, **{name: facts[name] for name in FACTS if name in facts}}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a captured line without {error}") from error


def captured_id(line: Mapping[str, Any]) -> str | None:
    """Return the id of a captured decision; None of any other line, and where there is none.

    >>> captured_id({"captureData": {}, "eventMetadata": {"eventId": "a"}})
    'a'
    """
    metadata = line.get("eventMetadata")
    found = metadata.get("eventId") if "captureData" in line and isinstance(metadata, Mapping) else None
    return found if isinstance(found, str) else None


def _decoded(part: Mapping[str, Any]) -> Any:
    data, encoding = part["data"], part["encoding"]
    if encoding == "JSON":
        return json.loads(data)
    if encoding == "CSV":
        rows = list(csv.reader(data.splitlines()))
        if len(rows) != 1:
            raise ValueError(f"{len(rows)} rows of CSV in one captured line")
        values = [_number(cell) for cell in rows[0]]
        return values[0] if len(values) == 1 else values
    raise ValueError(
        f"data captured as {str(encoding)[:20]}; list its content type as CSV or JSON in the capture config"
    )


def _number(cell: str) -> Any:
    try:
        return int(cell)
    except ValueError:
        pass
    try:
        value = float(cell)
    except ValueError:
        return cell
    return value if math.isfinite(value) else None
