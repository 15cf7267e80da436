"""Commands below ``policylab study``."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from policylab.cli.overrides import takes_config, takes_overrides


def add_study(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add them to the parser of `policylab`."""
    study = command("study", call="study:", text="look at the study of a run directory, finished or not")
    commands = study.add_subparsers(metavar="COMMAND", required=True)

    def verb(name: str, *, text: str, argument: str = "run_dir") -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        metavar = {"run_dir": "RUN_DIR", "source": "TUNING_JOB|RECORD" if name == "import" else "RUN_DIR|CONFIG"}
        added.add_argument(argument, metavar=metavar[argument])
        added.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document and nothing else"
        )
        added.set_defaults(call=f"policylab.cli.study:{name.replace('-', '_')}")
        return added

    show = verb("show", text="leaders with intervals, budget spent and saved, selected and confirmed values")
    show.add_argument("--top", type=int, default=20, metavar="N", help="rows of the table (default: 20; 0: all)")
    verb("best", text="the best configuration, as an experiment file for `policylab run`")
    export = verb("export", text="every report of every trial and seed")
    export.add_argument(
        "--format", choices=["csv", "json", "optuna"], default="csv",
        help="csv (default) or json on standard output; optuna: write the study into an Optuna storage",
    )  # fmt: skip
    export.add_argument("--storage", metavar="URL", help="Optuna storage to write into instead of the configured one")
    verb("importance", text="which hyperparameters mattered")
    request = verb("to-sagemaker", text="the equivalent SageMaker tuning-job request, and what it cannot express",
                      argument="source")  # fmt: skip
    takes_overrides(request)
    request.add_argument("--send", action="store_true", help="with --launcher sagemaker: start the tuning job")
    imported = verb("import", text="a finished SageMaker tuning job as a run directory", argument="source")
    imported.set_defaults(call="policylab.cli.study:import_")
    takes_config(imported)
    imported.add_argument("--out", default="runs", help="folder that receives the run directory (default: runs)")
