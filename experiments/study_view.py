"""A study as readers see it: read-only, without the agents' schema, and while it is being written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from policylab.errors import RunDirectoryError
from policylab.experiments.objective import RETURN_METRIC
from policylab.experiments.tracking.run_view import read_object, read_run
from policylab.files import read_lines
from policylab.tuning.history import History
from policylab.tuning.scheduler import Horizon
from policylab.tuning.space import Space

EVENTS = "study/events.jsonl"
OUTCOME = "study/outcome.json"
TUNED = "events.jsonl"
"""The log of a study in a folder of `policylab.tuning.tune`."""


@dataclasses.dataclass(frozen=True, slots=True)
class StudyView:
    """The study of a run directory, as of one moment.

    Attributes:
        folder: the run directory.
        run_id: its original name, which is the study's name elsewhere.
        config: the experiment as plain data; ``config["search"]`` is there.
        space: what is searched.
        history: everything that happened; larger values are better there.
        reason: why the study ended, or None while it has not.
        outcome: what it decided, or None.
    """

    folder: Path
    run_id: str
    config: Mapping[str, Any]
    space: Space
    history: History
    reason: str | None
    outcome: Mapping[str, Any] | None

    @property
    def search(self) -> Mapping[str, Any]:
        """The search section."""
        found: Mapping[str, Any] = self.config["search"]
        return found

    @property
    def sign(self) -> float:
        """1 to maximise, -1 to minimise: times a value of the history, it is the metric's."""
        return 1.0 if self.search["mode"] == "max" else -1.0

    @property
    def n_seeds(self) -> int:
        """Tuning seeds that one configuration can get."""
        scheduler = self.search["scheduler"]
        if scheduler["kind"] in ONE_SEED:
            return 1
        return int(scheduler.get("seeds") or self.config["seeds"]["tune"])

    def confirmed(self, trial: int) -> dict[int, float]:
        """Return seed -> what the finished confirmation runs of ``trial`` are worth, in the metric's own direction.

        As in the result, a return is that of the final policy, any other metric the last that was reported.
        """
        found, metric = {}, self.search["metric"]
        for path in sorted(self.folder.glob(f"trials/{trial:04d}/confirm-*/result.json")):
            values = [read_object(path)["value"]]
            if metric != RETURN_METRIC:
                rows = read_lines(path.with_name("reports.jsonl"))
                values = [row["metrics"][metric] for row in rows if metric in row["metrics"]]
            found[int(path.parent.name.rpartition("-")[2])] = float(values[-1] if values else "nan")
        return found


ONE_SEED = ("asha", "hyperband", "median")
"""Schedulers that never add a seed: what one run reports at the end is final."""


def read_study(folder: Path) -> StudyView:
    """Read the study of the run directory ``folder``; a line that is being written is left out.

    Raises:
        RunDirectoryError: no run directory, one without a search, or a damaged file.
    """
    run = read_run(folder)
    config = run.config()
    if not isinstance(config.get("search"), dict):
        raise RunDirectoryError(
            f"{folder} holds no study: its experiment has no search section; compare runs with `policylab compare`"
        )
    try:
        space = Space.model_validate(config["search"]["space"])
        history = History(max_resource=int(config["budget"]["steps"]))
    except (KeyError, TypeError, ValidationError) as error:
        raise RunDirectoryError(f"{folder / 'config.yaml'}: damaged ({error}); restore it from a copy") from None
    reason = _replay(folder / EVENTS, history)
    outcome = folder / OUTCOME
    decided = read_object(outcome) if outcome.exists() else None
    if decided is not None and decided.get("winner") not in history.trials:
        raise RunDirectoryError(
            f"{folder / EVENTS}: lacks trial {decided.get('winner')}, which {outcome} selects; restore both from a copy"
        )
    return StudyView(folder, run.run_id, config, space, history, reason, decided)


def read_tuned(folder: Path) -> tuple[StudyView, Horizon]:
    """Read the study that `policylab.tuning.tune` keeps in ``folder``, and what its scheduler plans with.

    Raises:
        RunDirectoryError: there is none, or its log is damaged.
    """
    path = folder / TUNED
    lines = read_lines(path)
    try:
        settings = lines[0]["settings"]
        planned, space = settings["horizon"], settings["space"]
        space = Space.model_validate({**space, "parameters": dict(space["parameters"])})
        search = {**{name: settings[name] for name in ("scheduler", "mode", "limits")}, "metric": "value"}
        config = {"name": folder.name, "search": search, "seeds": {"tune": planned["n_seeds"], "confirm": 0}}
        horizon = Horizon(**planned, space=space)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise RunDirectoryError(f"{path}: not a study's log ({error!r}); restore it from a copy") from None
    history = History(max_resource=horizon.max_resource)
    reason = _replay(path, history)
    return StudyView(folder, folder.name, config, space, history, reason, None), horizon


def _replay(path: Path, history: History) -> str | None:
    """Apply the log at ``path`` to ``history``; return why the study ended, or None."""
    reason = None
    for number, event in enumerate(read_lines(path), start=1):
        try:
            history.apply(event)
            reason = event["reason"] if event["event"] == "complete" else None
        except (KeyError, TypeError, AttributeError, StopIteration) as error:
            raise RunDirectoryError(
                f"{path}:{number}: not an event that can follow the ones before it "
                f"({type(error).__name__}: {error}); restore the file from a copy"
            ) from None
    return reason
