"""Whole training jobs on the emulator: the literal request, the source bundle, the container and its hosts."""

import contextlib
import io
import json
import re
import tarfile
import time

import psutil
import pytest

from policylab.agents.bundle import load_bundle
from policylab.launchers.sagemaker.emulator import EmulatedSageMaker, EmulatorSettings, parse_injection
from policylab.launchers.sagemaker.emulator.cluster import why_not_isolated
from policylab.launchers.sagemaker.object_store import FolderStore
from policylab.launchers.sagemaker.run_snapshot import restore_snapshot
from policylab.launchers.sagemaker.settings import SageMakerSettings
from policylab.launchers.sagemaker.source_bundle import build
from policylab.launchers.sagemaker.training_request import TrainingRun, training_request

pytestmark = pytest.mark.skipif(bool(why_not_isolated()), reason="hosts cannot be isolated here")
END_S = 400

LONG = ("budget.steps=20_000_000", "evaluation.marks=10000")
"""Longer than any test."""

GROUPS = [
    {"name": "learner", "instance_type": "ml.m5.xlarge"},
    {"name": "rollout", "instance_type": "ml.c5.xlarge"},
]
# Two hosts of two groups: algo-1 is never in the first one.
HEAD, WORKER = "algo-2", "algo-1"  # at 10.77.0.2 and 10.77.0.1

HOARDER = """
import contextlib, gymnasium
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv

class Hoarder(FrozenLakeEnv):
    n = 0

    def step(self, action):
        self.n += 1
        if self.n == 7000:
            with contextlib.suppress(OSError), open("/opt/ml/output/data/hoard", "wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        return super().step(action)

gymnasium.register("Hoarder-v0", Hoarder, max_episode_steps=100)
"""
"""Leaves not a byte of the disk."""

ENDLESS = """
import json, pathlib, time, gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

class Endless(CartPoleEnv):
    n = 0

    def step(self, action):
        self.n += 1
        ml = pathlib.Path("/opt/ml")
        group = json.loads((ml / "input/config/resourceconfig.json").read_text())["current_group_name"]
        if group == "evaluation" and self.n == 5:
            (ml / "output/data/in-an-episode").touch()
            time.sleep(3600)
        return super().step(action)

gymnasium.register("Endless-v0", Endless, max_episode_steps=100)
"""
"""Its episodes never end on hosts of the group `evaluation`."""


class Jobs:
    """Sends runs to an emulator as training jobs and looks at what came of them."""

    def __init__(self, folder, *, injections=(), **settings):
        self.store = FolderStore(folder / "s3")
        found = tuple(map(parse_injection, injections))
        given = {"grace_s": 120.0, "linger_s": 60.0, "isolation": "namespaces", **settings}
        self.emulator = EmulatedSageMaker(
            folder / "emulator", self.store, settings=EmulatorSettings(injections=found, **given)
        )

    def send(self, spec, *, include=(), job=None, **settings):
        """Begin a job that executes ``spec``; return its name."""
        bundle = build(extras=("rllib",), include=include)
        common = {"role_arn": "arn:aws:iam::123456789012:role/policylab", "s3_prefix": "s3://bucket/lab"}
        sage = SageMakerSettings.model_validate({"image": "image", **common, **settings})
        run = TrainingRun(
            experiment=spec.experiment, config_hash=spec.config_hash, trial=0, role="tune", index=0,
            stop_at_steps=spec.stop_at_steps, code_hash=bundle.hash, spec_hash="0" * 64,
            metrics=("eval/return_mean", "step"),
        )  # fmt: skip
        request = training_request(sage, run)
        request["TrainingJobName"] = job or request["TrainingJobName"]
        for channel in request["InputDataConfig"]:
            uri = channel["DataSource"]["S3DataSource"]["S3Uri"]
            files = bundle.files if channel["ChannelName"] == "code" else {"spec.json": spec.model_dump_json().encode()}
            for name, content in files.items():
                self.store.put_bytes(content, uri + name)
        self.checkpoints = request["CheckpointConfig"]["S3Uri"]
        self.emulator.create_training_job(**request)
        return request["TrainingJobName"]

    def run(self, spec, **given):
        """Execute a job to its end; return its record."""
        return self.emulator.wait(self.send(spec, **given), timeout_s=END_S)

    def codes(self, name):
        """Return the exit codes of the last start, by host."""
        hosts = self.emulator.emulation(name)["Attempts"][-1]["Hosts"]
        return {host: facts["ExitCode"] for host, facts in hosts.items()}

    def log(self, name, host=None):
        files = self.emulator.log_files(name)
        return "".join(files[one].read_text() for one in ([host] if host else sorted(files)))

    def until(self, name, words):
        """Wait until a host has printed ``words``."""
        deadline = time.monotonic() + END_S
        while words not in self.log(name):
            status = self.emulator.describe_training_job(TrainingJobName=name)["TrainingJobStatus"]
            assert status == "InProgress", self.log(name)
            assert time.monotonic() < deadline, self.log(name)
            time.sleep(0.05)

    def host_with(self, name, file):
        """Wait until a host has left a file in its /opt/ml; return the host."""
        deadline = time.monotonic() + END_S
        while not (found := sorted(self.emulator.root.glob(f"jobs/{name}/hosts/*/**/{file}"))):
            assert time.monotonic() < deadline, self.log(name)
            time.sleep(0.05)
        return next(part for part in found[0].parts if part.startswith("algo-"))

    def model(self, record, folder):
        """Return the policy bundle that a job has left as its model."""
        artefact = folder / "model.tar.gz"
        artefact.write_bytes(self.store.get_bytes(record["ModelArtifacts"]["S3ModelArtifacts"]))
        return load_bundle(artefact)

    def restore(self, folder):
        """Bring the run's folder back from the checkpoints."""
        self.store.download_folder(self.checkpoints, folder.with_name("down"))
        assert restore_snapshot(folder.with_name("down"), into=folder)


