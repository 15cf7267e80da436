"""Real jobs of a few shell lines: how they begin, end, fail, are stopped and interrupted."""

from __future__ import annotations

import json

import botocore.session
import pytest
from botocore.validate import ParamValidator

from policylab.launchers.sagemaker.emulator.orders import give_order

SAVES_ON_SIGTERM = """exec python3 -c '
import os, signal, sys, time
def save(*_):
    open("checkpoints/state", "w").write("saved")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(60)
'"""

COUNTS_STARTS = """exec python3 -c '
import os, signal, sys, time
path = "checkpoints/starts"
starts = int(open(path).read()) if os.path.exists(path) else 0
open(path, "w").write(str(starts + 1))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("start", starts + 1, flush=True)
if starts < 2:
    time.sleep(60)
open("model/starts", "w").write(str(starts + 1))
'"""


def test_a_job_that_succeeds(make_emulator, isolation):
    emulator = make_emulator(isolation=isolation)
    emulator.store.put_bytes(b"hello", "s3://bucket/data/train/a.txt")
    command = """
        set -e
        cat input/data/train/a.txt input/config/hyperparameters.json
        echo "$TRAINING_JOB_NAME $GREETING"; echo trouble >&2
        mkdir model/deep; echo weights > model/deep/w; echo extra > output/data/e
    """
    request = emulator.request(
        command,
        HyperParameters={"learning_rate": "0.1"},
        Environment={"GREETING": """it's "$5" `now`"""},
        channels=[emulator.channel("train", "s3://bucket/data/train")],
        Tags=[{"Key": "study", "Value": "a"}],
    )
    record = emulator.run(request)
    assert (record["TrainingJobStatus"], record["SecondaryStatus"]) == ("Completed", "Completed"), emulator.log()
    assert emulator.statuses() == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert emulator.log() == 'hello{"learning_rate": "0.1"}job it\'s "$5" `now`\ntrouble\n'
    assert record["ModelArtifacts"]["S3ModelArtifacts"] == "s3://bucket/output/job/output/model.tar.gz"
    with emulator.archive("model.tar.gz") as tar:
        assert sorted(tar.getnames()) == ["deep", "deep/w"]
    with emulator.archive("output.tar.gz") as tar:
        assert tar.getnames() == ["e"]
    assert emulator.hosts()["algo-1"]["ExitCode"] == 0
    assert emulator.emulation("job")["Isolation"] == isolation


def test_the_record_has_the_shape_that_the_service_returns(make_emulator):
    emulator = make_emulator()
    record = emulator.run(emulator.spot_request("echo '[metric] loss=-0.5'", metrics=["loss"]))
    model = botocore.session.get_session().get_service_model("sagemaker")
    shape = model.operation_model("DescribeTrainingJob").output_shape
    report = ParamValidator().validate(record, shape)
    assert not report.has_errors(), report.generate_report()
    assert set(record) <= set(shape.members)
    ends = [one["EndTime"] for one in record["SecondaryStatusTransitions"]]
    assert ends == sorted(ends)
    assert record["CreationTime"] <= record["TrainingStartTime"] <= record["TrainingEndTime"]
    assert 1 <= record["BillableTimeInSeconds"] <= record["TrainingTimeInSeconds"]


@pytest.mark.parametrize(
    ("command", "code", "reason"),
    [
        ("echo 'ValueError: was NaN' > output/failure; exit 3", 3, "AlgorithmError: ValueError: was NaN, exit"),
        ("exit 1", 1, "AlgorithmError: , exit code: 1"),
        ("kill -9 $$", 137, "AlgorithmError: , exit code: 137"),
        ("exec no_such_program", 127, "AlgorithmError: , exit code: 127"),
        ("printf 'x%.0s' {1..3000} > output/failure; exit 1", 1, "AlgorithmError: xxx"),
        ("mkfifo output/failure; exit 1", 1, "AlgorithmError: , exit code: 1"),
        ("ln -s /etc/passwd output/failure; exit 1", 1, "AlgorithmError: , exit code: 1"),
    ],
)  # fmt: skip
def test_a_job_that_fails(make_emulator, command, code, reason):
    emulator = make_emulator(isolation="processes")
    record = emulator.run(emulator.request(f"echo data > output/data/rest; echo m > model/m; {command}"))
    assert (record["TrainingJobStatus"], record["SecondaryStatus"]) == ("Failed", "Failed")
    assert record["FailureReason"].startswith(reason)
    assert record["FailureReason"].endswith(f", exit code: {code}")
    assert len(record["FailureReason"]) <= 1024
    assert emulator.hosts()["algo-1"]["ExitCode"] == code
    assert emulator.store.exists("s3://bucket/output/job/output/output.tar.gz")
    assert not emulator.store.exists("s3://bucket/output/job/output/model.tar.gz")


