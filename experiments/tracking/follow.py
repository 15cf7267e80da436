"""The process beside the training that projects one run directory: ``python -m ...tracking.follow``.

It reads one order (a JSON line) on standard input, pushes every ``flush_s`` seconds, and pushes a last time
when it reads ``finish``. It answers in JSON lines on standard output. A process, not a thread: importing
MLflow, migrating a fresh database and writing rows would otherwise hold the interpreter lock of the
training. It runs at the lowest priority, and ends at once when its parent ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import re
import select
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from policylab.errors import PolicylabError, TrackingError, UserError
from policylab.experiments.tracking.settings import MlflowTracking, redacted
from policylab.experiments.tracking.state import SyncResult, write_state
from policylab.experiments.tracking.tracker import Projection
from policylab.files import locked

if TYPE_CHECKING:
    from policylab.experiments.tracking.mlflow_adapter import MlflowTracker

LOCK = ".tracking.lock"
MAX_PAUSE_S = 60.0
MAX_REASON = 300


class Follower:
    """Pushes one run directory into MLflow, again and again, and keeps tracking.json.

    Args:
        run_dir: the run directory.
        settings: resolved.
    """

    def __init__(self, run_dir: Path, settings: MlflowTracking) -> None:
        self._run_dir = run_dir
        self._settings = settings
        self._tracker: MlflowTracker | None = None
        self._projection: Projection | None = None
        self.error_kind: str | None = None

    def push(self) -> SyncResult:
        """Push once; a failure is described in the result, never raised."""
        self.error_kind = None
        error: str | None = None
        try:
            projection = self._connected()
            projection.open()
            write_state(self._run_dir, self._state(None))
            projection.push()
        except UserError as damage:
            self.error_kind, error = type(damage).__name__, str(damage)
        except Exception as failure:  # whatever MLflow, its drivers or the disk come up with
            self.error_kind, error = TrackingError.__name__, self._sentence(failure)
        state = self._state(error)
        with contextlib.suppress(PolicylabError):  # a full disk must not hide the result
            write_state(self._run_dir, state)
        return state

    def _connected(self) -> Projection:
        if self._projection is None:
            check_reachable(self._settings)
            from policylab.experiments.tracking.mlflow_adapter import MlflowTracker

            self._tracker = MlflowTracker(self._settings)
            self._projection = Projection(self._run_dir, self._tracker)
        return self._projection

    def _state(self, error: str | None) -> SyncResult:
        tracker, projection = self._tracker, self._projection
        state = SyncResult(kind="mlflow", uri=redacted(str(self._settings.uri)), error=error)
        if tracker is None or projection is None:
            return state
        return dataclasses.replace(
            state,
            experiment_id=tracker.experiment_id,
            run_id=tracker.run_id,
            model_uri=tracker.model_uri,
            synced={path: progress.lines for path, progress in projection.progress.items()},
            complete=projection.complete and error is None,
            new_runs=projection.uploaded.runs,
            new_reports=projection.uploaded.reports,
        )

    def _sentence(self, failure: Exception) -> str:
        reason = one_line(failure)
        return (
            f"MLflow at {redacted(str(self._settings.uri))} took nothing: {reason}; the run directory holds "
            f"everything, upload it later with `policylab sync {self._run_dir}`"
        )


def check_reachable(settings: MlflowTracking) -> None:
    """Refuse what MLflow would report late or unclearly.

    Raises:
        TrackingError: a folder or a package is missing.
    """
    store = settings.store_path
    if store is not None and not store.parent.is_dir():
        raise TrackingError(f"the folder {store.parent} does not exist; create it or set tracking.uri")
    if str(settings.uri).startswith("arn:") and importlib.util.find_spec("sagemaker_mlflow") is None:
        raise TrackingError("an arn: address needs sagemaker-mlflow; pip install 'policylab[sagemaker]'")


def one_line(failure: Exception) -> str:
    """Return one line that says why, without passwords; drivers bury it in pages."""
    return redacted(_reason(failure))[:MAX_REASON].rstrip(".")


def _reason(failure: Exception) -> str:
    text = str(failure).strip() or type(failure).__name__
    network = re.search(r"\[Errno -?\d+\] ([A-Za-z ]+)|((?:Read|Connection) timed out)", text)
    if network is not None and type(failure).__name__ == "MlflowException":
        return f"it cannot be reached ({(network[1] or network[2]).strip()})"
    if isinstance(failure, ModuleNotFoundError):
        return f"{text.splitlines()[0]}; install the driver for this kind of store"
    return (
        text.splitlines()[0]
        if isinstance(failure, PolicylabError)
        else f"{type(failure).__name__}: {text.splitlines()[0]}"
    )


def main() -> None:
    """Carry out the order on standard input."""
    orders = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 - lives as long as the process
    order: dict[str, Any] = json.loads(orders.readline())
    answers = _private_stdout()
    if order["live"]:
        os.nice(19)
    finish = threading.Event()
    watch = {"parent_pid": order["parent_pid"]}
    threading.Thread(target=watch_parent, args=(orders, finish), kwargs=watch, daemon=True).start()
    run_dir, settings = Path(order["run_dir"]), MlflowTracking.model_validate(order["settings"])
    follower = Follower(run_dir, settings)
    try:
        with locked(run_dir / LOCK, wait_s=2.0):
            _follow(follower, settings.flush_s, finish=finish, answers=answers)
    except PolicylabError as error:
        failed = SyncResult(kind="mlflow", uri=redacted(str(settings.uri)), error=str(error))
        _answer(answers, failed, kind=type(error).__name__, last=True)


def _follow(follower: Follower, flush_s: float, *, finish: threading.Event, answers: IO[str]) -> None:
    pause_s, failing = flush_s, False
    while True:
        last = finish.is_set()
        state = follower.push()
        if last or (state.error is not None and not failing):
            _answer(answers, state, kind=follower.error_kind, last=last)
        if last:
            return
        failing = state.error is not None
        pause_s = min(2.0 * pause_s, max(MAX_PAUSE_S, flush_s)) if failing else flush_s
        finish.wait(pause_s)


def _answer(answers: IO[str], state: SyncResult, *, kind: str | None, last: bool) -> None:
    document = {"state": dataclasses.asdict(state), "error_kind": kind, "last": last}
    answers.write(json.dumps(document) + "\n")
    answers.flush()


def watch_parent(orders: IO[bytes], finish: threading.Event, *, parent_pid: int) -> None:
    """Pass on the order to finish; end the process when the parent is gone."""
    while os.getppid() == parent_pid:
        if finish.is_set():
            time.sleep(1.0)
        elif select.select([orders], [], [], 1.0)[0]:
            if orders.readline() != b"finish\n":
                break  # the parent's end of the pipe is closed
            with contextlib.suppress(OSError):  # only root may; nothing trains any more
                os.setpriority(os.PRIO_PROCESS, os.getpid(), 0)
            finish.set()
    os._exit(0)


def _private_stdout() -> IO[str]:
    """Keep standard output for answers; whatever libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    main()