@pytest.fixture
def make_jobs(tmp_path):
    with contextlib.ExitStack() as stack:

        def make(*injections, **settings):
            jobs = Jobs(tmp_path, injections=injections, **settings)
            stack.enter_context(jobs.emulator)
            return jobs

        yield make


@pytest.fixture
def same_bytes(files_of, uninterrupted, tmp_path):
    """Check that a job's run has left what it leaves without any trouble."""

    def check(jobs, spec):
        jobs.restore(tmp_path / "there")
        assert files_of(tmp_path / "there") == uninterrupted(spec)

    return check


@pytest.mark.slow
def test_a_run_becomes_a_model_that_is_a_policy_bundle(make_jobs, spec_of, same_bytes, tmp_path):
    jobs, spec = make_jobs(), spec_of()
    record = jobs.run(spec)
    name = record["TrainingJobName"]
    assert record["TrainingJobStatus"] == "Completed", jobs.log(name)
    assert jobs.model(record, tmp_path).manifest.lineage.seeds == (spec.seed,)
    same_bytes(jobs, spec)
    (last,) = (one["Value"] for one in record["FinalMetricDataList"] if one["MetricName"] == "eval/return_mean")
    rows = [json.loads(line) for line in (tmp_path / "there" / "reports.jsonl").read_text().splitlines()]
    assert last == rows[-1]["metrics"]["eval/return_mean"]


@pytest.mark.slow
def test_an_exception_of_the_users_is_the_failure_reason(make_jobs, spec_of, broken_module):
    spec = spec_of("env.id=broken_module:Broken-v0")
    record = make_jobs().run(spec, include=[broken_module])
    assert record["TrainingJobStatus"] == "Failed"
    lines = record["FailureReason"].splitlines()
    assert "ValueError: boom: reward was NaN" in lines[0]
    assert "host algo-1" in record["FailureReason"]
    assert f"seed {spec.seed}" in record["FailureReason"]
    assert re.search(r"last checkpoint: after [1-9][\d,]* steps", record["FailureReason"])
    assert "resume with: " in record["FailureReason"]


def test_spot_interruption_resumes_to_the_same_bytes_and_a_model(make_jobs, spec_of, same_bytes, tmp_path):
    jobs, spec = make_jobs(respawn_s=0.1), spec_of("budget.steps=60_000", "evaluation.marks=60")
    name = jobs.send(spec, spot={"max_wait_s": 90_000})
    jobs.until(name, "[metric] step=5000")
    jobs.emulator.interrupt(name)
    record = jobs.emulator.wait(name, timeout_s=END_S)
    assert record["TrainingJobStatus"] == "Completed", jobs.log(name)
    assert "Interrupted" in [one["Status"] for one in record["SecondaryStatusTransitions"]], "it came too late"
    assert re.search(r"stopped after \d+ steps; saved", jobs.log(name))
    assert re.search(r"goes on after [1-9]", jobs.log(name))
    assert jobs.model(record, tmp_path).manifest.lineage.seeds == (spec.seed,)
    same_bytes(jobs, spec)


