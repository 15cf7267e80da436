"""`TrainingJobs`: jobs of policylab found by their tags from any machine, followed, stopped and accounted for.

Nothing here needs the run directory that sent them. Search lags a few seconds behind what was sent.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import random
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

from policylab.errors import UserError
from policylab.launchers.sagemaker.connection import FIRST_LOOK_S, LONGEST_PAUSE_S
from policylab.launchers.sagemaker.job_record import JobRecord
from policylab.launchers.sagemaker.object_store import NoSuchObjectError, ObjectStore
from policylab.launchers.sagemaker.prices import PriceTable, price_table
from policylab.launchers.sagemaker.run_files import REPORTS
from policylab.launchers.sagemaker.service import ServiceRefusalError, TrainingService, patiently

STUDY, RUN, STOP_AT = "policylab:study", "policylab:run", "policylab:stop-at-steps"
LOG_GROUP = "/aws/sagemaker/TrainingJobs"
PAGE = 100


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """News of a job that is followed.

    Attributes:
        record: the job now.
        steps: environment steps reported; 0 before the first report.
        value: of the last report, or None.
    """

    record: JobRecord
    steps: int = 0
    value: float | None = None

    @property
    def news(self) -> tuple[Any, ...]:
        """What is worth telling when it changes."""
        return self.record.status, self.record.phase, self.steps, self.value


class TrainingJobs:
    """The training jobs of one account and region that carry policylab's tags.

    Args:
        service: SageMaker.
        store: where their runs lie.
        logs: ``boto3.client("logs")``.
        prices: what machines cost.
    """

    def __init__(
        self, service: TrainingService, store: ObjectStore, *, logs: Any, prices: PriceTable | None = None
    ) -> None:
        self._service = service
        self._store = store
        self._logs = logs
        self._prices = prices

    def search(self, study: str | None = None) -> list[JobRecord]:
        """Return the jobs of a study, or all of policylab, the newest first."""
        return find_jobs(self._service, study, prices=self._prices)

    def show(self, job: str) -> JobRecord:
        """Return a job with its tags.

        Raises:
            UserError: there is no such job.
        """
        response = self._described(job)
        if response is None:
            raise UserError(f"there is no training job '{job}' in this region; see `policylab jobs list`")
        tags = self._service.list_tags(ResourceArn=response["TrainingJobArn"])["Tags"]
        return JobRecord.read({**response, "Tags": tags}, prices=self._prices)

    def _described(self, job: str) -> dict[str, Any] | None:
        try:
            return self._service.describe_training_job(TrainingJobName=job)
        except ServiceRefusalError as refused:
            if refused.code == "ResourceNotFound":
                return None
            raise

    def find(self, name: str) -> list[JobRecord]:
        """Return the job, or the jobs of the study, of this name.

        Raises:
            UserError: there is neither.
        """
        found = self.search(name)
        if found or self._described(name) is not None:
            return found or [self.show(name)]
        raise UserError(
            f"there is neither a study nor a training job '{name}' in this region; see `policylab jobs list`"
        )

    def stop(self, name: str) -> list[str]:
        """Ask the job, or every job of the study, to save and stop; return those that were under way."""
        stopping = []
        for record in self.find(name):
            if record.is_over:
                continue
            try:
                self._service.stop_training_job(TrainingJobName=record.name)
            except ServiceRefusalError as refused:
                if refused.code != "ValidationException":  # it has ended meanwhile
                    raise
            else:
                stopping.append(record.name)
        return stopping

    def follow(self, name: str) -> Iterator[Change]:
        """Yield news of the job, or of the study's jobs, until all of them have ended."""
        pause_s, told = FIRST_LOOK_S, dict[str, Any]()
        running = self.find(name)
        while True:
            changes = [self._look(record) for record in running]
            news = [change for change in changes if told.get(change.record.name) != change.news]
            for change in news:
                told[change.record.name] = change.news
                yield change
            running = [change.record for change in changes if not change.record.is_over]
            if not running:
                return
            pause_s = FIRST_LOOK_S if news else min(1.5 * pause_s, LONGEST_PAUSE_S)
            time.sleep(pause_s * (0.75 + 0.5 * random.SystemRandom().random()))

    def _look(self, known: JobRecord) -> Change:
        """Return how a job stands now, and its last report."""
        response = self._described(known.name) or {}
        record = dataclasses.replace(JobRecord.read(response, prices=self._prices), name=known.name, tags=known.tags)
        row = self._last_report(record)
        if row is None:
            return Change(record)
        metrics = row["metrics"]
        return Change(record, row["step"], metrics.get("eval/return_mean", metrics.get("train/return_mean")))

    def _last_report(self, record: JobRecord) -> dict[str, Any] | None:
        try:
            lines = self._store.get_bytes(f"{record.checkpoints}/{REPORTS}").split(b"\n")[:-1]
        except (NoSuchObjectError, UserError):
            return None
        row = json.loads(lines[-1]) if lines else None
        return row if isinstance(row, dict) else None

    def logs(self, job: str) -> Iterator[str]:
        """Yield the lines that a job has printed so far, host by host; ``HOST: LINE`` if it has several."""
        self.show(job)
        streams = self._streams(job)
        for stream in streams:
            host = re.sub(r".*/|-\d+$", "", stream) if len(streams) > 1 else ""  # JOB/algo-1-TIME
            for line in self._lines(stream):
                yield f"{host}: {line}" if host else line

    def _streams(self, job: str) -> list[str]:
        query = {"logGroupName": LOG_GROUP, "logStreamNamePrefix": f"{job}/"}
        found: list[str] = []
        while True:
            try:
                page = patiently(self._logs.describe_log_streams, **query)
            except ServiceRefusalError as refused:
                if refused.code == "ResourceNotFound":  # no job of the account has printed anything yet
                    return []
                raise
            found += [stream["logStreamName"] for stream in page["logStreams"]]
            if not page.get("nextToken"):
                return found
            query["nextToken"] = page["nextToken"]

    def _lines(self, stream: str) -> Iterator[str]:
        query: dict[str, Any] = {"logGroupName": LOG_GROUP, "logStreamName": stream, "startFromHead": True}
        while True:
            page = patiently(self._logs.get_log_events, **query)
            yield from (event["message"] for event in page["events"])
            if page["nextForwardToken"] == query.get("nextToken"):
                return
            query["nextToken"] = page["nextForwardToken"]

    def cost(self, name: str) -> dict[str, Any]:
        """Return what the job, or the study, has cost so far and at most will.

        Returns:
            study, currency, basis, so_far, at_most (if every job under way takes all of its time), jobs, steps,
            per_million_steps, spot_saving, trials: a list of {trial, jobs, so_far, steps, per_million_steps}.
        """
        records = self.find(name)
        now = datetime.datetime.now(datetime.UTC)
        table = self._prices or price_table()
        trials: dict[str, list[JobRecord]] = {}
        for record in records:
            trials.setdefault(record.tags.get(RUN, "").partition("-")[0], []).append(record)
        rows = [
            {"trial": int(trial) if trial.isdigit() else None, **self._account(trials[trial], now)}
            for trial in sorted(trials)
        ]
        return {
            "study": records[0].tags.get(STUDY),
            "currency": table.currency,
            "basis": f"{table.region} {table.as_of}",
            **self._account(records, now),
            "at_most": sum(one.cost(now) if one.is_over else one.most for one in records),
            "spot_saving": _spot_saving(records),
            "trials": rows,
        }

    def _account(self, records: Sequence[JobRecord], now: datetime.datetime) -> dict[str, Any]:
        so_far = sum(record.cost(now) for record in records)
        runs = {record.checkpoints: record for record in records}
        reports = [self._last_report(record) for record in runs.values()]
        steps = sum(row["step"] for row in reports if row is not None)
        per_million = 1e6 * so_far / steps if steps else None
        return {"jobs": len(records), "so_far": so_far, "steps": steps, "per_million_steps": per_million}


