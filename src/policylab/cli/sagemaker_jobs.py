"""``policylab jobs ... --launcher sagemaker``: training jobs by their tags, from any machine."""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policylab.cli.output import columns, emit
from policylab.cli.region import region_of

if TYPE_CHECKING:
    from policylab.launchers.sagemaker.job_record import JobRecord
    from policylab.launchers.sagemaker.prices import PriceTable
    from policylab.launchers.sagemaker.training_jobs import Change, TrainingJobs

EXIT_CODES = {"Failed": 1, "Stopped": 130, "Completed": 0}
"""The first of these statuses that a job of a study ended with decides."""


def listing(arguments: argparse.Namespace) -> int:
    """List the jobs of policylab, the newest first."""
    found = _jobs(arguments).search(arguments.study)
    rows = [[one.name, one.status, one.phase, one.tags["policylab:study"], _time(one.created) or "-"] for one in found]
    emit(arguments, [_document(one) for one in found], text=lambda: columns(rows) or "no jobs")
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Say how a job stands."""
    record = _jobs(arguments).show(arguments.job)
    emit(arguments, _document(record), text=lambda: _text(record))
    return 0


def logs(arguments: argparse.Namespace) -> int:
    """Print what a job has printed so far."""
    lines = _jobs(arguments).logs(arguments.job)
    if arguments.json:
        emit(arguments, {"job": arguments.job, "logs": "\n".join(lines)}, text=str)
        return 0
    n_lines = 0
    for line in lines:
        sys.stdout.write(line.rstrip("\n") + "\n")
        n_lines += 1
    if not n_lines:
        sys.stderr.write("nothing was printed yet; a job that has not come to training prints nothing\n")
    return 0


def attach(arguments: argparse.Namespace) -> int:
    """Follow a job or a study to its end."""
    last: dict[str, JobRecord] = {}
    try:
        for change in _jobs(arguments).follow(arguments.job):
            last[change.record.name] = change.record
            (sys.stderr if arguments.json else sys.stdout).write(_line(change))
            sys.stdout.flush()
    except KeyboardInterrupt:
        again = f"policylab jobs attach {arguments.job} --launcher sagemaker"
        region = f" --region {arguments.region}" if arguments.region else ""
        sys.stderr.write(f"the jobs go on; follow them again with: {again}{region}\n")
        raise
    emit(arguments, [_document(record) for record in last.values()], text=lambda: f"{len(last)} jobs have ended")
    statuses = {record.status for record in last.values()}
    return next(code for status, code in EXIT_CODES.items() if status in statuses)


def stop(arguments: argparse.Namespace) -> int:
    """Ask a job or the jobs of a study to save and stop."""
    stopping = _jobs(arguments).stop(arguments.job)
    text = "\n".join(f"{job}: stopping; its run is saved" for job in stopping) or "nothing was under way"
    emit(arguments, {"stopping": stopping}, text=lambda: text)
    return 0


def cost(arguments: argparse.Namespace) -> int:
    """Say what a job or a study has cost so far and at most will."""
    document = _jobs(arguments).cost(arguments.job)
    emit(arguments, document, text=lambda: _cost_text(document))
    return 0


def _cost_text(document: dict[str, Any]) -> str:
    rows = [["trial", "jobs", "so far", "steps", "per million steps"]]
    for row in [*document["trials"], {**document, "trial": "all"}]:
        million = "-" if row["per_million_steps"] is None else f"{row['per_million_steps']:.4f}"
        rows.append([str(row["trial"]), str(row["jobs"]), f"{row['so_far']:.4f}", f"{row['steps']:,}", million])
    saving = document["spot_saving"]
    spot = f"; {saving:.0%} of the training time was not billed" if saving else ""
    most = f"at most {document['at_most']:.4f} if every job under way takes all of its time"
    return "\n".join([columns(rows), f"{most}{spot}; {document['currency']}, prices of {document['basis']}"])


def _jobs(arguments: argparse.Namespace) -> TrainingJobs:
    from policylab.launchers.sagemaker.object_store import S3Store
    from policylab.launchers.sagemaker.service import PatientService, client
    from policylab.launchers.sagemaker.training_jobs import TrainingJobs

    region = region_of(arguments)
    return TrainingJobs(
        PatientService(client("sagemaker", region=region)),
        S3Store(client("s3", region=region)),
        logs=client("logs", region=region),
        prices=_prices(arguments),
    )


def _prices(arguments: argparse.Namespace) -> PriceTable | None:
    from policylab.experiments.project import shared_setting
    from policylab.launchers.sagemaker.prices import price_table

    path = arguments.prices or shared_setting("sagemaker", "price_table")
    return price_table(Path(path)) if path else None


def _document(record: JobRecord) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC)
    return {
        "job": record.name,
        "status": record.status,
        "phase": record.phase,
        "reason": record.reason,
        "tags": dict(record.tags),
        "created_utc": _time(record.created),
        "started_utc": _time(record.started),
        "ended_utc": _time(record.ended),
        "billable_s": record.billable_s,
        "cost_so_far": record.cost(now),
        "cost_at_most": record.most,
        "run_folder": record.checkpoints,
    }


def _text(record: JobRecord) -> str:
    shown = {**_document(record), **record.tags}
    del shown["tags"]
    rows = [[name, f"{value:.4f}" if isinstance(value, float) else str(value)] for name, value in shown.items()]
    return columns([row for row, value in zip(rows, shown.values(), strict=True) if value is not None])


def _line(change: Change) -> str:
    value = "" if change.value is None else f"  {change.steps:,} steps, return {change.value:.5g}"
    reason = f"  {change.record.reason}" if change.record.reason else ""
    return f"{change.record.name}  {change.record.status} ({change.record.phase}){value}{reason}\n"


def _time(moment: datetime.datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(datetime.UTC).isoformat(timespec="seconds")
