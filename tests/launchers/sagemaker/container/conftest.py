"""Training jobs as processes on this machine: every host has its own /opt/ml and an address of the loopback network."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import psutil
import pytest

WAIT_S = 600


def find_free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def free_port():
    """Return a function that finds a port nobody listens on."""
    return find_free_port


class Host:
    """One host of a job: its /opt/ml and the container's process."""

    def __init__(self, root, *, environment):
        self.root = root
        self.environment = environment
        self.process = None
        self.log = root / "log"

    def start(self, *prefix, **environment):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "policylab", "container"],
                env={**os.environ, **self.environment, **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def text(self):
        return self.log.read_text(errors="replace")

    def failure(self):
        file = self.root / "output" / "failure"
        return file.read_text() if file.exists() else None

    def until(self, words):
        """Wait until the log holds ``words``."""
        deadline = time.monotonic() + WAIT_S
        while words not in self.text():
            assert self.process.poll() is None or words in self.text(), self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.02)
        return self

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self

    def wait(self):
        """Return the exit code."""
        try:
            return self.process.wait(timeout=WAIT_S)
        except subprocess.TimeoutExpired:
            pytest.fail(self.text())


class Job:
    """The hosts of one job, which share checkpoints as the service's do."""

    def __init__(self, folder, mark):
        self.folder = folder
        self.mark = mark
        self.hosts = {}

    def host(self, name="algo-1", *, spec, groups=None, **environment):
        """Make the folders of a host.

        Args:
            name: of the host, an address of the loopback network where hosts are to meet.
            spec: what is to be run.
            groups: group -> hosts; default: this host alone.
            environment: of the container, with the prefix left out.
        """
        groups = groups or {"homogeneousCluster": [name]}
        root = self.folder / name
        for part in ("input/config", "input/data/run", "model", "output"):
            (root / part).mkdir(parents=True)
        listed = [{"instance_group_name": group, "hosts": hosts} for group, hosts in groups.items()]
        resources = {
            "current_host": name,
            "hosts": [host for hosts in groups.values() for host in hosts][::-1],
            "current_group_name": next(group for group, hosts in groups.items() if name in hosts),
            "instance_groups": listed,
        }
        (root / "input/config/resourceconfig.json").write_text(json.dumps(resources))
        (root / "input/data/run/spec.json").write_text(spec.model_dump_json())
        (root / "input/config/checkpointconfig.json").write_text(json.dumps({"LocalPath": "/opt/ml/checkpoints"}))
        (self.folder / "checkpoints").mkdir(exist_ok=True)
        (root / "checkpoints").symlink_to(self.folder / "checkpoints")
        given = {f"POLICYLAB_{key.upper()}": str(value) for key, value in environment.items()}
        own = {"POLICYLAB_ML_ROOT": str(root), "TEST_MARK": self.mark, "TMPDIR": str(self.folder / "tmp")}
        self.hosts[name] = Host(root, environment={**own, "TRAINING_JOB_NAME": self.mark, **given})
        return self.hosts[name]

    def cluster(self, groups, *, spec, **environment):
        """Make all hosts of a job, with free ports; return them by name."""
        options = {"--dashboard-agent-listen-port": find_free_port, "--dashboard-agent-grpc-port": find_free_port}
        shared = {"control_port": find_free_port(), "ray_port": find_free_port(), "num_cpus": 2, "heartbeat_s": 0.5}
        for host in (host for hosts in groups.values() for host in hosts):
            ports = [part for option, port in options.items() for part in (option, str(port()))]
            ports += ["--min-worker-port", "0", "--max-worker-port", "0"]
            if host == groups[next(iter(groups))][0]:
                ports += ["--ray-client-server-port", str(find_free_port())]
            given = {**shared, "head_group": next(iter(groups)), "ray_options": shlex.join(ports), **environment}
            self.host(host, spec=spec, groups=groups, **given)
        return self.hosts

    def alive(self, host=None):
        """Return every process of the job, or of one host, that is there, wherever it hangs in the tree."""
        marked = {"TEST_MARK": self.mark}
        if host is not None:
            marked["POLICYLAB_ML_ROOT"] = str(self.hosts[host].root)
        found = []
        for process in psutil.process_iter():
            try:
                if marked.items() <= process.environ().items() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def close(self):
        for process in self.alive():
            process.kill()
        for host in self.hosts.values():
            if host.process is not None:
                host.process.wait()


@pytest.fixture
def job():
    """A job whose hosts are started by the test; whatever is left of it ends with the test."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t") as folder:  # socket paths have at most 107 characters
        (Path(folder) / "tmp").mkdir()
        made = Job(Path(folder), uuid.uuid4().hex)
        yield made
        made.close()


@pytest.fixture
def left_over(job):
    """Return a function that tells what a job has left behind: processes and temporary files."""

    def look():
        return [process.name() for process in job.alive()], os.listdir(job.folder / "tmp")

    return look
