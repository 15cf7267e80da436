"""The run directory: the truth about an experiment, from which every report and tracker is a projection.

| file | content |
|---|---|
| run.json | identity and status: see `RunManifest` |
| config.yaml | the resolved configuration, valid input for `policylab run` |
| sessions.jsonl | seconds of all calls of run and resume |
| failures.jsonl | attempts that failed outside of a study, if there are any: see `policylab.experiments.failures` |
| trials/TTTT/ROLE-NNN/ | one run each: see `policylab.runspec` |
| baselines.jsonl | classical baselines of the environment: see `policylab.experiments.baselines` |
| result.json | what `policylab run --json` prints |
| bundle/, report.html, figures/, tracking.json | made from the above |
"""

from __future__ import annotations

import dataclasses
import datetime
import platform
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from policylab.config import Settings, assign, read
from policylab.envs.make import resolve
from policylab.errors import ConfigError, RunDirectoryError, StorageError, UserError
from policylab.experiments.project import with_project
from policylab.experiments.schema import ExperimentConfig, load_file, parse_experiment
from policylab.files import locked, write_atomic
from policylab.runspec import RunSpec, place_spec, read_model
from policylab.session_clock import SessionClock, elapsed_s

N_WRITERS = 16
CONFIG = "config.yaml"
SESSIONS = "sessions.jsonl"
IMPORTED = "study/sagemaker.json"
"""Where a study that was imported keeps what it was made from."""

Status = Literal["running", "finished", "interrupted", "failed"]


class RunManifest(Settings):
    """Who made a run directory, from what, on which versions."""

    schema_version: Literal[1] = 1
    name: str
    run_id: str = Field(description="the directory's original name; unique per experiment start")
    status: Status
    error: str | None = Field(default=None, description="why it failed")
    config_hash: str
    git_commit: str | None = Field(description="of the folder the command ran in; '+' marks uncommitted changes")
    host: str
    created_utc: str
    environment: dict[str, Any] = Field(description="the resolved environment")
    versions: dict[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class RunDirectory:
    """An experiment's folder."""

    path: Path

    @property
    def manifest(self) -> RunManifest:
        """Read run.json."""
        manifest: RunManifest = read_model(RunManifest, self.path / "run.json")
        return manifest

    @property
    def config(self) -> ExperimentConfig:
        """Read config.yaml.

        Raises:
            RunDirectoryError: the configuration was edited since the run was made.
        """
        config = load_file(self.path / CONFIG)
        if config.config_hash != self.manifest.config_hash:
            raise RunDirectoryError(
                f"{self.path}/{CONFIG} was changed after the run was made; run it as a new experiment instead"
            )
        return config

    def refuse_import(self) -> None:
        """Refuse what takes trained runs where the study is of SageMaker's training jobs.

        Raises:
            UserError: it is.
        """
        if (self.path / IMPORTED).exists():
            raise UserError(
                f"{self.path} was imported from SageMaker: there are no runs to go on with, report or compare; train "
                f"its best one by `policylab study best {self.path} > best.yaml`, then `policylab run best.yaml`"
            )

    def amend(self, overrides: Sequence[str]) -> None:
        """Change where runs execute, what is tracked, or anything else that the results do not depend on.

        Args:
            overrides: assignments such as ``launcher.kind=ray``; another launcher begins with its own defaults.

        Raises:
            ConfigError: a setting is wrong, or the results depend on it.
            RunDirectoryError: another process is at the run.
        """
        path = self.path / CONFIG
        with locked(self.path / "run.lock"):
            document = read(path)
            if assign(document, overrides).data["launcher"].get("kind") != document.data["launcher"]["kind"]:
                document = dataclasses.replace(document, data={**document.data, "launcher": {}})
            config = parse_experiment(with_project(document, overrides))
            if config.config_hash != self.manifest.config_hash:
                raise ConfigError(
                    f"{self.path}: the results depend on {', '.join(overrides)}; resume takes other settings of "
                    "launcher, tracking and search.storage; for all others run a new experiment"
                )
            write_atomic(path, _dumped(config))

    def set_status(self, status: Status, *, error: str | None = None) -> None:
        """Replace the status in run.json, and why the experiment failed."""
        manifest = self.manifest.model_copy(update={"status": status, "error": error})
        write_atomic(self.path / "run.json", manifest.model_dump_json(indent=1) + "\n")

    def clock(self) -> SessionClock:
        """Return the clock of a call of run or resume, which begins now."""
        return SessionClock(self.path / SESSIONS)

    def elapsed_s(self) -> float:
        """Return the seconds of all calls of run and resume; one that was killed lacks its last few."""
        return elapsed_s(self.path / SESSIONS)

    def folders(self, specs: Sequence[RunSpec]) -> list[Path]:
        """Return the `folder` of each run; the disk is waited for by many threads."""
        if len(specs) < 2:
            return [self.folder(spec) for spec in specs]
        with ThreadPoolExecutor(N_WRITERS) as writers:
            return list(writers.map(self.folder, specs))

    def folder(self, spec: RunSpec) -> Path:
        """Return the folder of one run, made with its spec.json if absent.

        A spec that stops later than the one in the folder replaces it: the run goes on from its checkpoint.

        Raises:
            RunDirectoryError: the folder holds another run.
        """
        folder = self.path / spec.path
        place_spec(folder, spec, source=CONFIG)
        return folder


def create_run(config: ExperimentConfig, *, parent: Path) -> RunDirectory:
    """Make a new run directory below ``parent``, named after the experiment, the time and the configuration.

    Raises:
        StorageError: ``parent`` cannot be written.
    """
    now = datetime.datetime.now(datetime.UTC)
    stem = f"{config.name}-{now:%Y%m%d-%H%M%S}-{config.config_hash[:8]}"
    path = _fresh(parent.absolute(), stem)
    manifest = RunManifest(
        name=config.name,
        run_id=path.name,
        status="running",
        config_hash=config.config_hash,
        git_commit=git_commit(),
        host=platform.node(),
        created_utc=now.isoformat(timespec="seconds"),
        environment=dataclasses.asdict(resolve(config.env)),
        versions=versions(),
    )
    write_atomic(path / CONFIG, _dumped(config))
    write_atomic(path / "run.json", manifest.model_dump_json(indent=1) + "\n")
    return RunDirectory(path)


def _dumped(config: ExperimentConfig) -> str:
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _fresh(parent: Path, stem: str) -> Path:
    for attempt in range(1000):
        path = parent / (f"{stem}-{attempt}" if attempt else stem)
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            continue
        except OSError as error:
            raise StorageError(f"cannot create {path}: {error.strerror}; choose another place with --out") from error
    raise StorageError(f"cannot find a free name for {parent / stem}; choose another place with --out")


def open_run(path: Path) -> RunDirectory:
    """Return the run directory at ``path``.

    Raises:
        RunDirectoryError: it is not one, or its run.json is damaged.
    """
    run = RunDirectory(path.absolute())
    if not path.is_dir():
        what = "is a file, not a run directory" if path.exists() else "no such run directory"
        raise RunDirectoryError(f"{path}: {what}; `policylab run` prints the one it makes")
    _ = run.manifest
    return run


def git_commit() -> str | None:
    """Return the commit of the current folder's repository, with '+' for uncommitted changes, or None."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
        if head.returncode:
            return None
        changes = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() + ("+" if changes.stdout.strip() else "")


def versions() -> dict[str, str]:
    """Return the versions that can change a result."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("policylab", "gymnasium", "numpy", "numba", "ray", "torch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found
