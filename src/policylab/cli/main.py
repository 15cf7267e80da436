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

from policylab.cli.hosting_arguments import add_hosting
from policylab.cli.labels_arguments import add_labels
from policylab.cli.monitor_arguments import add_monitoring
from policylab.cli.policy_arguments import add_policy
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
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=_Parser)

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
    _takes_config(command("plan", call="experiment:plan", text="validate and price an experiment without training"))
    resume = command("resume", call="experiment:resume", text="finish an interrupted or failed run directory")
    resume.add_argument("run_dir")
    compare = command("compare", call="experiment:compare", text="compare finished runs, with intervals")
    compare.add_argument("run_dirs", nargs="+", metavar="RUN_DIR")
    report = command("report", call="experiment:report", text="write the report of a run directory again")
    report.add_argument("run_dir")
    _record_arguments(command("record", call="record:record", text="record what a policy does as a Parquet file"))
    sync = command("sync", call="experiment:sync", text="upload to the tracker what it does not have yet")
    sync.add_argument("run_dir")
    sync.add_argument("--uri", help="MLflow tracking URI to use instead of the configured one")
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
    _study_commands(command("study", call="study:", text="look at the study of a run directory, finished or not"))
    _job_commands(command("jobs", call="jobs:", text="look after jobs on a Ray cluster or SageMaker; submit to Ray"))
    _serve_arguments(command("serve", call="endpoint:serve", text="serve a policy bundle, a run or an endpoint file"))
    add_transform(command("transform", call="transform:transform", text="decisions for whole files of observations"))
    _endpoint_commands(command("endpoint", call="endpoint:", text="look after a running endpoint"))
    _registry_commands(command("registry", call="registry:", text="versions of policies, and which may be served"))
    _process_arguments(command("process", call="process:process", text="prepare a data set, or evaluate a policy"))
    _emulate_arguments(command("emulate", call="emulate:emulate", text="execute SageMaker training requests here"))
    _demo_commands(command("demo", call="demo:", text="things to look at, made here and now"))
    _debug_commands(command("debug", call="debug:", text="look into an agent that does not learn"))
    add_policy(command, parser_class=_Parser)
    add_monitoring(command)
    add_labels(command)


def _running_arguments(added: argparse.ArgumentParser) -> None:
    """Add the arguments of ``policylab run`` and ``tune``."""
    _takes_config(added)
    added.add_argument("--out", default="runs", help="folder that receives the run directory (default: runs)")
    added.add_argument(
        "--dry-run", action="store_true", help="with a launcher that sends requests: print, check and price them only"
    )


def _process_arguments(process: argparse.ArgumentParser) -> None:
    """Add the arguments of ``policylab process``."""
    process.add_argument("description", metavar="FILE", help="what is to be done; see docs/sagemaker.md")
    _takes_overrides(process)
    process.add_argument(
        "--dry-run", action="store_true", help="with --launcher sagemaker: print and check the request"
    )


def _takes_config(added: argparse.ArgumentParser) -> None:
    """Add what names an experiment and changes its settings."""
    added.add_argument("config", help="an experiment file, or the name of a shipped one (policylab list configs)")
    _takes_overrides(added)


def _takes_overrides(added: argparse.ArgumentParser) -> None:
    """Add what changes an experiment's settings."""
    added.add_argument(
        "--set", action="append", default=[], dest="overrides", metavar="PATH=VALUE",
        help="override one setting, such as agent.discount=0.95; repeatable",
    )  # fmt: skip
    added.add_argument(
        "--launcher", action="append", dest="overrides", type="launcher.kind={}".format, metavar="KIND",
        help="where runs execute: local, inline, ray or sagemaker; short for --set launcher.kind=KIND",
    )  # fmt: skip
    added.add_argument(
        "--emulate", action="append_const", dest="overrides", const="launcher.emulate=true",
        help="with --launcher sagemaker: execute the very requests on this machine; nothing is sent",
    )  # fmt: skip


def _record_arguments(record: argparse.ArgumentParser) -> None:
    """Add the arguments of ``policylab record``."""
    record.add_argument("bundle", help="folder or model.tar.gz of a policy bundle")
    record.add_argument("--out", required=True, metavar="FILE", help="Parquet file to write")
    record.add_argument("--episodes", type=int, default=100, metavar="N", help="episodes to play (default: 100)")
    record.add_argument("--seed", type=int, default=0, help="root of the random streams (default: 0)")
    record.add_argument("--deterministic", action="store_true", help="take the policy's deterministic actions")


def _registry_commands(registry: argparse.ArgumentParser) -> None:
    """Add the commands below ``policylab registry``."""
    commands = registry.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

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


def _demo_commands(demo: argparse.ArgumentParser) -> None:
    """Add the commands below ``policylab demo``."""
    commands = demo.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
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
    commands = debug.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    text = "check a deep agent's gradients numerically, layer by layer"
    gradients = commands.add_parser("gradients", help=text, description=text)
    _takes_config(gradients)
    gradients.add_argument("--batch-size", type=int, default=64, metavar="N", help="transitions (default: 64)")
    gradients.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document and nothing else"
    )
    gradients.set_defaults(call="policylab.cli.debug:gradients")


