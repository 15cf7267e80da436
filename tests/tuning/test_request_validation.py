"""Every rule of CreateHyperParameterTuningJob: one request that keeps it and one that breaks it."""

from __future__ import annotations

import copy
import functools
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policylab.errors import ConfigError
from policylab.tuning.request_validation import OPERATION, require_valid, rule_findings, validate_request
from policylab.tuning.service_limits import ServiceLimits

Request = dict[str, Any]
JOB, TRAINING = "HyperParameterTuningJobConfig", "TrainingJobDefinition"
RANGES = f"{JOB}.ParameterRanges"
STATIC = f"{TRAINING}.StaticHyperParameters"
RATE = {"Name": "agent.learning_rate", "MinValue": "1e-4", "MaxValue": "1.0", "ScalingType": "Logarithmic"}
TILES = {"Name": "agent.tilings", "MinValue": "1", "MaxValue": "16", "ScalingType": "Linear"}
KIND = {"Name": "agent.exploration.kind", "Values": ["epsilon_greedy", "softmax"]}


def valid_request() -> Request:
    return {
        "HyperParameterTuningJobName": "taxi-q-learning",
        JOB: {
            "Strategy": "Bayesian",
            "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "eval_return"},
            "ResourceLimits": {
                "MaxNumberOfTrainingJobs": 60,
                "MaxParallelTrainingJobs": 4,
                "MaxRuntimeInSeconds": 7200,
            },
            "ParameterRanges": {
                "ContinuousParameterRanges": [dict(RATE)],
                "IntegerParameterRanges": [dict(TILES)],
                "CategoricalParameterRanges": [copy.deepcopy(KIND)],
            },
            "TrainingJobEarlyStoppingType": "Auto",
            "RandomSeed": 0,
        },
        TRAINING: {
            "AlgorithmSpecification": {
                "TrainingImage": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/train:1",
                "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "eval_return", "Regex": r"\[metric\] eval_return=([-+0-9.eE]+)"}],
            },
            "RoleArn": "arn:aws:iam::123456789012:role/training",
            "OutputDataConfig": {"S3OutputPath": "s3://bucket/output"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
            "StaticHyperParameters": {"env.id": "Taxi-v3"},
        },
    }


def put(request: Request, path: str, value: Any) -> None:
    """Set, or with ``...`` remove, a dotted path."""
    *parents, last = path.split(".")
    for parent in parents:
        request = request.setdefault(parent, {})
    if value is ...:
        request.pop(last, None)
    else:
        request[last] = value


def changed(changes: dict[str, Any]) -> Request:
    request = valid_request()
    for path, value in changes.items():
        put(request, path, value)
    return request


def floats(n: int) -> list[Request]:
    return [{"Name": f"x{i}", "MinValue": "0", "MaxValue": "1"} for i in range(n)]


def continuous(**fields: Any) -> dict[str, Any]:
    return {f"{RANGES}.ContinuousParameterRanges": [{**RATE, **fields}]}


def integer(**fields: Any) -> dict[str, Any]:
    return {f"{RANGES}.IntegerParameterRanges": [{**TILES, **fields}]}


def categories(*values: str) -> dict[str, Any]:
    return {f"{RANGES}.CategoricalParameterRanges": [{"Name": "c", "Values": list(values)}]}


def grid(*values: str, jobs: Any = ...) -> dict[str, Any]:
    ranges = {"CategoricalParameterRanges": [{"Name": "c", "Values": list(values)}, copy.deepcopy(KIND)]}
    limits = {"MaxParallelTrainingJobs": 2, **({} if jobs is ... else {"MaxNumberOfTrainingJobs": jobs})}
    return {f"{JOB}.Strategy": "Grid", RANGES: ranges, f"{JOB}.ResourceLimits": limits}


def hyperband(**settings: int) -> dict[str, Any]:
    return {
        f"{JOB}.Strategy": "Hyperband",
        f"{JOB}.TrainingJobEarlyStoppingType": "Off",
        f"{JOB}.StrategyConfig": {"HyperbandStrategyConfig": settings},
    }


def parents(*names: str) -> dict[str, Any]:
    listed = [{"HyperParameterTuningJobName": name} for name in names]
    return {"WarmStartConfig": {"ParentHyperParameterTuningJobs": listed, "WarmStartType": "TransferLearning"}}


def metrics(*regexes: str) -> dict[str, Any]:
    named = [{"Name": "eval_return" if i == 0 else f"m{i}", "Regex": regex} for i, regex in enumerate(regexes)]
    return {f"{TRAINING}.AlgorithmSpecification.MetricDefinitions": named}


def flexible(**fields: Any) -> dict[str, Any]:
    return {f"{TRAINING}.ResourceConfig": ..., f"{TRAINING}.HyperParameterTuningResourceConfig": fields}


def spot(**fields: Any) -> dict[str, Any]:
    return {
        f"{TRAINING}.EnableManagedSpotTraining": True,
        f"{TRAINING}.CheckpointConfig": {"S3Uri": "s3://bucket/checkpoints"},
        f"{TRAINING}.StoppingCondition": {"MaxRuntimeInSeconds": 3600, **fields},
    }


def definitions(*changes: dict[str, Any], environment: int = 1) -> dict[str, Any]:
    """A request with a list of definitions in place of one."""
    request = valid_request()
    entries = []
    for index, change in enumerate(changes):
        entry = {
            **copy.deepcopy(request[TRAINING]),
            "DefinitionName": f"variant-{index}",
            "TuningObjective": {"Type": "Maximize", "MetricName": "eval_return"},
            "HyperParameterRanges": {"ContinuousParameterRanges": floats(2)},
            "Environment": {f"E{i}": "1" for i in range(environment)},
        }
        for path, value in change.items():
            put(entry, path, value)
        entries.append(entry)
    return {
        TRAINING: ..., RANGES: ..., f"{JOB}.HyperParameterTuningJobObjective": ..., "TrainingJobDefinitions": entries,
    }  # fmt: skip


INSTANCE = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30}
NUMBER = "x=([0-9.]+)"

# rule: (changes that keep it, changes that break it, path of the finding, words of the finding)
RULES: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "name length": (
        {"HyperParameterTuningJobName": "a" * 32}, {"HyperParameterTuningJobName": "a" * 33},
        "HyperParameterTuningJobName", "at most 32 characters"),
    "name pattern": (
        {"HyperParameterTuningJobName": "a--b"}, {"HyperParameterTuningJobName": "a_b"},
        "HyperParameterTuningJobName", "must match"),
    "name given": ({}, {"HyperParameterTuningJobName": ...}, "HyperParameterTuningJobName", "needs a name"),
    "tags": (
        {"Tags": [{"Key": f"k{i}", "Value": ""} for i in range(50)]},
        {"Tags": [{"Key": f"k{i}", "Value": ""} for i in range(51)]}, "Tags", "at most 50 tags"),
    "one form of definition": ({}, {TRAINING: ...}, TRAINING, "either TrainingJobDefinition or"),
    "not both forms": (
        definitions({}), {**definitions({}), TRAINING: valid_request()[TRAINING]}, TRAINING, "got 'both'"),
    "at most 10 definitions": (
        definitions(*[{}] * 10), definitions(*[{}] * 11), "TrainingJobDefinitions", "1 to 10 definitions"),
    "definitions carry a name": (
        definitions({}), definitions({"DefinitionName": ...}),
        "TrainingJobDefinitions[0].DefinitionName", "every definition of a list"),
    "definitions carry an objective": (
        definitions({}), definitions({"TuningObjective": ...}),
        "TrainingJobDefinitions[0].TuningObjective", "every definition of a list"),
    "definitions carry ranges": (
        definitions({}), definitions({}, {"HyperParameterRanges": ...}),
        "TrainingJobDefinitions[1].HyperParameterRanges", "every definition of a list"),
    "definition name length": (
        definitions({"DefinitionName": "d" * 64}), definitions({"DefinitionName": "d" * 65}),
        "TrainingJobDefinitions[0].DefinitionName", "at most 64"),
    "environment over all definitions": (
        definitions({}, {}, environment=24), definitions({}, {}, environment=25),
        "TrainingJobDefinitions.Environment", "at most 48 environment variables"),
    "strategy": ({}, {f"{JOB}.Strategy": "Bayesain"}, f"{JOB}.Strategy", "did you mean 'Bayesian'"),
    "objective": (
        {}, {f"{JOB}.HyperParameterTuningJobObjective": ...},
        f"{JOB}.HyperParameterTuningJobObjective", "needs an objective"),
    "objective type": (
        {f"{JOB}.HyperParameterTuningJobObjective.Type": "Minimize"},
        {f"{JOB}.HyperParameterTuningJobObjective.Type": "maximize"},
        f"{JOB}.HyperParameterTuningJobObjective.Type", "did you mean 'Maximize'"),
    "objective is printed": (
        {}, {f"{JOB}.HyperParameterTuningJobObjective.MetricName": "loss"},
        f"{JOB}.HyperParameterTuningJobObjective.MetricName", "needs a MetricDefinition"),
    "30 ranges in all": (
        {RANGES: {"ContinuousParameterRanges": floats(30)}},
        {RANGES: {"ContinuousParameterRanges": floats(30), "IntegerParameterRanges": [TILES]}},
        RANGES, "at most 30 ranges"),
    "30 ranges of a kind": (
        {RANGES: {"ContinuousParameterRanges": floats(30)}}, {RANGES: {"ContinuousParameterRanges": floats(31)}},
        f"{RANGES}.ContinuousParameterRanges", "at most 30 ranges"),
    "something to tune": ({}, {RANGES: {}}, RANGES, "something to tune"),
    "one range per name": (
        integer(Name="n"), integer(Name="agent.learning_rate"),
        f"{RANGES}.IntegerParameterRanges[0].Name", "one range only"),
    "reserved name": (
        integer(Name="objective"), integer(Name="_tuning_objective_metric"),
        f"{RANGES}.IntegerParameterRanges[0].Name", "service's own"),
    "bounds are strings": (
        continuous(), continuous(MinValue=0.1),
        f"{RANGES}.ContinuousParameterRanges[0].MinValue", "must be a finite number as a string"),
    "integer bounds": (
        integer(MaxValue="16"), integer(MaxValue="16.0"),
        f"{RANGES}.IntegerParameterRanges[0].MaxValue", "must be an integer as a string"),
    "finite bounds": (
        continuous(), continuous(MaxValue="inf"), f"{RANGES}.ContinuousParameterRanges[0].MaxValue", "finite"),
    "ordered bounds": (
        continuous(), continuous(MinValue="2"),
        f"{RANGES}.ContinuousParameterRanges[0].MinValue", "must not exceed MaxValue"),
    "logarithmic above zero": (
        continuous(), continuous(MinValue="0"),
        f"{RANGES}.ContinuousParameterRanges[0].ScalingType", "needs MinValue > 0"),
    "reverse logarithmic below one": (
        continuous(MinValue="0.9", MaxValue="0.999", ScalingType="ReverseLogarithmic"),
        continuous(MinValue="0.9", MaxValue="1.0", ScalingType="ReverseLogarithmic"),
        f"{RANGES}.ContinuousParameterRanges[0].ScalingType", "needs 0 <= x < 1"),
    "reverse logarithmic is continuous": (
        integer(ScalingType="Auto"), integer(MinValue="0", MaxValue="0", ScalingType="ReverseLogarithmic"),
        f"{RANGES}.IntegerParameterRanges[0].ScalingType", "continuous ranges only"),
    "scaling type": (
        continuous(ScalingType="Auto"), continuous(ScalingType="log"),
        f"{RANGES}.ContinuousParameterRanges[0].ScalingType", "must be a known value"),
    "30 categories": (
        categories(*map(str, range(30))), categories(*map(str, range(31))),
        f"{RANGES}.CategoricalParameterRanges[0].Values", "1 to 30 categories"),
    "a category": (categories("a"), categories(), f"{RANGES}.CategoricalParameterRanges[0].Values", "at least one"),
    "categories differ": (
        categories("a", "b"), categories("a", "a"), f"{RANGES}.CategoricalParameterRanges[0].Values", "must differ"),
    "categories are strings": (
        categories("1"), {f"{RANGES}.CategoricalParameterRanges": [{"Name": "c", "Values": [1]}]},
        f"{RANGES}.CategoricalParameterRanges[0].Values[0]", "must be a string, got 1; write '1'"),
    "category length": (
        categories("a" * 256), categories("a" * 257),
        f"{RANGES}.CategoricalParameterRanges[0].Values[0]", "at most 256 characters"),
    "automatic ranges need Autotune": (
        {"Autotune": {"Mode": "Enabled"}, RANGES: {"AutoParameters": [{"Name": "x", "ValueHint": "1"}]}},
        {f"{RANGES}.AutoParameters": [{"Name": "x", "ValueHint": "1"}]}, f"{RANGES}.AutoParameters", "needs Autotune"),
    "automatic ranges need a hint": (
        {"Autotune": {"Mode": "Enabled"}, RANGES: {"AutoParameters": [{"Name": "x", "ValueHint": "1"}]}},
        {"Autotune": {"Mode": "Enabled"}, RANGES: {"AutoParameters": [{"Name": "x"}]}},
        f"{RANGES}.AutoParameters[0].ValueHint", "value hint"),
    "grid is categorical": (
        grid("a", "b"), {f"{JOB}.Strategy": "Grid", f"{JOB}.ResourceLimits.MaxNumberOfTrainingJobs": ...},
        f"{RANGES}.ContinuousParameterRanges", "categorical ranges only"),
    "grid runs all combinations": (
        grid("a", "b", "c", jobs=6), grid("a", "b", "c", jobs=5),
        f"{JOB}.ResourceLimits.MaxNumberOfTrainingJobs", "each of the 6 combinations"),
    "hyperband without early stopping": (
        hyperband(MinResource=1, MaxResource=81),
        {**hyperband(MinResource=1, MaxResource=81), f"{JOB}.TrainingJobEarlyStoppingType": "Auto"},
        f"{JOB}.TrainingJobEarlyStoppingType", "must be Off"),
    "hyperband settings for hyperband": (
        hyperband(MinResource=1, MaxResource=81),
        {f"{JOB}.StrategyConfig": {"HyperbandStrategyConfig": {"MinResource": 1}}},
        f"{JOB}.StrategyConfig.HyperbandStrategyConfig", "for the strategy Hyperband only"),
    "hyperband knows its maximum": (
        {**hyperband(MinResource=1), f"{STATIC}.num_epochs": "81"}, hyperband(MinResource=1),
        f"{JOB}.StrategyConfig.HyperbandStrategyConfig.MaxResource", "needs MaxResource"),
    "hyperband reads epochs": (
        {**hyperband(), f"{STATIC}.epochs": "81"}, {**hyperband(), f"{STATIC}.epochs": "many"},
        f"{STATIC}.epochs", "needs MaxResource"),
    "hyperband resource": (
        hyperband(MaxResource=20_000), hyperband(MaxResource=20_001),
        f"{JOB}.StrategyConfig.HyperbandStrategyConfig.MaxResource", "1 to 20000"),
    "hyperband order": (
        hyperband(MinResource=9, MaxResource=9), hyperband(MinResource=10, MaxResource=9),
        f"{JOB}.StrategyConfig.HyperbandStrategyConfig.MinResource", "must not exceed the maximum"),
    "number of jobs": (
        {f"{JOB}.Strategy": "Random", f"{JOB}.ResourceLimits.MaxNumberOfTrainingJobs": 10_000},
        {f"{JOB}.ResourceLimits.MaxNumberOfTrainingJobs": 751},
        f"{JOB}.ResourceLimits.MaxNumberOfTrainingJobs", "1 to 750"),
    "parallel jobs given": (
        {}, {f"{JOB}.ResourceLimits.MaxParallelTrainingJobs": ...},
        f"{JOB}.ResourceLimits.MaxParallelTrainingJobs", "required"),
    "parallel jobs": (
        {f"{JOB}.ResourceLimits": {"MaxParallelTrainingJobs": 1}},
        {f"{JOB}.ResourceLimits": {"MaxParallelTrainingJobs": 101}},
        f"{JOB}.ResourceLimits.MaxParallelTrainingJobs", "1 to 100"),
    "parallel within number": (
        {f"{JOB}.ResourceLimits.MaxNumberOfTrainingJobs": 4}, {f"{JOB}.ResourceLimits.MaxNumberOfTrainingJobs": 3},
        f"{JOB}.ResourceLimits.MaxParallelTrainingJobs", "must not exceed MaxNumberOfTrainingJobs 3"),
    "run time": (
        {f"{JOB}.ResourceLimits.MaxRuntimeInSeconds": 120}, {f"{JOB}.ResourceLimits.MaxRuntimeInSeconds": 119},
        f"{JOB}.ResourceLimits.MaxRuntimeInSeconds", "120 to 15768000 seconds"),
    "not improving": (
        {f"{JOB}.TuningJobCompletionCriteria.BestObjectiveNotImproving.MaxNumberOfTrainingJobsNotImproving": 3},
        {f"{JOB}.TuningJobCompletionCriteria.BestObjectiveNotImproving.MaxNumberOfTrainingJobsNotImproving": 2},
        f"{JOB}.TuningJobCompletionCriteria.BestObjectiveNotImproving.MaxNumberOfTrainingJobsNotImproving",
        "at least 3"),
    "convergence": (
        {f"{JOB}.TuningJobCompletionCriteria.ConvergenceDetected.CompleteOnConvergence": "Enabled"},
        {f"{JOB}.TuningJobCompletionCriteria.ConvergenceDetected.CompleteOnConvergence": "Yes"},
        f"{JOB}.TuningJobCompletionCriteria.ConvergenceDetected.CompleteOnConvergence", "Enabled"),
    "random seed": ({f"{JOB}.RandomSeed": 0}, {f"{JOB}.RandomSeed": -1}, f"{JOB}.RandomSeed", "at least 0"),
    "five parents": (
        parents(*"abcde"), parents(*"abcdef"),
        "WarmStartConfig.ParentHyperParameterTuningJobs", "1 to 5 parents"),
    "a parent": (parents("a"), parents(), "WarmStartConfig.ParentHyperParameterTuningJobs", "1 to 5 parents"),
    "different parents": (
        parents("a", "b"), parents("a", "A"),
        "WarmStartConfig.ParentHyperParameterTuningJobs[1].HyperParameterTuningJobName", "parents must differ"),
    "not its own parent": (
        parents("taxi"), parents("taxi-Q-learning"),
        "WarmStartConfig.ParentHyperParameterTuningJobs[0].HyperParameterTuningJobName", "its own parent"),
    "named parents": (
        parents("a"), parents(""),
        "WarmStartConfig.ParentHyperParameterTuningJobs[0].HyperParameterTuningJobName", "needs its name"),
    "warm start type": (
        parents("a"), {**parents("a"), "WarmStartConfig.WarmStartType": "Transfer"},
        "WarmStartConfig.WarmStartType", "IdenticalDataAndAlgorithm, TransferLearning"),
    "image or algorithm": (
        {}, {f"{TRAINING}.AlgorithmSpecification.AlgorithmName": "own"},
        f"{TRAINING}.AlgorithmSpecification", "exactly one of TrainingImage and AlgorithmName"),
    "100 hyperparameters": (
        {STATIC: {f"s{i}": "1" for i in range(96)}}, {STATIC: {f"s{i}": "1" for i in range(97)}},
        STATIC, "at most 100 hyperparameters"),
    "tunable or static": (
        {f"{STATIC}.other": "1"}, {STATIC: {"agent.tilings": "8"}}, f"{STATIC}.agent.tilings", "not both"),
    "reserved static name": (
        {f"{STATIC}.metric": "x"}, {f"{STATIC}._tuning_objective_metric": "x"},
        f"{STATIC}._tuning_objective_metric", "service's own"),
    "static name length": (
        {f"{STATIC}.{'n' * 256}": "x"}, {f"{STATIC}.{'n' * 257}": "x"}, f"{STATIC}.{'n' * 257}", "at most 256"),
    "static value length": (
        {f"{STATIC}.text": "x" * 2500}, {f"{STATIC}.text": "x" * 2501}, f"{STATIC}.text", "at most 2500"),
    "static values are strings": (
        {f"{STATIC}.steps": "100"}, {f"{STATIC}.steps": 100}, f"{STATIC}.steps", "must be a string"),
    "40 metrics": (
        metrics(*[NUMBER] * 40), metrics(*[NUMBER] * 41),
        f"{TRAINING}.AlgorithmSpecification.MetricDefinitions", "at most 40 metrics"),
    "metrics differ": (
        metrics(NUMBER, NUMBER),
        {f"{TRAINING}.AlgorithmSpecification.MetricDefinitions": [{"Name": "eval_return", "Regex": NUMBER}] * 2},
        f"{TRAINING}.AlgorithmSpecification.MetricDefinitions[0].Name", "defined once"),
    "metric name length": (
        {}, {f"{TRAINING}.AlgorithmSpecification.MetricDefinitions":
             [{"Name": "eval_return", "Regex": NUMBER}, {"Name": "m" * 256, "Regex": NUMBER}]},
        f"{TRAINING}.AlgorithmSpecification.MetricDefinitions[1].Name", "at most 255"),
    "regex compiles": (
        metrics(r"\(x=([0-9.]+)"), metrics("(x=([0-9.]+)"),
        f"{TRAINING}.AlgorithmSpecification.MetricDefinitions[0].Regex", "must be a regular expression"),
    "regex has a group": (
        metrics(NUMBER), metrics("x=[0-9.]+"),
        f"{TRAINING}.AlgorithmSpecification.MetricDefinitions[0].Regex", "put the number in parentheses"),
    "regex has one group": (
        metrics("x=([0-9]+(?:[.][0-9]+)?)"), metrics("x=([0-9]+([.][0-9]+)?)"),
        f"{TRAINING}.AlgorithmSpecification.MetricDefinitions[0].Regex", "one capture group"),
    "regex length": (
        metrics("x" * 495 + "(.+)"), metrics("x" * 497 + "(.+)"),
        f"{TRAINING}.AlgorithmSpecification.MetricDefinitions[0].Regex", "at most 500"),
    "one resource config": (
        flexible(**INSTANCE), {f"{TRAINING}.HyperParameterTuningResourceConfig": INSTANCE},
        TRAINING, "exactly one of ResourceConfig and HyperParameterTuningResourceConfig"),
    "one form of flexible instances": (
        flexible(InstanceConfigs=[INSTANCE]), flexible(InstanceConfigs=[INSTANCE], **INSTANCE),
        f"{TRAINING}.HyperParameterTuningResourceConfig", "either InstanceConfigs or"),
    "six instance configurations": (
        flexible(InstanceConfigs=[INSTANCE] * 6), flexible(InstanceConfigs=[INSTANCE] * 7),
        f"{TRAINING}.HyperParameterTuningResourceConfig.InstanceConfigs", "1 to 6 entries"),
    "no keep-alive": (
        {}, {f"{TRAINING}.ResourceConfig.KeepAlivePeriodInSeconds": 600},
        f"{TRAINING}.ResourceConfig.KeepAlivePeriodInSeconds", "keep machines warm by themselves"),
    "instance type": (
        {}, {f"{TRAINING}.ResourceConfig.InstanceType": "ml.m5.larg"},
        f"{TRAINING}.ResourceConfig.InstanceType", "did you mean 'ml.m5.large'"),
    "training time": (
        {f"{TRAINING}.StoppingCondition.MaxRuntimeInSeconds": 28 * 86_400},
        {f"{TRAINING}.StoppingCondition.MaxRuntimeInSeconds": 28 * 86_400 + 1},
        f"{TRAINING}.StoppingCondition.MaxRuntimeInSeconds", "1 to 2419200 seconds"),
    "spot waits": (
        spot(MaxWaitTimeInSeconds=3600), spot(MaxWaitTimeInSeconds=3599),
        f"{TRAINING}.StoppingCondition.MaxWaitTimeInSeconds", "at least MaxRuntimeInSeconds"),
    "only spot waits": (
        spot(MaxWaitTimeInSeconds=3600), {f"{TRAINING}.StoppingCondition.MaxWaitTimeInSeconds": 7200},
        f"{TRAINING}.StoppingCondition.MaxWaitTimeInSeconds", "spot training only"),
    "retries": (
        {f"{TRAINING}.RetryStrategy.MaximumRetryAttempts": 30},
        {f"{TRAINING}.RetryStrategy.MaximumRetryAttempts": 31},
        f"{TRAINING}.RetryStrategy.MaximumRetryAttempts", "1 to 30"),
    "channels": (
        {f"{TRAINING}.InputDataConfig": [{"ChannelName": "code", "DataSource": {}}]},
        {f"{TRAINING}.InputDataConfig": []}, f"{TRAINING}.InputDataConfig", "1 to 20 channels"),
    "channel names": (
        {f"{TRAINING}.InputDataConfig": [{"ChannelName": name, "DataSource": {}} for name in "ab"]},
        {f"{TRAINING}.InputDataConfig": [{"ChannelName": name, "DataSource": {}} for name in "aa"]},
        f"{TRAINING}.InputDataConfig", "channel names must differ"),
    "known fields": (
        {}, {f"{JOB}.RandomSed": 1}, f"{JOB}.RandomSed", "unknown field, got 1; did you mean 'RandomSeed'"),
    "known fields of a definition": (
        {}, {f"{TRAINING}.ContainerEntrypoint": ["python"]}, f"{TRAINING}.ContainerEntrypoint", "unknown field"),
    "role": ({}, {f"{TRAINING}.RoleArn": ...}, f"{TRAINING}.RoleArn", "required"),
    "no newlines": ({}, {f"{STATIC}.text": "a\nb"}, f"{STATIC}.text", r"must match"),
}  # fmt: skip

STRUCTURAL = {
    "name pattern", "strategy", "objective type", "scaling type", "categories are strings", "parallel jobs given",
    "convergence", "warm start type", "static values are strings", "instance type", "known fields",
    "known fields of a definition", "role", "no newlines",
}  # fmt: skip
"""Rules of the service model, checked by botocore's metadata rather than by our own code."""


@pytest.mark.parametrize("rule", RULES)
def test_a_request_that_keeps_the_rule_passes(rule: str) -> None:
    pytest.importorskip("botocore")
    validation = validate_request(changed(RULES[rule][0]))
    assert [str(finding) for finding in validation.errors] == []
    assert validation.skipped is None


@pytest.mark.parametrize("rule", RULES)
def test_a_request_that_breaks_the_rule_is_refused_at_the_place(rule: str) -> None:
    if rule in STRUCTURAL:
        pytest.importorskip("botocore")
    _, breaking, path, words = RULES[rule]
    at_place = [str(finding) for finding in validate_request(changed(breaking)).errors if finding.path == path]
    assert any(words in finding for finding in at_place), at_place


@pytest.mark.parametrize("rule", sorted(RULES.keys() - STRUCTURAL))
def test_rules_between_fields_need_no_botocore(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    _, breaking, path, _ = RULES[rule]
    validation = validate_request(changed(breaking))
    assert path in {finding.path for finding in validation.errors}
    assert validation.skipped is not None
    assert "pip install 'policylab[sagemaker]'" in validation.skipped


WARNINGS: dict[str, tuple[dict[str, Any], str, str]] = {
    "an endless job": (
        {f"{JOB}.ResourceLimits": {"MaxParallelTrainingJobs": 1}}, f"{JOB}.ResourceLimits", "nothing says when"),
    "grid with a parent": ({**grid("a"), **parents("p")}, f"{JOB}.Strategy", "not portable"),
    "hyperband with a parent": (
        {**hyperband(MaxResource=9), **parents("p")}, f"{JOB}.Strategy", "Bayesian and Random only"),
    "several definitions with a parent": ({**definitions({}, {}), **parents("p")}, "WarmStartConfig", "not portable"),
    "21 metrics": (
        metrics(*[NUMBER] * 21), f"{TRAINING}.AlgorithmSpecification.MetricDefinitions", "allows only 20"),
    "11 parallel jobs": (
        {f"{JOB}.ResourceLimits.MaxParallelTrainingJobs": 11},
        f"{JOB}.ResourceLimits.MaxParallelTrainingJobs", "default quota is 10"),
    "31 days": (
        {f"{JOB}.ResourceLimits.MaxRuntimeInSeconds": 31 * 86_400},
        f"{JOB}.ResourceLimits.MaxRuntimeInSeconds", "allows only 2592000"),
    "spot from nothing": (
        {**spot(MaxWaitTimeInSeconds=3600), f"{TRAINING}.CheckpointConfig": ...},
        f"{TRAINING}.EnableManagedSpotTraining", "starts again from nothing"),
    "a range of one value": (
        integer(MinValue="16"), f"{RANGES}.IntegerParameterRanges[0].MinValue", "static hyperparameter"),
    "a criterion that cannot be met": (
        {f"{JOB}.TuningJobCompletionCriteria.BestObjectiveNotImproving.MaxNumberOfTrainingJobsNotImproving": 60},
        f"{JOB}.TuningJobCompletionCriteria.BestObjectiveNotImproving.MaxNumberOfTrainingJobsNotImproving",
        "cannot be met"),
}  # fmt: skip


@pytest.mark.parametrize("case", WARNINGS)
def test_what_may_work_is_a_warning(case: str) -> None:
    changes, path, words = WARNINGS[case]
    validation = validate_request(changed(changes))
    assert validation.errors == []
    assert [words in str(finding) for finding in validation.warnings if finding.path == path] == [True]


def test_all_violations_are_reported_at_once_one_per_line() -> None:
    request = changed({"HyperParameterTuningJobName": "a" * 40, **continuous(MinValue="0"), **parents(*"abcdef")})
    with pytest.raises(ConfigError, match="at most 32 characters") as refused:
        require_valid(request)
    lines = str(refused.value).splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"{OPERATION}: ") for line in lines)


