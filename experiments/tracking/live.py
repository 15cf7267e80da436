"""Tracking from the trainer's side: start the follower, never fail or slow the run, collect the outcome."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import policylab
from policylab import errors
from policylab.errors import ConfigError, PolicylabError, TrackingError
from policylab.experiments.tracking.run_view import read_run
from policylab.experiments.tracking.settings import MlflowTracking, NoTracking, configured, parse, redacted
from policylab.experiments.tracking.state import SyncResult, read_state, write_state

FOLLOWER = "policylab.experiments.tracking.follow"
INTERRUPTED_WAIT_S = 10.0
SYNC_TIMEOUT_S = 24 * 3600.0


class LiveTracker:
    """Tracks one run directory while it is written; a context manager.

    Nothing it does raises because of the tracker: what goes wrong is in `warnings` and in `result`.

    Args:
        run_dir: an existing run directory.
        settings: as configured; resolved here.
        warn: called at most once for each way the tracker fails, possibly from another thread.

    Attributes:
        result: where the run is tracked; final after the context has ended.
        warnings: sentences for whoever reads the outcome.
    """

    def __init__(
        self, run_dir: Path, settings: MlflowTracking | NoTracking, *, warn: Callable[[str], None] | None = None
    ) -> None:
        self.result = SyncResult(kind=settings.kind, complete=isinstance(settings, NoTracking))
        self.warnings: list[str] = []
        self._run_dir = run_dir.absolute()
        self._settings = settings
        self._warn = warn or (lambda text: None)
        self._follower: FollowerProcess | None = None

    def __enter__(self) -> Self:
        if isinstance(self._settings, NoTracking):
            return self
        try:
            settings = resolve(self._run_dir, self._settings)
            recorded = read_state(self._run_dir)
            uri = redacted(str(settings.uri))
            keep = recorded is not None and recorded.uri == uri
            self.result = recorded if keep and recorded else SyncResult(kind=settings.kind, uri=uri)
            self.result = dataclasses.replace(self.result, complete=False, error=None)
            write_state(self._run_dir, self.result)
            self._follower = FollowerProcess(self._run_dir, settings, live=True, failed=self._failed)
        except (PolicylabError, OSError) as error:
            self._failed(str(error))
        return self

    def __exit__(self, error_type: type[BaseException] | None, *details: object) -> None:
        if self._follower is None or isinstance(self._settings, NoTracking):
            return
        timeout_s = self._settings.timeout_s
        if error_type is not None and issubclass(error_type, KeyboardInterrupt):
            timeout_s = min(timeout_s, INTERRUPTED_WAIT_S)
        self.result, _ = self._follower.finish(timeout_s)
        if self.result.error is not None:
            self._failed(self.result.error)

    def summary(self) -> dict[str, Any]:
        """Return the JSON of `result`: kind, uri, experiment_id, run_id, model_uri, complete, error, ..."""
        return self.result.summary()

    def _failed(self, text: str) -> None:
        self.result = dataclasses.replace(self.result, error=text)
        if text not in self.warnings:
            self.warnings.append(text)
            self._warn(text)


def open_tracker(
    run_dir: Path, settings: MlflowTracking | NoTracking, *, warn: Callable[[str], None] | None = None
) -> LiveTracker:
    """Return the tracker of a run, to be entered while the run is written."""
    return LiveTracker(run_dir, settings, warn=warn)


def sync_run(run_dir: Path, *, uri: str | None = None, timeout_s: float = SYNC_TIMEOUT_S) -> SyncResult:
    """Upload what a run directory holds and its tracker does not; repeating it changes nothing.

    Args:
        run_dir: the run directory, finished or not.
        uri: MLflow tracking URI to use instead of the configured one.
        timeout_s: give up after this many seconds.

    Raises:
        RunDirectoryError: it is no run directory, is damaged, or is being uploaded by another process.
        ConfigError: the run was configured without tracking and no ``uri`` is given.
        TrackingError: the tracker refused a call or cannot be reached.
    """
    run_dir = run_dir.absolute()
    run = read_run(run_dir)
    settings = configured(run_dir)
    if uri is not None:
        fields = settings.model_dump(exclude={"kind", "uri"}) if isinstance(settings, MlflowTracking) else {}
        settings = parse({"kind": "mlflow", **fields, "uri": uri}, place="the tracking given")
        settings = settings.resolved(experiment=run.name, folder=Path.cwd())
    if isinstance(settings, NoTracking):
        raise ConfigError(
            f"{run_dir} was made with tracking: {{kind: none}}; name a tracker, "
            f"e.g. `policylab sync {run_dir} --uri sqlite:///mlflow.db`"
        )
    result, kind = FollowerProcess(run_dir, resolve(run_dir, settings), live=False).finish(timeout_s)
    if result.error is not None:
        raise getattr(errors, kind or "", TrackingError)(result.error)
    return result


def resolve(run_dir: Path, settings: MlflowTracking) -> MlflowTracking:
    """Return the settings with every default filled: from tracking.json when the run was tracked before."""
    recorded = read_state(run_dir)
    path = settings.store_path
    floating = settings.uri is None or (path is not None and not path.is_absolute())
    if floating and recorded is not None and recorded.uri and "***" not in recorded.uri:
        settings = settings.model_copy(update={"uri": recorded.uri})
    return settings.resolved(experiment=read_run(run_dir).name, folder=Path.cwd())


class FollowerProcess:
    """Handle on the follower process.

    Args:
        run_dir: absolute.
        settings: resolved.
        live: push while the run is written, at the lowest priority.
        failed: called with the sentence of each new failure, from another thread.

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(
        self, run_dir: Path, settings: MlflowTracking, *, live: bool, failed: Callable[[str], None] | None = None
    ) -> None:
        self._run_dir = run_dir
        self._settings = settings
        self._failed = failed or (lambda text: None)
        self._answer: dict[str, Any] | None = None
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-m", FOLLOWER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=_working_folder(run_dir, settings),
            env=follower_environment(settings),
            process_group=0,  # Ctrl-C is for the trainer; the same session keeps `nice` effective
        )
        order = {
            "run_dir": str(run_dir),
            "settings": settings.model_dump(mode="json"),
            "parent_pid": os.getpid(),
            "live": live,
        }
        self._send(json.dumps(order))
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def finish(self, timeout_s: float) -> tuple[SyncResult, str | None]:
        """Order the last push and wait for it; return the outcome and the name of the error's class."""
        try:
            self._send("finish")
            with contextlib.suppress(OSError):
                self._stdin().close()
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            in_time = self._process.poll() is not None
            self._process.kill()
            self._process.wait()
            self._listener.join()
        if self._answer is not None:
            return SyncResult(**self._answer["state"]), self._answer["error_kind"]
        return self._lost(timeout_s, in_time=in_time), TrackingError.__name__

    def _lost(self, timeout_s: float, *, in_time: bool) -> SyncResult:
        what = f"ended with exit code {self._process.returncode}" if in_time else f"was not ready in {timeout_s:g} s"
        error = (
            f"the upload to MLflow at {redacted(str(self._settings.uri))} {what}; the run directory holds everything, "
            f"upload the rest with `policylab sync {self._run_dir}`"
        )
        state = read_state(self._run_dir) or SyncResult(kind="mlflow", uri=redacted(str(self._settings.uri)))
        state = dataclasses.replace(state, complete=False, error=error)
        with contextlib.suppress(PolicylabError):
            write_state(self._run_dir, state)
        return state

    def _stdin(self) -> Any:
        return self._process.stdin

    def _send(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended: `finish` finds out why
            self._stdin().write(line + "\n")
            self._stdin().flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as answers:
            for line in answers:
                answer = json.loads(line)
                if answer["last"]:
                    self._answer = answer
                else:
                    self._failed(answer["state"]["error"])


def _working_folder(run_dir: Path, settings: MlflowTracking) -> Path:
    """Return where MLflow puts its default artifact folder ``mlruns``: beside a SQLite store."""
    store = settings.store_path
    return store.parent if store is not None and store.parent.is_dir() else run_dir


def follower_environment(settings: MlflowTracking) -> dict[str, str]:
    """Return the follower's environment: no telemetry, no chatter, short patience with a dead server."""
    package_root = str(Path(str(policylab.__file__)).parent.parent)
    quiet = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_LOG_UV_FILES": "false",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    patience = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(max(1, int(min(10.0, settings.timeout_s / 4)))),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    }
    inherited = {"PYTHONPATH": os.pathsep.join([package_root, os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)}
    return {**os.environ, **quiet, **{k: os.environ.get(k, v) for k, v in patience.items()}, **inherited}
