"""A study as the literal CreateHyperParameterTuningJob request, and what of it SageMaker cannot express.

Source: API reference of CreateHyperParameterTuningJob. The request is a plain dict for boto3; check it with
`policylab.tuning.request_validation.validate_request`.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from policylab.aws.metrics import metric_regex
from policylab.tuning.hyperparameter_text import to_hyperparameters, to_text
from policylab.tuning.limits import Limits
from policylab.tuning.parameters import Categorical
from policylab.tuning.schedulers.median import MedianSettings
from policylab.tuning.service_limits import ServiceLimits
from policylab.tuning.space import Space

STRATEGIES = {"grid": "Grid", "random": "Random", "bayesian": "Bayesian", "tpe": "Bayesian"}
SCALINGS = {
    "auto": "Auto",
    "linear": "Linear",
    "logarithmic": "Logarithmic",
    "reverse_logarithmic": "ReverseLogarithmic",
}
WARM_STARTS = {
    "identical_data_and_algorithm": "IdenticalDataAndAlgorithm",
    "transfer_learning": "TransferLearning",
}
HALVING = ("hyperband", "asha")
_MAX_SEED = 2**31 - 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TuningJob:
    """What a study is, in plain terms.

    Attributes:
        name: of the study; made a valid tuning-job name.
        space: what is searched.
        searcher: settings of the searcher: ``kind`` and whatever differs from its defaults.
        scheduler: settings of the scheduler, likewise.
        limits: when it ends; ``target`` in the metric's own direction.
        metric: name of the objective, printed by the container as ``[metric] NAME=VALUE``.
        goal: whether the metric is to grow or to shrink.
        parallel: trainings at a time.
        n_seeds: tuning seeds of a configuration.
        n_confirm: fresh seeds on which the winner is trained again.
        reports: how often a full training reports the objective; the resource that Hyperband counts.
        seed: of the study.
        static: path -> value of the hyperparameters that are not searched.
        warm_start: kind of warm start and names of the parent *tuning jobs*.
        training_job: the TrainingJobDefinition, with placeholders where the account is not known yet.
        max_runtime_s: seconds that one training may take, for a definition that is not given.
        retries: how often a training that failed is repeated.
    """

    name: str
    space: Space
    searcher: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    limits: Limits
    metric: str
    goal: Literal["maximize", "minimize"] = "maximize"
    parallel: int = 1
    n_seeds: int = 1
    n_confirm: int = 0
    reports: int = 20
    seed: int | None = None
    static: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    warm_start: tuple[str, Sequence[str]] | None = None
    training_job: Mapping[str, Any] | None = None
    max_runtime_s: float | None = None
    retries: int = 0


def tuning_job_request(job: TuningJob) -> tuple[dict[str, Any], list[str]]:
    """Return the request and one sentence for each thing it cannot say.

    Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateHyperParameterTuningJob.html
    """
    lost: list[str] = []
    strategy = _strategy(job, lost)
    config: dict[str, Any] = {
        "Strategy": strategy,
        "HyperParameterTuningJobObjective": {"Type": job.goal.capitalize(), "MetricName": job.metric},
        "ResourceLimits": _resource_limits(job, lost, strategy=strategy),
        "ParameterRanges": parameter_ranges(job.space, lost, grid=strategy == "Grid"),
        "TrainingJobEarlyStoppingType": "Auto" if job.scheduler["kind"] == "median" else "Off",
    }
    if strategy == "Hyperband":
        config["StrategyConfig"] = {"HyperbandStrategyConfig": _hyperband(job)}
    if criteria := _completion(job.limits):
        config["TuningJobCompletionCriteria"] = criteria
    if job.seed is not None:
        config["RandomSeed"] = job.seed % (_MAX_SEED + 1)
    request: dict[str, Any] = {
        "HyperParameterTuningJobName": tuning_job_name(job.name),
        "HyperParameterTuningJobConfig": config,
        "TrainingJobDefinition": _training_job(job),
    }
    if warm_start := _warm_start(job, lost):
        request["WarmStartConfig"] = warm_start
    return request, lost + _lost_settings(job) + _lost_space(job.space) + _lost_limits(job)


def tuning_job_name(name: str) -> str:
    """Return ``name`` as a tuning job may be called: letters, digits and inner hyphens, at most 32.

    >>> tuning_job_name("frozenlake8x8_warmstart-2026-11-23T03:01")
    'frozenlake8x8-warmstart-2026-11'
    """
    plain = re.sub(r"[^a-zA-Z0-9]+", "-", name).strip("-")
    return plain[: ServiceLimits().name_characters].rstrip("-") or "study"


def placeholder_training_job(*, max_runtime_s: float = 86_400) -> dict[str, Any]:
    """Return a training-job definition that is valid, with names to be replaced by those of an account."""
    return {
        "AlgorithmSpecification": {
            "TrainingImage": "000000000000.dkr.ecr.REGION.amazonaws.com/IMAGE:TAG",
            "TrainingInputMode": "File",
        },
        "RoleArn": "arn:aws:iam::000000000000:role/ROLE",
        "OutputDataConfig": {"S3OutputPath": "s3://BUCKET/output"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
        "StoppingCondition": {"MaxRuntimeInSeconds": math.ceil(max_runtime_s)},
    }


def _strategy(job: TuningJob, lost: list[str]) -> str:
    searcher, scheduler = job.searcher["kind"], job.scheduler["kind"]
    if scheduler in HALVING:
        lost.append(f"searcher {searcher}: the strategy Hyperband draws its configurations itself")
        return "Hyperband"
    if searcher not in STRATEGIES:
        lost.append(f"searcher {searcher}: unknown to SageMaker; Random stands in")
    elif searcher == "tpe":
        lost.append("searcher tpe: Bayesian search with a Gaussian process stands in")
    return STRATEGIES.get(searcher, "Random")


def _resource_limits(job: TuningJob, lost: list[str], *, strategy: str) -> dict[str, int]:
    limits = {"MaxParallelTrainingJobs": job.parallel}
    if strategy == "Grid":
        sizes = [parameter.size for parameter in job.space.parameters.values()]
        if None not in sizes:
            limits["MaxNumberOfTrainingJobs"] = product = math.prod(size for size in sizes if size is not None)
            if job.limits.trials is not None and job.limits.trials < product:
                lost.append(f"limits.trials {job.limits.trials}: Grid runs all {product} combinations")
            own = job.space.n_configurations
            if own is not None and own < product:
                lost.append(
                    f"grid: {own} of the {product} combinations are configurations, the others repeat one or break a "
                    "constraint; SageMaker trains them all"
                )
    elif job.limits.trials is not None:
        limits["MaxNumberOfTrainingJobs"] = job.limits.trials
    if job.limits.wall_clock_s is not None:
        seconds = max(ServiceLimits().min_runtime_s, math.ceil(job.limits.wall_clock_s))
        limits["MaxRuntimeInSeconds"] = seconds
        if seconds > math.ceil(job.limits.wall_clock_s):
            lost.append(f"limits.wall_clock_s {job.limits.wall_clock_s:g}: the shortest tuning job has {seconds} s")
    limits["MaxParallelTrainingJobs"] = min(job.parallel, limits.get("MaxNumberOfTrainingJobs", job.parallel))
    return limits


def parameter_ranges(space: Space, lost: list[str], *, grid: bool) -> dict[str, list[dict[str, Any]]]:
    """Return the ParameterRanges section; in a grid, stepped ranges are listed as categories."""
    ranges: dict[str, list[dict[str, Any]]] = {}
    for path, parameter in space.parameters.items():
        if isinstance(parameter, Categorical) or (grid and parameter.gridded):
            entry = {"Name": path, "Values": [to_text(value) for value in parameter.listed()]}
            ranges.setdefault("CategoricalParameterRanges", []).append(entry)
            continue
        entry = {
            "Name": path,
            "MinValue": to_text(parameter.low),
            "MaxValue": to_text(parameter.high),
            "ScalingType": SCALINGS[parameter.scaling],
        }
        ranges.setdefault(f"{parameter.kind.capitalize()}ParameterRanges", []).append(entry)
        if parameter.step not in (None, 1 if parameter.kind == "integer" else None):
            lost.append(f"{path}: its step {parameter.step:g}; the range is searched without")
    return ranges


def _hyperband(job: TuningJob) -> dict[str, int]:
    lowest = job.scheduler.get("min_resource", 0.1)
    return {"MinResource": max(1, round(lowest * job.reports)), "MaxResource": job.reports}


def _completion(limits: Limits) -> dict[str, Any]:
    criteria: dict[str, Any] = {}
    if limits.target is not None:
        criteria["TargetObjectiveMetricValue"] = limits.target
    if limits.not_improving is not None:
        stalled = {"MaxNumberOfTrainingJobsNotImproving": limits.not_improving.trials}
        criteria["BestObjectiveNotImproving"] = stalled
    if limits.convergence is not None:
        criteria["ConvergenceDetected"] = {"CompleteOnConvergence": "Enabled"}
    return criteria


def _training_job(job: TuningJob) -> dict[str, Any]:
    """Return the caller's definition with the study's static hyperparameters and the objective's metric."""
    placeholder = placeholder_training_job(max_runtime_s=job.max_runtime_s or 86_400)
    definition = copy.deepcopy(dict(job.training_job or placeholder))
    algorithm = definition.setdefault("AlgorithmSpecification", {})
    metrics = algorithm.setdefault("MetricDefinitions", [])
    if job.metric not in [metric.get("Name") for metric in metrics]:
        metrics.append({"Name": job.metric, "Regex": metric_regex(job.metric)})
    given = definition.get("StaticHyperParameters", {})
    definition["StaticHyperParameters"] = {**given, **to_hyperparameters(job.static)}
    return definition


