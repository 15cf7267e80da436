"""What the commands on studies print: leaders, the best configuration, exported rows, importances."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from policylab.config import Document, assign
from policylab.errors import RunError
from policylab.experiments.failures import all_failures, other_failures
from policylab.experiments.importances import importances
from policylab.experiments.rundir import RunDirectory
from policylab.experiments.standing import Standing, saved_by_stopping, schedule_document, standing, standings
from policylab.experiments.study import trial_experiment
from policylab.experiments.study_view import StudyView, read_study, read_tuned
from policylab.experiments.tracking.run_view import read_object
from policylab.files import canonical_json, is_locked
from policylab.tuning.history import RunState, Trial
from policylab.tuning.scheduler import SCHEDULERS
from policylab.tuning.study import selected

VERDICT = ("optimism_gap", "optimism_gap_ci", "default", "default_confirmed", "improvement", "beats_default")
"""What a study's document takes over from the result: selection and confirmation."""


def show_document(run: RunDirectory) -> dict[str, Any]:
    """Return where the study of ``run`` stands: its leaders, its budget, and what was selected and confirmed.

    Raises:
        RunDirectoryError: the run has no study, or a file is damaged.
    """
    view = read_study(run.path)
    document = study_document(view, best=selected_trial(run, view), status=_status(run), result=_result(run))
    return {**document, "error": run.manifest.error}


def tuned_document(folder: Path) -> dict[str, Any]:
    """Return the same of the study that `policylab.tuning.tune` keeps in ``folder``: nothing is confirmed there.

    Raises:
        RunDirectoryError: there is no such study, or it is damaged.
    """
    view, best = _tuned(folder)
    status = "finished" if view.reason else "running" if is_locked(folder / ".lock") else "interrupted"
    return study_document(view, best=best, status=status, result={})


