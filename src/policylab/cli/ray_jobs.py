"""``policylab jobs``: experiments on a Ray cluster elsewhere."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policylab.cli.output import columns, emit

if TYPE_CHECKING:
    from policylab.experiments.schema import ExperimentConfig
    from policylab.launchers.ray_jobs import Job, RayJobs

EXIT_CODES = {"SUCCEEDED": 0, "FAILED": 1, "STOPPED": 130}


def submit(arguments: argparse.Namespace) -> int:
    """Check an experiment here, then run it on the cluster."""
    import yaml

    from policylab.experiments.schema import load_experiment

    config = load_experiment(arguments.config, overrides=arguments.overrides)
    config = _for_the_cluster(config, workers=arguments.workers)
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    jobs = _server(arguments)
    job = jobs.submit(
        text,
        name=config.name,
        out=arguments.out,
        ship=not arguments.installed,
        extra_files=[Path(path) for path in arguments.include],
    )
    document = {"job": job, "address": jobs.address, "experiment": config.name}
    emit(arguments, document, text=lambda: f"{job}\nfollow it with: policylab jobs attach {job}{_at(arguments)}")
    return 0


def _for_the_cluster(config: ExperimentConfig, *, workers: int | None) -> ExperimentConfig:
    """Return the experiment with a launcher that finds the cluster it is on."""
    from policylab.errors import UserError
    from policylab.launchers.ray_settings import RaySettings

    given = config.launcher
    workers = workers or getattr(given, "workers", None)
    if workers is None:
        raise UserError(
            "how many runs execute at once on the cluster? say --workers N, or launcher.workers in the file"
        )
    settings: dict[str, Any] = given.model_dump() if isinstance(given, RaySettings) else {}
    launcher = RaySettings.model_validate({**settings, "address": "auto", "workers": workers})
    return config.model_copy(update={"launcher": launcher})


def listing(arguments: argparse.Namespace) -> int:
    """List the jobs of a cluster, the newest first."""
    found = _server(arguments).list()
    rows = [[job.id, job.status, job.experiment or "-", job.started_utc or "-"] for job in found]
    document = [dataclasses.asdict(job) for job in found]
    emit(arguments, document, text=lambda: columns(rows) or "no jobs")
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Say how a job stands."""
    job = _server(arguments).show(arguments.job)
    emit(arguments, dataclasses.asdict(job), text=lambda: _text(job))
    return 0


def logs(arguments: argparse.Namespace) -> int:
    """Print what a job has printed so far."""
    text = _server(arguments).logs(arguments.job)
    emit(arguments, {"job": arguments.job, "logs": text}, text=lambda: text)
    return 0


def attach(arguments: argparse.Namespace) -> int:
    """Follow a job to its end; exit code 0 if it succeeded, 1 if it failed, 130 if it was stopped."""
    jobs = _server(arguments)
    try:
        for text in jobs.follow(arguments.job):
            (sys.stderr if arguments.json else sys.stdout).write(text)
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write(
            f"the job goes on; follow it again with: policylab jobs attach {arguments.job}{_at(arguments)}\n"
        )
        raise
    job = jobs.show(arguments.job)
    emit(arguments, dataclasses.asdict(job), text=lambda: _text(job))
    return EXIT_CODES[job.status]


def stop(arguments: argparse.Namespace) -> int:
    """Ask a job to save its runs and stop."""
    stopping = _server(arguments).stop(arguments.job)
    text = "stopping; its runs are saved" if stopping else "it had ended already"
    emit(arguments, {"job": arguments.job, "stopping": stopping}, text=lambda: text)
    return 0


def _server(arguments: argparse.Namespace) -> RayJobs:
    from policylab.launchers.ray_jobs import RayJobs

    return RayJobs(arguments.address)


def _at(arguments: argparse.Namespace) -> str:
    return f" --address {arguments.address}" if arguments.address else ""


def _text(job: Job) -> str:
    rows = [[name, value] for name, value in dataclasses.asdict(job).items() if value is not None]
    return columns(rows)
