"""Runs in MLflow through an explicit client: found, created and written in as few calls as its limits allow."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from policylab.experiments.tracking.flat import as_number, safe_name

with warnings.catch_warnings():
    # While it is imported, MLflow warns about its own type hints.
    warnings.simplefilter("ignore")
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, Run, RunTag

BATCH_METRICS = 900  # MLflow takes at most 1000 metrics, parameters and tags together
BATCH_PARAMS = 90

MADE_BY = "policylab.made_by"
"""Tag of a run that a job has made: ``job``."""


def client_of(uri: str) -> MlflowClient:
    """Return a client of the tracker at ``uri``."""
    return MlflowClient(tracking_uri=uri)


def search_runs(client: MlflowClient, filter_string: str, *, experiment_id: str, limit: int | None = None) -> list[Run]:
    """Return the runs that match, all of them or the first ``limit``."""
    runs: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs([experiment_id], filter_string, max_results=limit or 1000, page_token=token)
        runs += page
        token = page.token
        if not token or limit is not None:
            return runs


def find_run(client: MlflowClient, tags: Mapping[str, str], *, experiment_id: str) -> Run | None:
    """Return a run with these tags, or None."""
    return next(iter(search_runs(client, tags_filter(tags), experiment_id=experiment_id, limit=1)), None)


def tags_filter(tags: Mapping[str, str]) -> str:
    """Return a search for runs with all of these tags."""
    return " and ".join(f"tags.`{name}` = {quoted(value)}" for name, value in tags.items())


def keep_one(client: MlflowClient, runs: Sequence[Run]) -> Run:
    """Return the one run that stays of several for the same thing, and delete the others.

    A command and a job may look for a run at the same time and both create it. Whoever has created one looks again, and
    what a command has made stays: it looks after whatever the job has made before, and a job that looks later yields.
    """
    kept, *others = sorted(runs, key=lambda run: (MADE_BY in run.data.tags, run.info.start_time, run.info.run_id))
    for other in others:
        client.delete_run(other.info.run_id)
    return kept


def by_path(client: MlflowClient, runs: Iterable[Run]) -> dict[str, Run]:
    """Return the run of each folder below the run directory; of several for the same one, all but one are deleted."""
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        if path := run.data.tags.get("policylab.path"):
            grouped.setdefault(path, []).append(run)
    return {path: keep_one(client, some) for path, some in grouped.items()}


def found_or_created(
    client: MlflowClient, name: str, *, experiment_id: str, found_by: Mapping[str, str], tags: Mapping[str, str],
    started_ms: int,
) -> Run:  # fmt: skip
    """Return the one run with the tags ``found_by``; where there is none, create it with ``tags`` in addition."""
    found = find_run(client, found_by, experiment_id=experiment_id)
    if found is not None:
        return found
    tags = {**tags, **found_by}
    made = create_run(client, name, experiment_id=experiment_id, tags=tags, started_ms=started_ms)
    there = search_runs(client, tags_filter(found_by), experiment_id=experiment_id)
    return keep_one(client, there) if there else made


def quoted(text: str) -> str:
    """Return ``text`` as a string of MLflow's search language."""
    return f'"{text}"' if "'" in text else f"'{text}'"


def create_run(client: MlflowClient, name: str, *, experiment_id: str, tags: Mapping[str, str], started_ms: int) -> Run:
    """Create a run with tags; it has the status RUNNING."""
    source = {"mlflow.source.name": "policylab", "mlflow.source.type": "LOCAL"}
    return client.create_run(experiment_id, start_time=started_ms, tags={**tags, **source}, run_name=name[:250])


def write(
    client: MlflowClient,
    run_id: str,
    *,
    metrics: Sequence[Metric] = (),
    params: Sequence[Param] = (),
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write metrics, parameters and tags; the tags go with the last call."""
    calls = max(1, -(-len(metrics) // BATCH_METRICS), -(-len(params) // BATCH_PARAMS))
    for call in range(calls):
        last = [RunTag(name, value) for name, value in (tags or {}).items()] if call == calls - 1 else []
        some_metrics = metrics[call * BATCH_METRICS : (call + 1) * BATCH_METRICS]
        some_params = params[call * BATCH_PARAMS : (call + 1) * BATCH_PARAMS]
        client.log_batch(run_id, some_metrics, some_params, last)


def report_metrics(report: Mapping[str, Any], number: int, *, created_ms: int, only: str | None = None) -> list[Metric]:
    """Return the metrics of one report line; the line's number makes its timestamp, in milliseconds.

    Args:
        report: the line.
        number: of the line in its file, from 0.
        created_ms: when the run was made.
        only: the one metric to take, or None for all of them and the episodes.
    """
    values = {**report["metrics"], "train/episodes": report.get("episodes")}
    chosen = values if only is None else {only: values.get(only)}
    floats = ((safe_name(name), as_number(value)) for name, value in chosen.items())
    return [Metric(name, value, created_ms + number, report["step"]) for name, value in floats if value is not None]
