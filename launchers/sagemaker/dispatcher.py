"""`Dispatcher`: has each run carried by exactly one job, within the budget, whatever calls fail or are repeated.

| the service knows the job's name | then |
|---|---|
| not | what it needs is uploaded, and the job is sent |
| and it is under way | it is followed |
| and it did the work, or its end has not been noticed in this run directory | it is followed, to its end |
| and its end was noticed, yet the work is to be done | another attempt is made under the next name |

A job of the same run that was sent with other code has another name; while it is under way it is followed, for two jobs
must never write the same checkpoints.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from pathlib import Path
from typing import Any

from policylab.errors import UserError
from policylab.files import write_atomic
from policylab.findings import raise_errors
from policylab.launchers.sagemaker.connection import Connection
from policylab.launchers.sagemaker.job_record import JobRecord
from policylab.launchers.sagemaker.ledger import Ledger
from policylab.launchers.sagemaker.outgoing import Outgoing
from policylab.launchers.sagemaker.preflight import OPERATION, preflight
from policylab.launchers.sagemaker.prices import PriceTable, estimate
from policylab.launchers.sagemaker.run_files import RunFiles
from policylab.launchers.sagemaker.service import ServiceRefusalError
from policylab.launchers.sagemaker.training_jobs import RUN, find_jobs

logger = logging.getLogger(__name__)

REQUESTS = "requests"
"""Folder of a run directory with the literal requests, as they were sent."""


class QuotaUsedUpError(Exception):
    """The account may have no further job of this kind now."""


@dataclasses.dataclass(frozen=True, slots=True)
class Placement:
    """The job that carries a run.

    Attributes:
        job: its name.
        leftover: it will not do all of the work: another job goes on when it has ended.
    """

    job: str
    leftover: bool


class Dispatcher:
    """Finds or starts the jobs of one run directory.

    Args:
        connection: where they are sent.
        ledger: of the run directory.
        folder: the run directory.
        prices: what machines cost.

    Attributes:
        reached: whether the service has ever answered.
    """

    def __init__(self, connection: Connection, ledger: Ledger, *, folder: Path, prices: PriceTable) -> None:
        self._service = connection.service
        self._store = connection.store
        self._ledger = ledger
        self._folder = folder
        self._prices = prices
        self._warned: set[str] = set()
        self._others: dict[str, str] | None = None
        self.reached = False

    def check(self, outgoing: Outgoing) -> None:
        """Refuse a request that the service would refuse; warn of what may go wrong, once.

        Raises:
            ConfigError: every error, one per line.
        """
        found = preflight(outgoing.request, prices=self._prices, cap=self._ledger.cap)
        for warning in raise_errors(found.findings, about=OPERATION):
            self._warn(str(warning))

    def can_afford(self, outgoing: Outgoing) -> bool:
        """Whether the job can be sent now without any risk of passing the cap."""
        return self._ledger.allows(self._most(outgoing))

    def settle(self, outgoing: Outgoing) -> None:
        """Take notice of the end of jobs that nobody follows, for they hold a part of the budget.

        Raises:
            RunError: the job can never be sent: too much is spent.
        """
        for name in self._ledger.open:
            record = self.record(name)
            if record is not None and record.is_over:
                self._ledger.ended(record)
        self._ledger.require(self._most(outgoing))

    def place(self, outgoing: Outgoing, files: RunFiles) -> Placement:
        """Have the run carried by a job, by one that is there already or by a new one.

        Raises:
            QuotaUsedUpError: not now.
            UserError: the service refuses.
        """
        while (record := self.record(outgoing.name)) is not None and not self._carries(record, files):
            outgoing = outgoing.again()
        is_same = record is not None
        record = record or self._other_under_way(outgoing)
        if record is None:
            files.prepare()
            outgoing.upload(self._store)
            self._create(outgoing.request)
            write_atomic(self._folder / REQUESTS / f"{outgoing.name}.json", outgoing.request_text)
        name = outgoing.name if record is None else record.name
        self._ledger.sent(name, outgoing.run, most=self._most(outgoing), found=record is not None)
        return Placement(name, leftover=record is not None and (not is_same or record.status == "Stopping"))

    def _other_under_way(self, outgoing: Outgoing) -> JobRecord | None:
        """Return a job of the same run that was sent, here or elsewhere, with other code."""
        if self._others is None:
            found = find_jobs(self._service, outgoing.run.study, prices=self._prices)
            self._others = {record.tags[RUN]: record.name for record in found if not record.is_over}
        name = self._others.get(outgoing.run.place)
        record = None if name is None else self.record(name)
        return None if record is None or record.is_over else record

    def _carries(self, record: JobRecord, files: RunFiles) -> bool:
        """Whether a job that is there already is the one to follow."""
        if not record.is_over or (record.status == "Completed" and files.pull()):
            return True
        return self._ledger.has_sent(record.name) and not self._ledger.has_ended(record.name)

    def _create(self, request: dict[str, Any]) -> None:
        try:
            self._service.create_training_job(**request)
        except ServiceRefusalError as refused:
            if refused.code == "ResourceLimitExceeded":
                _check_quota(str(refused))
                self._warn(f"a quota is used up, jobs wait for it: {refused}")
                raise QuotaUsedUpError from None
            if refused.code != "ResourceInUse":  # a call that seemed to fail did start it
                raise

    def record(self, name: str) -> JobRecord | None:
        """Return the job's record, or None if the service knows no such job."""
        try:
            response = self._service.describe_training_job(TrainingJobName=name)
        except ServiceRefusalError as refused:
            if refused.code != "ResourceNotFound":
                raise
            self.reached = True
            return None
        self.reached = True
        return JobRecord.read(response, prices=self._prices)

    def stop(self, name: str) -> None:
        """Ask a job to save and stop; nothing happens if it has ended."""
        try:
            self._service.stop_training_job(TrainingJobName=name)
        except ServiceRefusalError as refused:
            if refused.code not in ("ValidationException", "ResourceNotFound"):
                raise

    def _most(self, outgoing: Outgoing) -> float:
        return estimate(outgoing.request, self._prices).most

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            logger.warning("%s", text)


def _check_quota(message: str) -> None:
    """Refuse to wait for a quota that is too small for one job, whatever else ends.

    >>> _check_quota("... is 0 Instances, with current utilization of 0 Instances and a request delta of 1 Instances.")
    Traceback (most recent call last):
    ...
    policylab.errors.UserError: the account's quota of 0 instances is too small for a job of 1; ask AWS to raise it ...
    """
    found = re.search(r"is (\d+) Instances?,.*delta of (\d+) Instances?", message)
    if found and int(found[1]) < int(found[2]):
        raise UserError(
            f"the account's quota of {found[1]} instances is too small for a job of {found[2]}; ask AWS to raise it "
            f"(Service Quotas), or choose another instance type: {message}"
        )
