"""The literal request: valid for every setting, deterministic, and refused with every broken rule at once."""

from __future__ import annotations

import copy
import dataclasses
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from policylab.aws.metrics import SAMPLES, metric_line, metric_regex
from policylab.errors import ConfigError
from policylab.launchers.sagemaker.preflight import difference, preflight, require_valid
from policylab.launchers.sagemaker.prices import PriceTable, estimate
from policylab.launchers.sagemaker.settings import SageMakerSettings
from policylab.launchers.sagemaker.training_request import TrainingRun, job_name, training_request

PLAIN: dict[str, Any] = {
    "role_arn": "arn:aws:iam::123456789012:role/policylab",
    "image": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/policylab:1",
    "s3_prefix": "s3://bucket/policylab",
}
RUN = TrainingRun(
    experiment="cartpole_ppo",
    config_hash="ab" * 32,
    trial=2,
    role="tune",
    index=1,
    stop_at_steps=100_000,
    code_hash="cd" * 32,
    spec_hash="ef" * 32,
)
GROUPS = [
    {"name": "learner", "instance_type": "ml.g5.2xlarge"},
    {"name": "rollout", "instance_type": "ml.c5.4xlarge", "instance_count": 4},
]
NETWORK = {"subnets": ["subnet-0123456789abcdef0"], "security_group_ids": ["sg-0123456789abcdef0"]}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "spot": {"spot": {"max_wait_s": 100_000}},
    "groups": {"instance_groups": GROUPS, "head_group": "learner"},
    "warm_pool": {"keep_alive_s": 600},
    "s3_express": {"channels": [{"name": "data", "source": {"kind": "s3", "uri": "s3://data--euw1-az1--x-s3/a/"}}]},
    "fast_file": {
        "channels": [{"name": "data", "source": {"kind": "s3", "uri": "s3://b/data/"}, "input_mode": "FastFile"}]
    },
    "pipe": {"channels": [{"name": "data", "source": {"kind": "s3", "uri": "s3://b/data"}, "input_mode": "Pipe"}]},
    "efs": {
        "vpc": NETWORK,
        "channels": [{"name": "data", "source": {"kind": "efs", "file_system_id": "fs-0123456789abcdef0"}}],
    },
    "fsx_in_groups": {
        "vpc": NETWORK,
        "instance_groups": GROUPS,
        "channels": [
            {"name": "data", "source": {"kind": "fsx", "file_system_id": "fs-0123456789abcdef0", "directory": "/m/d"}}
        ],
    },
    "locked_down": {
        "vpc": NETWORK,
        "volume_kms_key": "alias/a",
        "output_kms_key": "alias/b",
        "encrypt_traffic": True,
        "network_isolation": True,
        "attempts": 3,
        "environment": {"LOG_LEVEL": "info"},
        "tags": {"team": "rl"},
    },
}


def request_of(**changes: Any) -> dict[str, Any]:
    return training_request(SageMakerSettings(**{**PLAIN, **changes}), RUN)


def with_(path: str, value: Any, **changes: Any) -> dict[str, Any]:
    """Return a valid request with one field replaced."""
    request: Any = copy.deepcopy(request_of(**changes))
    *way, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    inner = request
    for part in way:
        inner = inner[part] if isinstance(inner, list) else inner.setdefault(part, {})
    inner[last] = value
    return dict(request)


@pytest.mark.parametrize("name", VARIANTS)
def test_what_a_launcher_can_be_told_makes_a_request_without_findings(name: str) -> None:
    found = preflight(request_of(**VARIANTS[name]))
    assert found.unchecked is None
    assert found.findings == ()


def test_configuration_travels_in_files_never_through_a_shell() -> None:
    request = request_of()
    assert "HyperParameters" not in request
    channels = {
        entry["ChannelName"]: entry["DataSource"]["S3DataSource"]["S3Uri"] for entry in request["InputDataConfig"]
    }
    assert channels == {
        "code": f"s3://bucket/policylab/code/{RUN.code_hash}/",
        "run": f"s3://bucket/policylab/runs/{RUN.spec_hash}/",
    }
    assert "exec python3" in request["AlgorithmSpecification"]["ContainerArguments"][0], "SIGTERM must reach Python"


def test_in_a_heterogeneous_cluster_every_channel_names_every_group() -> None:
    request = request_of(**VARIANTS["groups"])
    for channel in request["InputDataConfig"]:
        assert channel["DataSource"]["S3DataSource"]["InstanceGroupNames"] == ["learner", "rollout"]
    assert request["Environment"]["POLICYLAB_HEAD_GROUP"] == "learner"