def _warm_start(job: TuningJob, lost: list[str]) -> dict[str, Any] | None:
    kind, parents = job.warm_start or ("transfer_learning", ())
    names = [parent for parent in parents if tuning_job_name(parent) == parent]
    lost += [
        f"parent {parent}: SageMaker starts from its own tuning jobs only; name one, or leave the parent out"
        for parent in parents
        if parent not in names
    ]
    if not names:
        return None
    listed = [{"HyperParameterTuningJobName": name} for name in names]
    return {"ParentHyperParameterTuningJobs": listed, "WarmStartType": WARM_STARTS[kind]}


def _lost_settings(job: TuningJob) -> list[str]:
    kind, lost = job.scheduler["kind"], []
    mapped = {"kind", "min_resource"} if kind in HALVING else {"kind"}
    if kind == "median":
        rule = MedianSettings.model_validate(job.scheduler)
        mapped |= {"grace", "min_trials"} | ({"variant"} if rule.variant == "amt" else set())
        if rule.grace or rule.min_trials > 1:
            lost.append(
                f"scheduler.grace {rule.grace:g} and min_trials {rule.min_trials}: SageMaker compares from the first "
                "report and with the first other training on, as grace: 0 and min_trials: 1 do here"
            )
    for part, settings, known in (("searcher", job.searcher, {"kind"}), ("scheduler", job.scheduler, mapped)):
        for name, value in settings.items():
            if name not in known and value is not None:
                lost.append(f"{part}.{name} {value!r}: SageMaker has no such setting")
    if kind in HALVING:
        lost.append(
            f"scheduler {kind}: SageMaker only stops trainings; it cannot promote one from its checkpoint. "
            f"The resource is counted in reports of the objective, {job.reports} in a full training"
        )
        rung, asked = _hyperband(job)["MinResource"], job.scheduler.get("min_resource", 0.1)
        if rung == job.reports:
            lost.append("scheduler: with one report nothing is compared before the end; set evaluation.marks higher")
        elif rung / job.reports != asked:
            lost.append(f"scheduler.min_resource {asked:g}: {rung} of {job.reports} reports stands in")
    elif kind not in ("fixed", "median"):
        lost.append(f"scheduler {kind}: every configuration is trained once, in full")
    if job.retries and job.training_job is None:
        lost.append(
            f"launcher.retries {job.retries}: SageMaker repeats a training after its own errors only (RetryStrategy)"
        )
    if job.n_confirm:
        lost.append(
            f"seeds.confirm {job.n_confirm}: SageMaker's best is not trained again on fresh seeds; run the experiment "
            "with its values"
        )
    if job.n_seeds > 1:
        lost.append(
            f"{job.n_seeds} tuning seeds and races between configurations: a training job is one sample; "
            "average over seeds inside the container instead"
        )
    if job.seed is not None and job.seed > _MAX_SEED:
        lost.append(f"seed {job.seed}: RandomSeed holds 31 bits; its remainder is used")
    return lost


