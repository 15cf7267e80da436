"""Commands below ``policylab jobs``, and arguments of ``policylab emulate``."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from policylab.cli.overrides import takes_config


def add_jobs(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add both to the parser of `policylab`."""
    _job_commands(command("jobs", call="jobs:", text="look after jobs on a Ray cluster or SageMaker; submit to Ray"))
    _emulate_arguments(command("emulate", call="emulate:emulate", text="execute SageMaker training requests here"))


def _job_commands(jobs: argparse.ArgumentParser) -> None:
    """Add the commands below ``policylab jobs``."""
    commands = jobs.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, *, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument("--address", metavar="URL", help="the cluster's job server (default: http://127.0.0.1:8265)")
        added.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document and nothing else"
        )
        added.set_defaults(call=f"policylab.cli.ray_jobs:{name}")
        return added

    def of_any_service(name: str, *, text: str, names: str | None = "JOB") -> None:
        added = command(name, text=text)
        added.add_argument("--launcher", choices=["ray", "sagemaker"], default="ray", help="whose jobs (default: ray)")
        added.add_argument("--region", help="of SageMaker (default: policylab.yaml's, else the AWS profile's)")
        added.add_argument("--prices", metavar="FILE", help="price table for SageMaker (default: policylab.yaml's)")
        if names:
            added.add_argument("job", metavar=names)
        added.set_defaults(call=f"policylab.cli.jobs:{name}")

    submit = command("submit", text="check an experiment here and run it on the cluster")
    takes_config(submit)
    submit.add_argument("--workers", type=int, metavar="N", help="runs at once (default: launcher.workers of the file)")
    submit.add_argument(
        "--out",
        default="~/policylab-runs",
        help="folder on the cluster for the run directory (default: ~/policylab-runs)",
    )
    submit.add_argument(
        "--installed", action="store_true", help="use the cluster's policylab instead of sending this one"
    )
    submit.add_argument(
        "--include", action="append", default=[], metavar="PATH", help="send a file or folder along; repeatable"
    )
    of_any_service("list", text="list jobs, the newest first", names=None)
    commands.choices["list"].add_argument("--study", help="only those of one study of SageMaker")
    of_any_service("show", text="say how a job stands")
    of_any_service("attach", text="follow a job, or all of a SageMaker study, to its end", names="JOB|STUDY")
    of_any_service("logs", text="print what a job has printed so far")
    of_any_service("stop", text="ask a job, or all of a SageMaker study, to save and stop", names="JOB|STUDY")
    of_any_service("cost", text="what a job, or a study, of SageMaker has cost so far", names="JOB|STUDY")


def _emulate_arguments(emulate: argparse.ArgumentParser) -> None:
    """Add the arguments of ``policylab emulate``."""
    emulate.add_argument("requests", nargs="*", metavar="REQUEST.json", help="CreateTrainingJob requests; - is stdin")
    emulate.add_argument("--root", default="emulator", metavar="FOLDER", help="jobs' folders (default: emulator)")
    emulate.add_argument("--store", metavar="FOLDER|URL", help="what stands for S3: a folder with BUCKET/KEY below it, "
                         "or an S3-compatible server (default: ROOT/s3)")  # fmt: skip
    emulate.add_argument("--channel", action="append", default=[], metavar="NAME=FOLDER",
                         help="a local folder in place of a channel's source; repeatable")  # fmt: skip
    emulate.add_argument("--isolation", choices=["auto", "namespaces", "processes"], default="auto",
                         help="how hosts are kept apart (default: namespaces where allowed)")  # fmt: skip
    emulate.add_argument("--parallel", type=int, default=2, metavar="N", help="jobs at a time (default: 2)")
    emulate.add_argument("--grace", type=float, default=120.0, metavar="S",
                         help="seconds from SIGTERM to SIGKILL (default: 120)")  # fmt: skip
    emulate.add_argument("--linger", type=float, metavar="S",
                         help="seconds that hosts may go on after one has failed (default: as --grace)")  # fmt: skip
    emulate.add_argument("--disk-mb", type=int, metavar="N", help="size of each host's /opt/ml (default: the disk's)")
    emulate.add_argument("--inject", action="append", default=[], metavar="KIND@S[:HOST]",
                         help="trouble on purpose: interrupt@5, fault@5, stop@5, kill@5:algo-2, unplug@5:algo-2, "
                         "late@5:algo-2, missing:algo-2; repeatable")  # fmt: skip
    emulate.add_argument("--keep", action="store_true", help="keep the hosts' files")
    emulate.add_argument("--replace", action="store_true", help="forget an earlier job of the same name")
    emulate.add_argument("--quiet", action="store_true", help="show only what came of it")
    emulate.add_argument("--interrupt", metavar="JOB", help="take the spot instances of a running job away, and end")
    emulate.add_argument("--stop", metavar="JOB", help="stop a running job, and end")
    emulate.add_argument("--clean", action="store_true", help="clear away what a killed emulator left, and end")
