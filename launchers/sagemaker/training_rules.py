"""What no client checks of a CreateTrainingJob request: the rules between its fields.

The service model has types, patterns and extremes; `policylab.aws.service_model` checks those. Where the model and the
developer guide differ, the model's limit is an error and the guide's stricter one a warning.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html and the developer guide's
pages on managed spot training, warm pools, heterogeneous clusters and input modes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator

from policylab.aws.metrics import regex_findings, sample_findings
from policylab.aws.request_view import View
from policylab.aws.training_rules import one_of, repeated_names, stopping_findings
from policylab.findings import Finding

GUIDE_KEEP_ALIVE_S = 3600
GUIDE_HYPERPARAMETER_CHARACTERS = 256
SECRET = re.compile(r"(^|_)(SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIALS?|(API|ACCESS|PRIVATE)_?KEY)(_|$)", re.IGNORECASE)
"""Names of variables that hold what nobody else may know."""

ENVIRONMENT_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
UNSAFE = re.compile(r"['\"`$\\\n\r]")
"""Characters that the containers of the SDK pass to a shell unescaped."""


def is_secret(name: str) -> bool:
    """Whether a variable of this name holds a secret.

    >>> [name for name in ("AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "TOKENIZERS_PARALLELISM") if is_secret(name)]
    ['AWS_SECRET_ACCESS_KEY', 'WANDB_API_KEY']
    """
    return SECRET.search(name) is not None and name != "POLICYLAB_JOB_TOKEN"  # keeps jobs apart, no more


def rule_findings(request: View) -> Iterator[Finding]:
    """Apply every rule; malformed parts are left to the check of the structure."""
    for rule in _RULES:
        yield from rule(request)


def _algorithm(request: View) -> Iterator[Finding]:
    algorithm = request["AlgorithmSpecification"]
    if not algorithm.given and not request["ServerlessJobConfig"].given:
        yield algorithm.found("a job needs a container", "give TrainingImage and TrainingInputMode", value="nothing")
    yield from one_of(algorithm, ("TrainingImage", "AlgorithmName"))
    metrics = algorithm["MetricDefinitions"]
    names = Counter(metric["Name"].text for metric in metrics.items())
    for metric in metrics.items():
        if names[metric["Name"].text] > 1:
            yield metric["Name"].found("a metric must be defined once", "remove one of the definitions")
        yield from regex_findings(metric["Regex"])
        yield from sample_findings(metric)
    series = algorithm["EnableSageMakerMetricsTimeSeries"]
    if series.value is True and not metrics.size:
        rule = "there is no metric to keep a series of"
        yield series.found(rule, "add MetricDefinitions", severity="warning")


def _hyperparameters(request: View) -> Iterator[Finding]:
    for name, value in request["HyperParameters"].entries():
        if UNSAFE.search(value.text) or UNSAFE.search(name):
            rule = "quotes, $, backslashes, backticks and new lines break the containers that pass it through a shell"
            yield value.found(rule, "put it into a file in a channel")
        elif value.size > GUIDE_HYPERPARAMETER_CHARACTERS:
            rule = f"the developer guide allows only {GUIDE_HYPERPARAMETER_CHARACTERS} characters"
            yield value.found(rule, "put it into a file in a channel", severity="warning")


def environment_findings(request: View) -> Iterator[Finding]:
    """Check the variables of a job of any kind: their names, and that none holds a secret."""
    for name, value in request["Environment"].entries():
        if not ENVIRONMENT_NAME.fullmatch(name):
            yield value.found("a variable's name has letters, digits and _, and begins with no digit", "rename it")
        if is_secret(name):
            rule = "a request holds no secrets: everyone who may describe the job reads them"
            yield value.found(rule, "let the container fetch it (role_arn, AWS Secrets Manager)", value="(hidden)")
        elif "\n" in value.text:
            yield value.found("a variable's value must be one line", "put it into a file in a channel")


def _cluster(request: View) -> Iterator[Finding]:
    resources = request["ResourceConfig"]
    groups, flat = resources["InstanceGroups"], resources["InstanceType"]
    if groups.size and (flat.given or resources["InstanceCount"].given):
        rule = "takes the place of InstanceType and InstanceCount"
        yield groups.found(rule, "keep one of the two forms", value=f"{groups.size} groups")
    if not (groups.size or flat.given or resources["InstancePreferences"].size):
        yield resources.found("a job needs machines", "give InstanceType and InstanceCount, or InstanceGroups")
    for name, count in Counter(group["InstanceGroupName"].text for group in groups.items()).items():
        if name and count > 1:
            yield groups.found("the names of instance groups must differ", "rename one of them", value=name)
    preferences = resources["InstancePreferences"]
    placement = resources["InstancePlacementConfig"]
    for other in (flat, groups, placement, request["EnableManagedSpotTraining"]):
        if preferences.size and other.given and other.value is not False:
            rule = "excludes InstanceType, InstanceGroups, InstancePlacementConfig and spot training"
            yield preferences.found(rule, f"remove it or {other.path}", value=f"{preferences.size} preferences")


def _warm_pool(request: View) -> Iterator[Finding]:
    keep_alive = request["ResourceConfig"]["KeepAlivePeriodInSeconds"]
    if not keep_alive.number:
        return
    if request["EnableManagedSpotTraining"].value is True:
        yield keep_alive.found("a warm pool excludes spot training", "remove one of the two")
    if request["ResourceConfig"]["InstanceGroups"].size:
        yield keep_alive.found("a warm pool excludes heterogeneous clusters", "remove one of the two")
    if keep_alive.number > GUIDE_KEEP_ALIVE_S:
        rule = f"the developer guide allows only {GUIDE_KEEP_ALIVE_S} seconds"
        yield keep_alive.found(rule, "lower it to be safe", severity="warning")


def _channels(request: View) -> Iterator[Finding]:
    channels = request["InputDataConfig"]
    yield from repeated_names(channels)
    default = request["AlgorithmSpecification"]["TrainingInputMode"].text
    for channel in channels.items():
        mode = channel["InputMode"].text or default
        s3, files = channel["DataSource"]["S3DataSource"], channel["DataSource"]["FileSystemDataSource"]
        if s3.given == files.given and not channel["DataSource"]["DatasetSource"].given:
            yield channel["DataSource"].found("a channel has one source", "give S3DataSource or FileSystemDataSource")
        if files.given and mode != "File":
            yield channel["InputMode"].found("a file system is read in File mode only", "set File", value=mode)
        if files.given and not request["VpcConfig"].given:
            yield files.found("a file system needs VpcConfig", "add the subnets and security groups that reach it")
        if mode == "FastFile" and s3.given:
            yield from _fast_file(s3)
        if mode == "Pipe" and s3["S3DataType"].text == "AugmentedManifestFile" and not s3["AttributeNames"].size:
            yield s3["AttributeNames"].found("an augmented manifest needs them", "name the attributes to stream")


def _fast_file(source: View) -> Iterator[Finding]:
    if source["S3DataType"].text != "S3Prefix":
        yield source["S3DataType"].found("FastFile reads an S3Prefix only", "use File for manifests")
    elif not source["S3Uri"].text.endswith("/"):
        yield source["S3Uri"].found("a FastFile prefix must end at a folder", "end it with /")


def _groups_of_channels(request: View) -> Iterator[Finding]:
    groups = {group["InstanceGroupName"].text for group in request["ResourceConfig"]["InstanceGroups"].items()}
    sources = [channel["DataSource"]["S3DataSource"] for channel in request["InputDataConfig"].items()]
    sources = [source for source in sources if source.given]  # a file system cannot name groups
    named = [source["InstanceGroupNames"] for source in sources if source["InstanceGroupNames"].size]
    for names in named:
        unknown = sorted({name.text for name in names.items()} - groups)
        if unknown:
            yield names.found(f"no instance group is called {unknown[0]!r}", "name groups of this request")
    if named and len(named) < len(sources):
        without = next(source for source in sources if not source["InstanceGroupNames"].size)
        rule = "when one channel names its instance groups, every channel must"
        yield without["InstanceGroupNames"].found(rule, "add the names of all groups")


def _checkpoints(request: View) -> Iterator[Finding]:
    uri, name = request["CheckpointConfig"]["S3Uri"], request["TrainingJobName"].text
    if name and name in uri.text.split("/"):
        rule = "contains the job's name, so that no other job will ever resume from it"
        yield uri.found(rule, "name it after the run instead", severity="warning")


_RULES: tuple[Callable[[View], Iterator[Finding]], ...] = (
    _algorithm,
    _hyperparameters,
    environment_findings,
    _cluster,
    _warm_pool,
    _channels,
    _groups_of_channels,
    stopping_findings,
    _checkpoints,
)