def test_a_promoted_run_has_a_new_job_with_the_old_checkpoints() -> None:
    settings = SageMakerSettings(**PLAIN)
    first, second = (
        training_request(settings, dataclasses.replace(RUN, stop_at_steps=steps, spec_hash=digest * 32))
        for steps, digest in ((10_000, "01"), (100_000, "02"))
    )
    assert first["TrainingJobName"] != second["TrainingJobName"]
    assert first["CheckpointConfig"] == second["CheckpointConfig"]
    assert first["TrainingJobName"] not in first["CheckpointConfig"]["S3Uri"]


@given(st.text(max_size=80), st.integers(0, 10**6), st.integers(0, 10**4))
def test_names_are_legal_and_a_function_of_what_the_job_does(experiment: str, trial: int, index: int) -> None:
    run = dataclasses.replace(RUN, experiment=experiment, trial=trial, index=index)
    assert re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", job_name(run))
    assert job_name(run) == job_name(dataclasses.replace(run))
    for other in ({"trial": trial + 1}, {"role": "confirm"}, {"code_hash": "00" * 32}, {"config_hash": "00" * 32}):
        assert job_name(dataclasses.replace(run, **other)) != job_name(run)  # type: ignore[arg-type]


BROKEN: list[tuple[str, dict[str, Any], str]] = [
    ("spot without waiting time", with_("EnableManagedSpotTraining", True), "StoppingCondition.MaxWaitTimeInSeconds"),
    ("waiting without spot", with_("StoppingCondition/MaxWaitTimeInSeconds", 10**5), "is for spot training only"),
    (
        "waiting shorter than running",
        with_("StoppingCondition/MaxWaitTimeInSeconds", 10, **VARIANTS["spot"]),
        "at least MaxRuntimeInSeconds",
    ),
    ("29 days", with_("StoppingCondition/MaxRuntimeInSeconds", 29 * 86_400), "1 to 2419200 seconds"),
    (
        "warm pool and spot",
        with_("ResourceConfig/KeepAlivePeriodInSeconds", 60, **VARIANTS["spot"]),
        "excludes spot training",
    ),
    (
        "warm pool and groups",
        with_("ResourceConfig/KeepAlivePeriodInSeconds", 60, **VARIANTS["groups"]),
        "excludes heterogeneous clusters",
    ),
    ("groups and a type", with_("ResourceConfig/InstanceType", "ml.m5.large", **VARIANTS["groups"]), "takes the place"),
    ("no machines", with_("ResourceConfig", {"VolumeSizeInGB": 1}), "a job needs machines"),
    ("no container", with_("AlgorithmSpecification", None), "a job needs a container"),
    (
        "preferences and spot",
        with_("ResourceConfig/InstancePreferences", [{"InstanceType": "ml.m5.large"}], **VARIANTS["spot"]),
        "or EnableManagedSpotTraining",
    ),
    ("unknown type", with_("ResourceConfig/InstanceType", "ml.m5.xlarg"), "did you mean 'ml.m5.xlarge'?"),
    (
        "file system without network",
        {key: value for key, value in request_of(**VARIANTS["efs"]).items() if key != "VpcConfig"},
        "a file system needs VpcConfig",
    ),
    (
        "file system in FastFile mode",
        with_("InputDataConfig/2/InputMode", "FastFile", **VARIANTS["efs"]),
        "File mode only",
    ),
    (
        "FastFile off a folder",
        with_("InputDataConfig/2/DataSource/S3DataSource/S3Uri", "s3://b/data", **VARIANTS["fast_file"]),
        "must end at a folder",
    ),
    (
        "FastFile of a manifest",
        with_("InputDataConfig/2/DataSource/S3DataSource/S3DataType", "ManifestFile", **VARIANTS["fast_file"]),
        "reads an S3Prefix only",
    ),
    (
        "one channel without groups",
        with_(
            "InputDataConfig/0/DataSource/S3DataSource",
            {"S3DataType": "S3Prefix", "S3Uri": "s3://b/c/"},
            **VARIANTS["groups"],
        ),
        "every channel must",
    ),
    (
        "unknown group",
        with_("InputDataConfig/0/DataSource/S3DataSource/InstanceGroupNames", ["lerner"], **VARIANTS["groups"]),
        "no instance group is called 'lerner'",
    ),
    ("repeated channel", with_("InputDataConfig/1/ChannelName", "code"), "channel names must differ"),
    ("shell characters", with_("HyperParameters", {"a": "it's"}), "break the containers"),
    ("two lines", with_("HyperParameters", {"a": "1\n2"}), "break the containers"),
    ("long hyperparameter", with_("HyperParameters", {"a": "x" * 2501}), "at most 2500 characters"),
    ("environment name", with_("Environment", {"1A": "x"}), "begins with no digit"),
    ("environment value", with_("Environment", {"A": "x" * 513}), "at most 512 characters"),
    (
        "regex without group",
        with_("AlgorithmSpecification/MetricDefinitions", [{"Name": "a", "Regex": "a=.*"}]),
        "one capture group",
    ),
    (
        "regex that is none",
        with_("AlgorithmSpecification/MetricDefinitions", [{"Name": "a", "Regex": "("}]),
        "must be a regular expression",
    ),
    (
        "41 metrics",
        with_(
            "AlgorithmSpecification/MetricDefinitions",
            [{"Name": f"m{i}", "Regex": metric_regex(f"m{i}")} for i in range(41)],
        ),
        "at most 40 entries",
    ),
    ("image and algorithm", with_("AlgorithmSpecification/AlgorithmName", "a" * 20), "exactly one of TrainingImage"),
    ("long name", with_("TrainingJobName", "a" * 64), "at most 63 characters"),
    ("misspelt field", with_("StopingCondition", {}), "did you mean 'StoppingCondition'?"),
    ("text for a number", with_("ResourceConfig/InstanceCount", "2"), "must be a integer"),
]


