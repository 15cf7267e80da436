"""A finished SageMaker tuning job as a parent: one JSON file, made of two answers of its API.

The file holds what ``describe-hyper-parameter-tuning-job`` prints, with the list ``TrainingJobSummaries`` of
``list-training-jobs-for-hyper-parameter-tuning-job`` added (all pages):

    {"HyperParameterTuningJobName": "taxi-1", "HyperParameterTuningJobStatus": "Completed",
     "HyperParameterTuningJobConfig": {...}, "TrainingJobDefinition": {...}, "TrainingJobSummaries": [...]}

Source: API reference of DescribeHyperParameterTuningJob and ListTrainingJobsForHyperParameterTuningJob.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from policylab.config import Settings
from policylab.errors import ConfigError
from policylab.files import read_json
from policylab.tuning.hyperparameter_text import from_hyperparameters, from_text
from policylab.tuning.parameters import Continuous, Integer
from policylab.tuning.searchers.observations import Observation
from policylab.tuning.study_facts import Parent, Status, StudyFacts

STATUSES: dict[str, Status] = {"Completed": "completed", "Stopped": "stopped", "Failed": "failed"}
"""Of a tuning job; any other one is under way."""

SCALINGS = {
    "Auto": "auto",
    "Linear": "linear",
    "Logarithmic": "logarithmic",
    "ReverseLogarithmic": "reverse_logarithmic",
}


class _Part(Settings):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class _Objective(_Part):
    Type: Literal["Maximize", "Minimize"]
    MetricName: str


class _Final(_Part):
    Value: float


class _Summary(_Part):
    TrainingJobName: str = ""
    TunedHyperParameters: dict[str, str] = Field(default_factory=dict)
    FinalHyperParameterTuningJobObjectiveMetric: _Final | None = None
    ObjectiveStatus: str | None = None


class _Range(_Part):
    Name: str
    MinValue: str
    MaxValue: str
    ScalingType: Literal["Auto", "Linear", "Logarithmic", "ReverseLogarithmic"] = "Auto"


class _Categories(_Part):
    Name: str
    Values: list[str]


class _Ranges(_Part):
    IntegerParameterRanges: list[_Range] = Field(default_factory=list)
    ContinuousParameterRanges: list[_Range] = Field(default_factory=list)
    CategoricalParameterRanges: list[_Categories] = Field(default_factory=list)


class _Config(_Part):
    Strategy: str
    HyperParameterTuningJobObjective: _Objective
    ParameterRanges: _Ranges


class _Definition(_Part):
    StaticHyperParameters: dict[str, str] = Field(default_factory=dict)
    AlgorithmSpecification: dict[str, Any] = Field(default_factory=dict)
    InputDataConfig: list[dict[str, Any]] = Field(default_factory=list)


class _WarmParent(_Part):
    HyperParameterTuningJobName: str


class _WarmStart(_Part):
    ParentHyperParameterTuningJobs: list[_WarmParent] = Field(default_factory=list)


class _Record(_Part):
    HyperParameterTuningJobName: str = Field(pattern=r"^[A-Za-z0-9](-*[A-Za-z0-9])*$", max_length=64)
    HyperParameterTuningJobStatus: str
    CreationTime: Any = None
    HyperParameterTuningJobConfig: _Config
    TrainingJobDefinition: _Definition
    TrainingJobSummaries: list[_Summary]
    WarmStartConfig: _WarmStart | None = None


def read_record(path: Path) -> Parent:
    """Read the record of a tuning job.

    Raises:
        RunDirectoryError: the file cannot be read.
        ConfigError: it lacks something; every finding, one per line.
    """
    return parent_of_record(read_json(path), place=str(path))


def parent_of_record(record: Any, *, place: str) -> Parent:
    """Return a tuning job's record as a parent; ``place`` names it in messages.

    Raises:
        ConfigError: it lacks something; every finding, one per line.
    """
    try:
        read = _Record.model_validate(record)
        facts = _facts(read)
    except ValidationError as error:
        found = [": ".join([place, *_within(item["loc"]), item["msg"]]) for item in error.errors()]
        remedy = "store the describe answer with all TrainingJobSummaries of the list answer in it"
        raise ConfigError("\n".join(f"{line}; {remedy}" for line in found)) from None
    observed = tuple(_observations(read, facts, place=place))
    return Parent(
        facts=facts,
        status=STATUSES.get(read.HyperParameterTuningJobStatus, "in_progress"),
        observed=observed,
        ranked=observed,
        n_trials=len(read.TrainingJobSummaries),
        created=None if read.CreationTime is None else str(read.CreationTime)[:10],
    )


def _within(loc: tuple[int | str, ...]) -> list[str]:
    return [".".join(map(str, loc))] if loc else []


def _facts(record: _Record) -> StudyFacts:
    config, definition = record.HyperParameterTuningJobConfig, record.TrainingJobDefinition
    fixed = _single_values(config.ParameterRanges)
    algorithm = {name: definition.AlgorithmSpecification.get(name) for name in ("TrainingImage", "AlgorithmName")}
    warm = record.WarmStartConfig or _WarmStart()
    return StudyFacts.model_validate(
        {
            "name": record.HyperParameterTuningJobName,
            "metric": config.HyperParameterTuningJobObjective.MetricName,
            "mode": "max" if config.HyperParameterTuningJobObjective.Type == "Maximize" else "min",
            "space": {"parameters": dict(_parameters(config.ParameterRanges))},
            "static": {**from_hyperparameters(definition.StaticHyperParameters), **fixed},
            "searcher": {"Grid": "grid", "Random": "random"}.get(config.Strategy, "bayesian"),
            "scheduler": "hyperband" if config.Strategy == "Hyperband" else "fixed",
            "identity": {**algorithm, "InputDataConfig": definition.InputDataConfig},
            "parents": tuple(one.HyperParameterTuningJobName for one in warm.ParentHyperParameterTuningJobs),
        }
    )


def _parameters(ranges: _Ranges) -> Iterator[tuple[str, dict[str, Any]]]:
    single = _single_values(ranges)
    for kind, members in (("integer", ranges.IntegerParameterRanges), ("continuous", ranges.ContinuousParameterRanges)):
        for member in members:
            if member.Name not in single:
                low, high = from_text(member.MinValue), from_text(member.MaxValue)
                yield (
                    member.Name,
                    {"kind": kind, "low": low, "high": high, "scaling": SCALINGS[member.ScalingType]},
                )
    for categories in ranges.CategoricalParameterRanges:
        yield categories.Name, {"kind": "categorical", "values": [from_text(text) for text in categories.Values]}


def _single_values(ranges: _Ranges) -> dict[str, Any]:
    """Return the numeric ranges of one value, which are static in all but name."""
    members = (*ranges.IntegerParameterRanges, *ranges.ContinuousParameterRanges)
    return {member.Name: from_text(member.MinValue) for member in members if member.MinValue == member.MaxValue}


def _observations(record: _Record, facts: StudyFacts, *, place: str) -> Iterator[Observation]:
    """Yield what the training jobs measured; jobs without an objective are ignored, as the service does.

    Raises:
        ConfigError: a tuned value lies outside of its range, which no answer of the service has.
    """
    for number, summary in enumerate(record.TrainingJobSummaries):
        final = summary.FinalHyperParameterTuningJobObjectiveMetric
        if final is None or summary.ObjectiveStatus == "Failed":
            continue
        configuration = _typed(from_hyperparameters(summary.TunedHyperParameters), facts.space.parameters)
        for path, value in configuration.items():
            parameter = facts.space.parameters.get(path)
            if isinstance(parameter, Continuous | Integer) and not _lies_in(parameter, value):
                raise ConfigError(
                    f"{place}: TrainingJobSummaries.{number}.TunedHyperParameters.{path}: must be from "
                    f"{parameter.low:g} to {parameter.high:g}, its range in this record, got {value!r}; store the "
                    "answers as the service gave them"
                )
        yield Observation(configuration, (facts.sign * final.Value,))


def _lies_in(parameter: Continuous | Integer, value: Any) -> bool:
    """Whether a tuned value lies in its range, up to the rounding of its text."""
    slack = 1e-6 * (parameter.high - parameter.low)
    return _is_number(value) and parameter.low - slack <= value <= parameter.high + slack


def _typed(configuration: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration with integers as int and reals as float, whatever the service wrote."""
    return {
        path: parameters[path].plain(value)
        if path in parameters and parameters[path].kind != "categorical" and _is_number(value)
        else value
        for path, value in configuration.items()
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
