"""Parents of a warm start: finished studies of this project or of SageMaker, read into one form.

| source | what is read |
|---|---|
| folder of a study | ``events.jsonl``: see `policylab.tuning.log` |
| run directory | ``study/events.jsonl`` and, for what was not searched, ``config.yaml`` |
| ``*.json`` | a finished SageMaker tuning job: see `policylab.tuning.sagemaker_record` |
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from policylab.config import parse
from policylab.errors import RunDirectoryError, did_you_mean
from policylab.files import read_lines
from policylab.tuning.history import History
from policylab.tuning.sagemaker_record import read_record
from policylab.tuning.searchers.observations import gather
from policylab.tuning.study_facts import Parent, Status, StudyFacts, experiment_facts, search_facts

EVENTS = "events.jsonl"
LOCKS = (".lock", "run.lock")
"""Locks that whoever carries out a study holds."""

_DATED = re.compile(r"-\d{8}-\d{6}")
"""What follows the name of a study in the name of its run."""


def find_parent(source: str, *, root: Path, besides: Path | None = None) -> Path:
    """Return the path that ``source`` names: a path, a run directory below ``root``, or a study's newest run there.

    A study's run ``besides``, the child's own, is passed over, and so are those that ended before anything was learned
    in them, unless there is no other.

    Raises:
        RunDirectoryError: nothing of that name.
    """
    own = None if besides is None else besides.resolve()
    named = [path for path in (Path(source), root / source) if path.exists() and path.resolve() != own]
    for path in named:
        if path.is_file() or _holds_study(path):
            return path
    runs = [path for path in root.glob("*") if _holds_study(path)]
    dated = [path for path in runs if _DATED.match(path.name.removeprefix(source)) and path.resolve() != own]
    if dated:
        return max(dated, key=lambda path: (_has_reports(path), path.name))
    if named:  # a folder that only has the name: what it lacks is told where it is read
        return named[0]
    hint = did_you_mean(source, [path.name for path in runs])
    raise RunDirectoryError(f"warm_start.parents: no study, run directory or record '{source}' in {root}{hint}")


def _holds_study(folder: Path) -> bool:
    return (folder / "study" / EVENTS).exists() or (folder / EVENTS).exists()


def _has_reports(run: Path) -> bool:
    return any(
        event.get("event") == "report"
        for log in (run / "study" / EVENTS, run / EVENTS)
        if log.exists()
        for event in read_lines(log)
    )


def read_parent(path: Path) -> Parent:
    """Read a parent from a study's folder, a run directory or a SageMaker record.

    Raises:
        RunDirectoryError: it is none of these, or damaged.
        ConfigError: a SageMaker record that lacks something.
    """
    if path.suffix == ".json":
        return read_record(path)
    for folder in (path, path / "study"):
        if (folder / EVENTS).exists():
            return _read_study(folder / EVENTS, run=path)
    raise RunDirectoryError(
        f"{path}: no study here (no {EVENTS} and no study/{EVENTS}); give a run directory or *.json"
    )


def _read_study(log: Path, *, run: Path) -> Parent:
    events = read_lines(log)
    if not events or events[0].get("event") != "study":
        raise RunDirectoryError(f"{log}:1: the log of a study begins with its settings; restore it from a copy")
    try:
        facts = _facts(events[0]["settings"], run)
        history = History(max_resource=_full_resource(events, run))
        for event in events:
            history.apply(event)
    except (KeyError, TypeError, AttributeError, ValidationError) as error:
        raise RunDirectoryError(f"{log}: not the log of a study ({_first(error)}); restore it from a copy") from None
    return Parent(
        facts=facts,
        status="in_progress" if _in_use(log.parent, run) else _status(events, history),
        # The level that a single trial justifies is the highest; below a full training no value stands for one.
        observed=gather(history, n_parameters=-1).observed if _in_full(history) else (),
        ranked=gather(history, n_parameters=len(facts.space.paths)).observed,
        n_trials=len(history.trials),
    )


def _full_resource(events: list[Any], run: Path) -> int:
    """Return the resource of a full training, of the log, else the experiment's file, else the most that was given."""
    settings, config = events[0]["settings"], run / "config.yaml"
    if "horizon" in settings:
        return int(settings["horizon"]["max_resource"])
    experiment = parse(config.read_text(encoding="utf-8"), str(config)).data if config.exists() else {}
    if "budget" in experiment:
        return int(experiment["budget"]["steps"])
    return max((event.get("until", 0) for event in events), default=0)


def _in_full(history: History) -> bool:
    return any(run.resource >= history.max_resource for trial, run in history.runs() if not trial.failed)


def _facts(settings: Mapping[str, Any], run: Path) -> StudyFacts:
    """Return the facts in a log's first line, completed by the experiment's file where there is one."""
    config = run / "config.yaml"
    if config.exists() and "static" not in settings:
        return experiment_facts(parse(config.read_text(encoding="utf-8"), str(config)).data, settings, name=run.name)
    return StudyFacts.model_validate({"name": run.name, **search_facts(settings)})


def _status(events: list[Any], history: History) -> Status:
    """Return a study's status; one that was cut off can be resumed, but while nobody does it has stopped."""
    if events[-1].get("event") == "complete":
        return "completed"
    return "failed" if history.trials and all(trial.failed for trial in history.trials.values()) else "stopped"


def _in_use(*folders: Path) -> bool:
    """Whether a live process holds the lock of one of the folders; looked at without touching them."""
    for file in (folder / name for folder in folders for name in LOCKS):
        if file.exists():
            with file.open() as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return True
    return False


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        found = error.errors()[0]
        return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"
    return f"{type(error).__name__}: {error}"
