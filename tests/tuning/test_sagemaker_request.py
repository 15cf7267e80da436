"""The request that a study becomes: valid, complete, and honest about what it cannot say."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policylab.aws.metrics import metric_regex
from policylab.tuning.hyperparameter_text import from_hyperparameters, from_text, to_hyperparameters, to_text
from policylab.tuning.limits import Convergence, Limits, NotImproving
from policylab.tuning.request_validation import validate_request
from policylab.tuning.sagemaker_request import (
    TuningJob,
    placeholder_training_job,
    tuning_job_name,
    tuning_job_request,
)
from policylab.tuning.space import Space

PARAMETERS: dict[str, Any] = {
    "agent.learning_rate": {"kind": "continuous", "low": 0.0001, "high": 1.0, "scaling": "logarithmic"},
    "agent.discount": {"kind": "continuous", "low": 0.9, "high": 0.999, "scaling": "reverse_logarithmic"},
    "agent.tilings": {"kind": "integer", "low": 1, "high": 16},
    "agent.exploration.kind": {"kind": "categorical", "values": ["epsilon_greedy", "softmax"]},
    "agent.double": {"kind": "categorical", "values": [True, False, "true"]},
}


def job(**changes: Any) -> TuningJob:
    plain = TuningJob(
        name="taxi",
        space=Space.model_validate({"parameters": PARAMETERS}),
        searcher={"kind": "bayesian"},
        scheduler={"kind": "fixed"},
        limits=Limits(trials=60),
        metric="eval_return",
        parallel=4,
        seed=0,
    )
    return dataclasses.replace(plain, **changes)


def spaced(parameters: dict[str, Any], **more: Any) -> Space:
    return Space.model_validate({"parameters": parameters, **more})


def config(changed: TuningJob) -> dict[str, Any]:
    section: dict[str, Any] = tuning_job_request(changed)[0]["HyperParameterTuningJobConfig"]
    return section


def test_everything_the_service_knows_is_said_and_nothing_is_lost() -> None:
    request, lost = tuning_job_request(job(static={"env.id": "Taxi-v3", "agent.buffer": 1000}))
    assert lost == []
    assert request["HyperParameterTuningJobName"] == "taxi"
    assert request["HyperParameterTuningJobConfig"] == {
        "Strategy": "Bayesian",
        "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "eval_return"},
        "ResourceLimits": {"MaxParallelTrainingJobs": 4, "MaxNumberOfTrainingJobs": 60},
        "ParameterRanges": {
            "ContinuousParameterRanges": [
                {
                    "Name": "agent.learning_rate",
                    "MinValue": "0.0001",
                    "MaxValue": "1.0",
                    "ScalingType": "Logarithmic",
                },
                {
                    "Name": "agent.discount",
                    "MinValue": "0.9",
                    "MaxValue": "0.999",
                    "ScalingType": "ReverseLogarithmic",
                },
            ],
            "IntegerParameterRanges": [
                {"Name": "agent.tilings", "MinValue": "1", "MaxValue": "16", "ScalingType": "Auto"}
            ],
            "CategoricalParameterRanges": [
                {"Name": "agent.exploration.kind", "Values": ["epsilon_greedy", "softmax"]},
                {"Name": "agent.double", "Values": ["true", "false", '"true"']},
            ],
        },
        "TrainingJobEarlyStoppingType": "Off",
        "RandomSeed": 0,
    }
    static = request["TrainingJobDefinition"]["StaticHyperParameters"]
    assert static == {"env.id": "Taxi-v3", "agent.buffer": "1000"}
    assert json.loads(json.dumps(request)) == request


VARIANTS: dict[str, dict[str, Any]] = {
    "random": {"searcher": {"kind": "random"}},
    "tpe": {"searcher": {"kind": "tpe"}},
    "median": {"scheduler": {"kind": "median", "variant": "amt"}},
    "hyperband": {"scheduler": {"kind": "hyperband", "min_resource": 0.1}, "reports": 81},
    "asha": {"scheduler": {"kind": "asha"}},
    "race": {"scheduler": {"kind": "race"}, "n_seeds": 5},
    "grid": {
        "searcher": {"kind": "grid"},
        "limits": Limits(),
        "space": spaced({"a": {"kind": "categorical", "values": [1, 2]}, "n": {"kind": "integer", "low": 0, "high": 4,
                                                                                 "step": 2}}),
    },
    "limits": {
        "limits": Limits(trials=60, wall_clock_s=7200.5, target=8.0, not_improving=NotImproving(trials=10),
                         convergence=Convergence()),
        "goal": "minimize",
    },
    "warm start": {"warm_start": ("transfer_learning", ["taxi-1", "taxi-2"])},
    "seed": {"seed": 2**40 + 7},
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_request_is_valid(variant: str) -> None:
    request, _ = tuning_job_request(job(**VARIANTS[variant]))
    assert [str(finding) for finding in validate_request(request).errors] == []


def test_the_placeholders_are_valid_and_the_callers_section_is_kept() -> None:
    section = placeholder_training_job()
    section["AlgorithmSpecification"]["MetricDefinitions"] = [{"Name": "eval_return", "Regex": "return=(.+)"}]
    section["StaticHyperParameters"] = {"sagemaker_program": "entry.py"}
    before = copy.deepcopy(section)
    definition = tuning_job_request(job(training_job=section, static={"x": 1}))[0]["TrainingJobDefinition"]
    assert section == before
    assert definition["AlgorithmSpecification"] == before["AlgorithmSpecification"]
    assert definition["StaticHyperParameters"] == {"sagemaker_program": "entry.py", "x": "1"}


def test_hyperband_counts_reports_and_keeps_early_stopping_off() -> None:
    section = config(job(scheduler={"kind": "hyperband", "min_resource": 0.1}, reports=81))
    assert section["StrategyConfig"] == {"HyperbandStrategyConfig": {"MinResource": 8, "MaxResource": 81}}
    assert section["TrainingJobEarlyStoppingType"] == "Off"


def test_the_median_rule_is_early_stopping() -> None:
    assert config(job(scheduler={"kind": "median"}))["TrainingJobEarlyStoppingType"] == "Auto"


def test_a_grid_lists_stepped_ranges_and_counts_the_product() -> None:
    section = config(job(**VARIANTS["grid"]))
    assert section["Strategy"] == "Grid"
    assert section["ResourceLimits"]["MaxNumberOfTrainingJobs"] == 6
    assert {"Name": "n", "Values": ["0", "2", "4"]} in section["ParameterRanges"]["CategoricalParameterRanges"]


def test_a_grid_over_a_range_without_steps_is_refused_by_the_check() -> None:
    request, _ = tuning_job_request(job(searcher={"kind": "grid"}))
    assert any("categorical ranges only" in str(finding) for finding in validate_request(request).errors)


def test_completion_criteria() -> None:
    section = config(job(**VARIANTS["limits"]))
    assert section["TuningJobCompletionCriteria"] == {
        "TargetObjectiveMetricValue": 8.0,
        "BestObjectiveNotImproving": {"MaxNumberOfTrainingJobsNotImproving": 10},
        "ConvergenceDetected": {"CompleteOnConvergence": "Enabled"},
    }
    assert section["ResourceLimits"]["MaxRuntimeInSeconds"] == 7201
    assert section["HyperParameterTuningJobObjective"]["Type"] == "Minimize"


def test_a_warm_start_names_its_parents() -> None:
    request, _ = tuning_job_request(job(**VARIANTS["warm start"]))
    assert request["WarmStartConfig"] == {
        "ParentHyperParameterTuningJobs": [
            {"HyperParameterTuningJobName": "taxi-1"},
            {"HyperParameterTuningJobName": "taxi-2"},
        ],
        "WarmStartType": "TransferLearning",
    }


def test_local_parents_are_not_tuning_jobs() -> None:
    request, lost = tuning_job_request(job(warm_start=("transfer_learning", ["runs/taxi-2026", "taxi_1"])))
    assert "WarmStartConfig" not in request
    assert ["own tuning jobs only" in sentence for sentence in lost] == [True, True]


LOST: dict[str, tuple[dict[str, Any], list[str]]] = {
    "tpe": (VARIANTS["tpe"], ["searcher tpe: Bayesian search"]),
    "an unknown searcher": ({"searcher": {"kind": "own"}}, ["searcher own: unknown to SageMaker; Random stands in"]),
    "sobol": ({"searcher": {"kind": "random", "design": "sobol"}}, ["searcher.design 'sobol': SageMaker has no such"]),
    "a rival median rule": (
        {"scheduler": {"kind": "median", "variant": "vizier", "grace": 0.0, "min_trials": 1}},
        ["scheduler.variant 'vizier': SageMaker has no such"]),
    "a patient median rule": (
        {"scheduler": {"kind": "median"}},
        ["scheduler.grace 0.2 and min_trials 5: SageMaker compares from the first report"]),
    "the bare median rule": ({"scheduler": {"kind": "median", "grace": 0.0, "min_trials": 1}}, []),
    "promotion": (
        {"scheduler": {"kind": "hyperband", "eta": 4}},
        ["searcher bayesian: the strategy Hyperband draws", "scheduler.eta 4", "cannot promote one from its checkp"]),
    "races and seeds": (
        VARIANTS["race"], ["scheduler race: every configuration is trained once", "5 tuning seeds and races"]),
    "conditions": (
        {"space": spaced({**PARAMETERS, "agent.temperature": {
            "kind": "continuous", "low": 0.1, "high": 1.0, "when": {"agent.exploration.kind": "softmax"}}})},
        ["agent.temperature: its condition {'agent.exploration.kind': 'softmax'}"]),
    "constraints": (
        {"space": spaced(PARAMETERS, constraints=[{"left": "agent.tilings", "op": "<=", "right": 8}])},
        ["constraint agent.tilings <= 8.0: the container must refuse"]),
    "the default": (
        {"space": spaced({"a": {"kind": "categorical", "values": [1, 2]}}, default={"a": 1})},
        ["the default configuration"]),
    "steps": (
        {"space": spaced({"a": {"kind": "continuous", "low": 0, "high": 1, "step": 0.25}})},
        ["a: its step 0.25; the range is searched without"]),
    "limits": (
        {"limits": Limits(steps=10, cost=5.0, cost_per_step=0.1, wall_clock_s=60,
                          not_improving=NotImproving(trials=3, threshold=0), convergence=Convergence())},
        ["limits.wall_clock_s 60: the shortest tuning job has 120 s", "limits.steps 10", "limits.cost 5",
         "limits.not_improving.threshold 0", "limits.convergence of 10 trials: SageMaker has a rule of its own"]),
    "fewer trials than a grid": (
        {**VARIANTS["grid"], "limits": Limits(trials=5)}, ["limits.trials 5: Grid runs all 6 combinations"]),
    "a grid with conditions": (
        {"searcher": {"kind": "grid"}, "limits": Limits(), "space": spaced({
            "a": {"kind": "categorical", "values": [1, 2]},
            "b": {"kind": "categorical", "values": [1, 2, 3], "when": {"a": 2}}})},
        ["grid: 4 of the 6 combinations are configurations, the others repeat one or break a constraint; SageMaker",
         "b: its condition"]),
    "confirmation": ({"n_confirm": 10}, ["seeds.confirm 10: SageMaker's best is not trained again on fresh seeds"]),
    "retries": ({"retries": 3}, ["launcher.retries 3: SageMaker repeats a training after its own errors only"]),
    "a rung between two reports": (
        {"scheduler": {"kind": "hyperband", "min_resource": 0.3}, "reports": 5},
        ["searcher bayesian: the strategy Hyperband", "scheduler hyperband: SageMaker only stops",
         "scheduler.min_resource 0.3: 2 of 5 reports stands in"]),
    "nothing to compare": (
        {"scheduler": {"kind": "hyperband"}, "reports": 1},
        ["searcher bayesian: the strategy Hyperband", "scheduler hyperband: SageMaker only stops",
         "scheduler: with one report nothing is compared before the end; set evaluation.marks higher"]),
    "long seeds": (VARIANTS["seed"], [f"seed {2**40 + 7}: RandomSeed holds 31 bits"]),
}  # fmt: skip


def test_the_time_of_a_training_is_its_own_limit_unless_a_definition_is_given() -> None:
    request, _ = tuning_job_request(job(max_runtime_s=600.5))
    assert request["TrainingJobDefinition"]["StoppingCondition"] == {"MaxRuntimeInSeconds": 601}
    given = {**placeholder_training_job(), "StoppingCondition": {"MaxRuntimeInSeconds": 77}}
    request, _ = tuning_job_request(job(max_runtime_s=600.5, training_job=given))
    assert request["TrainingJobDefinition"]["StoppingCondition"] == {"MaxRuntimeInSeconds": 77}


@pytest.mark.parametrize("case", LOST)
def test_what_is_lost_is_listed(case: str) -> None:
    changes, expected = LOST[case]
    _, lost = tuning_job_request(job(**changes))
    assert len(lost) == len(expected)
    for words, sentence in zip(expected, lost, strict=True):
        assert words in sentence


@pytest.mark.parametrize("name", ["taxi_tune", "--a--b--", "frozenlake8x8.warmstart." + "x" * 40, "é", "a" * 31 + "-b"])
def test_any_study_name_becomes_a_valid_job_name(name: str) -> None:
    request, _ = tuning_job_request(job(name=name))
    assert request["HyperParameterTuningJobName"] == tuning_job_name(name)
    assert validate_request(request).errors == []


@pytest.mark.parametrize("value", ["1", "-3.5", "1e-07", "2E+10", "nan", "inf", "-inf"])
def test_the_metric_pattern_finds_every_number(value: str) -> None:
    found = re.search(metric_regex("eval/return.mean"), f"12:00 [metric] eval/return.mean={value}\n")
    assert found is not None
    assert float(found.group(1)) == pytest.approx(float(value), nan_ok=True)


def test_the_metric_pattern_does_not_take_another_metric() -> None:
    assert re.search(metric_regex("a.b"), "[metric] aXb=1") is None


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(value=PLAIN)
def test_values_come_back_as_they_were(value: Any) -> None:
    again = from_text(to_text(value))
    assert again == value
    assert type(again) is type(value)


@settings(deadline=None)
@given(text=st.text())
def test_any_text_stands_for_something(text: str) -> None:
    from_text(text)


def test_configurations_come_back_without_the_services_own_names() -> None:
    configuration = {"agent.learning_rate": 0.1, "agent.kind": "sarsa", "agent.hidden": [64, 64], "version": "1.0"}
    text = to_hyperparameters(configuration)
    assert set(map(type, text.values())) == {str}
    assert from_hyperparameters({**text, "_tuning_objective_metric": "eval_return"}) == configuration
