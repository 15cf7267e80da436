"""`EmulatedSageMaker`: the training service on this machine, by the literal requests.

It has the methods and keyword arguments of ``boto3.client("sagemaker")`` that
`policylab.launchers.sagemaker.service.TrainingService` names, and answers in their shapes; what it refuses, it refuses
by botocore's ``ClientError`` with the service's codes. Each job has a folder:

| ROOT/jobs/NAME/ | what |
|---|---|
| request.json | the request as it came |
| record.json | DescribeTrainingJob |
| emulation.json | how hosts were isolated, what that leaves unchecked, exit codes, notes |
| logs/HOST.log | what a host printed |
| metrics.jsonl | every captured value |
| tags.json, orders/ | tags, and what other processes tell the job |
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from policylab.errors import ConfigError, StorageError
from policylab.extras import require
from policylab.files import locked, read_json, read_lines, storage_errors, write_atomic
from policylab.findings import raise_errors
from policylab.launchers.sagemaker.emulator.cluster import decide
from policylab.launchers.sagemaker.emulator.hosts import hosts_of
from policylab.launchers.sagemaker.emulator.injections import check_injections
from policylab.launchers.sagemaker.emulator.job import Job
from policylab.launchers.sagemaker.emulator.leftovers import clear_leftovers, job_folders
from policylab.launchers.sagemaker.emulator.metric_log import MetricLog
from policylab.launchers.sagemaker.emulator.orders import HURRY, Orders, give_order
from policylab.launchers.sagemaker.emulator.queries import matches, page
from policylab.launchers.sagemaker.emulator.record import ENDED, JobRecord, described, read_record
from policylab.launchers.sagemaker.emulator.settings import EmulatorSettings, impossible
from policylab.launchers.sagemaker.emulator.work import Work
from policylab.launchers.sagemaker.object_store import ObjectStore
from policylab.launchers.sagemaker.preflight import OPERATION, preflight

Response = dict[str, Any]

logger = logging.getLogger(__name__)

_ACCOUNT = "000000000000"
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_POLL_S = 0.1
_LOCK_S = 60.0
"""Time in which another process that looks for leftovers lets a new job go."""


class EmulatedSageMaker:
    """Executes training jobs here. A context manager: at its end, jobs that still run are stopped.

    Args:
        root: receives a folder per job; everything is below it.
        store: what stands for S3.
        settings: how jobs are executed.

    Raises:
        UserError: hosts cannot be isolated as the settings want it.
    """

    def __init__(self, root: Path, store: ObjectStore, *, settings: EmulatorSettings | None = None) -> None:
        self.root = root.resolve()
        self.settings = settings or EmulatorSettings()
        self._store = store
        self._slots = threading.Semaphore(self.settings.parallel)
        self._threads: dict[str, threading.Thread] = {}
        self.isolated, self.isolation_reason = decide(self.settings.isolation)
        if self.settings.disk_mb is not None and not self.isolated:
            raise ConfigError(f"disk_mb needs isolated hosts, which are not possible here: {self.isolation_reason}")
        clear_leftovers(self.root)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.close(hurry=error is not None)

    def close(self, *, hurry: bool = False) -> None:
        """Stop every job of this emulator, without grace if it ``hurry``s, and wait for its end."""
        for name, thread in self._threads.items():
            if thread.is_alive():
                give_order(self._folder(name), "stop")
                if hurry:
                    give_order(self._folder(name), HURRY)
        for thread in self._threads.values():
            thread.join()

    # -- the service's operations

    def create_training_job(self, **request: Any) -> Response:
        """Check a request as the service would, and begin the job."""
        name = str(request.get("TrainingJobName", ""))
        try:
            self.check(request)
        except ConfigError as error:
            raise _refusal("ValidationException", str(error)) from None
        folder = self.root / "jobs" / name
        with storage_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                folder.mkdir()
            except FileExistsError:
                raise _refusal("ResourceInUse", f"Training job names must be unique: {name} exists already") from None
        write_atomic(folder / "request.json", json.dumps(request, indent=1) + "\n")
        write_atomic(folder / "tags.json", json.dumps(request.get("Tags", [])) + "\n")
        (folder / "logs").mkdir()
        record = JobRecord(folder, request, arn=self._arn(name))
        definitions = request["AlgorithmSpecification"].get("MetricDefinitions", [])
        work = Work(
            folder=folder,
            request=request,
            hosts=hosts_of(request),
            store=self._store,
            settings=self.settings,
            record=record,
            metrics=MetricLog(definitions, folder / "metrics.jsonl"),
            orders=Orders(folder, self.settings.injections),
            notes=[],
        )
        record.move("Starting", "Preparing the instances for training")
        thread = threading.Thread(target=self._execute, args=(work,), name=f"job {name}", daemon=True)
        self._threads[name] = thread
        thread.start()
        return {"TrainingJobArn": self._arn(name)}

    def describe_training_job(self, *, TrainingJobName: str) -> Response:
        """Return the job's record."""
        return described(read_record(self._folder(TrainingJobName)))

    def stop_training_job(self, *, TrainingJobName: str) -> Response:
        """Ask a job to stop: SIGTERM to every process 1, and SIGKILL after the grace."""
        folder = self._folder(TrainingJobName)
        status = read_record(folder)["TrainingJobStatus"]
        if status in ENDED:
            raise _refusal("ValidationException", f"The job is in state {status} and cannot be stopped")
        give_order(folder, "stop")
        return {}

    def list_training_jobs(self, **query: Any) -> Response:
        """Return summaries; NameContains, StatusEquals, SortBy, SortOrder, MaxResults and NextToken are obeyed."""
        fields = ("TrainingJobName", "TrainingJobArn", "CreationTime", "TrainingEndTime", "LastModifiedTime",
                  "TrainingJobStatus", "SecondaryStatus")  # fmt: skip
        records = [described(read_record(folder)) for folder in job_folders(self.root)]
        found = [
            {field: record[field] for field in fields if field in record}
            for record in records
            if query.get("NameContains", "") in record["TrainingJobName"]
            and query.get("StatusEquals", record["TrainingJobStatus"]) == record["TrainingJobStatus"]
        ]
        return page(found, query, key="TrainingJobSummaries", sort_by="CreationTime")

    def search(self, **query: Any) -> Response:
        """Return the jobs that match ``SearchExpression``."""
        if query.get("Resource") != "TrainingJob":
            raise _refusal("ValidationException", f"only TrainingJob is emulated, not {query.get('Resource')}")
        found = []
        for folder in job_folders(self.root):
            record = {**described(read_record(folder)), "Tags": read_json(folder / "tags.json")}
            if matches(record, query.get("SearchExpression", {})):
                found.append({"TrainingJob": record})
        return page(found, query, key="Results", sort_by="LastModifiedTime")

    def list_tags(self, *, ResourceArn: str) -> Response:
        """Return a job's tags."""
        return {"Tags": read_json(self._folder(ResourceArn.rpartition("/")[2]) / "tags.json")}

    def add_tags(self, *, ResourceArn: str, Tags: Iterable[Mapping[str, str]]) -> Response:
        """Add tags to a job; one with the same key is replaced."""
        folder = self._folder(ResourceArn.rpartition("/")[2])
        tags = {one["Key"]: one for one in (*read_json(folder / "tags.json"), *Tags)}
        write_atomic(folder / "tags.json", json.dumps([*tags.values()]) + "\n")
        return {"Tags": [*tags.values()]}

    # -- what only the emulator can do

    def check(self, request: Mapping[str, Any]) -> None:
        """Refuse what the service would refuse, and what cannot be executed here.

        Raises:
            ConfigError: every error, one per line.
        """
        raise_errors(preflight(request).findings, about=OPERATION)
        raise_errors(impossible(request, self.settings), about="emulator")
        if not _NAME.fullmatch(request["TrainingJobName"]):
            raise ConfigError(f"TrainingJobName: {request['TrainingJobName']!r} is no name; use letters, digits and -")
        names = [host.name for host in hosts_of(request)]
        spot = bool(request.get("EnableManagedSpotTraining"))
        check_injections(self.settings.injections, hosts=names, spot=spot)

    def interrupt(self, name: str) -> None:
        """Take a job's spot instances away: it starts again with the checkpoints that were uploaded.

        Raises:
            ClientError: it is unknown, has ended, or does not run on spot instances.
        """
        folder = self._folder(name)
        record = read_record(folder)
        if record["TrainingJobStatus"] in ENDED or not record.get("EnableManagedSpotTraining"):
            raise _refusal("ValidationException", f"{name} is no running spot job and cannot be interrupted")
        give_order(folder, "interrupt")

    def lose(self, name: str, host: str, *, unplugged: bool = False) -> None:
        """Take one host of a job away, or cut it off the network while its processes go on.

        Raises:
            ClientError: the job is unknown, or has no such host.
        """
        folder = self._folder(name)
        if host not in [one.name for one in hosts_of(read_json(folder / "request.json"))]:
            raise _refusal("ValidationException", f"{name} has no host {host}")
        give_order(folder, "unplug" if unplugged else "kill", host=host)

    def wait(self, name: str, *, timeout_s: float | None = None) -> Response:
        """Return the record of a job of this emulator when it has ended, or after ``timeout_s`` seconds."""
        thread = self._threads.get(name)
        if thread is not None:
            thread.join(timeout_s)
        return self.describe_training_job(TrainingJobName=name)

    def is_at_work(self, name: str) -> bool:
        """Return whether this emulator still executes a job; afterwards its record does not change."""
        thread = self._threads.get(name)
        return thread is not None and thread.is_alive()

    def log_files(self, name: str) -> dict[str, Path]:
        """Return the file with what each host of a job has printed."""
        return {path.stem: path for path in sorted((self._folder(name) / "logs").glob("*.log"))}

    def emulation(self, name: str) -> Response:
        """Return what DescribeTrainingJob has no place for: isolation, what is not checked, exit codes, notes."""
        path = self._folder(name) / "emulation.json"
        facts: Response = read_json(path) if path.exists() else {}
        return facts

    def metrics(self, name: str) -> list[Response]:
        """Return every captured value of a job, in order."""
        return read_lines(self._folder(name) / "metrics.jsonl")

    # -- inside

    def _execute(self, work: Work) -> None:
        with locked(work.folder / "lock", wait_s=_LOCK_S):
            while not self._slots.acquire(timeout=_POLL_S):
                if work.orders.stopped():
                    Job(work, hidden=self.root).run()
                    return
            try:
                Job(work, hidden=self.root).run()
            except StorageError as error:  # of the root itself: the record cannot say so
                logger.error("%s: %s", work.folder.name, error)
            finally:
                self._slots.release()

    def _folder(self, name: str) -> Path:
        folder = self.root / "jobs" / name
        if not _NAME.fullmatch(name) or not (folder / "record.json").exists():
            raise _refusal("ValidationException", f"Requested resource not found: training job {name}")
        return folder

    def _arn(self, name: str) -> str:
        return f"arn:aws:sagemaker:{self.settings.region}:{_ACCOUNT}:training-job/{name}"


def _refusal(code: str, message: str) -> Exception:
    errors = require("botocore.exceptions", extra="sagemaker")
    error: Exception = errors.ClientError({"Error": {"Code": code, "Message": message}}, "emulated")
    return error
