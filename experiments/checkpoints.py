"""The checkpoints in a run's folder: ``checkpoints/STEPS``, complete ones alone, the newest kept."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from policylab.agents.agent import Agent
from policylab.errors import RunDirectoryError
from policylab.files import copy_folder, storage_errors, sync_folder, write_atomic


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint of the run in ``folder``; its name is the steps it was taken after."""
    return max((folder / "checkpoints").glob("[0-9]*"), default=None)


def inherit(folder: Path, source: Path, *, steps: int) -> None:
    """Give the run in ``folder`` the checkpoint and the reports that the run in ``source`` had after ``steps``.

    A run that has a checkpoint is left alone. Cut off anywhere and repeated, it does the same.

    Raises:
        RunDirectoryError: ``source`` has no such checkpoint.
    """
    if newest_checkpoint(folder) is not None:
        return
    name = f"{steps:015d}"
    if not (source / "checkpoints" / name).is_dir():
        raise RunDirectoryError(
            f"{source}: there is no checkpoint after {steps} steps, which {folder} is to go on from; "
            "restore it from a copy"
        )
    lines = (source / "reports.jsonl").read_bytes().splitlines(keepends=True)
    write_atomic(folder / "reports.jsonl", b"".join(line for line in lines if json.loads(line)["step"] <= steps))
    copy_folder(source / "checkpoints" / name, folder / "checkpoints" / name)


def save_checkpoint(agent: Agent, folder: Path, *, steps: int) -> Path:
    """Save ``agent`` as ``folder/STEPS`` so that only complete checkpoints carry such a name; drop older ones."""
    target = folder / f"{steps:015d}"
    with storage_errors(target):
        folder.mkdir(parents=True, exist_ok=True)
        held = list(folder.iterdir())
        for leftover in held:
            if leftover.name.startswith(".saving-"):
                shutil.rmtree(leftover)
        fresh = Path(tempfile.mkdtemp(dir=folder, prefix=".saving-"))
        agent.save(fresh)
        sync_folder(fresh)
        fresh.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        fresh.rename(target)
        sync_folder(folder)
        for older in held:
            if older.name[0].isdigit() and older != target:
                shutil.rmtree(older)
    return target
