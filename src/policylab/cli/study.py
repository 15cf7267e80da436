"""Commands on studies: tune, and study show, best, export, importance, to-sagemaker."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policylab.cli.output import columns, emit, value_text
from policylab.cli.region import region_of
from policylab.cli.study_text import counted, estimate_text, show_text
from policylab.errors import ConfigError, RunError, UserError

if TYPE_CHECKING:
    from policylab.experiments.rundir import RunDirectory
    from policylab.experiments.schema import ExperimentConfig
    from policylab.experiments.study_view import StudyView
    from policylab.experiments.tuning_jobs import OutgoingStudy


def tune(arguments: argparse.Namespace) -> int:
    """Run an experiment that has a search section."""
    from policylab.cli.experiment import run
    from policylab.experiments.schema import load_experiment

    _searched(load_experiment(arguments.config, overrides=arguments.overrides), named=arguments.config)
    return run(arguments)


def _searched(config: ExperimentConfig, *, named: str) -> ExperimentConfig:
    if config.search is None:
        raise ConfigError(
            f"{named}: there is no search section, so there is nothing to tune; add `search:` with a space and limits, "
            f"or train it as it is with `policylab run {named}`"
        )
    return config


def _run(arguments: argparse.Namespace) -> RunDirectory:
    from policylab.experiments.rundir import open_run

    return open_run(Path(arguments.run_dir))


def _tuned(arguments: argparse.Namespace) -> Path | None:
    """Return the folder that was named if `policylab.tuning.tune` keeps a study in it, else None."""
    from policylab.experiments.study_view import TUNED

    folder = Path(arguments.run_dir)
    return folder if (folder / TUNED).is_file() else None


def _view(arguments: argparse.Namespace) -> StudyView:
    from policylab.experiments.study_view import read_study, read_tuned

    tuned = _tuned(arguments)
    return read_study(_run(arguments).path) if tuned is None else read_tuned(tuned)[0]


def show(arguments: argparse.Namespace) -> int:
    """Show where a study stands, finished or not."""
    from policylab.experiments.study_documents import show_document, tuned_document

    tuned = _tuned(arguments)
    document = show_document(_run(arguments)) if tuned is None else tuned_document(tuned)
    emit(arguments, document, text=lambda: show_text(document, top=arguments.top))
    return 0


def best(arguments: argparse.Namespace) -> int:
    """Print the best configuration, as an experiment file if it is an experiment's."""
    from policylab.experiments.study_documents import best_document, set_line, tuned_best_document

    tuned = _tuned(arguments)
    document = best_document(_run(arguments)) if tuned is None else tuned_best_document(tuned)

    def text() -> str:
        """Return YAML, with what is known of it as comments."""
        known = [f"# trial {document['trial']} of {document['run_dir']}" + ("" if document["final"] else " (so far)")]
        known += [
            f"# {name} at {estimate_text(document[name])}" for name in ("selected", "confirmed") if document[name]
        ]
        known += [f"# {set_line(document['set'])}"] if tuned is None else []
        return "\n".join([*known, document["yaml"]])

    emit(arguments, document, text=text)
    return 0


def export(arguments: argparse.Namespace) -> int:
    """Print every report of a study, or write the study into an Optuna storage."""
    from policylab.experiments.study_documents import export_rows

    if arguments.storage is not None and arguments.format != "optuna":
        raise UserError(f"--storage {arguments.storage} takes the study with --format optuna; the others are printed")
    if arguments.format == "optuna":
        if _tuned(arguments) is not None:
            raise UserError(
                f"{arguments.run_dir}: an Optuna storage takes the study of a run directory, not one of "
                "policylab.tuning.tune; use --format csv or json"
            )
        return _export_optuna(arguments, _run(arguments))
    rows = list(export_rows(_view(arguments)))
    as_json = arguments.format == "json"
    emit(arguments, rows, text=lambda: json.dumps(rows, indent=1) if as_json else _csv(rows))
    return 0


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0])
    nested = (bool, list, dict)
    writer.writerows(
        [json.dumps(value) if isinstance(value, nested) else value for value in row.values()] for row in rows
    )
    return text.getvalue()


def _export_optuna(arguments: argparse.Namespace, run: RunDirectory) -> int:
    from policylab.errors import PolicylabError
    from policylab.experiments.optuna_live import storage_failure
    from policylab.experiments.optuna_view import project, storage_url
    from policylab.experiments.study_view import read_study
    from policylab.experiments.tracking.settings import redacted

    url = redacted(arguments.storage or storage_url(read_study(run.path)))
    try:
        study = project(run.path, storage=arguments.storage)
    except PolicylabError:
        raise
    except Exception as failure:  # whatever Optuna, SQLAlchemy or a driver come up with
        raise RunError(f"the Optuna storage {url} took nothing: {storage_failure(failure)}") from None
    document = {"storage": url, "study_name": study.study_name, "trials": len(study.trials)}
    text = f"{document['trials']} trials in {url}\nlook at them with: optuna-dashboard {url}"
    emit(arguments, document, text=lambda: text)
    return 0


def importance(arguments: argparse.Namespace) -> int:
    """Print which hyperparameters mattered."""
    from policylab.experiments.study_documents import importance_document

    document = importance_document(_view(arguments))
    if arguments.json:
        emit(arguments, document, text=str)
        return 0
    about = f"{document['method']} of {document['n_trials']} configurations at {document['resource']:,} steps"
    table = columns([[path, f"{share:.3f}"] for path, share in document["shares"].items()])
    emit(arguments, document, text=lambda: f"{about}\n{table}")
    sys.stderr.write("".join(f"warning: {text}\n" for text in document["warnings"]))
    return 0


