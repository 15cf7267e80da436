"""``policylab jobs list|show|attach|logs|stop|cost``: the same verbs for the jobs of every service."""

from __future__ import annotations

import argparse

from policylab.cli import ray_jobs, sagemaker_jobs
from policylab.errors import UserError


def list(arguments: argparse.Namespace) -> int:
    """List jobs, the newest first."""
    return {"ray": ray_jobs.listing, "sagemaker": sagemaker_jobs.listing}[arguments.launcher](arguments)


def show(arguments: argparse.Namespace) -> int:
    """Say how a job stands."""
    return {"ray": ray_jobs.show, "sagemaker": sagemaker_jobs.show}[arguments.launcher](arguments)


def attach(arguments: argparse.Namespace) -> int:
    """Follow a job to its end; exit code 0 if it succeeded, 1 if it failed, 130 if it was stopped."""
    return {"ray": ray_jobs.attach, "sagemaker": sagemaker_jobs.attach}[arguments.launcher](arguments)


def logs(arguments: argparse.Namespace) -> int:
    """Print what a job has printed so far."""
    return {"ray": ray_jobs.logs, "sagemaker": sagemaker_jobs.logs}[arguments.launcher](arguments)


def stop(arguments: argparse.Namespace) -> int:
    """Ask a job to save and stop."""
    return {"ray": ray_jobs.stop, "sagemaker": sagemaker_jobs.stop}[arguments.launcher](arguments)


def cost(arguments: argparse.Namespace) -> int:
    """Say what a job has cost.

    Raises:
        UserError: jobs of the service have no price.
    """
    if arguments.launcher != "sagemaker":
        raise UserError("jobs on a Ray cluster have no price of their own; add --launcher sagemaker")
    return sagemaker_jobs.cost(arguments)
