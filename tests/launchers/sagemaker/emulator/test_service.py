"""The service's operations: what they answer and what they refuse, as a boto3 client would."""

import pytest
from botocore.exceptions import ClientError

from policylab.errors import ConfigError
from policylab.launchers.sagemaker.emulator import EmulatorSettings
from policylab.launchers.sagemaker.service import error_code


@pytest.fixture
def emulator(make_emulator):
    return make_emulator(isolation="processes")


def code_of(call, **arguments):
    with pytest.raises(ClientError, match="An error occurred") as refused:
        call(**arguments)
    return error_code(refused.value)


def test_names_are_used_once(emulator):
    emulator.run(emulator.request("true"))
    assert code_of(emulator.create_training_job, **emulator.request("true")) == "ResourceInUse"


@pytest.mark.parametrize("name", ["nobody", "../../etc", ""])
def test_unknown_jobs(emulator, name):
    assert code_of(emulator.describe_training_job, TrainingJobName=name) == "ResourceNotFound"
    assert code_of(emulator.stop_training_job, TrainingJobName=name) == "ResourceNotFound"
    assert code_of(emulator.list_tags, ResourceArn=f"arn:aws:sagemaker:x:0:training-job/{name}") == "ResourceNotFound"


def test_a_job_that_has_ended_cannot_be_stopped(emulator):
    emulator.run(emulator.request("true"))
    assert code_of(emulator.stop_training_job, TrainingJobName="job") == "ValidationException"


def test_jobs_are_found_by_tags_and_state(emulator):
    for name, study in (("one", "a"), ("two", "a"), ("three", "b")):
        emulator.run(emulator.request("true", name=name, Tags=[{"Key": "study", "Value": study}]))
    query = {"Filters": [{"Name": "Tags.study", "Operator": "Equals", "Value": "a"}]}
    found = emulator.search(Resource="TrainingJob", SearchExpression=query, SortBy="CreationTime")["Results"]
    assert [one["TrainingJob"]["TrainingJobName"] for one in found] == ["two", "one"]
    arn = found[0]["TrainingJob"]["TrainingJobArn"]
    emulator.add_tags(ResourceArn=arn, Tags=[{"Key": "study", "Value": "c"}, {"Key": "new", "Value": "1"}])
    assert emulator.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "study", "Value": "c"}, {"Key": "new", "Value": "1"}]
    assert len(emulator.search(Resource="TrainingJob", SearchExpression=query)["Results"]) == 1
    page = emulator.list_training_jobs(MaxResults=2, StatusEquals="Completed")
    rest = emulator.list_training_jobs(MaxResults=2, StatusEquals="Completed", NextToken=page["NextToken"])
    names = [one["TrainingJobName"] for one in page["TrainingJobSummaries"] + rest["TrainingJobSummaries"]]
    assert names == ["three", "two", "one"]
    assert "NextToken" not in rest
    assert emulator.list_training_jobs(StatusEquals="Failed") == {"TrainingJobSummaries": []}


def test_every_broken_rule_is_named_and_nothing_is_written(emulator):
    request = emulator.request("true", HyperParameters={"note": "it's\n$HOME"}, Environmnt={})
    request["ResourceConfig"]["InstanceType"] = "ml.bogus"
    request["AlgorithmSpecification"]["MetricDefinitions"] = [{"Name": "a", "Regex": "a=(.*"}]
    with pytest.raises(ClientError, match="ValidationException") as refused:
        emulator.create_training_job(**request)
    for part in ("HyperParameters.note", "Environment", "ml.bogus", "regular expression"):
        assert part in str(refused.value)
    assert not (emulator.root / "jobs").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"AlgorithmSpecification": {"TrainingImage": "x", "TrainingInputMode": "File"}}, "no image here"),
        ({"CheckpointConfig": {"S3Uri": "s3://b/c", "LocalPath": "/checkpoints"}}, "below /opt/ml"),
        ({"CheckpointConfig": {"S3Uri": "s3://b/c", "LocalPath": "/opt/ml/../../etc"}}, "below /opt/ml"),
    ],
)
def test_what_cannot_be_executed_here_is_refused(emulator, change, message):
    with pytest.raises(ConfigError, match=message):
        emulator.check({**emulator.request("true"), **change})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": {"S3DataType": "AugmentedManifestFile", "AttributeNames": ["a"]}}, "S3Prefix and ManifestFile"),
        ({"RecordWrapperType": "RecordIO"}, "not wrapped"),
    ],
)
def test_channels_that_cannot_be_emulated_are_refused(emulator, fields, message):
    request = emulator.request("true", channels=[emulator.channel("data", "s3://b/d/", InputMode="Pipe", **fields)])
    with pytest.raises(ConfigError, match=message):
        emulator.check(request)


def test_what_has_no_effect_is_listed(emulator):
    request = emulator.request("true", EnableNetworkIsolation=True, EnableInterContainerTrafficEncryption=True)
    request["ResourceConfig"]["KeepAlivePeriodInSeconds"] = 60
    emulator.run(request)
    said = "\n".join(emulator.emulation("job")["NotChecked"])
    for part in (
        "TrainingImage",
        "algo-N do not resolve",
        "EnableNetworkIsolation",
        "traffic",
        "KeepAlive",
        "VolumeSize",
    ):
        assert part in said


def test_a_folder_for_a_channel_that_is_not_there(make_emulator, tmp_path):
    emulator = make_emulator(isolation="processes", folders={"dat": tmp_path})
    with pytest.raises(ConfigError, match="'dat', which is no channel"):
        emulator.check(emulator.request("true"))


def test_a_small_disk_needs_isolation(make_emulator):
    with pytest.raises(ConfigError, match="disk_mb needs isolated hosts"):
        make_emulator(isolation="processes", disk_mb=1)


def test_at_the_end_jobs_are_stopped(make_emulator):
    emulator = make_emulator(isolation="processes")
    request = emulator.request("trap 'echo told; exit 0' TERM; echo ready; while :; do sleep 0.05; done")
    emulator.create_training_job(**request)
    emulator.says("ready")
    emulator.close()
    assert emulator.describe_training_job(TrainingJobName="job")["TrainingJobStatus"] == "Stopped"
    assert emulator.log() == "ready\ntold\n"


def test_a_root_that_cannot_be_written_ends_the_job(emulator, caplog):
    emulator.create_training_job(**emulator.request("echo ready; sleep 60"))
    emulator.says("ready")
    facts = emulator.root / "jobs/job/emulation.json"
    facts.unlink()
    facts.mkdir()
    emulator.stop_training_job(TrainingJobName="job")
    emulator.wait("job", timeout_s=60)
    assert not emulator.is_at_work("job")
    assert f"job: cannot write {facts}" in caplog.text


def test_settings_have_the_services_grace():
    assert EmulatorSettings().grace_s == 120