def test_process_1_gets_no_signal_that_it_does_not_handle(make_emulator, needs_namespaces):
    emulator = make_emulator(isolation="namespaces")
    record = emulator.run(emulator.request("echo I am $$; kill -9 $$; kill -15 $$; echo alive"))
    assert record["TrainingJobStatus"] == "Completed"
    assert emulator.log() == "I am 1\nalive\n"


def test_stop_lets_the_job_save(make_emulator, isolation):
    emulator = make_emulator(isolation=isolation)
    request = emulator.request(SAVES_ON_SIGTERM, CheckpointConfig={"S3Uri": "s3://bucket/checkpoints/run/"})
    emulator.create_training_job(**request)
    emulator.says("ready")
    emulator.stop_training_job(TrainingJobName="job")
    record = emulator.end()
    assert (record["TrainingJobStatus"], record["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert emulator.statuses() == ["Starting", "Downloading", "Training", "Stopping", "Uploading", "Stopped"]
    assert emulator.store.get_bytes("s3://bucket/checkpoints/run/state") == b"saved"
    assert emulator.hosts()["algo-1"]["ExitCode"] == 0
    assert not emulator.hosts()["algo-1"]["Killed"]


def test_what_outlives_the_grace_is_killed(make_emulator, isolation):
    emulator = make_emulator(isolation=isolation, grace_s=0.3)
    emulator.create_training_job(**emulator.request("trap 'echo no' TERM; echo ready; while :; do sleep 0.05; done"))
    emulator.says("ready")
    emulator.stop_training_job(TrainingJobName="job")
    assert emulator.end()["SecondaryStatus"] == "Stopped"
    assert "no" in emulator.log()
    assert emulator.hosts()["algo-1"] == {**emulator.hosts()["algo-1"], "ExitCode": 137, "Killed": True}


def test_a_shell_as_process_1_passes_no_signal_on(make_emulator, needs_namespaces):
    emulator = make_emulator(isolation="namespaces", grace_s=0.3)
    without_exec = SAVES_ON_SIGTERM.removeprefix("exec ") + "\ntrue"
    request = emulator.request(without_exec, CheckpointConfig={"S3Uri": "s3://bucket/checkpoints/run"})
    emulator.create_training_job(**request)
    emulator.says("ready")
    emulator.stop_training_job(TrainingJobName="job")
    emulator.end()
    assert emulator.store.list("s3://bucket/checkpoints/") == []
    assert emulator.hosts()["algo-1"]["Killed"]


def test_spot_interruptions_resume_from_the_checkpoints(make_emulator, isolation):
    emulator = make_emulator(isolation=isolation)
    emulator.create_training_job(**emulator.spot_request(COUNTS_STARTS))
    for start in (b"1", b"2"):
        emulator.holds("s3://bucket/checkpoints/run/starts", start)
        emulator.interrupt("job")
    record = emulator.end()
    assert record["TrainingJobStatus"] == "Completed", emulator.log()
    once = ["Starting", "Downloading", "Training"]
    assert emulator.statuses() == [*once, "Interrupted", *once, "Interrupted", *once, "Uploading", "Completed"]
    assert emulator.log() == "start 1\nstart 2\nstart 3\n"
    assert [one["Ended"] for one in emulator.emulation("job")["Attempts"]] == ["interrupt", "interrupt", "completed"]
    assert emulator.store.get_bytes("s3://bucket/checkpoints/run/starts") == b"3"


def test_only_spot_jobs_are_interrupted(make_emulator):
    emulator = make_emulator()
    emulator.create_training_job(**emulator.request("sleep 60"))
    with pytest.raises(Exception, match="no running spot job"):
        emulator.interrupt("job")
    emulator.stop_training_job(TrainingJobName="job")


def test_max_runtime(make_emulator):
    emulator = make_emulator()
    request = emulator.request(
        "trap 'exit 0' TERM; while :; do sleep 0.05; done", StoppingCondition={"MaxRuntimeInSeconds": 1}
    )
    record = emulator.run(request)
    assert (record["TrainingJobStatus"], record["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")


def test_max_wait(make_emulator):
    emulator = make_emulator(respawn_s=60.0)
    request = emulator.spot_request("trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done")
    request["StoppingCondition"] = {"MaxRuntimeInSeconds": 8, "MaxWaitTimeInSeconds": 8}
    emulator.create_training_job(**request)
    emulator.says("ready")
    emulator.interrupt("job")
    record = emulator.end()
    assert (record["TrainingJobStatus"], record["SecondaryStatus"]) == ("Stopped", "MaxWaitTimeExceeded")


@pytest.mark.parametrize(("retries", "status"), [(1, "Completed"), (0, "Failed")])
def test_a_fault_of_the_service_is_retried_as_asked(make_emulator, retries, status):
    emulator = make_emulator()
    request = emulator.request("[ -e checkpoints/x ] && exit 0; echo 1 > checkpoints/x; echo ready; sleep 60")
    request["CheckpointConfig"] = {"S3Uri": "s3://bucket/checkpoints/run"}
    if retries:
        request["RetryStrategy"] = {"MaximumRetryAttempts": retries}
    emulator.create_training_job(**request)
    emulator.until(lambda: emulator.store.list("s3://bucket/checkpoints/"))
    give_order(emulator.root / "jobs/job", "fault")
    record = emulator.end()
    assert record["TrainingJobStatus"] == status
    assert ("Restarting" in emulator.statuses()) == bool(retries)
    assert record.get("FailureReason", "").startswith("" if retries else "InternalServerError")


def test_jobs_wait_for_their_turn_and_can_be_stopped_meanwhile(make_emulator):
    emulator = make_emulator(parallel=1)
    emulator.create_training_job(**emulator.request("trap 'exit 0' TERM; while :; do sleep 0.05; done", name="first"))
    emulator.until(lambda: "Training" in emulator.statuses("first"))
    emulator.create_training_job(**emulator.request("true", name="second"))
    emulator.stop_training_job(TrainingJobName="second")
    assert emulator.end("second")["TrainingJobStatus"] == "Stopped"
    assert emulator.statuses("second") == ["Starting", "Stopped"]
    emulator.stop_training_job(TrainingJobName="first")


def test_jobs_run_side_by_side_up_to_the_limit(make_emulator, isolation):
    emulator = make_emulator(isolation=isolation, parallel=2)
    names = [f"job-{number}" for number in range(4)]
    for name in names:
        emulator.create_training_job(
            **emulator.request("trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done", name=name)
        )

    def at_work():
        return [name for name in names if emulator.log(name=name) and emulator.is_at_work(name)]

    for waiting in (2, 0):
        emulator.until(lambda: len(at_work()) == 2)
        running = at_work()
        assert [emulator.statuses(name) for name in names].count(["Starting"]) == waiting
        for name in running:
            emulator.stop_training_job(TrainingJobName=name)
        for name in running:
            assert emulator.end(name)["TrainingJobStatus"] == "Stopped"


def test_metrics_come_from_both_streams_of_every_host(make_emulator, isolation):
    emulator = make_emulator(isolation=isolation)
    command = """
        echo "[metric] a=1 [metric] a=-2.5"; echo "[metric] b=-1.5e-07" >&2; echo "[metric] c=1"; echo "[metric] c=nan"
        printf '[metric] d=12'
    """
    record = emulator.run(emulator.request(command, hosts=2, metrics="abcd"))
    final = {one["MetricName"]: one["Value"] for one in record["FinalMetricDataList"]}
    assert final == {"a": -2.5, "b": -1.5e-07, "d": 12.0}
    series = [(one["name"], one["value"]) for one in emulator.metrics("job") if one["host"] == "algo-2"]
    assert series == [("a", 1.0), ("a", -2.5), ("b", -1.5e-07), ("c", 1.0), ("c", "nan"), ("d", 12.0)]
    assert emulator.emulation("job")["Notes"] == [
        "the last value of c is not finite; FinalMetricDataList leaves it out"
    ]


def test_a_full_disk_fails_the_job_and_says_so(make_emulator, needs_namespaces):
    emulator = make_emulator(disk_mb=1)
    command = "head -c 3000000 /dev/zero > output/data/big || { echo full > output/failure; exit 4; }"
    record = emulator.run(emulator.request(command))
    assert record["FailureReason"] == "AlgorithmError: , exit code: 4"  # the failure file did not fit either
    assert "No space left on device" in emulator.log()
    with emulator.archive("output.tar.gz") as tar:
        assert 0 < tar.getmember("big").size < 3_000_000


def test_inputs_that_do_not_fit_on_the_disk(make_emulator, needs_namespaces):
    emulator = make_emulator(disk_mb=1)
    emulator.store.put_bytes(bytes(3_000_000), "s3://bucket/data/big")
    record = emulator.run(emulator.request("true", channels=[emulator.channel("data", "s3://bucket/data")]))
    assert record["FailureReason"].startswith("ClientError: Data download failed for channel data")
    assert "No space left" in record["FailureReason"]
    assert emulator.statuses() == ["Starting", "Downloading", "Failed"]


def test_configuration_in_a_channel_arrives_verbatim(make_emulator):
    emulator = make_emulator()
    config = {"text": 'it\'s "quoted" $HOME `id` \\ and\nhas\ttwo lines'}
    emulator.store.put_bytes(json.dumps(config).encode(), "s3://bucket/run/spec.json")
    request = emulator.request("cat input/data/run/spec.json", channels=[emulator.channel("run", "s3://bucket/run/")])
    emulator.run(request)
    assert json.loads(emulator.log()) == config
