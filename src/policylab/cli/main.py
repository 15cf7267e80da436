"""Parser, dispatch and exit codes: 0 done, 1 failure, 2 user error, 130 interrupted after saving."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from policylab.cli.endpoint_arguments import add_endpoint
from policylab.cli.jobs_arguments import add_jobs
from policylab.cli.labels_arguments import add_labels
from policylab.cli.monitor_arguments import add_monitoring
from policylab.cli.overrides import takes_config, takes_overrides
from policylab.cli.policy_arguments import add_policy
from policylab.cli.study_arguments import add_study
from policylab.cli.transform import add_transform
from policylab.errors import PolicylabError, did_you_mean


class _Parser(argparse.ArgumentParser):
    """Says what was probably meant instead of only listing the choices."""

    def error(self, message: str) -> NoReturn:
        wrong = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if wrong:
            message += did_you_mean(wrong[1], re.findall(r"'([^']+)'", wrong[2]))
        self.exit(2, f"{self.prog}: {message}\n{self.format_usage()}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="policylab", description="Train, tune, track, package and compare reinforcement-learning policies."
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND")

    def command(name: str, *, call: str, text: str | None) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text) if text else commands.add_parser(name)
        added.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
        added.set_defaults(call=f"policylab.cli.{call}")
        return added

    run = command("run", call="experiment:run", text="train, evaluate, track, report and package an experiment")
    tune = command("tune", call="study:tune", text="search the hyperparameters of an experiment with a search section")
    for running in (run, tune):
        _running_arguments(running)
    _add_groups(command)
    plan = command("plan", call="experiment:plan", text="validate and price an experiment without training")
    takes_config(plan)
    plan.add_argument(
        "--out", default="runs", help="folder of the run directories that a warm start names (default: runs)"
    )
    resume = command("resume", call="experiment:resume", text="finish an interrupted or failed run directory")
    resume.add_argument("run_dir")
    takes_overrides(resume, example="launcher.workers=4")
    _finished_commands(command)
    _record_arguments(command("record", call="record:record", text="record what a policy does as a Parquet file"))
    verify = command("verify", call="verify:verify", text="recompute published and exact results")
    verify.add_argument("--only", metavar="TEXT", help="only rows whose name contains TEXT")
    verify.add_argument("--slow", action="store_true", help="also the rows that take minutes")
    listing = command("list", call="catalogue:list_names", text="list environments, agents or shipped configs")
    listing.add_argument("concept", choices=["envs", "agents", "configs"])
    show = command("show", call="catalogue:show", text="describe an environment, agent or shipped config")
    show.add_argument("name")
    schema = command("schema", call="catalogue:schema", text="print the JSON Schema of a kind of file, for editors")
    schema.add_argument("kind", nargs="?", choices=["experiment", "endpoint"], default="experiment")
    text = "inside a container of SageMaker: do one host's part of a training job, or serve a policy"
    inside = command("container", call="container:container", text=text)
    inside.add_argument("part", nargs="?", choices=["train", "serve"], default="train", help="default: train")
    command("doctor", call="doctor:doctor", text="report versions, extras, cores, GPU and writable folders")
    execute = command("run-spec", call="experiment:run_spec", text=None)
    execute.add_argument("folders", nargs="*", metavar="RUN_FOLDER")
    execute.add_argument("--serve", action="store_true", help="execute the runs named on standard input")
    return parser


def _add_groups(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands that have commands or many arguments of their own."""
    add_study(command)
    add_jobs(command)
    add_endpoint(command)
    add_transform(command("transform", call="transform:transform", text="decisions for whole files of observations"))
    _registry_commands(command("registry", call="registry:", text="versions of policies, and which may be served"))
    _process_arguments(command("process", call="process:process", text="prepare a data set, or evaluate a policy"))
    _demo_commands(command("demo", call="demo:", text="things to look at, made here and now"))
    _debug_commands(command("debug", call="debug:", text="look into an agent that does not learn"))
    add_policy(command)
    add_monitoring(command)
    add_labels(command)


