"""Tracking from inside a job: the process beside a run whose run directory is elsewhere, as with SageMaker's jobs.

The command that follows the jobs makes the parent run and, for a search, its configurations, and adds the results. A
job adds the report lines of its own run as they come, whether or not that command still follows. Each finds what the
other has made by the same tags, and both write the same rows (see `policylab.experiments.tracking.mlflow_adapter`);
where both create a run at the same moment, the command's stays and the job goes on with it. So nothing is there twice.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from policylab.config import Settings
from policylab.errors import TrackingError, UserError
from policylab.experiments.tracking.follow import check_reachable, one_line, watch_parent
from policylab.experiments.tracking.live import follower_environment, resolve
from policylab.experiments.tracking.run_view import TrialView, read_run
from policylab.experiments.tracking.settings import MlflowTracking, configured, redacted

if TYPE_CHECKING:
    from mlflow.entities import Run

MODULE = "policylab.experiments.tracking.from_job"
REMOTE = ("http://", "https://", "arn:")
MAX_PAUSE_S = 60.0

logger = logging.getLogger(__name__)


class JobTracking(Settings):
    """What a job is told of the tracker, in an environment variable."""

    uri: str
    experiment: str
    run_id: str = Field(description="identity of the run directory that the job's run belongs to")
    created_ms: int = Field(description="when that was made: the times of report lines follow from it")
    search: bool = Field(default=False, description="runs lie below their configuration's")
    metric: str | None = Field(default=None, description="the only one kept of a search's tuning runs")
    flush_s: float = 5.0


def order_of(run_dir: Path) -> str | None:
    """Return what the jobs of a run directory are told, as JSON; None where they do not track.

    A database file of this machine is no tracker for them, and a password in the address would be readable for
    everybody who may look at a job.
    """
    if not (run_dir / "config.yaml").exists():
        return None
    settings = configured(run_dir)
    if not isinstance(settings, MlflowTracking):
        return None
    settings = resolve(run_dir, settings)
    uri = str(settings.uri)
    if not uri.startswith(REMOTE):
        return None
    if redacted(uri) != uri:
        logger.warning(
            "tracking.uri holds a password, which everyone who may look at a job would read: jobs do not track "
            "themselves, the command that follows them does; a server that trusts their network or role needs none"
        )
        return None
    run = read_run(run_dir)
    search = run.config().get("search")
    order = JobTracking(
        uri=uri,
        experiment=str(settings.experiment),
        run_id=run.run_id,
        created_ms=run.created_ms,
        search=isinstance(search, dict),
        metric=search.get("metric") if isinstance(search, dict) else None,
        flush_s=settings.flush_s,
    )
    return order.model_dump_json(exclude_defaults=True)


class JobFollower:
    """The process that tracks a job's run; it can fail, but never fails the run.

    Args:
        order: `JobTracking` as JSON.
        folder: the run's.
        path: the same below the run directory, such as ``trials/0000/tune-003``.

    Raises:
        UserError: the order is none.
    """

    def __init__(self, order: str, folder: Path, *, path: str) -> None:
        try:
            tracking = JobTracking.model_validate_json(order)
        except ValueError as error:
            raise UserError(f"POLICYLAB_TRACKING: no order of policylab's: {one_line(error)}") from None
        told = {"order": order, "folder": str(folder), "path": path, "parent_pid": os.getpid()}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-m", MODULE],
            stdin=subprocess.PIPE,
            text=True,
            env=follower_environment(MlflowTracking(uri=tracking.uri)),
            process_group=0,
        )
        self._send(json.dumps(told))

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def finish(self, timeout_s: float) -> None:
        """Let it upload what is left; end it after ``timeout_s``."""
        self._send("finish")
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            sys.stderr.write(f"tracking: not ready in {timeout_s:g} s; the job's checkpoints hold everything\n")
        finally:
            self._process.kill()
            self._process.wait()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended and said why


class JobTracker:
    """One run in MLflow, below the run of its run directory.

    Args:
        order: of the sender.
        folder: the run's.
        path: the same below the run directory.
    """

    def __init__(self, order: JobTracking, folder: Path, *, path: str) -> None:
        from policylab.experiments.tracking.mlflow_runs import client_of  # MLflow is slow to import

        self._order = order
        self._trial = TrialView(folder, path)
        self._client = client_of(order.uri)
        self._run_id: str | None = None
        self._n_lines = 0

    def push(self) -> None:
        """Add the report lines that are new.

        Raises:
            TrackingError: the run directory's own run is not there yet.
        """
        self._with_run(self._push)

    def _with_run(self, action: Callable[[], None]) -> None:
        """Carry out what needs the run; a second time with the one that is there, if the command has deleted ours."""
        was_attached = self._run_id is not None
        try:
            self._run_id = self._run_id or self._attached()
            action()
        except Exception:  # whatever MLflow and its drivers come up with
            if not was_attached:
                raise
            self._run_id = self._attached()
            action()

    def _push(self) -> None:
        from policylab.experiments.tracking.mlflow_runs import report_metrics, write

        reports = self._trial.reports()
        only = self._order.metric if self._order.search and self._trial.role == "tune" else None
        metrics = [
            metric
            for number, report in enumerate(reports[self._n_lines :], start=self._n_lines)
            for metric in report_metrics(report, number, created_ms=self._order.created_ms, only=only)
        ]
        if metrics:
            write(self._client, str(self._run_id), metrics=metrics, tags={"policylab.lines": str(len(reports))})
        self._n_lines = len(reports)

    def end(self) -> None:
        """Say that the run has ended, or that its job has without it; results are the sender's to add."""
        status = "FINISHED" if (self._trial.folder / "result.json").exists() else "KILLED"
        self._with_run(lambda: self._client.set_terminated(str(self._run_id), status))

    def _attached(self) -> str:
        """Find or create the run, say which job carries it on, and return its id."""
        from policylab.experiments.tracking.mlflow_runs import write

        experiment = self._client.get_experiment_by_name(self._order.experiment)
        if experiment is None:
            raise TrackingError(f"there is no experiment '{self._order.experiment}' yet")
        place = {"experiment_id": str(experiment.experiment_id)}
        above = self._found(place, {"policylab.run_id": self._order.run_id})
        study = {"policylab.study": above.info.run_id} if self._order.search else {}
        if self._order.search:
            above = self._found(place, {**study, "policylab.path": self._trial.path.rpartition("/")[0]})
        run = self._own(place, above, study=study)
        if job := os.environ.get("TRAINING_JOB_NAME"):
            write(self._client, run.info.run_id, tags={"policylab.job": job})
        if run.info.status != "RUNNING":
            self._client.update_run(run.info.run_id, status="RUNNING")
        self._n_lines = int(run.data.tags.get("policylab.lines", 0))
        return str(run.info.run_id)

    def _found(self, place: dict[str, str], tags: dict[str, str]) -> Run:
        from policylab.experiments.tracking.mlflow_runs import find_run

        found = find_run(self._client, tags, **place)
        if found is None:
            raise TrackingError(
                f"the run of {self._order.run_id} is not there yet; the command that sent the job makes it"
            )
        return found

    def _own(self, place: dict[str, str], above: Run, *, study: dict[str, str]) -> Run:
        from policylab.experiments.tracking.mlflow_runs import MADE_BY, found_or_created

        spec = self._trial.spec()
        return found_or_created(
            self._client,
            self._trial.folder.name if study else self._trial.path.removeprefix("trials/"),
            found_by={"policylab.path": self._trial.path, "mlflow.parentRunId": above.info.run_id},
            tags={
                **study,
                "rl.role": self._trial.role,
                "rl.seed": str(spec.get("seed")),
                "policylab.trial": str(spec.get("trial")),
                MADE_BY: "job",
            },
            started_ms=self._order.created_ms,
            **place,
        )


