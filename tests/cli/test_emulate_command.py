"""``policylab emulate`` as a person or a script uses it."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from policylab.cli import main

REQUEST = {
    "TrainingJobName": "job",
    "AlgorithmSpecification": {
        "TrainingImage": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/policylab:1",
        "TrainingInputMode": "File",
        "ContainerEntrypoint": ["/bin/bash", "-c"],
        "MetricDefinitions": [{"Name": "loss", "Regex": r"\[metric\] loss=([-+0-9.eEnaif]+)"}],
    },
    "RoleArn": "arn:aws:iam::123456789012:role/policylab",
    "OutputDataConfig": {"S3OutputPath": "s3://bucket/output"},
    "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 5},
    "StoppingCondition": {"MaxRuntimeInSeconds": 60},
}


@pytest.fixture
def write(tmp_path):
    def write(command, *, name="job", **sections):
        request = json.loads(json.dumps({**REQUEST, "TrainingJobName": name, **sections}))
        request["AlgorithmSpecification"]["ContainerArguments"] = [command]
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(request))
        return path

    return write


@dataclasses.dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def policylab(tmp_path, monkeypatch, capfd):
    """Return a function that runs the command in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)

    def policylab(*arguments):
        capfd.readouterr()
        code = main(["emulate", *map(str, arguments)])
        return Done(code, *capfd.readouterr())

    yield policylab
    signal.signal(signal.SIGTERM, handler)


def test_a_completed_job_ends_0(policylab, write, tmp_path):
    done = policylab(write("echo '[metric] loss=-0.5'; echo x > /opt/ml/model/x"))
    assert done.returncode == 0, done.stderr
    for part in ("Completed", "loss = -0.5", "s3://bucket/output/job/output/model.tar.gz", "not checked", "algo-1 0"):
        assert part in done.stdout
    states = ["hosts: ", "Starting", "Downloading", "Training", "algo-1 | [metric] loss=-0.5", "Uploading", "Completed"]
    places = [done.stderr.index(state) for state in states]
    assert places == sorted(places)
    assert (tmp_path / "emulator/s3/bucket/output/job/output/model.tar.gz").exists()


def test_json_is_one_document(policylab, write):
    done = policylab(write("exit 7", name="bad"), write("true"), "--json", "--isolation", "processes")
    assert done.returncode == 1
    bad, good = json.loads(done.stdout)
    assert (bad["TrainingJobName"], bad["FailureReason"]) == ("bad", "AlgorithmError: , exit code: 7")
    assert good["TrainingJobStatus"] == "Completed"
    assert good["Emulation"]["Isolation"] == "processes"
    assert done.stderr == "hosts: plain processes (asked for)\n"


def test_a_name_is_used_once_unless_replaced(policylab, write):
    request = write("true")
    assert policylab(request, "--isolation", "processes").returncode == 0
    again = policylab(request, "--isolation", "processes")
    assert (again.returncode, "--replace" in again.stderr) == (2, True)
    assert policylab(request, "--isolation", "processes", "--replace").returncode == 0
    twice = policylab(request, request, "--isolation", "processes", "--replace")
    assert (twice.returncode, "used once" in twice.stderr) == (2, True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a JSON document"),
        ("[1]", "one JSON object, got list"),
        ("{}", "TrainingJobName: required, but missing"),
        (json.dumps({**REQUEST, "Enviroment": {}}), "did you mean 'Environment'"),
        (json.dumps(REQUEST | {"StoppingCondition": {"MaxRuntimeInSeconds": "60"}}), "MaxRuntimeInSeconds: must be"),
    ],
)
def test_requests_that_cannot_be_executed(policylab, tmp_path, content, message):
    (tmp_path / "request.json").write_text(content)
    done = policylab("request.json", "--isolation", "processes")
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "emulator/jobs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.json"], "nothing.json: cannot be read"),
        ([], "which request?"),
        (["--interrupt", "job"], "no job 'job' runs in emulator (running: none)"),
        (["job.json", "--channel", "data=nowhere"], "must be NAME=FOLDER"),
        (["job.json", "--inject", "intrrupt@3"], "did you mean 'interrupt'"),
        (["job.json", "--disk-mb", "1", "--isolation", "processes"], "needs isolated hosts"),
        (["job.json", "--root", "job.json/inside"], "cannot write"),
        (["job.json", "--parallel", "0"], "parallel must be at least 1"),
        (["job.json", "--grace", "-1"], "grace_s must be at least 0"),
    ],
)
def test_arguments_that_make_no_sense(policylab, write, arguments, message):
    write("true")
    done = policylab(*arguments)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def wait_for(path, text):
    deadline = time.monotonic() + 60
    while not path.exists() or text not in path.read_text():
        assert time.monotonic() < deadline, text
        time.sleep(0.05)