def to_sagemaker(arguments: argparse.Namespace) -> int:
    """Print the tuning-job request that comes closest, or send it; exit code 2 if SageMaker would refuse it."""
    from policylab.experiments.rundir import open_run
    from policylab.experiments.schema import load_experiment
    from policylab.experiments.study_request import request_document
    from policylab.experiments.tuning_jobs import outgoing_study

    source = arguments.source
    is_run = Path(source).is_dir()
    config = open_run(Path(source)).config if is_run else load_experiment(source, overrides=arguments.overrides)
    _searched(config, named=source)
    if arguments.send or config.launcher.kind == "sagemaker":
        outgoing = outgoing_study(config)
        document = outgoing.document
    else:
        document = request_document(config)
    lines = [f"not expressible: {text}" for text in document["not_expressible"]]
    lines += [f"{kind}: {text}" for kind in ("error", "warning") for text in document[f"{kind}s"]]
    if document["unchecked"]:
        lines.append(f"warning: not checked against the service model: {document['unchecked']}")
    if "price" in document:
        lines.append(_price_line(document["price"]))
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    if arguments.send and not document["errors"]:
        return _send(arguments, outgoing, config=config)
    emit(arguments, document, text=lambda: json.dumps(document["request"], indent=1))
    return 2 if document["errors"] else 0


def _price_line(price: Mapping[str, Any]) -> str:
    all_jobs = "without a limit for all jobs" if price["most"] is None else f"{price['most']:.2f} for all jobs"
    return f"price: at most {price['most_per_job']:.2f} for each job, {all_jobs}; {price['basis']}"


def _send(arguments: argparse.Namespace, outgoing: OutgoingStudy, *, config: ExperimentConfig) -> int:
    from policylab.launchers.sagemaker.object_store import S3Store
    from policylab.launchers.sagemaker.service import client

    region = config.launcher.region
    sent = outgoing.send(client("sagemaker", region=region), S3Store(client("s3", region=region)))
    how = "sent" if sent else "it was sent before"
    text = f"{outgoing.name}: {how}\nwhen it has ended: policylab study import {outgoing.name} {arguments.source}"
    emit(arguments, {"tuning_job": outgoing.name, "sent": sent}, text=lambda: text)
    return 0


def import_(arguments: argparse.Namespace) -> int:
    """Write a finished SageMaker tuning job as a run directory."""
    from policylab.experiments.schema import load_experiment
    from policylab.experiments.study_import import fetch_record, import_study
    from policylab.files import read_json
    from policylab.launchers.sagemaker.service import client

    config = _searched(load_experiment(arguments.config, overrides=arguments.overrides), named=arguments.config)
    source = arguments.source
    if source.endswith(".json"):
        record = read_json(Path(source))
    else:
        region = getattr(config.launcher, "region", None) or region_of(arguments)
        record = fetch_record(client("sagemaker", region=region), source)
    run = import_study(config, record, out=Path(arguments.out), place=source)
    text = f"{run.path}\nlook at it with: policylab study show {run.path}"
    emit(arguments, {"run_dir": str(run.path)}, text=lambda: text)
    return 0


ENDS = ("wall_clock_s", "target", "not_improving", "convergence")
"""Limits that depend on the clock or on the values that come."""


def _limit_text(limit: Any) -> str:
    """Return a limit's value, or its settings.

    >>> _limit_text(0.5), _limit_text({"trials": 5, "threshold": 0.01})
    ('0.5', 'trials 5, threshold 0.01')
    """
    if not isinstance(limit, Mapping):
        return f"{limit:g}"
    return ", ".join(f"{name} {value:g}" for name, value in limit.items())


def plan_rows(document: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows of a plan that speak of its search."""
    search, seeds, full = document["search"], document["seeds"], document["steps_per_run"]
    space, rehearsal = search["space"], search["rehearsal"]
    default = "none in the space" if space["default"] is None else set_text(space["default"])
    bounds = [f"{search['trials_at_most']:,} trials" if search["trials_at_most"] else "as many trials as it pays for"]
    if search["steps_at_most"]:
        bounds.append(f"{search['steps_at_most']:,} steps = {search['steps_at_most'] / full:.1f} full trainings")
    rows = [
        ["search", f"{search['searcher']} searcher, {search['scheduler']} scheduler, {search['parallel']} at a time; "
                   f"{search['metric']}, {search['mode']}"],
        *(["parameter", f"{path}: {text}"] for path, text in space["parameters"].items()),
        *(["constraint", text] for text in space["constraints"]),
        ["default", default],
        ["at most", f"{', '.join(bounds)}, {counted(search['seeds_at_most'], 'tuning seed')}"],
    ]  # fmt: skip
    if ends := [f"{name} {_limit_text(limit)}" for name, limit in search["limits"].items() if name in ENDS]:
        rows.append(["ends at", "; ".join(ends)])
    if rehearsal:
        levels = ", ".join(f"{n:,} to {int(level):,}" for level, n in rehearsal["levels"].items())
        rows.append(["expected", f"{rehearsal['steps']:,} steps in {counted(rehearsal['runs'], 'run')} of "
                                 f"{counted(rehearsal['trials'], 'trial')} (results taken as random)"])  # fmt: skip
        rows.append(["rungs", f"runs that reach so many steps: {levels}"])
    confirm = f"{search['confirm_steps']:,} steps = 2 x {seeds['confirm']} seeds x {full:,}"
    return [*rows, ["confirm", f"{confirm}: the winner and the default"]]


def set_text(configuration: Mapping[str, Any]) -> str:
    """Return a configuration in one line."""
    return ", ".join(f"{path}={value_text(value)}" for path, value in configuration.items())