def main() -> None:
    """Carry out the order on standard input; see `JobFollower`."""
    orders = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 - lives as long as the process
    told: dict[str, Any] = json.loads(orders.readline())
    os.nice(19)
    order = JobTracking.model_validate_json(told["order"])
    finish = threading.Event()
    watch = {"parent_pid": told["parent_pid"]}
    threading.Thread(target=watch_parent, args=(orders, finish), kwargs=watch, daemon=True).start()
    _follow(order, Path(told["folder"]), path=told["path"], finish=finish)


def _follow(order: JobTracking, folder: Path, *, path: str, finish: threading.Event) -> None:
    tracker: JobTracker | None = None
    pause_s, failure = order.flush_s, ""
    while True:
        last = finish.is_set()
        try:
            check_reachable(MlflowTracking(uri=order.uri))
            tracker = tracker or JobTracker(order, folder, path=path)
            tracker.push()
            if last:
                tracker.end()
            pause_s, failure = order.flush_s, ""
        except Exception as error:  # whatever MLflow and its drivers come up with
            pause_s = min(2.0 * pause_s, MAX_PAUSE_S)
            if one_line(error) != failure:
                failure = one_line(error)
                sys.stderr.write(
                    f"tracking: MLflow at {redacted(order.uri)} took nothing: {failure}; the run goes on\n"
                )
                sys.stderr.flush()
        if last:
            return
        finish.wait(pause_s)


if __name__ == "__main__":
    main()
