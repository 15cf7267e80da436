"""`Ledger`: the jobs of one run directory and what they cost, in its file ``jobs.jsonl``.

| event | fields |
|---|---|
| sent | job, run, stop_at_steps, most_usd, found (it was there already), utc |
| ended | job, status, phase, reason, billable_s, cost_usd, utc |

Every line is written once the service has answered, so the file may lack the last job of a process that was killed; the
job is found by its name when the run is submitted again.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from policylab.errors import RunDirectoryError, RunError
from policylab.files import append_line, drop_torn_tail, read_lines
from policylab.launchers.sagemaker.job_record import JobRecord
from policylab.launchers.sagemaker.training_request import TrainingRun

FILE = "jobs.jsonl"


class Ledger:
    """What was sent, how it ended, what it has cost and may still cost.

    Args:
        folder: the run directory.
        cap: most that all jobs together may cost; None is no limit.

    Attributes:
        cap: the same.

    Raises:
        RunDirectoryError: the file was damaged.
    """

    def __init__(self, folder: Path, *, cap: float | None = None) -> None:
        self._path = folder / FILE
        self.cap = cap
        self._sent: dict[str, dict[str, Any]] = {}
        self._ended: dict[str, dict[str, Any]] = {}
        drop_torn_tail(self._path)
        try:
            for line in read_lines(self._path):
                held, needed = (self._sent, "most_usd") if line["event"] == "sent" else (self._ended, "cost_usd")
                held[line["job"]] = {**line, needed: float(line[needed])}
        except (KeyError, TypeError, ValueError):
            raise RunDirectoryError(f"{self._path}: not the ledger that policylab wrote; restore it") from None

    def has_sent(self, job: str) -> bool:
        """Whether the job is one of this run directory."""
        return job in self._sent

    def has_ended(self, job: str) -> bool:
        """Whether the job's end was taken notice of here."""
        return job in self._ended

    @property
    def open(self) -> list[str]:
        """The jobs whose end was not noticed yet."""
        return [job for job in self._sent if job not in self._ended]

    def sent(self, job: str, run: TrainingRun, *, most: float, found: bool) -> None:
        """Write down a job that the service has."""
        if job not in self._sent:
            line = {"job": job, "run": run.place, "stop_at_steps": run.stop_at_steps}
            self._sent[job] = self._append("sent", {**line, "most_usd": round(most, 6), "found": found})

    def ended(self, record: JobRecord) -> None:
        """Write down how a job ended."""
        if record.name not in self._ended:
            line = {
                "job": record.name,
                "status": record.status,
                "phase": record.phase,
                "reason": record.reason,
                "billable_s": record.billable_s,
                "cost_usd": round(record.cost(_now()), 6),
            }
            self._ended[record.name] = self._append("ended", line)

    def _append(self, event: str, line: dict[str, Any]) -> dict[str, Any]:
        whole = {"event": event, **line, "utc": _now().isoformat(timespec="seconds")}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        append_line(self._path, whole)
        return whole

    @property
    def n_jobs(self) -> int:
        """How many jobs were sent or found."""
        return len(self._sent)

    @property
    def spent(self) -> float:
        """Cost of the jobs that have ended."""
        return float(sum(line["cost_usd"] for line in self._ended.values()))

    @property
    def reserved(self) -> float:
        """What the jobs that have not ended cost at most."""
        return float(sum(self._sent[job]["most_usd"] for job in self.open))

    def allows(self, most: float) -> bool:
        """Whether a job that costs at most ``most`` can be sent without any risk of passing the cap."""
        return self.cap is None or self.spent + self.reserved + most <= self.cap

    def require(self, most: float) -> None:
        """Refuse to wait for what jobs under way leave over when that can never be enough.

        Raises:
            RunError: it cannot.
        """
        if self.cap is not None and self.spent + most > self.cap:
            raise RunError(
                f"launcher.max_cost_usd {self.cap:g} is reached: {self.spent:.2f} are spent and the next job may cost "
                f"up to {most:.2f}; what was trained is kept, raise max_cost_usd or lower max_runtime_s, then resume"
            )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
