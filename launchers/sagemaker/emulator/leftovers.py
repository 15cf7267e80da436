"""What an emulator that was killed leaves in its root, and how it is cleared away.

Isolated hosts die with the emulator, by the kernel, and their mounts, networks and namespaces with them; plain
processes die too, but what they had started themselves is found by its environment. Files of the hosts remain in both
cases, and a record that says InProgress.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from policylab.errors import RunDirectoryError
from policylab.files import locked, write_atomic
from policylab.launchers.sagemaker.emulator.record import ENDED, now, read_record
from policylab.launchers.sagemaker.pod.marked import kill_marked, marked

_REASON = "InternalServerError: the emulator ended before the job did"


def job_folders(root: Path) -> list[Path]:
    """Return the folders of all jobs below an emulator's root, in the order in which they were created."""
    folders = [path.parent for path in (root / "jobs").glob("*/record.json")]
    return sorted(folders, key=lambda folder: (read_record(folder)["CreationTime"], folder.name))


def clear_leftovers(root: Path) -> list[str]:
    """End what is left of jobs whose emulator is gone; return their names. Jobs of a living emulator are left alone."""
    cleared = []
    for folder in _abandoned(root):
        kill_marked(folder)
        shutil.rmtree(folder / "hosts", ignore_errors=True)
        record = read_record(folder)
        if record["TrainingJobStatus"] not in ENDED:
            record |= {
                "TrainingJobStatus": "Failed",
                "SecondaryStatus": "Failed",
                "FailureReason": _REASON,
                "LastModifiedTime": now(),
            }
            write_atomic(folder / "record.json", json.dumps(record, indent=1) + "\n")
        cleared.append(folder.name)
    return cleared


def _abandoned(root: Path) -> Iterator[Path]:
    """Yield the folders of jobs that did not end properly and that nobody works on, locked meanwhile."""
    strays = set(marked(root).values())
    for folder in job_folders(root):
        ended = read_record(folder)["TrainingJobStatus"] in ENDED
        if ended and not any(tree.is_relative_to(folder) for tree in strays):
            continue
        try:
            with locked(folder / "lock"):
                yield folder
        except RunDirectoryError:  # a living emulator's
            continue


def forget(root: Path, name: str) -> None:
    """Remove a job that has ended, with its record and logs.

    Raises:
        RunDirectoryError: it still runs.
    """
    folder = root / "jobs" / name
    with locked(folder / "lock"):
        shutil.rmtree(folder)