def _finished_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands that look at run directories."""
    compare = command("compare", call="experiment:compare", text="compare finished runs, with intervals")
    compare.add_argument("run_dirs", nargs="+", metavar="RUN_DIR")
    report = command("report", call="experiment:report", text="write the report of a run directory again")
    report.add_argument("run_dir")
    sync = command("sync", call="experiment:sync", text="upload to the tracker what it does not have yet")
    sync.add_argument("run_dir")
    sync.add_argument("--uri", help="MLflow tracking URI to use instead of the configured one")


def _running_arguments(added: argparse.ArgumentParser) -> None:
    """Add the arguments of ``policylab run`` and ``tune``."""
    takes_config(added)
    added.add_argument("--out", default="runs", help="folder that receives the run directory (default: runs)")
    added.add_argument(
        "--dry-run", action="store_true", help="with a launcher that sends requests: print, check and price them only"
    )


def _process_arguments(process: argparse.ArgumentParser) -> None:
    """Add the arguments of ``policylab process``."""
    process.add_argument("description", metavar="FILE", help="what is to be done; see docs/sagemaker.md")
    takes_overrides(process)
    process.add_argument(
        "--dry-run", action="store_true", help="with --launcher sagemaker: print and check the request"
    )


def _record_arguments(record: argparse.ArgumentParser) -> None:
    """Add the arguments of ``policylab record``."""
    record.add_argument("bundle", help="folder or model.tar.gz of a policy bundle")
    record.add_argument("--out", required=True, metavar="FILE", help="Parquet file to write")
    record.add_argument("--episodes", type=int, default=100, metavar="N", help="episodes to play (default: 100)")
    record.add_argument("--seed", type=int, default=0, help="root of the random streams (default: 0)")
    record.add_argument("--deterministic", action="store_true", help="take the policy's deterministic actions")


def _registry_commands(registry: argparse.ArgumentParser) -> None:
    """Add the commands below ``policylab registry``."""
    commands = registry.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, *, call: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument("--registry", choices=["mlflow", "sagemaker"], default="mlflow", help="default: mlflow")
        added.add_argument("--uri", help="MLflow's address (default: MLFLOW_TRACKING_URI, else mlflow.db here)")
        added.add_argument("--region", help="of SageMaker (default: policylab.yaml's, else the AWS profile's)")
        added.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document and nothing else"
        )
        added.set_defaults(call=f"policylab.cli.registry:{call}")
        return added

    register = command("register", call="register", text="add a policy bundle as a version that waits for approval")
    register.add_argument("bundle", metavar="BUNDLE", help="folder or model.tar.gz")
    register.add_argument("--name", required=True, help="registered model, or model package group")
    register.add_argument(
        "--s3-prefix", metavar="S3_URI", help="for SageMaker: where bundles are kept (default: policylab.yaml's)"
    )
    register.add_argument("--image", help="for SageMaker: the container image that serves them")
    command("list", call="listing", text="the versions under a name, the newest first").add_argument("name")
    for name, text in (("approve", "let a version be served"), ("reject", "keep a version from being served")):
        decide = command(name, call=name, text=text)
        decide.add_argument("name")
        decide.add_argument("number", metavar="version", type=int)  # `version` is taken by --version
        decide.add_argument("--reason", help="kept with the decision")


def _demo_commands(demo: argparse.ArgumentParser) -> None:
    """Add the commands below ``policylab demo``."""
    commands = demo.add_subparsers(metavar="COMMAND", required=True)
    text = "a bad candidate is rolled back and a good one promoted, by evidence alone; under a minute"
    rollout = commands.add_parser("rollout", help=text, description=text)
    rollout.add_argument("--out", default="rollout-demo", metavar="FOLDER", help="folder (default: rollout-demo)")
    rollout.add_argument("--seed", type=int, default=0, help="of the bandit that is played (default: 0)")
    rollout.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document and nothing else"
    )
    rollout.set_defaults(call="policylab.cli.demo:rollout")
    what = "serve a policy, shift its environment, detect it, name the cause, roll back, write a report"
    monitor = commands.add_parser("monitor", help=what, description=what)
    monitor.add_argument("--out", metavar="FOLDER", help="folder (default: a new temporary one)")
    monitor.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document")
    monitor.set_defaults(call="policylab.cli.monitor_schedule:demo")


def _debug_commands(debug: argparse.ArgumentParser) -> None:
    """Add the commands below ``policylab debug``."""
    commands = debug.add_subparsers(metavar="COMMAND", required=True)
    text = "check a deep agent's gradients numerically, layer by layer"
    gradients = commands.add_parser("gradients", help=text, description=text)
    takes_config(gradients)
    gradients.add_argument("--batch-size", type=int, default=64, metavar="N", help="transitions (default: 64)")
    gradients.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document and nothing else"
    )
    gradients.set_defaults(call="policylab.cli.debug:gradients")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # the caller closed it
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - lives as long as the process
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.version:
        from policylab import __version__

        sys.stdout.write(f"policylab {__version__}\n")
        return 0
    if not hasattr(arguments, "call"):
        parser.print_help()
        return 2
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        module, _, function = arguments.call.partition(":")
        code: int = getattr(importlib.import_module(module), function)(arguments)
        sys.stdout.flush()
        return code
    except PolicylabError as error:
        return _fail(arguments, error=error)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of a pipe left: not an error
        return 0


def _interrupt(signum: int, frame: object, /) -> NoReturn:
    raise KeyboardInterrupt


def _fail(arguments: argparse.Namespace, *, error: PolicylabError) -> int:
    if arguments.json:
        document = {"error": {"kind": type(error).__name__, "message": str(error)}}
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
    sys.stderr.write("".join(f"error: {line}\n" for line in str(error).splitlines()))
    return error.exit_code