def find_jobs(
    service: TrainingService, study: str | None = None, *, prices: PriceTable | None = None
) -> list[JobRecord]:
    """Return the jobs of a study, or all of policylab, the newest first; Search lags a few seconds behind."""
    chosen: dict[str, str] = {"Name": f"Tags.{STUDY}", "Operator": "Exists"}
    if study is not None:
        chosen |= {"Operator": "Equals", "Value": study}
    query: dict[str, Any] = {
        "Resource": "TrainingJob",
        "SearchExpression": {"Filters": [chosen]},
        "SortBy": "CreationTime",
        "SortOrder": "Descending",
        "MaxResults": PAGE,
    }
    found: list[JobRecord] = []
    while True:
        page = service.search(**query)
        records = (JobRecord.read(one["TrainingJob"], prices=prices) for one in page["Results"])
        found += [record for record in records if STUDY in record.tags]
        if not page.get("NextToken"):
            return sorted(found, key=lambda record: record.created or _EPOCH, reverse=True)
        query["NextToken"] = page["NextToken"]


_EPOCH = datetime.datetime.fromtimestamp(0, datetime.UTC)


def _spot_saving(records: Sequence[JobRecord]) -> float | None:
    """Return the share of the training time that was not billed, or None if nothing is known of it."""
    known = [(one.training_s, one.billable_s) for one in records if one.training_s and one.billable_s is not None]
    trained = sum(training for training, _ in known)
    return 1.0 - sum(billed for _, billed in known) / trained if trained else None
