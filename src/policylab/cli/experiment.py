"""Commands on experiments and run directories: run, plan, resume, compare, report, sync, run-spec."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policylab.cli.output import bests_rows, columns, configuration_text, emit, reason_rows, value_text

if TYPE_CHECKING:
    from policylab.experiments.rundir import RunDirectory


def run(arguments: argparse.Namespace) -> int:
    """Train, evaluate, track, report and package an experiment."""
    from policylab.experiments.plan import plan as make_plan
    from policylab.experiments.rundir import create_run
    from policylab.experiments.schema import parse_experiment, read_experiment

    document = read_experiment(arguments.config, overrides=arguments.overrides)
    config = parse_experiment(document)
    planned = make_plan(config, document=document, root=Path(arguments.out))
    for warning in planned["warnings"]:
        sys.stderr.write(f"warning: {warning}\n")
    if arguments.dry_run:
        from policylab.cli.requests import dry_run

        return dry_run(arguments, config)
    directory = create_run(config, parent=Path(arguments.out))
    return _drive(arguments, directory, planned=lambda: planned["search"])


def resume(arguments: argparse.Namespace) -> int:
    """Finish an interrupted or failed run directory."""
    from policylab.experiments.rundir import open_run
    from policylab.experiments.search_plan import search_plan

    directory = open_run(Path(arguments.run_dir))
    if arguments.overrides:
        directory.amend(arguments.overrides)
    return _drive(arguments, directory, planned=lambda: search_plan(directory.config, root=directory.path.parent))


def _drive(arguments: argparse.Namespace, directory: RunDirectory, *, planned: Callable[[], dict[str, Any]]) -> int:
    from policylab.cli.live import watch
    from policylab.experiments.runner import drive

    sys.stderr.write(f"run directory: {directory.path}\n")
    gc.freeze()  # what is imported by now is no garbage; to look for some in it takes a study an eighth of its time
    try:
        with watch(directory.config, planned_steps=lambda: _planned_steps(planned()), quiet=arguments.json) as observer:
            document = drive(directory, observer=observer)
        _tell_cost(directory)
    except KeyboardInterrupt:
        sys.stderr.write(f"{_left(directory)}; continue with: policylab resume {directory.path}\n")
        if arguments.json:
            emit(arguments, {"run_dir": str(directory.path), "status": "interrupted"}, text=str)
        raise
    emit(arguments, document, text=lambda: summary(document))
    return 0


def _left(directory: RunDirectory) -> str:
    """Return what became of the runs when the command was interrupted."""
    config = directory.config
    if not getattr(config.launcher, "outlives", False):
        return "stopped"
    from policylab.launchers.sagemaker.training_request import study_name

    study = study_name(config.name, config.config_hash)
    return f"the jobs go on (policylab jobs stop {study} --launcher sagemaker ends them)"


def _tell_cost(directory: RunDirectory) -> None:
    """Say on standard error what the jobs of an experiment have cost, if it had any."""
    from policylab.launchers.sagemaker.ledger import FILE, Ledger

    if getattr(directory.config.launcher, "outlives", False) and (directory.path / FILE).exists():
        ledger = Ledger(directory.path)
        sys.stderr.write(f"{ledger.n_jobs} jobs, {ledger.spent:.2f} by the price table; see {directory.path / FILE}\n")


def _planned_steps(search: dict[str, Any]) -> int | None:
    """Return the environment steps a search will probably use: of a rehearsal, at most its limit."""
    rehearsed = search["rehearsal"]["steps"] if search["rehearsal"] else None
    return min((n for n in (rehearsed, search["steps_at_most"]) if n is not None), default=None)


def summary(document: dict[str, Any]) -> str:
    """Return the result document as a few lines for a person."""
    exact, tracking, cost = document["exact"], document["tracking"], document["cost"]
    rows = [["selected", _interval(document["selected"])]]
    if document["confirmed"]:
        rows.append(["confirmed", _interval(document["confirmed"])])
    if returns := document.get("returns"):
        rows.append(["return", _interval(returns["confirmed"] or returns["selected"])])
    if document["search"]:
        rows += _search_rows(document["search"])
    if exact:
        text = f"optimum {exact['optimal_return']:.6g}, this policy {exact['policy_return']:.6g}"
        rows.append(["exact", f"{text}, gap {exact['optimality_gap']:.3g}"])
    rows += _baseline_rows(document)
    used = f"{cost['transitions']:,} recorded transitions" if "transitions" in cost else f"{cost['env_steps']:,} steps"
    rows.append(["cost", f"{used} in {cost['runs']} runs, {cost['wall_s']:.1f} s"])
    for ended in document.get("ended_early", []):
        rows.append(["ended early", f"{ended['run']}: {ended['reason']}; {ended['unused_steps']:,} steps not used"])
    rows.append(["execution", f"{document['execution']['kind']} ({document['execution']['reason']})"])
    rows += [["report", document["report"]], ["policy", document["policy_bundle"]]]
    if tracking["run_id"]:
        rows.append(["tracking", f"{tracking['open_with']} (run {tracking['run_id']})"])
    warnings = [f"warning: {text}" for text in document["warnings"]]
    return "\n".join([f"{document['name']}: {document['status']}", columns(rows), *warnings])


def _baseline_rows(document: dict[str, Any]) -> list[list[str]]:
    """Return the classical baselines, and where the policy stands between the best of them and the optimum."""
    rows = []
    for found in document["baselines"]:
        ends = f" [{found['ci'][0]:.5g}, {found['ci'][1]:.5g}]" if found["ci"] else ""
        how = f"{found['n_episodes']} episodes; {found['measure']}" if found["n_episodes"] else found["measure"]
        rows.append([f"baseline {found['name']}", f"{found['value']:.5g}{ends}  {how}"])
    if document["score"]:
        score = document["score"]
        confirmed = "" if score["confirmed"] is None else f", confirmed {score['confirmed']:.3f}"
        rows.append(["score", f"{score['policy']:.3f}{confirmed}  0 is {score['baseline']}, 1 the optimum"])
    return rows


def _search_rows(found: dict[str, Any]) -> list[list[str]]:
    """Return what a search found: how far to trust it, the winner against the default, what it cost."""
    rows = []
    if found["default_confirmed"]:
        gap, ends = found["optimism_gap"], found["optimism_gap_ci"]
        text = f"{gap:.4g} [{ends[0]:.4g}, {ends[1]:.4g}]" if ends else f"{gap:.4g}"
        rows.append(["optimism gap", f"{text}  by how much selected is better than confirmed"])
        rows.append(["default confirmed", _interval(found["default_confirmed"])])
        rows.append(["beats default", _against_default(found)])
    rows += _best_rows(found)
    rows += bests_rows(found)
    failed = f", {found['n_failed']} of them failed" if found["n_failed"] else ""
    rows.append(
        ["search", f"{found['n_trials']:,} configurations in {found['n_runs']:,} runs{failed}; {found['reason']}"]
    )
    saved = f"{found['saved_by_stopping_steps']:,} by stopping, {found['saved_by_resuming_steps']:,} by resuming"
    rows += reason_rows(found)
    rows.append(["search budget", f"{found['spent_steps']:,} steps; saved {saved}"])
    return rows


def _best_rows(found: dict[str, Any]) -> list[list[str]]:
    """Return what the winner was trained with: its values, or its configurations one after the other."""
    if found.get("schedule"):
        stages = found["schedule"]
        texts = [f"to step {stage['until_steps']:,}: {configuration_text(stage['configuration'])}" for stage in stages]
        texts.append("a schedule: confirmed by training through all of it anew, on fresh seeds")
    else:
        texts = [f"{path} = {value_text(value)}" for path, value in found["configuration"].items()]
    return [[f"best (trial {found['winner']})" if index == 0 else "", text] for index, text in enumerate(texts)]


def _against_default(found: dict[str, Any]) -> str:
    from policylab.experiments.report.text import chance_text, verdict

    if found["winner"] == found["default"]:
        return "the default itself was selected: nothing better was found"
    gain, beats = found["improvement"], found["beats_default"]
    low, high = gain["ci"] or (None, None)
    ends = f" [{low:.4g}, {high:.4g}] seed by seed" if gain["ci"] else ""
    chance = "" if gain["probability"] is None else f", with probability {chance_text(gain['probability'])}"
    return f"by {gain['value']:.4g}{ends}{chance}: {verdict(low, high)}; in {beats['value']:.0%} of runs"


def _interval(interval: dict[str, Any]) -> str:
    low_high = interval["ci"]
    text = f" [{low_high[0]:.5g}, {low_high[1]:.5g}]" if low_high else " (no interval from one seed)"
    seeds = "1 seed" if interval["n_seeds"] == 1 else f"{interval['n_seeds']} seeds"
    return f"{interval['value']:.5g}{text}  {seeds}; {interval['measure']}"


def plan(arguments: argparse.Namespace) -> int:
    """Validate and price an experiment without training."""
    from policylab.experiments.plan import plan as make_plan
    from policylab.experiments.schema import parse_experiment, read_experiment

    read = read_experiment(arguments.config, overrides=arguments.overrides)
    document = make_plan(parse_experiment(read), document=read, root=Path(arguments.out))
    emit(arguments, document, text=lambda: _plan_text(document))
    return 0


def _plan_text(document: dict[str, Any]) -> str:
    environment, seeds = document["environment"], document["seeds"]
    rows = [
        ["environment", f"{environment['id']}, at most {environment['max_episode_steps']} steps per episode"],
        ["execution", f"{document['execution']['kind']} ({document['execution']['reason']})"],
        ["evaluation", document["evaluation"]],
        ["checkpoints", f"every {every:g} s" if (every := document["checkpoint_every_s"]) else "whenever it can"],
    ]
    if document["search"]:
        from policylab.cli.study import plan_rows

        rows += plan_rows(document)
    else:
        rows += [
            ["runs", f"{document['runs']} = {document['trials']} trial x ({seeds['tune']} + {seeds['confirm']} seeds)"],
            ["steps", f"{document['total_steps']:,} = {document['runs']} x {document['steps_per_run']:,}"],
        ]
    return "\n".join([document["name"], columns(rows), *(f"warning: {text}" for text in document["warnings"])])


def compare(arguments: argparse.Namespace) -> int:
    """Compare finished runs."""
    from policylab.experiments.comparison import compare_runs, comparison_text
    from policylab.experiments.rundir import open_run

    document = compare_runs([open_run(Path(path)) for path in arguments.run_dirs])
    emit(arguments, document, text=lambda: comparison_text(document))
    return 0


def report(arguments: argparse.Namespace) -> int:
    """Write result document, bundle and report of a trained run directory again."""
    from policylab.experiments.finish import finish
    from policylab.experiments.rundir import open_run
    from policylab.files import locked

    directory = open_run(Path(arguments.run_dir))
    with locked(directory.path / "run.lock"):
        document = finish(directory)
    emit(arguments, {"report": document["report"]}, text=lambda: document["report"])
    return 0


def sync(arguments: argparse.Namespace) -> int:
    """Upload to the tracker what it does not have yet."""
    from policylab.experiments.rundir import open_run
    from policylab.experiments.tracking import sync_run

    directory = open_run(Path(arguments.run_dir))
    result = sync_run(directory.path, uri=arguments.uri)
    counts = f"uploaded {result.new_reports} reports of {result.new_runs} new runs to {result.uri}"
    emit(arguments, result.summary(), text=lambda: f"{counts}\nlook at it with: {result.open_with}")
    return 0


def run_spec(arguments: argparse.Namespace) -> int:
    """Execute run folders: the unit of work of every launcher."""
    if arguments.serve:
        from policylab.experiments.worker import serve
        from policylab.launchers.local import STACKS
        from policylab.stacks import answer

        if fileno := os.environ.pop(STACKS, None):
            answer(int(fileno))
        events = os.fdopen(os.dup(sys.stdout.fileno()), "w")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what an environment prints must not mix with events
        serve(sys.stdin, events)
        return 0
    from policylab.experiments.execute import execute

    results = {folder: execute(Path(folder)).model_dump(mode="json") for folder in arguments.folders}
    emit(arguments, results, text=lambda: columns([[folder, f"{r['value']:.6g}"] for folder, r in results.items()]))
    return 0