def test_jobs_are_told_from_another_terminal(policylab, write, tmp_path):
    command = "n=$(ls /opt/ml/checkpoints | wc -l); touch /opt/ml/checkpoints/$n; echo start $n; sleep 60 & wait"
    request = write(
        command,
        EnableManagedSpotTraining=True,
        StoppingCondition={"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60},
        CheckpointConfig={"S3Uri": "s3://bucket/checkpoints/run"},
    )
    arguments = [sys.executable, "-m", "policylab", "emulate", str(request), "--json", "--isolation", "processes"]
    log = tmp_path / "emulator/jobs/job/logs/algo-1.log"
    with subprocess.Popen([*arguments, "--grace", "5"], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as running:
        wait_for(log, "start 0")
        assert policylab("--interrupt", "job").stdout == "interrupting job\n"
        wait_for(log, "start 1")
        assert policylab("--stop", "job", "--json").stdout == '{\n "job": "job",\n "told": "stopping"\n}\n'
        record = json.loads(running.communicate(timeout=60)[0])
    assert running.returncode == 1
    assert record["SecondaryStatus"] == "Stopped"
    assert [one["Ended"] for one in record["Emulation"]["Attempts"]] == ["interrupt", "stop"]


def test_an_interrupt_stops_the_job_and_shows_what_came_of_it(write, tmp_path):
    request = write("trap 'echo saving; exit 0' TERM; echo ready; while :; do sleep 0.05; done")
    arguments = [sys.executable, "-m", "policylab", "emulate", str(request)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(arguments, cwd=tmp_path, **pipes) as running:
        wait_for(tmp_path / "emulator/jobs/job/logs/algo-1.log", "ready")
        os.kill(running.pid, signal.SIGINT)
        output, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Stopped (Stopped)" in output
    assert "press Ctrl-C again" in errors
    assert "algo-1 | saving" in errors
    assert "Traceback" not in errors


def test_a_second_interrupt_waits_for_no_grace(write, tmp_path):
    request = write("trap 'echo not yet' TERM; echo ready; while :; do sleep 0.05; done")
    arguments = [sys.executable, "-m", "policylab", "emulate", str(request), "--json"]
    pipes = {"stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(arguments, cwd=tmp_path, **pipes) as running:
        for words in ("ready", "not yet"):
            wait_for(tmp_path / "emulator/jobs/job/logs/algo-1.log", words)
            os.kill(running.pid, signal.SIGINT)
        record = json.loads(running.communicate(timeout=60)[0])
    assert running.returncode == 130
    assert record["TrainingJobStatus"] == "Stopped"
    assert record["Emulation"]["Attempts"][0]["Hosts"]["algo-1"]["Killed"]


def test_clean_clears_what_a_killed_emulator_left(policylab, write, tmp_path):
    request = write("echo ready; sleep 300")
    arguments = [sys.executable, "-m", "policylab", "emulate", str(request), "--quiet"]
    with subprocess.Popen(arguments, cwd=tmp_path, stderr=subprocess.PIPE) as running:
        wait_for(tmp_path / "emulator/jobs/job/logs/algo-1.log", "ready")
        running.kill()
    assert policylab("--clean").stdout == "cleared: job\n"
    assert policylab("--clean").stdout == "nothing is left over in emulator\n"