def _lost_space(space: Space) -> list[str]:
    lost = [
        f"{path}: its condition {dict(parameter.when)}; SageMaker always draws a value, the container must ignore it"
        for path, parameter in space.parameters.items()
        if parameter.when
    ]
    lost += [
        f"constraint {constraint}: the container must refuse such configurations" for constraint in space.constraints
    ]
    if space.default is not None:
        lost.append("the default configuration: it is neither tried first nor compared with the winner")
    return lost


def _lost_limits(job: TuningJob) -> list[str]:
    limits, lost = job.limits, []
    if limits.steps is not None:
        lost.append(f"limits.steps {limits.steps}: limit the number or the run time of the training jobs")
    if limits.cost is not None:
        lost.append(f"limits.cost {limits.cost:g}: limit the run time; a tuning job has no price limit")
    if limits.not_improving is not None:
        lost.append(
            f"limits.not_improving.threshold {limits.not_improving.threshold:g}: SageMaker has its own, 1 % "
            "according to the API reference, any improvement according to the guide"
        )
    if "failures" in limits.model_fields_set:
        lost.append(f"limits.failures {limits.failures}: SageMaker decides by itself when too many jobs have failed")
    if limits.convergence is not None:
        lost.append(f"limits.convergence of {limits.convergence.trials} trials: SageMaker has a rule of its own")
    return lost
