"""Rules about one training-job definition of a tuning request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from policylab.aws.metrics import regex_findings
from policylab.aws.request_view import View
from policylab.aws.training_rules import one_of, repeated_names, stopping_findings
from policylab.findings import Finding
from policylab.tuning.range_rules import OBJECTIVE_NAME, members
from policylab.tuning.service_limits import ServiceLimits


def definition_findings(definition: View, ranges: View, *, objective: View, limits: ServiceLimits) -> Iterator[Finding]:
    """Check a TrainingJobDefinition against itself, its ranges and its objective."""
    yield from _hyperparameter_findings(definition["StaticHyperParameters"], ranges, limits=limits)
    yield from _metric_findings(definition["AlgorithmSpecification"], objective["MetricName"], limits=limits)
    yield from _machine_findings(definition, limits)
    yield from stopping_findings(definition, max_runtime_s=limits.training_runtime_s)
    channels = definition["InputDataConfig"]
    if channels.given and not 1 <= channels.size <= limits.channels:
        yield channels.found(f"1 to {limits.channels} channels", "leave it out or merge channels", value=channels.size)
    yield from repeated_names(channels)
    attempts = definition["RetryStrategy"]["MaximumRetryAttempts"]
    if attempts.number is not None and not 1 <= attempts.number <= limits.retries:
        yield attempts.found(f"1 to {limits.retries} attempts", "leave RetryStrategy out for none")


def _hyperparameter_findings(static: View, ranges: View, *, limits: ServiceLimits) -> Iterator[Finding]:
    total = static.size + len(members(ranges)) + 1
    if total > limits.hyperparameters:
        yield static.found(
            f"at most {limits.hyperparameters} hyperparameters, static, tunable and {OBJECTIVE_NAME} together",
            "move constants into the container or a configuration channel",
            value=total,
        )
    tunable = {member["Name"].text for member in members(ranges)}
    for name, value in static.entries():
        if name in tunable:
            yield value.found("a hyperparameter is tunable or static, not both", f"remove {name!r} from one of them")
        if name == OBJECTIVE_NAME:
            yield value.found("the name is the service's own", "remove it")
        if len(name) > limits.value_characters:
            yield value.found(f"a name has at most {limits.value_characters} characters", "shorten it", value=name)
        if value.size > limits.static_value_characters:
            yield value.found(f"at most {limits.static_value_characters} characters", "put it into a channel")


def _metric_findings(algorithm: View, objective: View, *, limits: ServiceLimits) -> Iterator[Finding]:
    yield from one_of(algorithm, ("TrainingImage", "AlgorithmName"))
    metrics = algorithm["MetricDefinitions"]
    yield from _count_findings(metrics, limits)
    names = Counter(metric["Name"].text for metric in metrics.items())
    for metric in metrics.items():
        if names[metric["Name"].text] > 1:
            yield metric["Name"].found("a metric must be defined once", "remove one of the definitions")
        if metric["Name"].size > limits.metric_name_characters:
            yield metric["Name"].found(f"at most {limits.metric_name_characters} characters", "shorten the name")
        yield from regex_findings(metric["Regex"], max_characters=limits.regex_characters)
    if objective.text and objective.text not in names and algorithm["TrainingImage"].given:
        yield objective.found(
            "a container of your own must print the objective: it needs a MetricDefinition",
            f"add one with Name {objective.text!r} to {metrics.path}",
            severity="error" if names else "warning",  # a built-in algorithm's image brings its own definitions
        )


def _count_findings(metrics: View, limits: ServiceLimits) -> Iterator[Finding]:
    if metrics.size > limits.metrics:
        yield metrics.found(f"at most {limits.metrics} metrics", "keep those that are looked at", value=metrics.size)
    elif metrics.size > limits.advised_metrics:
        rule = f"one page of the documentation allows only {limits.advised_metrics} metrics"
        yield metrics.found(rule, "keep those that are looked at", value=metrics.size, severity="warning")


def _machine_findings(definition: View, limits: ServiceLimits) -> Iterator[Finding]:
    yield from one_of(definition, ("ResourceConfig", "HyperParameterTuningResourceConfig"))
    keep_alive = definition["ResourceConfig"]["KeepAlivePeriodInSeconds"]
    if keep_alive.given:
        yield keep_alive.found("tuning jobs keep machines warm by themselves", "remove it")
    flexible = definition["HyperParameterTuningResourceConfig"]
    flat = [name for name in ("InstanceType", "InstanceCount", "VolumeSizeInGB") if flexible[name].given]
    if flexible.given and flexible["InstanceConfigs"].given == bool(flat):
        yield flexible.found(
            "needs either InstanceConfigs or InstanceType, InstanceCount and VolumeSizeInGB",
            "keep one of the two forms",
        )
    configs = flexible["InstanceConfigs"]
    if configs.given and not 1 <= configs.size <= limits.instance_configs:
        yield configs.found(f"1 to {limits.instance_configs} entries", "keep the preferred ones", value=configs.size)
