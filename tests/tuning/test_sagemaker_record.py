"""Records of SageMaker tuning jobs as parents: what is read, and what is refused in a sentence."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policylab.errors import ConfigError, RunDirectoryError
from policylab.tuning.parents import read_parent
from policylab.tuning.sagemaker_record import parent_of_record
from policylab.tuning.study_facts import Parent, StudyFacts
from policylab.tuning.warm_start import WarmStart, WarmStartSettings


def record() -> dict[str, Any]:
    return {
        "HyperParameterTuningJobName": "taxi-1",
        "HyperParameterTuningJobStatus": "Completed",
        "CreationTime": "2026-11-01T10:00:00+00:00",
        "HyperParameterTuningJobConfig": {
            "Strategy": "Bayesian",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "eval/return_mean"},
            "ParameterRanges": {
                "IntegerParameterRanges": [{"Name": "agent.tiles", "MinValue": "1", "MaxValue": "16"}],
                "ContinuousParameterRanges": [
                    {"Name": "agent.rate", "MinValue": "1e-4", "MaxValue": "1", "ScalingType": "Logarithmic"},
                    {"Name": "agent.fixed", "MinValue": "0.5", "MaxValue": "0.5"},
                ],
                "CategoricalParameterRanges": [{"Name": "agent.kind", "Values": ["sarsa", "q_learning"]}],
            },
        },
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {"TrainingImage": "image:1"},
            "StaticHyperParameters": {"agent.discount": "0.99", "_tuning_objective_metric": "eval/return_mean"},
        },
        "WarmStartConfig": {"ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": "taxi-0"}]},
        "TrainingJobSummaries": [
            {
                "TrainingJobName": "taxi-1-001",
                "TrainingJobStatus": "Completed",
                "ObjectiveStatus": "Succeeded",
                "TunedHyperParameters": {"agent.tiles": "8.0", "agent.rate": "1", "agent.kind": '"sarsa"'},
                "FinalHyperParameterTuningJobObjectiveMetric": {"MetricName": "eval/return_mean", "Value": 12.5},
            },
            {"TrainingJobName": "taxi-1-002", "ObjectiveStatus": "Failed", "TunedHyperParameters": {}},
        ],
    }


def names(value: Any) -> set[str]:
    """Return every key at any depth."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {*(value if isinstance(value, dict) else ()), *(name for one in inner for name in names(one))}


def started(read: Parent) -> WarmStart:
    """Return the warm start of a study that searches what the record did."""
    child = StudyFacts(name="child", metric="eval/return_mean", mode="min", space=read.facts.space,
                       static={"agent.discount": 0.99, "agent.fixed": 0.5})  # fmt: skip
    chosen = WarmStartSettings(kind="transfer_learning", parents=("named elsewhere",), first=1)
    return WarmStart.make(chosen, child, parents=[read])


def test_a_hostile_record_is_refused_in_a_sentence(tmp_path: Path) -> None:
    nested, named = tmp_path / "nested.json", tmp_path / "named.json"
    nested.write_text("[" * 100_000)
    with pytest.raises(RunDirectoryError, match=r"nested.json: cannot be read: .*restore it"):
        read_parent(nested)
    named.write_text(
        json.dumps({"HyperParameterTuningJobName": "red\x1b[31m", "HyperParameterTuningJobStatus": "Completed"})
    )
    with pytest.raises(ConfigError, match="HyperParameterTuningJobName: String should match pattern") as refused:
        read_parent(named)
    assert "\x1b" not in str(refused.value)


def test_a_sagemaker_record_is_a_parent(tmp_path: Path) -> None:
    file = tmp_path / "taxi-1.json"
    file.write_text(json.dumps(record()))
    read = read_parent(file)
    assert (read.facts.name, read.status, read.created) == ("taxi-1", "completed", "2026-11-01")
    assert (read.facts.mode, read.facts.metric, read.n_trials) == ("min", "eval/return_mean", 2)
    assert read.facts.static == {"agent.discount": 0.99, "agent.fixed": 0.5}
    assert read.facts.parents == ("taxi-0",)
    (observed,) = read.observed
    assert observed.values == (-12.5,)
    assert observed.configuration == {"agent.tiles": 8, "agent.rate": 1.0, "agent.kind": "sarsa"}
    assert [type(value) for value in observed.configuration.values()] == [int, float, str]
    assert started(read).first == [observed.configuration]


@pytest.mark.parametrize("status", ["InProgress", "Stopping", "Deleting", "DeleteFailed", "odd"])
def test_a_tuning_job_under_way_is_refused(status: str) -> None:
    read = parent_of_record({**record(), "HyperParameterTuningJobStatus": status}, place="taxi-1.json")
    with pytest.raises(ConfigError, match="must be completed, stopped or failed"):
        started(read)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"TrainingJobSummaries": None}, r"taxi-1.json: TrainingJobSummaries: .*list; store the describe answer"),
        ({"TrainingJobDefinition": None}, "taxi-1.json: TrainingJobDefinition"),
        (
            {"HyperParameterTuningJobConfig": {"Strategy": "Grid"}},
            "HyperParameterTuningJobConfig.ParameterRanges: Field",
        ),
    ],
)
def test_an_incomplete_record_says_what_is_missing(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parent_of_record({**record(), **change}, place="taxi-1.json")


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("agent.rate", "7", r"agent.rate: must be from 0.0001 to 1, its range in this record, got 7.0"),
        ("agent.rate", "NaN", r"agent.rate: must be from 0.0001 to 1"),
        ("agent.tiles", "sixteen", "agent.tiles: must be from 1 to 16, its range in this record, got 'sixteen'"),
        ("agent.rate", "1.0000000000000002", None),
    ],
)
def test_a_tuned_value_outside_of_its_own_range_is_told(path: str, text: str, words: str | None) -> None:
    changed = record()
    changed["TrainingJobSummaries"][0]["TunedHyperParameters"][path] = text
    if words is None:
        assert parent_of_record(changed, place="taxi-1.json").observed, "texts round"
        return
    with pytest.raises(ConfigError, match=f"^taxi-1.json: TrainingJobSummaries.0.TunedHyperParameters.{words}"):
        parent_of_record(changed, place="taxi-1.json")


@settings(deadline=None)
@given(noise=st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=2) |
       st.dictionaries(st.sampled_from(sorted(names(record()))), inner, max_size=3), max_leaves=6))  # fmt: skip
def test_an_odd_record_is_a_sentence_never_a_crash(noise: Any) -> None:
    merged = {**record(), **noise} if isinstance(noise, dict) else noise
    with contextlib.suppress(ConfigError):
        parent_of_record(merged, place="odd.json")
