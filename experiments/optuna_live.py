"""The Optuna view of a study kept up to date while it runs: a process beside it at the lowest priority.

A process, not a thread: importing Optuna, creating a database and writing rows would otherwise hold the interpreter
lock of the process that hands out runs. It uses at most a tenth of one core after its start, ends with its parent, and
nothing that happens to it reaches the study: what is missing then is one warning, and the view can be made again.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any, Self

import policylab
from policylab.errors import PolicylabError
from policylab.experiments.optuna_view import LOCK, OptunaView
from policylab.experiments.tracking.settings import redacted
from policylab.files import locked

FLUSH_S = 2.0
SHARE = 0.1
"""Most of one core's time that pushes may use."""

LOCK_WAIT_S = 45.0
"""A view of a killed study may take long to notice at the lowest priority on a busy machine."""

AT_LOWEST_PRIORITY = f"import os; os.nice(19); from {__name__} import main; main()"
"""The process, at that priority before it imports anything."""

TIMEOUT_S = 60.0
INTERRUPTED_WAIT_S = 5.0


class LiveView:
    """Keeps the Optuna view of one run directory while its study runs; a context manager that never raises.

    Args:
        run_dir: an existing run directory.
        storage: as configured: an Optuna URL, None for the run directory's own file, ``"none"`` for no view.

    Attributes:
        warnings: at most one sentence, once the context has ended.
    """

    def __init__(self, run_dir: Path, *, storage: str | None) -> None:
        self.warnings: list[str] = []
        self._run_dir = run_dir.absolute()
        self._wanted = storage != "none"
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        if self._wanted:
            root = str(Path(str(policylab.__file__)).parent.parent)
            path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-W", "ignore", "-c", AT_LOWEST_PRIORITY, str(self._run_dir)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                    env={**os.environ, "PYTHONPATH": path},
                    process_group=0,  # Ctrl-C is for the study
                )
            except OSError as error:
                self._failed(str(error))
        return self

    def __exit__(self, error_type: type[BaseException] | None, *details: object) -> None:
        if self._process is None:
            return
        timeout_s = TIMEOUT_S if error_type is None else INTERRUPTED_WAIT_S
        try:
            answer, _ = self._process.communicate("finish\n", timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self._failed(f"it was not ready in {timeout_s:g} s")
            return
        finally:
            self._process.kill()
            self._process.wait()
        try:
            reason = json.loads(answer)["error"]
        except (ValueError, KeyError):
            reason = f"its process ended with exit code {self._process.returncode}"
        if reason is not None:
            self._failed(reason)

    def _failed(self, reason: str) -> None:
        self.warnings.append(
            f"the Optuna view of the study is incomplete: {reason.rstrip('.')}; the run directory holds everything, "
            f"write the view again with `policylab study export {self._run_dir} --format optuna`"
        )


def main() -> None:
    """Push the run directory named by the argument until told to finish; answer with the last error."""
    answers = _private_stdout()
    folder = Path(sys.argv[1])
    try:
        with locked(folder / LOCK, wait_s=LOCK_WAIT_S):
            error = _follow(folder)
    except PolicylabError as failure:
        error = str(failure)
    answers.write(json.dumps({"error": error}) + "\n")
    answers.flush()


def _follow(folder: Path) -> str | None:
    view, pause_s, last = OptunaView(folder), 0.0, False
    while True:
        last = _told_to_finish(pause_s) or last
        started = time.monotonic()
        error = _push(view)
        if last:
            return error
        if error is not None:
            view = OptunaView(folder)
        pause_s = max(FLUSH_S, (time.monotonic() - started) / SHARE)


def _push(view: OptunaView) -> str | None:
    try:
        view.push()
    except PolicylabError as failure:
        return str(failure)
    except Exception as failure:  # whatever Optuna, SQLAlchemy or a driver come up with
        return storage_failure(failure)
    return None


def storage_failure(failure: Exception) -> str:
    """Return one line that says why an Optuna storage refused, without a password in it."""
    if isinstance(failure, ImportError) and isinstance(failure.__cause__, ImportError):
        return f"{failure.__cause__}: install the driver of that database beside policylab"
    cause: Any = failure.__cause__ if type(failure).__name__ == "StorageInternalError" else failure
    text = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    return redacted(f"{type(cause).__name__}: {text}")[:300]


def _told_to_finish(pause_s: float) -> bool:
    """Wait; return whether the parent said to finish, and end the process if the parent is gone."""
    if not select.select([sys.stdin], [], [], pause_s)[0]:
        return False
    if sys.stdin.readline() != "finish\n":
        os._exit(0)
    with contextlib.suppress(OSError):  # only root may; nothing trains any more
        os.setpriority(os.PRIO_PROCESS, os.getpid(), 0)
    return True


def _private_stdout() -> IO[str]:
    """Keep standard output for the answer; whatever libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers
