"""Runs in MLflow through an explicit client: found, created and written in as few calls as its limits allow."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from policylab.experiments.tracking.flat import as_number, safe_name

with warnings.catch_warnings():
    # While it is imported, MLflow warns about its own type hints.
    warnings.simplefilter("ignore")
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, Run, RunTag

BATCH_METRICS = 900  # MLflow takes at most 1000 metrics, parameters and tags together
BATCH_PARAMS = 90


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
    wanted = " and ".join(f"tags.`{name}` = {quoted(value)}" for name, value in tags.items())
    return next(iter(search_runs(client, wanted, experiment_id=experiment_id, limit=1)), None)


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