@pytest.mark.parametrize(("request_", "message"), [entry[1:] for entry in BROKEN], ids=[entry[0] for entry in BROKEN])
def test_a_broken_rule_is_an_error_with_its_place(request_: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        require_valid(request_)


WARNED: list[tuple[dict[str, Any], str]] = [
    (with_("ResourceConfig/KeepAlivePeriodInSeconds", 7200), "allows only 3600 seconds"),
    (with_("HyperParameters", {"a": "x" * 300}), "allows only 256 characters"),
    (with_("AlgorithmSpecification/MetricDefinitions", []), "no metric to keep a series of"),
    (with_("CheckpointConfig/S3Uri", f"s3://b/{job_name(RUN)}/checkpoints"), "no other job will ever resume"),
    (
        {key: value for key, value in request_of(**VARIANTS["spot"]).items() if key != "CheckpointConfig"},
        "starts again from nothing",
    ),
    (
        with_(
            "AlgorithmSpecification/MetricDefinitions", [{"Name": "r", "Regex": r"\[metric\] r=([-+]?[0-9]+\.?[0-9]*)"}]
        ),
        "does not find 1e-07, -2.5e+20, nan, inf, -inf",
    ),
    (with_("ResourceConfig/InstanceType", "ml.m4.xlarge"), "lacks it, so the estimate does too"),
]


@pytest.mark.parametrize(("request_", "message"), WARNED)
def test_what_may_go_wrong_is_a_warning(request_: dict[str, Any], message: str) -> None:
    found = preflight(request_)
    assert not found.errors
    assert any(message in str(finding) for finding in found.findings)


def test_every_violation_is_reported_at_once() -> None:
    request = with_("EnableManagedSpotTraining", True)
    request["TrainingJobName"] = "-"
    request["HyperParameters"] = {"a": "$HOME"}
    assert {finding.path for finding in preflight(request).errors} == {
        "StoppingCondition.MaxWaitTimeInSeconds",
        "TrainingJobName",
        "HyperParameters.a",
    }


@pytest.mark.parametrize("value", SAMPLES, ids=repr)
def test_the_pattern_finds_every_value_of_our_lines(value: float) -> None:
    found = re.search(metric_regex("eval/return.mean"), "12:00 " + metric_line("eval/return.mean", value) + " more")
    assert found is not None
    assert found[1] == repr(value)


def test_estimates_add_up_over_groups_and_time() -> None:
    table = PriceTable(as_of="2026-01", region="here", per_hour={"ml.g5.2xlarge": 2.0, "ml.c5.4xlarge": 0.5})
    found = estimate(request_of(**VARIANTS["groups"], max_runtime_s=1800), table)
    assert found.per_hour == pytest.approx(2.0 + 4 * 0.5)
    assert found.most == pytest.approx(2.0)


def test_the_difference_to_the_last_request_is_what_changed() -> None:
    assert difference(request_of(volume_gb=50), request_of()) == ['-  "VolumeSizeInGB": 30', '+  "VolumeSizeInGB": 50']
    assert difference(request_of(), request_of()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"instance_groups": GROUPS, "instance_count": 2}, "keep one of the two forms"),
        ({"instance_groups": GROUPS, "head_group": "heads"}, "must name one of the instance groups"),
        ({"instance_groups": [GROUPS[0], GROUPS[0]]}, "must differ"),
        ({"s3_prefix": "https://bucket"}, "should match pattern"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SageMakerSettings(**{**PLAIN, **changes})
