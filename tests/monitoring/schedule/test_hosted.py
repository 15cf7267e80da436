"""A monitor file becomes requests that SageMaker's service model accepts, or one line for each thing it would not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from policylab.aws.service_model import structure_findings
from policylab.cli import main
from policylab.monitoring.schedule.cron import Cron
from policylab.monitoring.schedule.hosted_preprocessor import preprocess_handler
from policylab.monitoring.schedule.hosted_requests import hosted_schedule

pytest.importorskip("botocore")

ALL = {
    "role_arn": "arn:aws:iam::123456789012:role/monitor",
    "image": "156813124566.dkr.ecr.us-east-1.amazonaws.com/sagemaker-model-monitor-analyzer",
    "clarify_image": "205585389593.dkr.ecr.us-east-1.amazonaws.com/sagemaker-clarify-processing:1.0",
    "s3_prefix": "s3://bucket/policylab",
    "quality": {"problem_type": "Regression", "inference_attribute": "value"},
    "bias": {"config": "s3://bucket/bias.json", "features_attribute": "observation", "probability_threshold": 0.5},
    "attribution": {"config": "s3://bucket/shap.json", "constraints": "s3://bucket/analysis.json"},
    "vpc": {"subnets": ["subnet-0a"], "security_group_ids": ["sg-0a"]},
    "volume_kms_key": "k1", "output_kms_key": "k2", "tags": {"team": "rl"},
}  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A monitor file with everything that can be hosted."""
    (tmp_path / "base").mkdir()
    for name in ("constraints.json", "statistics.json"):
        (tmp_path / "base" / name).write_text("{}")
    path = tmp_path / "monitor.yaml"
    path.write_text(json.dumps({
        "name": "pond", "data": "data", "endpoint": "lake", "schedule": "0 * * * *",
        "checks": [{"kind": "data", "baseline": "base"}, {"kind": "quality", "baseline": "good", "late": "PT90M"}],
        "sagemaker": ALL,
    }))  # fmt: skip
    return path


def planned(
    file: Path, capsys: pytest.CaptureFixture[str], *overrides: str, code: int = 0
) -> tuple[dict[str, Any], str]:
    options = [part for one in overrides for part in ("--set", one)]
    assert main(["monitor", "to-sagemaker", str(file), "--json", *options]) == code
    printed = capsys.readouterr()
    return json.loads(printed.out), printed.err