@pytest.mark.slow
def test_a_stopped_job_has_saved_and_the_next_one_goes_on(make_jobs, spec_of, same_bytes):
    jobs, spec = make_jobs(), spec_of("budget.steps=100_000", "evaluation.marks=100")
    name = jobs.send(spec, job="first")
    jobs.until(name, "[metric] step=5000")
    jobs.emulator.stop_training_job(TrainingJobName=name)
    assert jobs.emulator.wait(name, timeout_s=END_S)["TrainingJobStatus"] == "Stopped"
    assert jobs.codes(name) == {"algo-1": 0}
    record = jobs.run(spec, job="second")
    assert record["TrainingJobStatus"] == "Completed", jobs.log("second")
    assert re.search(r"goes on after [1-9]", jobs.log("second"))
    same_bytes(jobs, spec)


@pytest.mark.slow
def test_an_unknown_head_group_is_named(make_jobs, spec_of):
    jobs = make_jobs(linger_s=1.0)
    record = jobs.run(spec_of(), instance_groups=GROUPS, environment={"POLICYLAB_HEAD_GROUP": "lerner"})
    assert record["TrainingJobStatus"] == "Failed"
    assert "did you mean 'learner'? (groups: learner, rollout)" in record["FailureReason"]
    assert jobs.codes(record["TrainingJobName"]) == {HEAD: 2, WORKER: 2}


@pytest.mark.slow
def test_a_full_disk_is_the_failure_reason(make_jobs, spec_of, tmp_path):
    (tmp_path / "hoarder_module.py").write_text(HOARDER)
    spec = spec_of("env.id=hoarder_module:Hoarder-v0")
    record = make_jobs(disk_mb=16).run(spec, include=[tmp_path / "hoarder_module.py"])
    assert record["TrainingJobStatus"] == "Failed"
    assert "No space left on device" in record["FailureReason"]
    assert f"seed {spec.seed}" in record["FailureReason"]


@pytest.mark.slow
@pytest.mark.parametrize("late", [(), (f"late@20:{WORKER}",)], ids=["at once", "late"])
def test_two_hosts_train_as_one(make_jobs, spec_of, same_bytes, late):
    jobs, spec = make_jobs(*late), spec_of()
    record = jobs.run(spec, instance_groups=GROUPS)
    name = record["TrainingJobName"]
    assert record["TrainingJobStatus"] == "Completed", jobs.log(name)
    assert jobs.codes(name) == {HEAD: 0, WORKER: 0}
    same_bytes(jobs, spec)


@pytest.mark.slow
def test_a_missing_host_is_the_failure_reason(make_jobs, spec_of):
    jobs = make_jobs(f"missing:{WORKER}", linger_s=1.0)
    record = jobs.run(spec_of(), instance_groups=GROUPS, environment={"POLICYLAB_JOIN_TIMEOUT_S": "20"})
    assert record["TrainingJobStatus"] == "Failed"
    assert f"hosts never joined within 20 s: {WORKER}" in record["FailureReason"]
    assert jobs.codes(record["TrainingJobName"])[HEAD] == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lost", "unplugged", "codes", "reason"),
    [
        (WORKER, False, {HEAD: 5}, f"worker host lost: {WORKER}: "),
        (WORKER, True, {HEAD: 5, WORKER: 6}, f"worker host lost: {WORKER}: silent for 6 s"),
        (HEAD, False, {WORKER: 6}, f"lost the head {HEAD} without a final status"),
    ],
    ids=["worker killed", "worker unplugged", "head killed"],
)
def test_a_lost_host_fails_the_job_and_nobody_waits_on(make_jobs, spec_of, lost, unplugged, codes, reason):
    jobs = make_jobs()
    name = jobs.send(spec_of(*LONG), instance_groups=GROUPS, environment={"POLICYLAB_HEARTBEAT_S": "1"})
    jobs.until(name, "[metric] step=2000")
    jobs.emulator.lose(name, lost, unplugged=unplugged)
    record = jobs.emulator.wait(name, timeout_s=END_S)
    assert record["TrainingJobStatus"] == "Failed"
    assert reason in record["FailureReason"]
    assert {host: code for host, code in jobs.codes(name).items() if host in codes} == codes
    if lost == WORKER:
        assert re.search(r"last checkpoint: after [1-9]", record["FailureReason"])


@pytest.mark.slow
def test_a_run_that_needs_no_other_host_may_outlive_a_lost_one(make_jobs, spec_of, same_bytes):
    jobs, spec = make_jobs(linger_s=END_S), spec_of("budget.steps=400_000", "evaluation.marks=400")
    name = jobs.send(spec, instance_groups=GROUPS, environment={"POLICYLAB_ON_WORKER_LOSS": "continue"})
    jobs.until(name, "[metric] step=2000")
    jobs.emulator.lose(name, WORKER)
    jobs.until(name, f"worker host lost: {WORKER}: it closed the connection; the run goes on without it")
    record = jobs.emulator.wait(name, timeout_s=END_S)
    assert jobs.codes(name)[HEAD] == 0, jobs.log(name)
    same_bytes(jobs, spec)
    assert record["TrainingJobStatus"] == "Failed", "the service fails a job of which a host was lost"