def test_a_valid_request_is_returned_with_its_warnings() -> None:
    assert require_valid(valid_request()).findings == []


def test_an_account_with_other_quotas_overrides_the_table() -> None:
    request = changed({f"{JOB}.ResourceLimits.MaxNumberOfTrainingJobs": 2000})
    assert validate_request(request).errors
    assert validate_request(request, limits=ServiceLimits(jobs=2000)).errors == []


def test_a_long_value_is_shown_shortened() -> None:
    (finding,) = validate_request(changed({f"{STATIC}.text": "x" * 9000})).errors
    assert "(9002 characters)" in str(finding)
    assert len(str(finding)) < 300


@functools.cache
def input_shape() -> Any:
    session = pytest.importorskip("botocore.session").get_session()
    return session.get_service_model("sagemaker").operation_model(OPERATION).input_shape


def report_of_botocore(request: Request) -> str:
    validator = pytest.importorskip("botocore.validate").ParamValidator()
    report: str = validator.validate(request, input_shape()).generate_report()
    return report


@pytest.mark.parametrize("rule", RULES)
def test_whatever_botocore_refuses_is_refused(rule: str) -> None:
    request = changed(RULES[rule][1])
    assert not report_of_botocore(changed(RULES[rule][0]))
    assert not report_of_botocore(request) or validate_request(request).errors


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PLACES = st.sampled_from(sorted({path for case in RULES.values() for path in [*case[0], *case[1]]} | {"Autotune"}))


@settings(deadline=None)
@given(changes=st.dictionaries(PLACES, ODD, min_size=1, max_size=3))
def test_malformed_requests_are_findings_never_a_crash(changes: dict[str, Any]) -> None:
    request = valid_request()
    for path, value in changes.items():
        try:
            put(request, path, value)
        except (AttributeError, TypeError):
            continue  # an earlier change made the parent something else than a mapping
    lines = [str(finding) for finding in rule_findings(request)]
    refused = bool(validate_request(request).errors)
    assert all(lines)
    assert refused or not report_of_botocore(request)
