"""MLflow as a tracker: one parent run per run directory, one nested run per seed; for searches see `mlflow_study`.

Only `MlflowClient` with an explicit address is used, so no global state of MLflow is read or changed.
How far a run has got is kept in its own tags, written in the same call as the lines they count; metric
timestamps follow from the run directory alone. Repeating a call after a failure therefore finds or
overwrites the same rows (source: MLflow's metrics table is keyed by run, name, step, timestamp, value).

| tag | on | meaning |
|---|---|---|
| policylab.run_id | parent | identity of the run directory |
| policylab.path | child | the run's folder below the run directory |
| policylab.described | both | parameters and inputs are complete |
| policylab.lines | child | report lines uploaded |
| policylab.made_by | child | `job`, if the job has made the run before the command did |
| policylab.job | child | the training job that carried the run last, if it could reach the tracker |
| policylab.result | child | hash of the result uploaded |
| policylab.artifacts, policylab.bundle | parent | hashes of the files uploaded and of the policy registered |
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from policylab.errors import TrackingError
from policylab.experiments.tracking.flat import as_number, flatten, is_cut, numbers, param_text, safe_name
from policylab.experiments.tracking.mlflow_policy import log_policy
from policylab.experiments.tracking.mlflow_runs import (
    BATCH_METRICS,
    by_path,
    create_run,
    find_run,
    found_or_created,
    report_metrics,
    search_runs,
    write,
)
from policylab.experiments.tracking.mlflow_study import StudyRuns
from policylab.experiments.tracking.run_view import (
    FINISHED,
    KILLED,
    RUNNING,
    RunView,
    TrialView,
    document_hash,
    files_hash,
)
from policylab.experiments.tracking.settings import MlflowTracking, redacted
from policylab.experiments.tracking.study_rows import ConfigurationView, Row
from policylab.experiments.tracking.tracker import Progress

with warnings.catch_warnings():
    # While it is imported, MLflow warns about its own type hints.
    warnings.simplefilter("ignore")
    from mlflow import MlflowClient
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run
    from mlflow.exceptions import MlflowException


class MlflowTracker:
    """The `Tracker` that writes to MLflow.

    Args:
        settings: resolved (`MlflowTracking.resolved`).

    Attributes:
        experiment_id: set by `open`.
        run_id: MLflow's id of the parent run, set by `open`.
        model_uri: address of the registered policy, once there is one.
    """

    def __init__(self, settings: MlflowTracking) -> None:
        self.experiment_id: str | None = None
        self.run_id: str | None = None
        self.model_uri: str | None = None
        self._settings = settings
        self._client = MlflowClient(tracking_uri=settings.uri)
        self._parent_tags: dict[str, str] = {}
        self._children: dict[str, Run] = {}
        self._open_children: set[str] = set()
        self._study: StudyRuns | None = None

    def open(self, run: RunView) -> Mapping[str, Progress]:
        """Find the parent run by its tag, or create it with parameters, inputs and config.yaml."""
        self.experiment_id = self._experiment(self._settings.experiment or run.name)
        self._run, self._shared = run, run.tracked_from_jobs
        identity = {"policylab.run_id": run.run_id}
        found = find_run(self._client, identity, experiment_id=self.experiment_id)
        parent = found or self._create(run.name, tags=identity, started_ms=run.created_ms)
        self.run_id = parent.info.run_id
        self._parent_tags = dict(parent.data.tags)
        self.model_uri = self._parent_tags.get("policylab.model")
        if "policylab.described" not in self._parent_tags:
            self._describe(self.run_id, run.config(), tags=self._tags({}) | {"rl.role": "sweep"})
            self._upload(run, [run.folder / "config.yaml"])
        if run.status == RUNNING != parent.info.status:
            self._client.update_run(self.run_id, status=RUNNING)
        if isinstance(run.config().get("search"), dict):
            ids = {"experiment_id": self.experiment_id, "parent_id": parent.info.run_id}
            self._study = StudyRuns(self._client, run, **ids)
            return self._study.known()
        return self._known_children()

    def configuration(self, view: ConfigurationView, rows: Sequence[Row], *, first: int, status: str) -> None:
        """See `StudyRuns.configuration`."""
        assert self._study is not None
        self._study.configuration(view, rows, first=first, status=status)

    def seed(
        self, trial: TrialView, reports: Sequence[Mapping[str, Any]], *, first: int, result: Mapping[str, Any] | None
    ) -> None:
        """See `StudyRuns.seed`."""
        assert self._study is not None
        self._study.seed(trial, reports, first=first, result=result)

    def start(self, trial: TrialView) -> None:
        """Create the nested run of one trial and seed, unless it is there."""
        spec = trial.spec()
        started_ms = int((trial.folder / "spec.json").stat().st_mtime * 1000)
        tags = {"policylab.path": trial.path, "mlflow.parentRunId": str(self.run_id)}
        if trial.path not in self._children:
            self._children[trial.path] = self._child(trial.path, tags=tags, started_ms=started_ms)
        child = self._children[trial.path].info.run_id
        self._describe(child, spec, tags=self._tags(spec) | {"rl.role": trial.role})
        if any(is_cut(leaf) for _, leaf in flatten(spec)):
            self._client.log_artifact(child, str(trial.folder / "spec.json"))
        self._open_children.add(trial.path)

    def _child(self, path: str, *, tags: Mapping[str, str], started_ms: int) -> Run:
        name = path.removeprefix("trials/")
        if not self._shared:
            return self._create(name, tags=tags, started_ms=started_ms)
        return found_or_created(
            self._client, name, experiment_id=str(self.experiment_id), found_by=tags, tags={}, started_ms=started_ms
        )

    def log(self, trial: TrialView, reports: Sequence[Mapping[str, Any]], *, first: int) -> None:
        """Append report lines, in batches that each carry the count of complete lines."""
        child = self._children[trial.path].info.run_id
        batch: list[Metric] = []
        for number, report in enumerate(reports, start=first):
            metrics = report_metrics(report, number, created_ms=self._run.created_ms)
            if batch and len(batch) + len(metrics) > BATCH_METRICS:
                write(self._client, child, metrics=batch, tags={"policylab.lines": str(number)})
                batch = []
            batch += metrics
        write(self._client, child, metrics=batch, tags={"policylab.lines": str(first + len(reports))})

    def end(self, trial: TrialView, result: Mapping[str, Any]) -> None:
        """Add the final figures under ``final/`` and close the nested run."""
        child = self._children[trial.path].info.run_id
        ended_ms = int((trial.folder / "result.json").stat().st_mtime * 1000)
        step = int(as_number(result.get("steps")) or 0)
        metrics = [
            Metric(safe_name(name), value, ended_ms, step) for name, value in numbers(result, prefix="final").items()
        ]
        write(self._client, child, metrics=metrics, tags={"policylab.result": document_hash(result)})
        status = {"failed": "FAILED", "interrupted": KILLED}.get(str(result.get("status")), FINISHED)
        self._client.set_terminated(child, status, ended_ms)
        self._open_children.discard(trial.path)

    def publish(self, run: RunView) -> None:
        """Add aggregates, artifacts and, for a finished run, the policy; close the parent run."""
        parent = str(self.run_id)
        result = run.result()
        files = run.artifacts()
        ended_ms = int(max((file.stat().st_mtime for file in files), default=run.created_ms / 1000) * 1000)
        digest = files_hash(run.folder, files)
        if self._parent_tags.get("policylab.artifacts") != digest:
            values = {**numbers(result), **_baselines(result)}
            metrics = [Metric(safe_name(name), value, ended_ms, 0) for name, value in values.items()]
            write(self._client, parent, metrics=metrics, tags=_best(result))
            self._upload(run, files)
            self._mark("policylab.artifacts", digest)
        bundle = run.folder / "bundle"
        if run.status == FINISHED and bundle.is_dir():
            self._publish_policy(bundle)
        for path in sorted(self._open_children):
            self._client.set_terminated(self._children[path].info.run_id, KILLED, ended_ms)
        if self._client.get_run(parent).info.status != run.status:
            self._client.set_terminated(parent, run.status, ended_ms)

    def _publish_policy(self, bundle: Path) -> None:
        digest = files_hash(bundle, sorted(file for file in bundle.rglob("*") if file.is_file()))
        if self._parent_tags.get("policylab.bundle") == digest:
            return
        self.model_uri = log_policy(
            self._client,
            bundle,
            experiment_id=str(self.experiment_id),
            run_id=str(self.run_id),
            settings=self._settings,
        )
        self._mark("policylab.model", self.model_uri)
        self._mark("policylab.bundle", digest)

    def _mark(self, name: str, value: str) -> None:
        self._client.set_tag(str(self.run_id), name, value)
        self._parent_tags[name] = value

    def _experiment(self, name: str) -> str:
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return str(self._client.create_experiment(name))
            except MlflowException:  # another run has just created it
                experiment = self._client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        if experiment.lifecycle_stage != "active":
            raise TrackingError(
                f"the MLflow experiment '{name}' is deleted; restore it "
                f"(`mlflow experiments restore -x {experiment.experiment_id}`) or set tracking.experiment"
            )
        return str(experiment.experiment_id)

    def _known_children(self) -> dict[str, Progress]:
        """Fill the maps of nested runs; return the progress of those with complete parameters."""
        progress: dict[str, Progress] = {}
        below = f"tags.`mlflow.parentRunId` = '{self.run_id}'"
        children = by_path(self._client, search_runs(self._client, below, experiment_id=str(self.experiment_id)))
        for path, child in children.items():
            tags = child.data.tags
            self._children[path] = child
            if "policylab.described" in tags:
                progress[path] = Progress(int(tags.get("policylab.lines", 0)), tags.get("policylab.result"))
            if "policylab.result" not in tags:
                self._open_children.add(path)
                if self._run.status == RUNNING != child.info.status:
                    self._client.update_run(child.info.run_id, status=RUNNING)
        return progress

    def _create(self, name: str, *, tags: Mapping[str, str], started_ms: int) -> Run:
        return create_run(self._client, name, experiment_id=str(self.experiment_id), tags=tags, started_ms=started_ms)

    def _describe(self, run_id: str, settings: Mapping[str, Any], *, tags: dict[str, str]) -> None:
        """Write parameters, environment and tags of a run; the mark ``described`` comes last."""
        self._client.log_inputs(run_id, datasets=[self._dataset()])
        params = [Param(safe_name(name), redacted(param_text(leaf))) for name, leaf in flatten(settings)]
        write(self._client, run_id, params=params, tags=tags | {"policylab.described": "true"})

    def _tags(self, spec: Mapping[str, Any]) -> dict[str, str]:
        """Return the lineage of the run, and what tells one trial run from another."""
        document, environment = self._run.document, self._run.environment
        env_id = str(environment.get("id", ""))
        version = re.search(r"-v(\d+)$", env_id)
        agent = spec.get("agent") if spec else self._run.config().get("agent")
        tags = {
            "rl.env_id": env_id,
            "rl.env_version": environment.get("version", version[1] if version else None),
            "rl.algo": agent.get("kind") if isinstance(agent, Mapping) else None,
            "rl.seed": spec.get("seed"),
            "rl.git_sha": document.get("git_commit"),
            "mlflow.source.git.commit": document.get("git_commit"),
            "rl.spec_hash": document_hash(spec) if spec else None,
            "policylab.config_hash": document.get("config_hash"),
            "policylab.trial": spec.get("trial"),
            "host": document.get("host"),
        }
        if not spec:
            versions = document.get("versions")
            tags |= {f"version.{k}": v for k, v in versions.items()} if isinstance(versions, Mapping) else {}
        return {safe_name(name): str(value)[:5000] for name, value in tags.items() if value is not None}

    def _dataset(self) -> DatasetInput:
        environment = self._run.environment
        source = CodeDatasetSource(tags={name: param_text(value) for name, value in environment.items()})
        dataset = Dataset(
            name=str(environment.get("id", "environment")),
            digest=document_hash(environment)[:16],
            source_type=source._get_source_type(),
            source=source.to_json(),
        )
        return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])

    def _upload(self, run: RunView, files: Iterable[Path]) -> None:
        """Upload files under their relative names; a password in a settings file stays behind."""
        with tempfile.TemporaryDirectory() as scratch:
            for file in files:
                relative = file.relative_to(run.folder)
                source = file
                if file.name in {"config.yaml", "run.json", "result.json"}:
                    source = Path(scratch) / file.name
                    source.write_text(redacted(file.read_text()))
                folder = relative.parent.as_posix()
                self._client.log_artifact(str(self.run_id), str(source), None if folder == "." else folder)


def _best(result: Mapping[str, Any]) -> dict[str, str]:
    """Return the configuration that a search selected, as tags."""
    found = result.get("search")
    configuration = found.get("configuration") if isinstance(found, Mapping) else None
    return {safe_name(f"best.{path}"): param_text(value) for path, value in (configuration or {}).items()}


def _baselines(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the values of the classical baselines as metrics ``baseline/NAME``."""
    found = result.get("baselines")
    rows = [row for row in found if isinstance(row, Mapping)] if isinstance(found, list) else []
    values = {f"baseline/{row.get('name')}": as_number(row.get("value")) for row in rows}
    return {name: value for name, value in values.items() if value is not None}
