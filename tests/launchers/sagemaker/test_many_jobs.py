"""A thousand jobs over a service that throttles, fails and loses answers: none is lost, none is sent twice."""

import json
import random
import tempfile
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from policylab.experiments.rundir import RunDirectory
from policylab.experiments.schema import load_experiment
from policylab.launchers import State
from policylab.launchers.sagemaker.connection import Connection
from policylab.launchers.sagemaker.launcher import LOOKS_PER_S, SageMakerLauncher
from policylab.launchers.sagemaker.run_snapshot import save_snapshot
from policylab.launchers.sagemaker.service import BASE_S, MAX_WAIT_S, Patience, PatientService

N_JOBS = 1000
N_AT_ONCE = 250


class Unreliable:
    """A service that refuses before it acts, fails before it acts, or acts and loses its answer."""

    def __init__(self, service, rng, share):
        self.service = service
        self.rng = rng
        self.share = share
        self.failures = 0
        self.lost_answers = 0

    def __getattr__(self, name):
        def call(**arguments):
            trouble = self.rng.choice(["throttled", "broken", "lost"]) if self.rng.random() < self.share else None
            if trouble == "throttled":
                self._fail("ThrottlingException", 400)
            if trouble == "broken":
                self._fail("InternalFailure", 500)
            answer = getattr(self.service, name)(**arguments)
            if trouble == "lost":
                self.failures += 1
                self.lost_answers += name == "create_training_job"
                raise ConnectionResetError("the answer was lost on its way")
            return answer

        call.__name__ = name
        return call

    def _fail(self, code, status):
        self.failures += 1
        details = {"Error": {"Code": code, "Message": "x"}, "ResponseMetadata": {"HTTPStatusCode": status}}
        raise ClientError(details, "operation")


def leave_a_result(request, store, folder, *, stopping):
    """Leave what a finished run leaves in its prefix."""
    prefix, run = request["CheckpointConfig"]["S3Uri"], folder / "run"
    channel = next(one for one in request["InputDataConfig"] if one["ChannelName"] == "run")
    run.mkdir()
    (run / "spec.json").write_bytes(store.get_bytes(channel["DataSource"]["S3DataSource"]["S3Uri"] + "spec.json"))
    row = {"step": 1000, "episodes": 1, "metrics": {"eval/return_mean": 0.5}}
    (run / "reports.jsonl").write_text(json.dumps(row) + "\n")
    (run / "result.json").write_text("{}")
    save_snapshot(run, into=folder / "checkpoints")
    store.upload_folder(folder / "checkpoints", prefix)


@pytest.fixture
def tmp_path():
    """A folder in memory where the machine has one: thousands of small files are written and removed."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def folders(tmp_path):
    overrides = ["launcher.kind=sagemaker", "launcher.emulate=true", f"seeds.tune={N_JOBS}", "seeds.confirm=0"]
    config = load_experiment("frozenlake", overrides=[*overrides, "budget.steps=1000"])
    run = RunDirectory(tmp_path / "run")
    return config.launcher, run.folders(config.specs())


def follow(launcher, folders, *, until=lambda: False):
    handles = [launcher.submit(folder) for folder in folders if not (folder / "result.json").exists()]
    while not all(launcher.poll(handle).state.ended for handle in handles):
        launcher.wait(timeout_s=60.0)
        if until():
            raise KeyboardInterrupt("in the middle")
    return [launcher.poll(handle) for handle in handles]


def test_a_thousand_jobs_through_throttling_faults_and_an_interruption(clock, store, make_service, folders, tmp_path):
    settings, runs = folders
    service = make_service(duration_s=900.0, work=leave_a_result)
    unreliable = Unreliable(service, random.Random(1), share=0.2)
    waits = []

    def wait(seconds):
        waits.append(seconds)
        clock.sleep(seconds)

    patient = PatientService(unreliable, patience=Patience(sleep=wait, draw=random.Random(2).random))
    connection = Connection(
        patient, store, outlives=True, first_look_s=5.0, longest_pause_s=30.0, logs="the log of {job}"
    )

    def launcher():
        return SageMakerLauncher(settings, connection, n_workers=N_AT_ONCE, folder=tmp_path / "run", clock=clock)

    began = clock.now
    with pytest.raises(KeyboardInterrupt, match="in the middle"), launcher() as first:
        follow(first, runs, until=lambda: len(service.jobs) > N_JOBS / 2)
    with launcher() as second:
        ended = follow(second, runs)
    assert {one.state for one in ended} == {State.FINISHED}
    assert all((folder / "result.json").exists() for folder in runs)
    # None is doubled: one job for each run, although many calls that had started one seemed to fail.
    assert len(service.jobs) == N_JOBS
    assert unreliable.lost_answers > 20
    assert len({job["request"]["CheckpointConfig"]["S3Uri"] for job in service.jobs.values()}) == N_JOBS
    # As AWS advises: each failure is followed by a wait with full jitter below a bound that doubles up to a cap.
    assert len(waits) == unreliable.failures > 500
    assert max(waits) <= MAX_WAIT_S
    assert 0.4 * BASE_S < sum(waits) / len(waits) < BASE_S  # most failures are single ones: half of the base on average
    # And it is not asked more often than it is agreed to be.
    assert service.calls.count("describe") / (clock.now - began) < 1.5 * LOOKS_PER_S


def test_at_most_so_many_jobs_are_under_way(clock, store, make_service, folders, tmp_path):
    settings, runs = folders
    service = make_service(duration_s=1800.0, work=leave_a_result, quota=N_AT_ONCE)
    connection = Connection(
        PatientService(service), store, outlives=True, first_look_s=5.0, longest_pause_s=30.0, logs="the log of {job}"
    )
    with SageMakerLauncher(settings, connection, n_workers=7, folder=tmp_path / "run", clock=clock) as launcher:
        follow(launcher, runs[:30])
    moments = [(job["began"], 1) for job in service.jobs.values()]
    moments += [(job["ended"], -1) for job in service.jobs.values()]
    under_way, most = 0, 0
    for _, change in sorted(moments):
        under_way += change
        most = max(most, under_way)
    assert most == 7