def _serve_arguments(serve: argparse.ArgumentParser) -> None:
    """Add the arguments of ``policylab serve``."""
    serve.add_argument("source", metavar="BUNDLE|ENDPOINT",
                       help="a policy bundle, a run directory that holds one, or an endpoint file (YAML)")  # fmt: skip
    serve.add_argument(
        "--set", action="append", default=[], dest="overrides", metavar="PATH=VALUE",
        help="override one setting of the endpoint, such as limits.batch=64; repeatable",
    )  # fmt: skip
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, default=8080, metavar="N", help="port (default: 8080; 0: a free one)")
    _takes_workers(serve)
    serve.add_argument("--state", metavar="FOLDER", help="keep versions, weights and updates from start to start")
    serve.add_argument(
        "--drain", type=float, metavar="SECONDS",
        help="after SIGTERM, how long clients are told to close their connections (default: 1)",
    )  # fmt: skip


def _takes_workers(added: argparse.ArgumentParser) -> None:
    """Add what divides an endpoint among processes."""
    text = "processes that speak HTTP, started again when they crash (default: 0: one for all)"
    added.add_argument("--workers", type=int, default=0, metavar="N", help=text)


def _endpoint_commands(endpoint: argparse.ArgumentParser) -> None:
    """Add the commands below ``policylab endpoint``."""
    commands = endpoint.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    def command(name: str, *, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument("--url", help="server (default: of the endpoint created here, else http://127.0.0.1:8080)")
        added.add_argument("--name", help="endpoint (default: the one that the server has)")
        added.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document and nothing else"
        )
        added.set_defaults(call=f"policylab.cli.endpoint:{name}")
        return added

    command("status", text="say how a running endpoint stands")
    weights = command("weights", text="change the weights of variants, without failing a request")
    weights.add_argument("weights", nargs="+", metavar="VARIANT=WEIGHT")
    update = command("update", text="begin the update to another version, by the guardrail of its file")
    update.add_argument("file", metavar="ENDPOINT", help="endpoint file (YAML)")
    update.add_argument("--set", action="append", default=[], dest="overrides", metavar="PATH=VALUE",
                        help="override one setting; repeatable")  # fmt: skip
    command("rollback", text="return all traffic to the old version while an update is under way")
    promote = command("promote", text="take the next step of an update now, whatever bakes or is not proven yet")
    promote.add_argument("--full", action="store_true", help="take all of its steps")
    _background_commands(commands)
    invoke = command("invoke", text="ask for a decision")
    invoke.add_argument("observation", metavar="JSON", help="such as 3 or '[0.1, 0.2]'")
    invoke.add_argument("--mask", metavar="BITS", help="allowed actions, such as 1011")
    invoke.add_argument("--variant", metavar="NAME", help="the variant to ask, whatever its weight")
    invoke.add_argument("--model", metavar="NAME", help="of an endpoint of many models: path of its bundle")
    invoke.add_argument("--inference-id", metavar="ID", help="names the request: a retry gets the same answer")
    invoke.add_argument("--session", metavar="ID", help="keeps requests on one variant")
    reward = command("reward", text="report the reward of a decision")
    reward.add_argument("decision_id", metavar="DECISION_ID")
    reward.add_argument("reward", type=float, metavar="NUMBER")
    reward.add_argument("--terminated", action="store_true", help="the task was over with this decision")
    reward.add_argument("--truncated", action="store_true", help="the episode was cut off after it")
    reward.add_argument("--next-observation", metavar="JSON", help="what was observed after the episode's last action")
    add_hosting(commands)


def _background_commands(commands: argparse._SubParsersAction[_Parser]) -> None:
    """Add the commands on endpoints that run in the background."""

    def command(name: str, *, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument("--root", default="endpoints", metavar="FOLDER",
                           help="holds a folder for each endpoint: log, state (default: endpoints)")  # fmt: skip
        added.add_argument("--name", help="endpoint (default: the one that there is)")
        added.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document and nothing else"
        )
        added.set_defaults(call=f"policylab.cli.background:{name}")
        return added

    create = command("create", text="start an endpoint in the background and wait until it answers")
    create.add_argument("source", metavar="BUNDLE|ENDPOINT", help="a bundle, a run directory, or an endpoint file")
    create.add_argument("--set", action="append", default=[], dest="overrides", metavar="PATH=VALUE",
                        help="override one setting; repeatable")  # fmt: skip
    create.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    create.add_argument("--port", type=int, default=8080, metavar="N", help="port (default: 8080; 0: a free one)")
    _takes_workers(create)
    command("delete", text="end an endpoint of the background gracefully; its log stays")
    logs = command("logs", text="print what an endpoint of the background has printed")
    logs.add_argument("--lines", type=int, default=100, metavar="N", help="the last ones (default: 100; 0: all)")


def _study_commands(study: argparse.ArgumentParser) -> None:
    """Add the commands below ``policylab study``."""
    commands = study.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    def command(name: str, *, text: str, argument: str = "run_dir") -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        metavar = {"run_dir": "RUN_DIR", "source": "TUNING_JOB|RECORD" if name == "import" else "RUN_DIR|CONFIG"}
        added.add_argument(argument, metavar=metavar[argument])
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
    request = command("to-sagemaker", text="the equivalent SageMaker tuning-job request, and what it cannot express",
                      argument="source")  # fmt: skip
    _takes_overrides(request)
    request.add_argument("--send", action="store_true", help="with --launcher sagemaker: start the tuning job")
    imported = command("import", text="a finished SageMaker tuning job as a run directory", argument="source")
    imported.set_defaults(call="policylab.cli.study:import_")
    _takes_config(imported)
    imported.add_argument("--out", default="runs", help="folder that receives the run directory (default: runs)")


def _job_commands(jobs: argparse.ArgumentParser) -> None:
    """Add the commands below ``policylab jobs``."""
    commands = jobs.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

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
    _takes_config(submit)
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