@pytest.mark.slow
def test_a_stop_reaches_all_hosts_and_the_run_saves(make_jobs, spec_of):
    jobs = make_jobs()
    name = jobs.send(spec_of(*LONG), instance_groups=GROUPS)
    jobs.until(name, "[metric] step=2000")
    jobs.emulator.stop_training_job(TrainingJobName=name)
    assert jobs.emulator.wait(name, timeout_s=END_S)["TrainingJobStatus"] == "Stopped"
    assert jobs.codes(name) == {HEAD: 0, WORKER: 0}
    assert re.search(r"stopped after [1-9]\d* steps; saved", jobs.log(name, HEAD))
    assert "Ray stays until the run has saved" in jobs.log(name, WORKER)


@pytest.mark.slow
def test_learner_and_runners_of_rllib_are_apart(make_jobs, spec_of, apart):
    jobs = make_jobs()
    record = jobs.run(spec_of(text=apart.experiment), include=[apart.module], instance_groups=GROUPS)
    name = record["TrainingJobName"]
    assert record["TrainingJobStatus"] == "Completed", jobs.log(name)
    assert jobs.codes(name) == {HEAD: 0, WORKER: 0}
    assert actors_of(jobs, name) == apart.actors(runner="10.77.0.1", learner="10.77.0.2")


def actors_of(jobs, name):
    output = jobs.store.get_bytes(f"s3://bucket/lab/output/{name}/output/output.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(output)) as archive:
        (member,) = (member for member in archive if member.name.endswith("actors.json"))
        return json.load(archive.extractfile(member))


@pytest.mark.slow
def test_learner_runners_and_evaluation_of_rllib_are_apart(make_jobs, spec_of, apart):
    groups = [*GROUPS, {"name": "evaluation", "instance_type": "ml.m5.xlarge"}]
    jobs = make_jobs()
    record = jobs.run(spec_of(text=apart.experiment), include=[apart.module], instance_groups=groups)
    name = record["TrainingJobName"]
    assert record["TrainingJobStatus"] == "Completed", jobs.log(name)
    assert set(jobs.codes(name).values()) == {0}
    actors = actors_of(jobs, name)
    assert actors.keys() == apart.actors(runner="", learner="").keys()
    assert len(set(actors.values())) == 3, actors  # three hosts, one of each group, and each kind of work on its own


def running(mark):
    """Return the processes of the job with this mark, whatever namespaces they are in."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TEST_MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.name())
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "code", "words"), [
    ("fail", 5, "worker host lost: {lost}: it closed the connection: the run saves"),
    ("continue", 0, "worker host lost: {lost}: it closed the connection; the run goes on without it"),
], ids=["fail", "continue"])  # fmt: skip
def test_an_evaluation_host_lost_in_an_episode(make_jobs, spec_of, apart, tmp_path, policy, code, words):
    (tmp_path / "endless_module.py").write_text(ENDLESS)
    jobs, groups = make_jobs(linger_s=END_S), [*GROUPS, {"name": "evaluation", "instance_type": "ml.m5.xlarge"}]
    name = jobs.send(
        spec_of("env.id=endless_module:Endless-v0", text=apart.experiment),
        include=[tmp_path / "endless_module.py"],
        instance_groups=groups,
        environment={"POLICYLAB_ON_WORKER_LOSS": policy, "TEST_MARK": str(tmp_path)},
    )
    lost = jobs.host_with(name, "output/data/in-an-episode")
    assert running(str(tmp_path))
    jobs.emulator.lose(name, lost)
    jobs.until(name, words.format(lost=lost))
    record = jobs.emulator.wait(name, timeout_s=END_S)
    codes = jobs.codes(name)
    del codes[lost]
    assert sorted(codes.values()) == [0, code], jobs.log(name)
    # The head has played the episodes that were lost, and then the run has ended or saved as any other.
    log = jobs.log(name)
    assert "group_evaluation cannot play the episodes, so the head does" in log
    assert log.count("[metric] eval/return_mean=") == (1 if code else 2)
    assert record["TrainingJobStatus"] == "Failed", "the service fails a job of which a host was lost"
    if code:
        assert f"worker host lost: {lost}: " in record["FailureReason"]
        assert "last checkpoint: after 1,000 steps" in record["FailureReason"]
    assert running(str(tmp_path)) == []