def test_every_request_fits_the_service_model(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document, told = planned(file, capsys)
    operations = [one["operation"] for one in document["requests"]]
    kinds = ("DataQuality", "ModelQuality", "ModelBias", "ModelExplainability")
    assert operations == [name for kind in kinds for name in (f"Create{kind}JobDefinition", "CreateMonitoringSchedule")]
    for one in document["requests"]:
        assert structure_findings(one["operation"], one["request"]) == []
    for definition, schedule, kind in zip(document["requests"][::2], document["requests"][1::2], kinds, strict=True):
        config = schedule["request"]["MonitoringScheduleConfig"]
        assert config["MonitoringJobDefinitionName"] == definition["request"]["JobDefinitionName"]
        assert config["MonitoringType"] == kind
        assert config["ScheduleConfig"] == {"ScheduleExpression": "cron(0 * ? * * *)"}
    assert (document["errors"], document["unchecked"]) == ([], None)
    assert "not expressible: alarms, targets: SageMaker sends metrics to CloudWatch" in told


def test_data_quality_takes_the_local_baseline(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document, _ = planned(file, capsys)
    request = document["requests"][0]["request"]
    place = "s3://bucket/policylab/monitors/pond/data"
    assert request["DataQualityBaselineConfig"] == {
        "ConstraintsResource": {"S3Uri": f"{place}/baseline/constraints.json"},
        "StatisticsResource": {"S3Uri": f"{place}/baseline/statistics.json"},
    }
    assert document["uploads"][f"{place}/baseline/statistics.json"] == str(file.parent / "base/statistics.json")
    script = request["DataQualityAppSpecification"]["RecordPreprocessorSourceUri"]
    assert Path(document["uploads"][script]).name == "hosted_preprocessor.py"


def test_late_labels_become_offsets_from_the_moment_of_the_job(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document, _ = planned(file, capsys)
    source = document["requests"][2]["request"]["ModelQualityJobInput"]
    assert source["EndpointInput"]["StartTimeOffset"] == "-PT150M"  # an hour, and 90 minutes before
    assert source["EndpointInput"]["EndTimeOffset"] == "-PT90M"
    assert source["GroundTruthS3Input"] == {"S3Uri": "s3://bucket/policylab/ground-truth/lake"}
    assert "StartTimeOffset" not in document["requests"][0]["request"]["DataQualityJobInput"]["EndpointInput"]


@pytest.mark.parametrize(
    ("local", "hosted"),
    [
        ("0 * * * *", ("cron(0 * ? * * *)", 1)), ("cron(0 17 ? * * *)", ("cron(0 17 ? * * *)", 24)),
        ("0 */6 * * *", ("cron(0 0/6 ? * * *)", 6)), ("0 5,17 * * *", ("cron(0 5/12 ? * * *)", 12)),
        ("*/5 * * * *", None), ("0 0 * * mon", None), ("0 0 1 * *", None), ("0 9-17 * * *", None),
        ("0 17/12 * * *", ("cron(0 17 ? * * *)", 24)), ("0 0/5 * * *", None),
    ],
)  # fmt: skip
def test_schedules_as_sagemaker_writes_them(local: str, hosted: tuple[str, int] | None) -> None:
    assert hosted_schedule(Cron.parse(local)) == hosted


@pytest.mark.parametrize("local", ["0 * * * *", "0 7 * * *", "0 2/8 * * *"])
def test_the_hosted_schedule_has_the_moments_of_the_local_one(local: str) -> None:
    found = hosted_schedule(Cron.parse(local))
    assert found is not None
    here, there = Cron.parse(local), Cron.parse(found[0])
    moment = datetime(2026, 1, 31, 16, 30, tzinfo=UTC)
    for _ in range(30):
        assert here.after(moment) == there.after(moment)
        after = here.after(moment)
        assert here.after(after) - after == timedelta(hours=found[1])
        moment = after


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("schedule='*/5 * * * *'", "schedule: SageMaker schedules every hour, once a day"),
        ("sagemaker.max_runtime_s=3600", "max_runtime_s: an hourly ModelQuality job may take 1800 s, got 3600"),
        ("sagemaker.clarify_image=null", "clarify_image: bias and attribution run in Clarify's image"),
        ("sagemaker.instance_type=ml.m9.huge", "JobResources.ClusterConfig.InstanceType: must be a known value"),
        ("sagemaker.role_arn=me", "RoleArn: at least 20 characters"),
        ("checks.0.baseline=nowhere", "the baseline must exist"),
    ],
)
def test_what_sagemaker_would_refuse_is_told(
    file: Path, capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    document, told = planned(file, capsys, override, code=2)
    assert message in told
    assert any(message in error for error in document["errors"])


def test_what_cannot_be_expressed_is_told(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, told = planned(file, capsys, "variant=a", "sagemaker.quality=null")
    assert "checks.quality: SageMaker knows no returns" in told
    assert "variant: SageMaker analyses the traffic of all variants" in told


def test_without_the_section_there_is_one_error(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["monitor", "to-sagemaker", str(file), "--set", "sagemaker=null"]) == 2
    assert "the monitor file has no section `sagemaker`" in capsys.readouterr().err


def test_the_preprocessor_names_columns_as_the_local_baseline() -> None:
    def record(asked: Any, answer: Any) -> SimpleNamespace:
        sides = (SimpleNamespace(data=json.dumps(side)) for side in (asked, answer))
        return SimpleNamespace(endpoint_input=next(sides), endpoint_output=next(sides))

    asked = {"observation": [0.5, {"x": 2}], "episode": "e"}
    answer = {"action": 1, "propensity": 0.25, "decision_id": "d"}
    expected = {"observation_0": 0.5, "observation_1_x": 2, "action": 1, "propensity": 0.25}
    assert preprocess_handler(record(asked, answer)) == expected
    assert preprocess_handler(record([0.5, 2], 1)) == {"observation_0": 0.5, "observation_1": 2, "action": 1}
