"""Parser, dispatch and exit codes: 0 done, 1 failure, 2 user error, 130 interrupted after saving."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

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
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=_Parser)

    def command(name: str, *, call: str, text: str | None) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text) if text else commands.add_parser(name)
        added.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
        added.set_defaults(call=f"policylab.cli.{call}")
        return added

    def with_config(added: argparse.ArgumentParser) -> None:
        added.add_argument("config", help="an experiment file, or the name of a shipped one (policylab list configs)")
        added.add_argument(
            "--set", action="append", default=[], dest="overrides", metavar="PATH=VALUE",
            help="override one setting, such as agent.discount=0.95; repeatable",
        )  # fmt: skip

    def running(name: str, *, call: str, text: str) -> None:
        added = command(name, call=call, text=text)
        with_config(added)
        added.add_argument("--out", default="runs", help="folder that receives the run directory (default: runs)")

    running("run", call="experiment:run", text="train, evaluate, track, report and package an experiment")
    running("tune", call="study:tune", text="search the hyperparameters of an experiment that has a search section")
    _study_commands(command("study", call="study:", text="look at the study of a run directory, finished or not"))
    with_config(command("plan", call="experiment:plan", text="validate and price an experiment without training"))
    resume = command("resume", call="experiment:resume", text="finish an interrupted or failed run directory")
    resume.add_argument("run_dir")
    compare = command("compare", call="experiment:compare", text="compare finished runs, with intervals")
    compare.add_argument("run_dirs", nargs="+", metavar="RUN_DIR")
    report = command("report", call="experiment:report", text="write the report of a run directory again")
    report.add_argument("run_dir")
    sync = command("sync", call="experiment:sync", text="upload to the tracker what it does not have yet")
    sync.add_argument("run_dir")
    sync.add_argument("--uri", help="MLflow tracking URI to use instead of the configured one")
    verify = command("verify", call="verify:verify", text="recompute published and exact results")
    verify.add_argument("--only", metavar="TEXT", help="only rows whose name contains TEXT")
    listing = command("list", call="catalogue:list_names", text="list environments, agents or shipped configs")
    listing.add_argument("concept", choices=["envs", "agents", "configs"])
    show = command("show", call="catalogue:show", text="describe an environment, agent or shipped config")
    show.add_argument("name")
    command("schema", call="catalogue:schema", text="print the JSON Schema of experiment files, for editors")
    command("doctor", call="doctor:doctor", text="report versions, extras, cores, GPU and writable folders")
    execute = command("run-spec", call="experiment:run_spec", text=None)
    execute.add_argument("folders", nargs="*", metavar="RUN_FOLDER")
    execute.add_argument("--serve", action="store_true", help="execute the runs named on standard input")
    return parser


def _study_commands(study: argparse.ArgumentParser) -> None:
    """Add the commands below ``policylab study``."""
    commands = study.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    def command(name: str, *, text: str, argument: str = "run_dir") -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument(argument, metavar="RUN_DIR" if argument == "run_dir" else "RUN_DIR|CONFIG")
        added.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document and nothing else"
        )
        added.set_defaults(call=f"policylab.cli.study:{name.replace('-', '_')}")
        return added

    show = command("show", text="leaders with intervals, budget spent and saved, selected and confirmed values")
    show.add_argument("--top", type=int, default=20, metavar="N", help="rows of the table (default: 20; 0: all)")
    command("best", text="the best configuration, as an experiment file for `policylab run`")
    export = command("export", text="every report of every trial and seed")
    export.add_argument(
        "--format", choices=["csv", "json", "optuna"], default="csv",
        help="csv (default) or json on standard output; optuna: write the study into an Optuna storage",
    )  # fmt: skip
    export.add_argument("--storage", metavar="URL", help="Optuna storage to write into instead of the configured one")
    command("importance", text="which hyperparameters mattered")
    command("to-sagemaker", text="the equivalent SageMaker tuning-job request, and what it cannot express",
            argument="source")  # fmt: skip


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
