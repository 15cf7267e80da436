"""`JobRecord`: the DescribeTrainingJob record of an emulated job, on disk, so that every process can read it.

Times are ISO 8601 in the file, and ``datetime`` in what `described` returns, as boto3 gives them.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policylab.files import read_json, write_atomic

ENDED = {"Completed", "Failed", "Stopped"}
TIMES = {
    "CreationTime",
    "TrainingStartTime",
    "TrainingEndTime",
    "LastModifiedTime",
    "StartTime",
    "EndTime",
    "Timestamp",
}

_NOT_DESCRIBED = {"Tags", "SessionChainingConfig"}
"""Parts of a request that the service's record leaves out."""


def now() -> str:
    """Return this moment in UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


class JobRecord:
    """The record of one job, replaced on disk at each change.

    Args:
        folder: receives ``record.json``.
        request: the CreateTrainingJob request.
        arn: the job's.
    """

    def __init__(self, folder: Path, request: Mapping[str, Any], *, arn: str) -> None:
        self._path = folder / "record.json"
        moment = now()
        self.data: dict[str, Any] = {
            **{key: value for key, value in request.items() if key not in _NOT_DESCRIBED},
            "TrainingJobArn": arn,
            "ModelArtifacts": {"S3ModelArtifacts": ""},
            "TrainingJobStatus": "InProgress",
            "SecondaryStatus": "Starting",
            "CreationTime": moment,
            "LastModifiedTime": moment,
            "SecondaryStatusTransitions": [],
        }

    def move(self, secondary: str, message: str, *, status: str | None = None, **changes: Any) -> None:
        """Enter a secondary status; ``changes`` replace other fields with it."""
        moment = now()
        transitions = self.data["SecondaryStatusTransitions"]
        if transitions and "EndTime" not in transitions[-1]:
            transitions[-1]["EndTime"] = moment
        entered = {"Status": secondary, "StartTime": moment, "StatusMessage": message}
        if status in ENDED:
            entered["EndTime"] = moment
        transitions.append(entered)
        self.data["SecondaryStatus"] = secondary
        if status:
            self.data["TrainingJobStatus"] = status
        self.data |= changes
        self.save()

    def save(self) -> None:
        """Write the record."""
        self.data["LastModifiedTime"] = now()
        write_atomic(self._path, json.dumps(self.data, indent=1) + "\n")


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record in a job's folder, with times as text.

    Raises:
        RunDirectoryError: there is none.
    """
    record: dict[str, Any] = read_json(folder / "record.json")
    return record


def described(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with its times as boto3 gives them."""
    lists = ("SecondaryStatusTransitions", "FinalMetricDataList")
    return _with_times(record) | {name: [_with_times(one) for one in record.get(name, [])] for name in lists}


def _with_times(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: datetime.datetime.fromisoformat(one) if key in TIMES else one for key, one in fields.items()}
