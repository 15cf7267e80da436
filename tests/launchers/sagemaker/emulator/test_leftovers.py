"""Nothing is left behind: no process, mount, namespace, link or file outside the root, however the emulator ends."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from policylab.launchers.sagemaker.emulator.cluster import why_not_isolated
from policylab.launchers.sagemaker.emulator.leftovers import clear_leftovers, forget
from policylab.launchers.sagemaker.emulator.record import read_record
from policylab.launchers.sagemaker.pod.marked import marked

EMULATOR = """
import json, sys
from pathlib import Path
from policylab.launchers.sagemaker.emulator import EmulatedSageMaker, EmulatorSettings
from policylab.launchers.sagemaker.object_store import FolderStore
root, isolation = Path(sys.argv[1]), sys.argv[2]
service = EmulatedSageMaker(root / "emulator", FolderStore(root / "s3"), settings=EmulatorSettings(isolation=isolation))
service.create_training_job(**json.loads(sys.argv[3]))
service.wait("job")
"""

PLACES = ("/tmp", "/var/tmp", "/mnt", "/run", "/dev/shm", "/opt", "/etc", "/root")


class Machine:
    """What jobs of one test may leave on this machine; other tests run at the same time.

    Attributes:
        script: leaves what a script can leave.
    """

    def __init__(self, folder):
        self.folder = folder
        self.mark = f"left-by-{folder.name}-{os.getpid()}"
        self.script = f"""
            (trap '' TERM HUP INT; exec -a {self.mark} sleep 300) &
            (exec -a {self.mark} setsid sleep 300 > /dev/null 2>&1 &)
            echo x > checkpoints/a; echo x > model/b; readlink /proc/self/ns/*
        """
        self.before = self.look()

    def processes(self):
        """Return the processes that the script left, and those whose environment names the folder."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and self.mark.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
        return [*found, *marked(self.folder)]

    def look(self):
        named = Path("/run/netns")
        return {
            "mounts": [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()],
            "links": sorted(os.listdir("/sys/class/net")),
            "named networks": sorted(os.listdir(named)) if named.exists() else [],
            "processes": self.processes(),
        }

    def has_any(self, namespaces):
        """Return which of these namespaces a process is in."""
        found = set()
        for link in Path("/proc").glob("[0-9]*/ns/*"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(link))
        return found & set(namespaces)


def pods_of(emulator):
    """Return the processes that hold the hosts of an emulator's jobs."""
    children = [
        int(pid) for task in Path(f"/proc/{emulator}/task").iterdir() for pid in (task / "children").read_text().split()
    ]
    return [pid for pid in children if b"sagemaker.pod" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_a_job_leaves_nothing(make_emulator, isolation, machine):
    emulator = make_emulator(isolation=isolation)
    request = emulator.request(machine.script, hosts=2, CheckpointConfig={"S3Uri": "s3://bucket/checkpoints/run"})
    assert emulator.run(request)["TrainingJobStatus"] == "Completed"
    assert machine.look() == machine.before
    if isolation == "namespaces":
        kinds = ("ipc", "mnt", "net", "pid", "uts")
        own = [line for line in emulator.log().splitlines() if line.partition(":")[0] in kinds]
        assert len(own) >= len(kinds)
        assert machine.has_any(own) == set()
    assert not any("hosts" in path.parts for path in emulator.root.rglob("*"))
    names = sorted(path.name for path in (emulator.root / "jobs/job").iterdir())
    assert names == ["emulation.json", "lock", "logs", "record.json", "request.json", "tags.json"]


def test_a_stopped_job_leaves_nothing(make_emulator, isolation, machine):
    emulator = make_emulator(isolation=isolation, grace_s=0.2)
    emulator.create_training_job(**emulator.request(machine.script + "echo ready; trap '' TERM; sleep 300"))
    emulator.says("ready")
    emulator.stop_training_job(TrainingJobName="job")
    emulator.end()
    assert machine.look() == machine.before


def test_finding_out_about_namespaces_leaves_nothing(machine, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    why_not_isolated.__wrapped__()
    assert machine.look() == machine.before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("victim", ["emulator", "both"])
def test_a_killed_emulator_takes_its_hosts_along(make_emulator, isolation, victim, machine, tmp_path):
    """Kill -9 of the emulator, or of it and of the process that holds the hosts; the next start clears the rest."""
    request = make_emulator(isolation="processes").request(machine.script + "echo ready; sleep 300")
    started = subprocess.Popen([sys.executable, "-c", EMULATOR, str(tmp_path), isolation, json.dumps(request)])
    log = tmp_path / "emulator/jobs/job/logs/algo-1.log"
    deadline = time.monotonic() + 60
    while not log.exists() or "ready" not in log.read_text():
        assert time.monotonic() < deadline
        assert started.poll() is None
        time.sleep(0.05)
    assert machine.processes()
    for pid in [started.pid, *(pods_of(started.pid) if victim == "both" else [])]:
        os.kill(pid, signal.SIGKILL)
    started.wait()
    if isolation == "namespaces" or victim == "emulator":  # nobody needs to clear these away
        while machine.look() != machine.before:
            assert time.monotonic() < deadline, machine.look()
            time.sleep(0.05)
    assert read_record(tmp_path / "emulator/jobs/job")["TrainingJobStatus"] == "InProgress"
    emulator = make_emulator(isolation="processes")
    assert machine.look() == machine.before
    record = emulator.describe_training_job(TrainingJobName="job")
    assert record["FailureReason"] == "InternalServerError: the emulator ended before the job did"
    assert not (emulator.root / "jobs/job/hosts").exists()
    assert clear_leftovers(emulator.root) == []
    forget(emulator.root, "job")
    assert list((emulator.root / "jobs").iterdir()) == []


def test_the_jobs_of_a_living_emulator_are_no_leftovers(make_emulator, isolation):
    emulator = make_emulator(isolation=isolation)
    emulator.create_training_job(**emulator.request("echo ready; sleep 0.5; echo done"))
    emulator.says("ready")
    assert clear_leftovers(emulator.root) == []
    assert emulator.end()["TrainingJobStatus"] == "Completed"
    assert emulator.log() == "ready\ndone\n"


def test_hosts_that_vanish_together_are_a_fault_of_the_service(make_emulator, isolation, machine):
    emulator = make_emulator(isolation=isolation)
    emulator.create_training_job(**emulator.request(machine.script + "echo ready; sleep 300"))
    emulator.says("ready")
    for pid in pods_of(os.getpid()):
        os.kill(pid, signal.SIGKILL)
    record = emulator.end()
    assert record["FailureReason"].startswith("InternalServerError: the process that held the hosts ended")
    emulator.until(lambda: machine.look() == machine.before)


def test_only_files_in_the_root_and_the_store_are_written(make_emulator, needs_namespaces, tmp_path):
    emulator = make_emulator(isolation="namespaces")
    script = f"for place in {' '.join(PLACES)}; do echo x > $place/policylab-emulated && echo wrote; done"
    emulator.run(emulator.request(script))
    assert emulator.log().count("wrote") == len(PLACES)
    assert [place for place in PLACES if Path(place, "policylab-emulated").exists()] == []
    assert {path.name for path in tmp_path.iterdir()} == {"emulator", "s3"}
