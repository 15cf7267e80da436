"""A run directory as trackers see it: read-only, tolerant of a run still being written.

| file | read as |
|---|---|
| run.json, config.yaml, result.json | `RunView`: identity, status, settings, aggregates |
| trials/TRIAL/ROLE-INDEX/ | one `TrialView` each: spec.json, reports.jsonl, result.json |
| report.html, figures/, bundle/ | artifacts |
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from policylab.errors import RunDirectoryError
from policylab.files import is_locked, read_lines

ARTIFACTS = ("run.json", "config.yaml", "result.json", "report.html", "figures", "bundle")
FINISHED, FAILED, KILLED, RUNNING = "FINISHED", "FAILED", "KILLED", "RUNNING"
_STATUS = {
    **dict.fromkeys(("finished", "done", "completed", "complete"), FINISHED),
    **dict.fromkeys(("failed", "error"), FAILED),
    **dict.fromkeys(("interrupted", "stopped", "killed"), KILLED),
}


@dataclasses.dataclass(frozen=True, slots=True)
class TrialView:
    """One run of one trial and seed.

    Attributes:
        folder: where it is.
        path: the same, relative to the run directory, such as ``trials/0000/tune-003``.
    """

    folder: Path
    path: str

    @property
    def role(self) -> str:
        """What its seed is for: ``tune`` or ``confirm``."""
        return self.folder.name.rpartition("-")[0]

    @property
    def index(self) -> int:
        """Which seed of that role."""
        return int(self.folder.name.rpartition("-")[2])

    def spec(self) -> dict[str, Any]:
        """Return what the run was told."""
        return read_object(self.folder / "spec.json")

    def result(self) -> dict[str, Any] | None:
        """Return its outcome, or None while it is not finished."""
        path = self.folder / "result.json"
        return read_object(path) if path.exists() else None

    def reports(self) -> list[dict[str, Any]]:
        """Return its complete report lines so far."""
        path = self.folder / "reports.jsonl"
        lines = read_lines(path)
        for number, line in enumerate(lines, start=1):
            if not (
                isinstance(line, dict) and isinstance(line.get("step"), int) and isinstance(line.get("metrics"), dict)
            ):
                raise RunDirectoryError(f"{path}:{number}: not a report (step, metrics); restore the file from a copy")
        return lines

    def stamp(self) -> tuple[tuple[int, int], ...]:
        """Return what changes whenever there is something new to upload."""
        return tuple(_stamp(self.folder / name) for name in ("reports.jsonl", "result.json"))


@dataclasses.dataclass(frozen=True, slots=True)
class RunView:
    """A run directory and its run.json."""

    folder: Path
    document: dict[str, Any]

    @property
    def run_id(self) -> str:
        """The identity under which trackers find the run again."""
        return str(self.document["run_id"])

    @property
    def name(self) -> str:
        """The experiment's name."""
        return str(self.document["name"])

    @property
    def status(self) -> str:
        """RUNNING, FINISHED, FAILED or KILLED, as what nobody is at any more: kill -9 writes nothing down."""
        told = _STATUS.get(str(self.document.get("status")).lower(), RUNNING)
        return KILLED if told == RUNNING and self._left else told

    @property
    def _left(self) -> bool:
        lock = self.folder / "run.lock"
        return lock.exists() and not is_locked(lock)

    @property
    def created_ms(self) -> int:
        """When the run was made, milliseconds since 1970 UTC."""
        text = str(self.document.get("created_utc"))
        try:
            return int(datetime.fromisoformat(text).timestamp() * 1000)
        except ValueError:
            raise RunDirectoryError(
                f"{self.folder / 'run.json'}: created_utc is not an ISO 8601 time: {text}"
            ) from None

    @property
    def environment(self) -> dict[str, Any]:
        """The resolved environment settings."""
        environment = self.document.get("environment")
        return environment if isinstance(environment, dict) else {}

    def config(self) -> dict[str, Any]:
        """Return the resolved configuration."""
        path = self.folder / "config.yaml"
        try:
            config = yaml.safe_load(path.read_text())
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise RunDirectoryError(f"{path}: cannot be read ({error}); restore it from a copy") from None
        if not isinstance(config, dict):
            raise RunDirectoryError(f"{path}: not a mapping; restore it from a copy")
        return config

    @property
    def tracked_from_jobs(self) -> bool:
        """Whether a run below it may have been made by the job that executes it."""
        launcher = self.config().get("launcher")
        return isinstance(launcher, dict) and launcher.get("kind") == "sagemaker"

    def result(self) -> dict[str, Any]:
        """Return the aggregates, empty while there are none."""
        path = self.folder / "result.json"
        return read_object(path) if path.exists() else {}

    def trials(self) -> list[TrialView]:
        """Return every run that was started, in the order of their paths."""
        specs = sorted(self.folder.glob("trials/*/*/spec.json"))
        return [TrialView(path.parent, path.parent.relative_to(self.folder).as_posix()) for path in specs]

    def artifacts(self) -> list[Path]:
        """Return the files a reader of the tracker wants beside the numbers, sorted."""
        roots = [self.folder / name for name in ARTIFACTS]
        files = [file for root in roots for file in ([root] if root.is_file() else root.rglob("*"))]
        return sorted(file for file in files if file.is_file() and not file.name.startswith("."))


def read_run(folder: Path) -> RunView:
    """Return the view of a run directory.

    Raises:
        RunDirectoryError: it has no run.json, or one without ``run_id`` and ``name``.
    """
    path = folder / "run.json"
    if not path.exists():
        raise RunDirectoryError(
            f"{folder} is not a run directory: it has no run.json; give the path that `run` printed"
        )
    document = read_object(path)
    missing = [key for key in ("run_id", "name") if not isinstance(document.get(key), str)]
    if missing:
        raise RunDirectoryError(f"{path}: no {' and no '.join(missing)}; restore it from a copy")
    return RunView(folder, document)


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file ``path``.

    Raises:
        RunDirectoryError: the file is missing, unreadable or holds something else.
    """
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{path}: cannot be read ({error}); restore it from a copy") from None
    if not isinstance(value, dict):
        raise RunDirectoryError(f"{path}: not a JSON object; restore it from a copy")
    return value


def document_hash(document: Any) -> str:
    """Return the sha256 hex digest of a JSON document that may hold NaN."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def files_hash(folder: Path, files: list[Path]) -> str:
    """Return one sha256 hex digest over names and contents of ``files`` below ``folder``."""
    digest = hashlib.sha256()
    for file in files:
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        digest.update(f"{file.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return (0, 0)
    return (stat.st_size, stat.st_mtime_ns)
