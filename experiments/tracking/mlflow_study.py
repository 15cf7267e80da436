"""A search in MLflow: below the parent run one run per configuration, below each one run per seed.

A search has many runs, and each call costs MLflow some ten milliseconds. So a seed's run is written when its piece of
training has ended, in three calls, with the metric searched on alone; everything else about it stands above: the
parameters in its configuration's run, the environment and the lineage in the parent run. Confirmation runs keep all
their metrics.

| tag | on | meaning |
|---|---|---|
| policylab.study | both | MLflow's id of the parent run |
| policylab.path | both | folder below the run directory |
| policylab.lines | both | rows or report lines uploaded |
| policylab.result | both | hash of the state or result uploaded |
| policylab.state, policylab.reason | both | how it stands, and why it was stopped or failed |
| policylab.selected | configuration | it is the winner |
| policylab.parent | configuration | the trial a fork goes on from, and where |
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from policylab.experiments.tracking.flat import flatten, numbers, param_text, safe_name
from policylab.experiments.tracking.mlflow_runs import (
    by_path,
    create_run,
    found_or_created,
    report_metrics,
    search_runs,
    write,
)
from policylab.experiments.tracking.run_view import FAILED, FINISHED, KILLED, RUNNING, RunView, TrialView, document_hash
from policylab.experiments.tracking.settings import redacted
from policylab.experiments.tracking.study_rows import ConfigurationView, Row
from policylab.experiments.tracking.tracker import Progress

with warnings.catch_warnings():
    # While it is imported, MLflow warns about its own type hints.
    warnings.simplefilter("ignore")
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

MAX_REASON = 2000


class StudyRuns:
    """The runs below one parent run.

    Args:
        client: to MLflow.
        run: the run directory.
        experiment_id: MLflow's id of the experiment.
        parent_id: MLflow's id of the parent run.
    """

    def __init__(self, client: MlflowClient, run: RunView, *, experiment_id: str, parent_id: str) -> None:
        self._client = client
        self._run = run
        self._experiment_id = experiment_id
        self._parent_id = parent_id
        self._config = run.config()
        self._shared = run.tracked_from_jobs
        self._ids: dict[str, str] = {}
        self._statuses: dict[str, str] = {}

    def known(self) -> dict[str, Progress]:
        """Return what is there already, by path."""
        progress = {}
        found = search_runs(
            self._client, f"tags.`policylab.study` = '{self._parent_id}'", experiment_id=self._experiment_id
        )
        for path, child in by_path(self._client, found).items():
            tags = child.data.tags
            self._ids[path], self._statuses[path] = child.info.run_id, child.info.status
            if "policylab.result" in tags:
                progress[path] = Progress(int(tags["policylab.lines"]), tags["policylab.result"])
        return progress

    def configuration(self, view: ConfigurationView, rows: Sequence[Row], *, first: int, status: str) -> None:
        """Find or create the run of a configuration; add rows number ``first`` and following, its state and status."""
        if view.path not in self._ids:
            agent = self._config.get("agent")
            kind = agent.get("kind") if isinstance(agent, Mapping) else None
            tags = {
                "rl.role": "trial",
                "rl.env_id": str(self._run.environment.get("id", "")),
                "rl.algo": str(view.configuration.get("agent.kind", kind)),
                **({"policylab.parent": view.parent} if view.parent else {}),
            }
            self._create(view.path, parent=self._parent_id, name=f"trial {view.number:04d}", tags=tags)
        time_ms = self._run.created_ms
        metrics = [
            Metric(safe_name(name), value, time_ms + row.number, row.resource)
            for row in rows
            for name, value in row.metrics.items()
        ]
        params = [
            Param(safe_name(name), redacted(param_text(leaf)))
            for name, leaf in (flatten(view.configuration) if view.configuration and not first else ())
        ]
        tags = _state(view.state, view.reason) | {
            "policylab.selected": str(view.selected).lower(),
            "policylab.lines": str(first + len(rows)),
            "policylab.result": view.digest(status),
        }
        write(self._client, self._ids[view.path], metrics=metrics, params=params, tags=tags)
        if self._statuses[view.path] != status:
            self._close(view.path, status)

    def _close(self, path: str, status: str) -> None:
        """Give a configuration's run its status, and its end when nothing of it runs."""
        if status == RUNNING:
            self._client.update_run(self._ids[path], status=status)
        else:
            specs = (self._run.folder / path).glob("*/spec.json")  # a kill may leave folders without one
            ends = [_ended_ms(spec.parent) for spec in specs]
            self._client.set_terminated(self._ids[path], status, max(ends, default=self._run.created_ms))
        self._statuses[path] = status

    def seed(
        self, trial: TrialView, reports: Sequence[Mapping[str, Any]], *, first: int, result: Mapping[str, Any] | None
    ) -> None:
        """Find or create the run of one seed; add report lines number ``first`` and following and its outcome."""
        if trial.path not in self._ids:
            above = trial.path.rpartition("/")[0]
            tags = {"rl.role": trial.role, "rl.seed": str(trial.spec().get("seed"))}
            self._create(trial.path, parent=self._ids[above], name=trial.folder.name, tags=tags)
        only = None if trial.role == "confirm" else self._config["search"].get("metric")
        metrics = [
            metric
            for number, report in enumerate(reports, start=first)
            for metric in report_metrics(report, number, created_ms=self._run.created_ms, only=only)
        ]
        ended_ms = _ended_ms(trial.folder)
        status, tags = KILLED, _state("cut off", "")
        if result is not None:
            failed = result.get("status") == "failed"
            status, tags = (FAILED if failed else FINISHED), _state(str(result.get("status")), result.get("error"))
            step = int(result.get("steps") or 0)
            final = numbers(result, prefix="final").items()
            metrics += [Metric(safe_name(name), value, ended_ms, step) for name, value in final]
        tags |= {"policylab.lines": str(first + len(reports)), "policylab.result": document_hash(result)}
        write(self._client, self._ids[trial.path], metrics=metrics, tags=tags)
        self._client.set_terminated(self._ids[trial.path], status, ended_ms)

    def _create(self, path: str, *, parent: str, name: str, tags: Mapping[str, str]) -> None:
        tags = {
            **tags,
            "policylab.path": path,
            "policylab.trial": str(int(path.split("/")[1])),
            "policylab.study": self._parent_id,
            "mlflow.parentRunId": parent,
        }
        make: dict[str, Any] = {"experiment_id": self._experiment_id, "started_ms": _started_ms(self._run, path)}
        if self._shared:
            found_by = {name: tags[name] for name in ("policylab.path", "mlflow.parentRunId")}
            run = found_or_created(self._client, name, found_by=found_by, tags=tags, **make)
        else:
            run = create_run(self._client, name, tags=tags, **make)
        self._ids[path], self._statuses[path] = run.info.run_id, run.info.status


def _state(state: str, reason: object) -> dict[str, str]:
    """Return the tags of a state; an empty reason replaces one that no longer holds."""
    return {"policylab.state": state, "policylab.reason": redacted(str(reason or ""))[:MAX_REASON]}


def _started_ms(run: RunView, path: str) -> int:
    """Return when a folder below the run directory was first written, or the start of the run."""
    specs = sorted((run.folder / path).rglob("spec.json"))
    return min((int(spec.stat().st_mtime * 1000) for spec in specs), default=run.created_ms)


def _ended_ms(folder: Path) -> int:
    """Return when a run wrote last."""
    files = [folder / name for name in ("result.json", "reports.jsonl", "spec.json")]
    return max(int(file.stat().st_mtime * 1000) for file in files if file.exists())
