"""Checking a CreateHyperParameterTuningJob request before it is sent: every violation at once.

Two layers. The *structure* (types, required and unknown fields, enumerations, patterns, extremes) comes from the
service model in botocore and needs the extra ``sagemaker``. The *rules* between fields are written out here and need
nothing. Source of the rules: API reference of CreateHyperParameterTuningJob and the pages of the SageMaker developer
guide about automatic model tuning.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from policylab.aws.request_view import View
from policylab.aws.service_model import structure_findings
from policylab.errors import MissingExtraError
from policylab.findings import Finding, raise_errors
from policylab.tuning.definition_rules import definition_findings
from policylab.tuning.range_rules import KINDS, bound, members, range_findings
from policylab.tuning.service_limits import ServiceLimits

OPERATION = "CreateHyperParameterTuningJob"
EPOCH_NAMES = ("epochs", "numepochs", "n-epochs", "n_epochs", "num_epochs")
"""Static hyperparameters that Hyperband takes for MaxResource when it is absent."""


@dataclasses.dataclass(frozen=True, slots=True)
class Validation:
    """What the check of a request found.

    Attributes:
        findings: errors and warnings.
        skipped: why the structure was not checked, or None if it was.
    """

    findings: list[Finding]
    skipped: str | None = None

    @property
    def errors(self) -> list[Finding]:
        """The findings for which the service would refuse the request."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """The findings that the service would accept."""
        return [finding for finding in self.findings if finding.severity == "warning"]


def validate_request(request: Mapping[str, Any], *, limits: ServiceLimits | None = None) -> Validation:
    """Check structure and rules; without botocore only the rules, which `Validation.skipped` then says.

    Args:
        request: what boto3's ``create_hyper_parameter_tuning_job`` would be called with.
        limits: numbers that differ from the published ones, such as raised quotas.
    """
    findings = list(rule_findings(request, limits=limits))
    explained = {finding.path for finding in findings if finding.severity == "error"}
    try:
        structure = structure_findings(OPERATION, request)
    except MissingExtraError as error:
        return Validation(findings, skipped=str(error))
    return Validation(findings + [finding for finding in structure if finding.path not in explained])


def require_valid(request: Mapping[str, Any], *, limits: ServiceLimits | None = None) -> Validation:
    """Validate and refuse a request with errors.

    Raises:
        ConfigError: every error, one per line.
    """
    validation = validate_request(request, limits=limits)
    raise_errors(validation.findings, about=OPERATION)
    return validation


def rule_findings(request: Mapping[str, Any], *, limits: ServiceLimits | None = None) -> Iterator[Finding]:
    """Apply every rule between fields; malformed parts are left to the check of the structure."""
    limits = limits or ServiceLimits()
    view = View(request)
    for rule in _RULES:
        yield from rule(view, limits)


def _name_rules(request: View, limits: ServiceLimits) -> Iterator[Finding]:
    name, tags = request["HyperParameterTuningJobName"], request["Tags"]
    if not name.text:
        yield name.found("a tuning job needs a name", "give it one")
    if name.size > limits.name_characters:
        yield name.found(f"at most {limits.name_characters} characters", "shorten it; training-job names begin with it")
    if tags.size > limits.tags:
        yield tags.found(f"at most {limits.tags} tags", "remove some", value=tags.size)


def _definitions(request: View) -> list[tuple[View, View, View]]:
    """Each training-job definition with its ranges and its objective."""
    job, single = request["HyperParameterTuningJobConfig"], request["TrainingJobDefinition"]
    several = request["TrainingJobDefinitions"].items()
    found = [(view, view["HyperParameterRanges"], view["TuningObjective"]) for view in several]
    if single.given:
        found.insert(0, (single, job["ParameterRanges"], job["HyperParameterTuningJobObjective"]))
    return found


def _definition_rules(request: View, limits: ServiceLimits) -> Iterator[Finding]:
    single, several = request["TrainingJobDefinition"], request["TrainingJobDefinitions"]
    if single.given == several.given:
        yield single.found(
            "a request has either TrainingJobDefinition or TrainingJobDefinitions",
            "keep one of them",
            value="both" if single.given else "neither",
        )
    if several.given and not 1 <= several.size <= limits.definitions:
        yield several.found(f"1 to {limits.definitions} definitions", "split the tuning job", value=several.size)
    for definition in several.items():
        for field in ("DefinitionName", "TuningObjective", "HyperParameterRanges"):
            if not definition[field].given:
                yield definition[field].found("every definition of a list needs it", f"add {field}")
        if definition["DefinitionName"].size > limits.definition_name_characters:
            rule = f"at most {limits.definition_name_characters} characters"
            yield definition["DefinitionName"].found(rule, "shorten it")
    for definition, ranges, objective in _definitions(request):
        yield from definition_findings(definition, ranges, objective=objective, limits=limits)
    entries = sum(definition["Environment"].size for definition, _, _ in _definitions(request))
    if entries > limits.environment_entries:
        rule = f"at most {limits.environment_entries} environment variables over all definitions"
        yield (several if several.given else single)["Environment"].found(rule, "remove some", value=entries)


def _range_rules(request: View, limits: ServiceLimits) -> Iterator[Finding]:
    job = request["HyperParameterTuningJobConfig"]
    autotune = request["Autotune"]["Mode"].value == "Enabled"
    for _, ranges, objective in _definitions(request):
        yield from range_findings(ranges, limits)
        if not members(ranges) and not autotune:
            yield ranges.found("there must be something to tune", "add a range")
        if not objective.given and not autotune:
            yield objective.found("a tuning job needs an objective", "give Type and MetricName")
    if request["TrainingJobDefinitions"].given and (job["ParameterRanges"].given):
        rule = "ranges belong to the definitions when there is a list of them"
        yield job["ParameterRanges"].found(rule, "move them to HyperParameterRanges", severity="warning")
    hints = job["ParameterRanges"]["AutoParameters"]
    if hints.size and not autotune:
        yield hints.found("needs Autotune", "set Autotune.Mode to Enabled or give ranges", value=hints.size)
    for hint in hints.items():
        if not hint["ValueHint"].text:
            yield hint["ValueHint"].found("every automatic range needs a value hint", "give a typical value")


def _grid_rules(request: View, limits: ServiceLimits) -> Iterator[Finding]:
    job = request["HyperParameterTuningJobConfig"]
    if job["Strategy"].value != "Grid":
        return
    product = 0
    for _, ranges, _ in _definitions(request):
        for kind in KINDS[:2]:
            if ranges[kind].size:
                remedy = "list the values as categories, or use another strategy"
                yield ranges[kind].found("Grid takes categorical ranges only", remedy, value=ranges[kind].size)
        product += math.prod(member["Values"].size for member in ranges[KINDS[2]].items())
    count = job["ResourceLimits"]["MaxNumberOfTrainingJobs"]
    if count.given and count.number != product:
        yield count.found(f"Grid runs each of the {product} combinations once", f"set it to {product} or leave it out")


def _hyperband_rules(request: View, limits: ServiceLimits) -> Iterator[Finding]:
    job = request["HyperParameterTuningJobConfig"]
    settings, early = job["StrategyConfig"]["HyperbandStrategyConfig"], job["TrainingJobEarlyStoppingType"]
    if job["Strategy"].value != "Hyperband":
        if settings.given:
            yield settings.found("is for the strategy Hyperband only", "remove it")
        return
    if early.value == "Auto":
        yield early.found("Hyperband stops jobs itself: early stopping must be Off", "set Off")
    low, high = settings["MinResource"], settings["MaxResource"]
    if high.given:
        yield from _resource_findings(low, high, limits=limits)
        return
    for definition, _, _ in _definitions(request):
        static = definition["StaticHyperParameters"]
        epochs = next((static[name] for name in EPOCH_NAMES if static[name].given), None)
        value = None if epochs is None else bound(epochs, integer=True)
        if epochs is None or value is None:
            rule = f"Hyperband needs MaxResource, or a static integer named {', '.join(EPOCH_NAMES)}"
            yield (high if epochs is None else epochs).found(rule, "set MaxResource")
        else:
            yield from _resource_findings(low, View(value, epochs.path), limits=limits)


def _resource_findings(low: View, high: View, *, limits: ServiceLimits) -> Iterator[Finding]:
    for side in (low, high):
        if side.number is not None and not 1 <= side.number <= limits.hyperband_resource:
            yield side.found(f"1 to {limits.hyperband_resource}", "count the resource in a coarser unit")
    if low.number is not None and high.number is not None and low.number > high.number:
        yield low.found(f"must not exceed the maximum resource {high.number}", "lower it")


def _limit_rules(request: View, limits: ServiceLimits) -> Iterator[Finding]:
    job = request["HyperParameterTuningJobConfig"]
    resources, random = job["ResourceLimits"], job["Strategy"].value == "Random"
    count, parallel = resources["MaxNumberOfTrainingJobs"], resources["MaxParallelTrainingJobs"]
    runtime, most = resources["MaxRuntimeInSeconds"], limits.random_jobs if random else limits.jobs
    if count.number is not None and not 1 <= count.number <= most:
        yield count.found(f"1 to {most} training jobs", "split the tuning job; a warm start continues it")
    criteria = job["TuningJobCompletionCriteria"]
    if not (count.given or runtime.given or criteria.size or job["Strategy"].value == "Grid"):
        rule = "nothing says when the tuning job is over"
        yield resources.found(rule, "set MaxNumberOfTrainingJobs or MaxRuntimeInSeconds", severity="warning")
    if parallel.number is not None:
        yield from _parallel_findings(parallel, parallel.number, count=count.number, limits=limits)
    if runtime.number is not None and not limits.min_runtime_s <= runtime.number <= limits.max_runtime_s:
        yield runtime.found(f"{limits.min_runtime_s} to {limits.max_runtime_s} seconds", "leave it out for no limit")
    elif (runtime.number or 0) > limits.advised_runtime_s:
        rule = f"one page of the documentation allows only {limits.advised_runtime_s} seconds"
        yield runtime.found(rule, "stay below it to be safe", severity="warning")


def _parallel_findings(
    parallel: View, value: float, *, count: float | None, limits: ServiceLimits
) -> Iterator[Finding]:
    if not 1 <= value <= limits.parallel:
        yield parallel.found(f"1 to {limits.parallel} jobs at a time", "lower it")
    elif value > limits.advised_parallel:
        rule = f"the default quota is {limits.advised_parallel} jobs at a time"
        yield parallel.found(rule, "lower it or have the quota raised", severity="warning")
    if count is not None and value > count:
        yield parallel.found(f"must not exceed MaxNumberOfTrainingJobs {count}", "lower it")


def _completion_rules(request: View, limits: ServiceLimits) -> Iterator[Finding]:
    job = request["HyperParameterTuningJobConfig"]
    stalled = job["TuningJobCompletionCriteria"]["BestObjectiveNotImproving"]["MaxNumberOfTrainingJobsNotImproving"]
    count, seed = job["ResourceLimits"]["MaxNumberOfTrainingJobs"], job["RandomSeed"]
    if stalled.number is not None and stalled.number < limits.min_not_improving:
        yield stalled.found(f"at least {limits.min_not_improving}", "raise it")
    elif stalled.number is not None and count.number is not None and stalled.number >= count.number:
        rule = f"cannot be met within MaxNumberOfTrainingJobs {count.number}"
        yield stalled.found(rule, "lower it or leave it out", severity="warning")
    if seed.number is not None and seed.number < 0:
        yield seed.found("must be at least 0", "count seeds from 0")


def _warm_start_rules(request: View, limits: ServiceLimits) -> Iterator[Finding]:
    section, job = request["WarmStartConfig"], request["HyperParameterTuningJobConfig"]
    if not section.given:
        return
    parents = section["ParentHyperParameterTuningJobs"]
    if not 1 <= parents.size <= limits.parents:
        yield parents.found(f"1 to {limits.parents} parents", "keep the most similar ones", value=parents.size)
    names = [parent["HyperParameterTuningJobName"] for parent in parents.items()]
    lowered = [name.text.lower() for name in names]
    for name in names:
        if not name.text:
            yield name.found("a parent needs its name", "give the tuning job's name")
        elif name.text.lower() == request["HyperParameterTuningJobName"].text.lower():
            yield name.found("a tuning job cannot be its own parent", "give the new job another name")
        elif lowered.count(name.text.lower()) > 1:
            yield name.found("parents must differ (names are not case-sensitive)", "remove the repeated one")
    if job["Strategy"].value in ("Grid", "Hyperband"):
        rule = "warm start is documented for Bayesian and Random only: not portable"
        yield job["Strategy"].found(rule, "use one of those", severity="warning")
    if request["TrainingJobDefinitions"].given:
        rule = "the SDK refuses a warm start with several definitions: not portable"
        yield section.found(rule, "use TrainingJobDefinition", value="several", severity="warning")


_RULES: tuple[Callable[[View, ServiceLimits], Iterator[Finding]], ...] = (
    _name_rules,
    _definition_rules,
    _range_rules,
    _grid_rules,
    _hyperband_rules,
    _limit_rules,
    _completion_rules,
    _warm_start_rules,
)
