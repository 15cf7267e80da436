"""An emulator of its own per test, and requests of a few lines."""

import contextlib
import io
import tarfile
import time

import pytest

from policylab.launchers.sagemaker.emulator import EmulatedSageMaker, EmulatorSettings
from policylab.launchers.sagemaker.emulator.cluster import why_not_isolated
from policylab.launchers.sagemaker.object_store import FolderStore

DEADLINE_S = 60.0
OUTPUT = "s3://bucket/output"


class Emulator(EmulatedSageMaker):
    """An emulator with a folder for S3, and short ways to write requests and look at what came of them."""

    def __init__(self, folder, **settings):
        self.store = settings.pop("store", None) or FolderStore(folder / "s3")
        given = {"grace_s": 20.0, "sync_s": 0.1, **settings}
        super().__init__(folder / "emulator", self.store, settings=EmulatorSettings(**given))

    def request(self, script, *, name="job", hosts=1, metrics=(), channels=(), **sections):
        """Return a request whose hosts execute a bash ``script`` in /opt/ml; it comes in a channel, as code does."""
        begin = "cd ${POLICYLAB_ML_ROOT:-/opt/ml}\n"
        self.store.put_bytes(f"{begin}{script}\n".encode(), f"s3://bucket/code/{name}/script.sh")
        request = {
            "TrainingJobName": name,
            "AlgorithmSpecification": {
                "TrainingImage": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/policylab:1",
                "TrainingInputMode": "File",
                "ContainerEntrypoint": ["/bin/bash", "-c"],
                "ContainerArguments": ["exec bash /opt/ml/input/data/code/script.sh"],
                "MetricDefinitions": [
                    {"Name": name, "Regex": rf"\[metric\] {name}=([-+0-9.eEnaif]+)"} for name in metrics
                ],
            },
            "InputDataConfig": [self.channel("code", f"s3://bucket/code/{name}/"), *channels],
            "RoleArn": "arn:aws:iam::123456789012:role/policylab",
            "OutputDataConfig": {"S3OutputPath": OUTPUT},
            "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": hosts, "VolumeSizeInGB": 5},
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        }
        return {**request, **sections}

    def spot_request(self, script, **sections):
        """Return a request for spot instances with checkpoints."""
        limits = {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 120}
        checkpoints = {"S3Uri": "s3://bucket/checkpoints/run"}
        spot = {"EnableManagedSpotTraining": True, "StoppingCondition": limits, "CheckpointConfig": checkpoints}
        return self.request(script, **{**spot, **sections})

    @staticmethod
    def channel(name, uri, *, source=None, **fields):
        """Return a channel that reads a prefix."""
        given = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
        return {"ChannelName": name, "DataSource": {"S3DataSource": given | (source or {})}, **fields}

    def run(self, request):
        """Execute a request to its end; return the record."""
        self.create_training_job(**request)
        return self.end(request["TrainingJobName"])

    def end(self, name="job"):
        """Wait for the end of a job; return its record."""
        record = self.wait(name, timeout_s=DEADLINE_S)
        assert record["TrainingJobStatus"] in ("Completed", "Failed", "Stopped"), record
        return record

    def log(self, host="algo-1", *, name="job"):
        """Return what a host printed."""
        path = self.log_files(name).get(host)
        return path.read_text() if path else ""

    def until(self, condition):
        """Return when ``condition`` holds."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, "it never happened"
            time.sleep(0.02)

    def says(self, text, *, host="algo-1", name="job"):
        """Wait until a host has printed ``text``."""
        self.until(lambda: text in self.log(host, name=name))

    def holds(self, uri, content):
        """Wait until the store has an object with this content."""
        self.until(lambda: self.store.exists(uri) and self.store.get_bytes(uri) == content)

    def statuses(self, name="job"):
        """Return the secondary statuses that a job went through."""
        record = self.describe_training_job(TrainingJobName=name)
        return [one["Status"] for one in record["SecondaryStatusTransitions"]]

    def hosts(self, name="job"):
        """Return what befell each host in the last attempt."""
        return self.emulation(name)["Attempts"][-1]["Hosts"]

    @contextlib.contextmanager
    def archive(self, file="model.tar.gz", *, name="job"):
        """Open an artefact of a job."""
        content = self.store.get_bytes(f"{OUTPUT}/{name}/output/{file}")
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            yield archive


@pytest.fixture
def make_emulator(tmp_path):
    """Return a function that makes an emulator with given settings."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(Emulator(tmp_path, **settings))


@pytest.fixture
def needs_namespaces():
    """Skip where hosts cannot be isolated."""
    if reason := why_not_isolated():
        pytest.skip(f"namespaces are not allowed here: {reason}")


@pytest.fixture(params=["namespaces", "processes"])
def isolation(request):
    """Return each way of keeping hosts apart that this machine allows."""
    if request.param == "namespaces":
        request.getfixturevalue("needs_namespaces")
    return request.param
