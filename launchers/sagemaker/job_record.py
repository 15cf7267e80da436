"""`JobRecord`: what DescribeTrainingJob or Search tells about a training job, and what it has cost.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeTrainingJob.html
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping
from typing import Any

from policylab.aws.request_view import View
from policylab.launchers.sagemaker.prices import PriceTable, estimate

ENDED = ("Completed", "Failed", "Stopped")
OUT_OF_TIME = ("MaxRuntimeExceeded", "MaxWaitTimeExceeded")


@dataclasses.dataclass(frozen=True, slots=True)
class JobRecord:
    """A training job.

    Attributes:
        name: of the job.
        status: InProgress, Stopping, Completed, Failed or Stopped.
        phase: the secondary status, such as Starting, Training, Interrupted or MaxRuntimeExceeded.
        reason: why it failed, in the service's words.
        tags: as far as the record holds them; Describe does not.
        created: when it was asked for; None if the record does not say.
        started: when machines began to cost.
        ended: when it ended.
        billable_s: seconds billed for each machine so far; None while the service does not tell.
        training_s: seconds of training, which spot machines may be billed less for.
        per_hour: price of all its machines for one hour, on demand.
        most: what it costs if it uses all of its time on demand.
        checkpoints: the prefix with its run folder.
    """

    name: str
    status: str
    phase: str
    reason: str | None
    tags: Mapping[str, str]
    created: datetime.datetime | None
    started: datetime.datetime | None
    ended: datetime.datetime | None
    billable_s: float | None
    training_s: float | None
    per_hour: float
    most: float
    checkpoints: str

    @classmethod
    def read(cls, response: Mapping[str, Any], *, prices: PriceTable | None = None) -> JobRecord:
        """Return the record of a response; what it lacks is empty."""
        view = View(response)
        cost = estimate(response, prices)
        return cls(
            name=view["TrainingJobName"].text,
            status=view["TrainingJobStatus"].text,
            phase=view["SecondaryStatus"].text,
            reason=view["FailureReason"].text or None,
            tags={tag["Key"].text: tag["Value"].text for tag in view["Tags"].items()},
            created=_time(view["CreationTime"]),
            started=_time(view["TrainingStartTime"]),
            ended=_time(view["TrainingEndTime"]),
            billable_s=_billable_s(view),
            training_s=view["TrainingTimeInSeconds"].number,
            per_hour=cost.per_hour,
            most=cost.most,
            checkpoints=view["CheckpointConfig"]["S3Uri"].text.rstrip("/"),
        )

    @property
    def is_over(self) -> bool:
        """Whether the status can no longer change."""
        return self.status in ENDED

    def cost(self, now: datetime.datetime) -> float:
        """Return what the job has cost so far: by what is billed, or, until the service tells, by the time it runs."""
        if self.billable_s is not None:
            return self.per_hour * self.billable_s / 3600
        if self.started is None:
            return 0.0
        return min(self.most, self.per_hour * max(0.0, ((self.ended or now) - self.started).total_seconds()) / 3600)

    @property
    def outcome(self) -> str | None:
        """Why the job has not done its work, in one sentence; None if it has, or is not over."""
        if self.status == "Failed":
            return f"training job {self.name} failed: {self.reason or 'the service gave no reason'}"
        if self.status != "Stopped":
            return None
        if self.phase in OUT_OF_TIME:
            setting = "launcher.max_runtime_s" if self.phase == OUT_OF_TIME[0] else "launcher.spot.max_wait_s"
            return f"training job {self.name} was stopped: its time is used up ({self.phase}); raise {setting}"
        return f"training job {self.name} was stopped"


def _billable_s(view: View) -> float | None:
    """Return the seconds billed, those in which a warm pool waited included."""
    billable = view["BillableTimeInSeconds"].number
    retained = view["WarmPoolStatus"]["ResourceRetainedBillableTimeInSeconds"].number
    return None if billable is None else billable + (retained or 0.0)


def _time(view: View) -> datetime.datetime | None:
    if not isinstance(view.value, datetime.datetime):
        return None
    return view.value if view.value.tzinfo else view.value.replace(tzinfo=datetime.UTC)