def study_document(view: StudyView, *, best: int | None, status: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return where a study stands: ``best`` is the trial that leads, ``result`` what its runs' result.json holds."""
    ranked = sorted(standings(view.history), key=lambda one: one.trial != best)
    failed = sum(one.error is not None for _, one in view.history.runs())
    reasons = all_failures(view.history, view.folder)
    found = result.get("search") or {}
    return {
        "run_dir": str(view.folder),
        "name": view.config["name"],
        "status": status,
        "error": None,
        "reason": view.reason,
        "metric": view.search["metric"],
        "mode": view.search["mode"],
        "budget": {
            "full_training_steps": view.history.max_resource,
            "spent_steps": view.history.spent,
            "limits": {name: limit for name, limit in view.search["limits"].items() if limit},
            "saved_by_resuming_steps": view.history.saved,
            "saved_by_stopping_steps": saved_by_stopping(view.history),
        },
        "trials": len(view.history.trials),
        "runs": sum(1 for _ in view.history.runs()),
        "failed_runs": failed,
        "retries": sum(len(one.retries) for _, one in view.history.runs()),
        "best": best,
        "schedule": schedule_document(view.history, best),
        "leaders": [_row(one, view, rank=rank) for rank, one in enumerate(ranked, start=1)],
        "failures": reasons.failed,
        "retried": reasons.retried,
        "selected": result.get("selected"),
        "confirmed": result.get("confirmed"),
        **{name: found.get(name) for name in VERDICT},
        "confirmation": _confirmation(view),
        **{name: (view.outcome or {}).get(name) for name in ("bests", "comparable")},
    }


def selected_trial(run: RunDirectory, view: StudyView) -> int | None:
    """Return the winner of a study, or what its scheduler would select now; None before the first result."""
    if view.outcome is not None:
        return int(view.outcome["winner"])
    settings = run.config.search
    assert settings is not None
    horizon = settings.horizon(budget_steps=view.history.max_resource, n_seeds=run.config.seeds.tune)
    scheduler = SCHEDULERS.load(settings.scheduler.kind).make(settings.scheduler, horizon)
    return selected(view.history, view.reason, scheduler=scheduler)


def _row(one: Standing, view: StudyView, *, rank: int) -> dict[str, Any]:
    trial = view.history.trials[one.trial]
    interval = one.interval(sign=view.sign)
    bounded = interval is not None and interval.low is not None
    state, reason = _state(trial, view)
    return {
        "rank": rank,
        "trial": one.trial,
        "parent": None if trial.parent is None else {"trial": trial.parent, "steps": trial.origin},
        "configuration": dict(trial.configuration),
        "value": None if interval is None else interval.value,
        "ci": [interval.low, interval.high] if interval is not None and bounded else None,
        "n_seeds": len(one.values),
        "resource": one.resource,
        "state": state,
        "reason": reason,
    }


def _state(trial: Trial, view: StudyView) -> tuple[str, str | None]:
    """Return how a trial stands in a word, and why."""
    if trial.failed:
        return "failed", next(run.error for run in trial.runs.values() if run.error)
    if trial.stopped is not None:
        return "stopped", trial.stopped
    if view.reason is None and any(run.state is RunState.RUNNING for run in trial.runs.values()):
        return "running", None
    if trial.values_at(view.history.max_resource):
        return "trained", None
    return ("paused", None) if view.reason is None else ("stopped", view.reason)


def _status(run: RunDirectory) -> str:
    """Return running, finished, interrupted or failed; a process that was killed could not write it down."""
    status = run.manifest.status
    return "interrupted" if status == "running" and not is_locked(run.path / "run.lock") else status


def _result(run: RunDirectory) -> dict[str, Any]:
    path = run.path / "result.json"
    return read_object(path) if path.exists() else {}


def _confirmation(view: StudyView) -> dict[str, int] | None:
    """Return how far winner and default have been confirmed; None before the study is over."""
    if view.outcome is None:
        return None
    trials = {view.outcome["winner"], view.outcome["default"]}
    done = sum(len(view.confirmed(trial)) for trial in trials)
    failed = sum(one["runs"] for one in other_failures(view.folder).failed)
    return {"runs": done, "planned": len(trials) * view.config["seeds"]["confirm"], "failed": failed}


def _tuned(folder: Path) -> tuple[StudyView, int | None]:
    """Return the study in a folder of `policylab.tuning.tune`, and the trial that it selects, or would now."""
    view, horizon = read_tuned(folder)
    kind = SCHEDULERS.load(view.search["scheduler"]["kind"])
    scheduler = kind.make(kind.Settings.model_validate(view.search["scheduler"]), horizon)
    return view, selected(view.history, view.reason, scheduler=scheduler)


def best_document(run: RunDirectory) -> dict[str, Any]:
    """Return the configuration to use: as values, as ``--set`` options and as an experiment without a search.

    Raises:
        RunError: no configuration has a value yet.
        RunDirectoryError: the run has no study, or a file is damaged.
    """
    view = read_study(run.path)
    trial = selected_trial(run, view)
    found, result = _best(view, trial), _result(run)
    experiment = trial_experiment(run.config, view.history, trial=found["trial"])
    data, schedule = experiment.model_dump(mode="json", exclude={"search"}), found["schedule"]
    if schedule is None:
        del data["stages"]
    stages = [f"stages={canonical_json(data['stages'])}"] if schedule else []
    return {
        **found,
        "final": view.outcome is not None,
        "set": [*set_options(found["configuration"]), *stages],
        "selected": result.get("selected") or found["selected"],
        "confirmed": result.get("confirmed"),
        "yaml": yaml.safe_dump(data, sort_keys=False, allow_unicode=True),
    }


def tuned_best_document(folder: Path) -> dict[str, Any]:
    """Return the same of the study that `policylab.tuning.tune` keeps in ``folder``; ``yaml`` is the configuration.

    Raises:
        RunError: no configuration has a value yet.
        RunDirectoryError: there is no such study, or it is damaged.
    """
    view, trial = _tuned(folder)
    found = _best(view, trial)
    text = yaml.safe_dump(found["configuration"], sort_keys=False, allow_unicode=True)
    return {**found, "final": view.reason is not None, "set": [], "confirmed": None, "yaml": text}


def _best(view: StudyView, trial: int | None) -> dict[str, Any]:
    """Return what the log tells of the best trial."""
    if trial is None:
        raise RunError(f"{view.folder}: no configuration has a value yet; see `policylab study show {view.folder}`")
    selected, interval = None, standing(view.history.trials[trial]).interval(sign=view.sign)
    if interval is not None:
        ends = None if interval.low is None else [interval.low, interval.high]
        selected = {"value": interval.value, "ci": ends, "n_seeds": interval.n, "measure": view.search["metric"]}
    return {
        "run_dir": str(view.folder),
        "trial": trial,
        "configuration": dict(view.history.trials[trial].configuration),
        "schedule": schedule_document(view.history, trial),
        "selected": selected,
    }


def set_options(configuration: Mapping[str, Any]) -> list[str]:
    """Return a configuration as ``path=value`` arguments of ``--set``.

    >>> set_options({"agent.kind": "sarsa", "agent.learning_rate": 0.1, "agent.on": "true"})
    ['agent.kind=sarsa', 'agent.learning_rate=0.1', 'agent.on="true"']
    """
    return [f"{path}={_yaml_text(value)}" for path, value in configuration.items()]


def _yaml_text(value: Any) -> str:
    """Return the plainest text that is read back as ``value``."""
    text = value if isinstance(value, str) else json.dumps(value)
    read = assign(Document({}, {}, "value"), [f"x={text}"]).data["x"] if text.isidentifier() else None
    return text if read == value or not isinstance(value, str) else json.dumps(value)


def set_line(options: Sequence[str]) -> str:
    """Return ``path=value`` options as one line for a shell; the last one leaves the search out.

    >>> set_line(set_options({"agent.kind": "sarsa"}))
    '--set agent.kind=sarsa --set search=null'
    """
    return " ".join(f"--set {shlex.quote(option)}" for option in [*options, "search=null"])


def export_rows(view: StudyView) -> Iterator[dict[str, Any]]:
    """Yield one row per trial, seed and report; a run without a report has one row without a value.

    What a fork inherited is in its parent's rows: ``parent`` and ``parent_resource`` say from where it went on. Values
    are in the metric's own direction; ``seed`` is the number of the tuning seed.
    """
    for trial, run in view.history.runs():
        state, reason = _state(trial, view)
        own = [(resource, value) for resource, value in run.curve.items() if resource > run.origin]
        reports: list[tuple[int | None, float]] = [*own] or [(None, math.nan)]
        for resource, value in reports:
            yield {
                "trial": trial.id,
                "seed": run.seed,
                "resource": resource,
                "value": view.sign * value if math.isfinite(value) else None,
                "run_state": run.state.value,
                "trial_state": state,
                "reason": reason,
                "parent": trial.parent,
                "parent_resource": None if trial.parent is None else run.origin,
                **{path: trial.configuration.get(path) for path in view.space.paths},
            }


def importance_document(view: StudyView) -> dict[str, Any]:
    """Return each parameter's share of the variance of the values: {shares, n_trials, resource, method, warnings}.

    Raises:
        RunError: too little to compare.
    """
    found = importances(view.history, view.space)
    if isinstance(found, str):
        raise RunError(f"{view.folder}: {found[0].lower()}{found[1:]}".rstrip("."))
    return {
        "run_dir": str(view.folder),
        "method": "fANOVA",
        "shares": dict(found.shares),
        "n_trials": found.n_trials,
        "resource": found.resource,
        "warnings": list(found.warnings),
    }
