"""`RayJobs`: experiments as jobs on a Ray cluster elsewhere, through its job server.

A job is ``policylab run`` on the cluster, with the Ray launcher at address auto. The experiment travels as a file, and
this machine's policylab beside it unless the cluster's own is to be used.

Source: Ray 2.60, https://docs.ray.io/en/latest/cluster/running-applications/job-submission/sdk.html
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.util
import logging
import os
import shlex
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from policylab.errors import RunError, UserError
from policylab.extras import require

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
CONNECT_S = 5.0
FOLLOW_S = 1.0
START_S = 60.0
STOP_S = 60
"""Time that a stopped job gets to save its runs; Ray's own is three seconds."""

TALKATIVE = ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging")

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """A submitted experiment.

    Attributes:
        id: the submission id.
        status: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        experiment: its name; None for a job that policylab did not submit.
        message: Ray's words about the status.
        started_utc: ISO 8601, or None.
        ended_utc: ISO 8601, or None.
    """

    id: str
    status: str
    experiment: str | None
    message: str | None
    started_utc: str | None
    ended_utc: str | None

    @property
    def ended(self) -> bool:
        """Whether the status can no longer change."""
        return self.status in ENDED


class RayJobs:
    """The jobs of one cluster.

    Args:
        address: of the cluster's job server, such as ``http://HOST:8265``; default: RAY_API_SERVER_ADDRESS, or this
            machine's.

    Raises:
        MissingExtraError: the extra `ray` is not installed.
        UserError: nothing answers there, or something else does.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = (address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS).rstrip("/")
        _check_answers(self.address)
        submission = require("ray.job_submission", extra="ray")
        for name in TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        with self._errors(), _without("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):  # Ray prefers them to the argument
            self._client = submission.JobSubmissionClient(self.address)

    def submit(self, experiment: str, *, name: str, out: str, ship: bool, extra_files: Sequence[Path] = ()) -> str:
        """Submit an experiment; return the job's id.

        Args:
            experiment: the experiment file's text; its launcher is one for the cluster.
            name: the experiment's name.
            out: folder on the cluster that receives the run directory.
            ship: send this machine's policylab along instead of using the cluster's.
            extra_files: files and folders to put beside it, such as modules with environments.

        Raises:
            UserError: a file is missing, or the cluster refuses.
        """
        command = f"exec python -m policylab run experiment.yaml --out {_shell_path(out)}"
        with tempfile.TemporaryDirectory(prefix="policylab-job-") as folder, self._errors():
            staged = Path(folder)
            (staged / "experiment.yaml").write_text(experiment)
            if ship:
                _copy(_package(), staged / "policylab")
            for path in extra_files:
                _copy(path.resolve(), staged / path.resolve().name)
            return self._submitted(
                entrypoint=command,
                runtime_env={"working_dir": folder, "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S)}},
                metadata={"policylab_experiment": name},
            )

    def _submitted(self, **job: Any) -> str:
        """Submit; a head that has only just started answers before it can take jobs."""
        deadline = time.monotonic() + START_S
        while True:
            try:
                found: str = self._client.submit_job(**job)
            except RuntimeError as error:
                if "No available agent" not in str(error) or time.monotonic() >= deadline:
                    raise
                time.sleep(FOLLOW_S)
            else:
                return found

    def list(self) -> list[Job]:
        """Return every job of the cluster, the newest first."""
        with self._errors():
            found = [_job(details) for details in self._client.list_jobs() if details.submission_id]
        return sorted(found, key=lambda job: job.started_utc or "", reverse=True)

    def show(self, job: str) -> Job:
        """Return how a job stands."""
        with self._errors(job):
            return _job(self._client.get_job_info(job))

    def logs(self, job: str) -> str:
        """Return what a job has printed so far."""
        with self._errors(job):
            text: str = self._client.get_job_logs(job)
        return text

    def follow(self, job: str) -> Iterator[str]:
        """Yield what a job prints, until it ends.

        The whole log is asked for again and again: Ray's own stream ends silently when a connection breaks
        (ray-project/ray#57002).
        """
        shown = 0
        while True:
            ended = self.show(job).ended
            text = self.logs(job)
            if len(text) > shown:
                yield text[shown:]
                shown = len(text)
            if ended:
                return
            time.sleep(FOLLOW_S)

    def stop(self, job: str) -> bool:
        """Ask a job to save its runs and stop; return False if it had ended already."""
        with self._errors(job):
            return bool(self._client.stop_job(job)) and not self.show(job).ended

    @contextlib.contextmanager
    def _errors(self, job: str | None = None) -> Iterator[None]:
        """Turn what the client raises into one sentence."""
        try:
            yield
        except (UserError, RunError):
            raise
        except Exception as error:  # requests, aiohttp and Ray raise their own kinds
            text = str(error).strip()
            if job is not None and "404" in text:
                raise UserError(f"{self.address} knows no job '{job}'; see `policylab jobs list`") from None
            if "401" in text or "403" in text or "uthenti" in text:
                remedy = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the cluster's token"
                raise UserError(f"{self.address} refuses this caller; {remedy}") from None
            raise RunError(f"{self.address}: {text.partition(chr(10))[0] or type(error).__name__}") from error


def _check_answers(address: str) -> None:
    parts = urlsplit(address)
    try:
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("not a URL such as http://HOST:8265")
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        socket.create_connection((parts.hostname, port), timeout=CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"no Ray job server at {address} ({error}); is the cluster's head up (`ray start --head` with "
            "policylab[ray] installed there), and is this the address of its dashboard?"
        ) from None


@contextlib.contextmanager
def _without(*names: str) -> Iterator[None]:
    held = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(held)


def _package() -> Path:
    """Return the folder of this machine's policylab."""
    spec = importlib.util.find_spec("policylab")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".git"))
    elif source.exists():
        shutil.copy2(source, target)
    else:
        raise UserError(f"--include {source}: no such file or folder")


def _shell_path(path: str) -> str:
    """Quote a path for the cluster's shell, leaving ``~`` to it."""
    return "~/" + shlex.quote(path[2:]) if path.startswith("~/") else shlex.quote(path)


def _job(details: Any) -> Job:
    metadata: Mapping[str, str] = details.metadata or {}
    return Job(
        id=details.submission_id,
        status=str(getattr(details.status, "value", details.status)),
        experiment=metadata.get("policylab_experiment"),
        message=details.message,
        started_utc=_utc(details.start_time),
        ended_utc=_utc(details.end_time),
    )


def _utc(milliseconds: int | None) -> str | None:
    if not milliseconds:
        return None
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC).isoformat(timespec="seconds")
