"""An experiment's search as the SageMaker tuning job that comes closest to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from policylab.experiments.schema import ExperimentConfig
from policylab.experiments.search import with_default
from policylab.experiments.search_plan import seeds_at_most
from policylab.tuning.request_validation import validate_request
from policylab.tuning.sagemaker_request import TuningJob, tuning_job_request

LOCAL = {"search", "launcher", "tracking", "description", "stages"}
"""Sections that a training container has no use for; beside a search there are no stages."""


def request_document(config: ExperimentConfig, *, training_job: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return {request, not_expressible, errors, warnings, unchecked} for an experiment with a search.

    ``unchecked`` says why the request's structure was not checked against the service model, or is None.

    Args:
        config: the experiment.
        training_job: definition of the training jobs; default: one with placeholders.
    """
    request, lost = tuning_job_request(tuning_job(config, training_job=training_job))
    validation = validate_request(request)
    return {
        "request": request,
        "not_expressible": lost,
        "errors": [str(finding) for finding in validation.errors],
        "warnings": [str(finding) for finding in validation.warnings],
        "unchecked": validation.skipped,
    }


def tuning_job(config: ExperimentConfig, *, training_job: Mapping[str, Any] | None = None) -> TuningJob:
    """Return the search of an experiment in plain terms."""
    search = config.search
    assert search is not None
    warm_start = search.model_dump(mode="json").get("warm_start")
    return TuningJob(
        name=config.name,
        space=with_default(config),
        searcher={"kind": search.searcher.kind, **search.searcher.model_dump(mode="json", exclude_defaults=True)},
        scheduler={"kind": search.scheduler.kind, **search.scheduler.model_dump(mode="json", exclude_defaults=True)},
        limits=search.limits,
        metric=search.metric,
        goal="maximize" if search.mode == "max" else "minimize",
        parallel=search.parallel or config.n_workers,
        n_seeds=seeds_at_most(config, search),
        n_confirm=config.seeds.confirm,
        reports=config.evaluation.marks,
        seed=config.seeds.root,
        static=all_static(config) if training_job is None else {},  # else the experiment's file travels along
        warm_start=(warm_start["kind"], warm_start["parents"]) if warm_start else None,
        training_job=training_job,
        max_runtime_s=getattr(config.launcher, "max_runtime_s", None),
        retries=getattr(config.launcher, "retries", 0),
    )


def all_static(config: ExperimentConfig) -> dict[str, Any]:
    """Return path -> value of every setting that is not searched and that a training job needs."""
    assert config.search is not None
    searched = list(config.search.space.parameters)
    return dict(_static(config.model_dump(mode="json", exclude=LOCAL), searched=searched))


def _static(value: Any, *, searched: list[str], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted path and value of every setting that is not searched."""
    if path in searched or value is None:
        return
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _static(inner, searched=searched, path=f"{path}.{key}" if path else str(key))
        return
    yield path, value
