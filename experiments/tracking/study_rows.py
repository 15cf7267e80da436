"""The configurations of a search as trackers see them: one run each, above the runs of its seeds.

Everything follows from the event log, and rows are only ever added, so that what was uploaded while the search went
on and what a later sync uploads are the same.

| rows | metrics | at |
|---|---|---|
| whenever a piece of training has ended | ``final/value`` (mean over the seeds), ``final/seeds`` | furthest resource |
| once, when the search is over | the metric searched on, mean over the seeds | each resource |
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from policylab.errors import RunDirectoryError
from policylab.experiments.tracking.run_view import (
    FAILED,
    FINISHED,
    KILLED,
    RUNNING,
    RunView,
    TrialView,
    document_hash,
    read_object,
)
from policylab.files import read_lines
from policylab.tuning.history import History, RunState, Trial

EVENTS = Path("study") / "events.jsonl"
OUTCOME = Path("study") / "outcome.json"


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """Metrics of a configuration at one resource; ``number`` is that of the event they follow from."""

    number: int
    resource: int
    metrics: Mapping[str, float]


@dataclasses.dataclass(slots=True)
class ConfigurationView:
    """One configuration of a search.

    Attributes:
        path: its folder below the run directory, such as ``trials/0003``.
        configuration: dotted path -> value.
        rows: see the module; only ever longer.
        state: ``running``, ``paused``, ``stopped``, ``failed`` or ``full``; ``confirmed only`` for a default that the
            search did not try.
        reason: why it was given up, or its error; ``""`` otherwise.
        settled: nothing more is trained for the search.
        selected: it is the winner.
        errors: seed number -> why that run failed.
        parent: which trial it goes on from, and at which resource; ``""`` unless it is a fork.
    """

    path: str
    configuration: Mapping[str, Any]
    rows: list[Row] = dataclasses.field(default_factory=list)
    state: str = "confirmed only"
    reason: str = ""
    settled: bool = True
    selected: bool = False
    errors: dict[int, str] = dataclasses.field(default_factory=dict)
    parent: str = ""

    @property
    def number(self) -> int:
        """The trial's number."""
        return int(self.path.rpartition("/")[2])

    def error_of(self, trial: TrialView) -> str | None:
        """Return why the run of one of its tuning seeds failed, or None."""
        return self.errors.get(trial.index) if trial.role == "tune" else None

    def digest(self, status: str) -> str:
        """Return a hash of what a tracker is told about its state."""
        return document_hash([self.state, self.reason, self.selected, status])

    def status(self, run: RunView) -> str:
        """Return RUNNING, FINISHED (trained in full), FAILED, or KILLED (stopped, not promoted, cut off)."""
        if not self.settled:
            return RUNNING if run.status == RUNNING else KILLED
        return {"full": FINISHED, "confirmed only": FINISHED, "failed": FAILED}.get(self.state, KILLED)


def read_configurations(run: RunView) -> dict[str, ConfigurationView] | None:
    """Return the configurations of the search so far by path; None without a search.

    Raises:
        RunDirectoryError: the event log or the configuration is damaged.
    """
    config = run.config()
    search = config.get("search")
    if not isinstance(search, dict):
        return None
    path = run.folder / EVENTS
    history, views = History(max_resource=int(config["budget"]["steps"])), dict[int, ConfigurationView]()
    sign, metric = (-1.0 if search.get("mode") == "min" else 1.0), str(search.get("metric"))
    over = False
    for number, event in enumerate(read_lines(path)):
        try:
            history.apply(event)
            if event["event"] in ("start", "fork") and event["trial"] not in views:
                view = ConfigurationView(f"trials/{event['trial']:04d}", event["configuration"])
                views[event["trial"]] = view
                if event["event"] == "fork":
                    view.parent = f"trial {event['parent']:04d} at {event['origin']}"
            elif event["event"] == "end":
                rows = views[event["trial"]].rows
                rows.extend(_standing(history.trials[event["trial"]], number=number, sign=sign))
            over = event["event"] == "complete"
        except (KeyError, TypeError, AttributeError) as error:
            raise RunDirectoryError(f"{path}:{number + 1}: not an event ({error!r}); restore it from a copy") from None
        if over:  # the last line
            for trial, view in views.items():
                view.rows += _curve(history.trials[trial], metric, number=number, sign=sign)
    winner = read_object(run.folder / OUTCOME)["winner"] if (run.folder / OUTCOME).exists() else None
    for trial, view in views.items():
        _describe(view, history.trials[trial], over=over, max_resource=history.max_resource)
        view.selected = trial == winner
    return {view.path: view for view in views.values()}


def _standing(trial: Trial, *, number: int, sign: float) -> Iterator[Row]:
    """Yield where the configuration stands, if a value says so."""
    furthest = max((run.resource for run in trial.runs.values()), default=0)
    values = [sign * value for value in trial.values_at(furthest).values()]
    if values:
        yield Row(number, furthest, {"final/value": math.fsum(values) / len(values), "final/seeds": len(values)})


def _curve(trial: Trial, metric: str, *, number: int, sign: float) -> Iterator[Row]:
    """Yield the mean over the seeds where it is of all of them."""
    for resource, mean in trial.mean_curve().items():
        yield Row(number, resource, {metric: sign * mean})


def _describe(view: ConfigurationView, trial: Trial, *, over: bool, max_resource: int) -> None:
    runs = trial.runs.values()
    view.errors = {run.seed: run.error for run in runs if run.error is not None}
    view.settled = over or trial.stopped is not None or trial.failed
    view.reason = next(iter(view.errors.values()), trial.stopped or "")
    if trial.failed:
        view.state = "failed"
    elif trial.stopped is not None:
        view.state = "stopped"
    elif any(run.state is RunState.RUNNING for run in runs):
        view.state = "running"
    else:
        view.state = "full" if any(run.resource >= max_resource for run in runs) else "paused"
