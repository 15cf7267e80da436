"""A training service in this process, on a clock of its own: it keeps the service's rules and executes runs for real.

It stands where boto3 does. What only processes can show (signals, hosts, containers) is for the emulator and the
container's own tests to prove; the runs that both execute are here too.
"""

import datetime
import json
import threading

import pytest
from botocore.exceptions import ClientError

from policylab.config import assign, parse, validate
from policylab.experiments.execute import Stopped, execute
from policylab.experiments.schema import ExperimentConfig
from policylab.launchers.sagemaker.object_store import FolderStore
from policylab.launchers.sagemaker.run_snapshot import restore_snapshot, save_snapshot
from policylab.runspec import RunSpec, place_spec

EXPERIMENT = """
name: contained
env: {id: FrozenLake-v1}
agent: {kind: q_learning, learning_rate: 0.1, discount: 0.99, execution: plain}
budget: {steps: 30_000}
seeds: {tune: 1, confirm: 0}
evaluation: {marks: 30}
tracking: {kind: none}
"""
"""A run of a second or two."""

RLLIB = """
name: apart
env: {id: "placed_module:Placed-v0"}
agent:
  kind: rllib
  algorithm: PPO
  batch_size: 200
  minibatch_size: 100
  n_epochs: 1
  n_env_runners: 1
  n_envs_per_runner: 1
  n_learners: 1
  network: {hidden: [8]}
budget: {steps: 2000}
seeds: {tune: 1, confirm: 0}
evaluation: {marks: 2, episodes: 2, final_episodes: 2}
tracking: {kind: none}
"""
PLACED = """
import json, os, pathlib, gymnasium, ray
from gymnasium.envs.classic_control import CartPoleEnv

class Placed(CartPoleEnv):
    \"\"\"Where it is evaluated, it writes down where that is and where the job's actors are.\"\"\"

    def reset(self, **options):
        if ray.is_initialized() and not ray.get_runtime_context().get_actor_id():
            actors = ray._private.state.actors().values()
            found = {actor["ActorClassName"]: actor["Address"]["IPAddress"] for actor in actors}
            found["evaluation"] = ray.util.get_node_ip_address()
            file = pathlib.Path(os.environ.get("POLICYLAB_ML_ROOT", "/opt/ml"), "output", "data", "actors.json")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(found))
        return super().reset(**options)

gymnasium.register("Placed-v0", Placed, max_episode_steps=100)
"""
BROKEN = """
import gymnasium
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv

class Broken(FrozenLakeEnv):
    n = 0

    def step(self, action):
        self.n += 1
        if self.n > 7000:
            raise ValueError("boom: reward was NaN")
        return super().step(action)

gymnasium.register("Broken-v0", Broken, max_episode_steps=100)
"""
EPOCH = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)


class FakeClock:
    """Time that passes when somebody waits."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds

    def date(self):
        return EPOCH + datetime.timedelta(seconds=self.now)


def refuse(operation, code, message, status=400):
    details = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    raise ClientError(details, operation)


def execute_run(request, store, folder, *, stopping=False):
    """Do what the container does: restore the newest snapshot, train, save; return a reason if the run failed."""
    prefix, checkpoints, run = request["CheckpointConfig"]["S3Uri"], folder / "checkpoints", folder / "run"
    store.download_folder(prefix, checkpoints)
    restore_snapshot(checkpoints, into=run)
    channel = next(one for one in request["InputDataConfig"] if one["ChannelName"] == "run")
    spec = store.get_bytes(channel["DataSource"]["S3DataSource"]["S3Uri"] + "spec.json")
    place_spec(run, RunSpec.model_validate_json(spec), source="spec.json")
    stop = threading.Event()
    if stopping:
        stop.set()
    reason = None
    try:
        execute(run, stop=stop)
    except Stopped:
        pass
    except Exception as error:
        reason = f"AlgorithmError: {type(error).__name__}: {error}, exit code: 1"
    save_snapshot(run, into=checkpoints)
    sync(checkpoints, store, prefix)
    return reason


def sync(folder, store, prefix):
    """Do what the service does with a checkpoint folder: a local delete deletes in S3 as well."""
    store.upload_folder(folder, prefix)
    kept = {f"{prefix}/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*")}
    for one in store.list(f"{prefix}/"):
        if one.uri not in kept:
            store.delete(one.uri)


class ClockedService:
    """Training jobs that take ``duration_s`` each, with names that are never free again.

    Args:
        work: executes a request when its job ends, and returns a reason if it failed.
    """

    STARTING_S = 10.0
    STOPPING_S = 20.0

    def __init__(self, clock, store, scratch, *, duration_s=300.0, work=execute_run, quota=None):
        self.clock = clock
        self.store = store
        self.scratch = scratch
        self.duration_s = duration_s
        self.work = work
        self.quota = quota
        self.jobs = {}
        self.calls = []

    def create_training_job(self, **request):
        self.calls.append("create")
        name = request["TrainingJobName"]
        if name in self.jobs:
            refuse("CreateTrainingJob", "ResourceInUse", "Job name must be unique within an AWS account and region")
        if self.quota is not None and sum(not self._advance(job)["ended"] for job in self.jobs.values()) >= self.quota:
            message = f"service limit is {self.quota} Instances, with current utilization of {self.quota} Instances"
            message += " and a request delta of 1 Instances."
            refuse("CreateTrainingJob", "ResourceLimitExceeded", message)
        json.dumps(request)  # a request is plain data
        self.jobs[name] = {"request": request, "began": self.clock.now, "stop": None, "ended": None, "reason": None}
        return {"TrainingJobArn": f"arn:aws:sagemaker:eu-west-1:123456789012:training-job/{name}"}

    def describe_training_job(self, *, TrainingJobName):
        self.calls.append("describe")
        if TrainingJobName not in self.jobs:
            refuse("DescribeTrainingJob", "ValidationException", "Requested resource not found.")
        return self._record(self._advance(self.jobs[TrainingJobName]))

    def stop_training_job(self, *, TrainingJobName):
        self.calls.append("stop")
        job = self._advance(self.jobs[TrainingJobName])
        if job["ended"]:
            refuse("StopTrainingJob", "ValidationException", "The job is in a terminal state and cannot be stopped.")
        job["stop"] = job["stop"] or self.clock.now
        return {}

    def list_tags(self, *, ResourceArn):
        return {"Tags": self.jobs[ResourceArn.rpartition("/")[2]]["request"]["Tags"]}

    def search(self, *, SearchExpression, **_):
        self.calls.append("search")
        (wanted,) = SearchExpression["Filters"]
        key = wanted["Name"].removeprefix("Tags.")
        found = []
        for job in map(self._advance, list(self.jobs.values())):
            tags = job["request"]["Tags"]
            if any(tag["Key"] == key and wanted.get("Value") in (None, tag["Value"]) for tag in tags):
                found.append({"TrainingJob": {**self._record(job), "Tags": tags}})
        return {"Results": found}

    def _advance(self, job):
        due = job["began"] + self.duration_s
        if job["stop"] is not None:
            due = min(due, job["stop"] + self.STOPPING_S)
        if job["ended"] is None and self.clock.now >= due:
            stopping = job["stop"] is not None
            folder = self.scratch / job["request"]["TrainingJobName"]
            folder.mkdir(parents=True)
            job["reason"] = self.work(job["request"], self.store, folder, stopping=stopping)
            job["status"] = "Failed" if job["reason"] else "Stopped" if stopping else "Completed"
            job["ended"] = due
        return job

    def _record(self, job):
        now = self.clock.now
        record = {key: job["request"][key] for key in job["request"] if key not in ("Environment", "Tags")}
        name = job["request"]["TrainingJobName"]
        record["TrainingJobArn"] = f"arn:aws:sagemaker:eu-west-1:123456789012:training-job/{name}"
        record["CreationTime"] = EPOCH + datetime.timedelta(seconds=job["began"])
        started = job["began"] + self.STARTING_S
        if now >= started:
            record["TrainingStartTime"] = EPOCH + datetime.timedelta(seconds=started)
        if job["ended"]:
            record["TrainingJobStatus"] = record["SecondaryStatus"] = job["status"]
            record["TrainingEndTime"] = EPOCH + datetime.timedelta(seconds=job["ended"])
            record["BillableTimeInSeconds"] = int(job["ended"] - started)
            if job["reason"]:
                record["FailureReason"] = job["reason"]
        else:
            record["TrainingJobStatus"] = "InProgress" if job["stop"] is None else "Stopping"
            record["SecondaryStatus"] = "Training" if now >= started else "Starting"
        return record


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store(tmp_path):
    return FolderStore(tmp_path / "store")


@pytest.fixture
def make_service(clock, store, tmp_path):
    return lambda **options: ClockedService(clock, store, tmp_path / "scratch", **options)


@pytest.fixture
def do_the_work():
    """Do the work of a request in its store."""
    return execute_run


@pytest.fixture
def refuse_call(monkeypatch):
    """Let a service refuse one of its calls."""

    def make(service, name, code):
        def refusing(**_):
            refuse(name, code, "not allowed")

        refusing.__name__ = name
        monkeypatch.setattr(service, name, refusing)

    return make


@pytest.fixture
def spec_of():
    """Return a function that makes the run of an experiment, by default a tabular one of a second or two."""

    def make(*overrides, text=EXPERIMENT, **changes):
        config = validate(ExperimentConfig, assign(parse(text, "job.yaml"), list(overrides)))
        return config.spec("tune", 0).model_copy(update={"checkpoint_every_s": 0.05, **changes})

    return make


class Apart:
    """A run of RLlib with one learner and one env runner, which tells where they were.

    Attributes:
        experiment: its file.
        module: what it imports; its actors' addresses are left in ``output/data/actors.json``.
    """

    def __init__(self, folder):
        self.experiment = RLLIB
        self.module = folder / "placed_module.py"
        self.module.write_text(PLACED)

    @staticmethod
    def actors(*, runner, learner, evaluation=None):
        """Return what is left when they were at these addresses; by default the learner's host evaluates."""
        # What Ray Train names the actors that RLlib learns in.
        learning = "create_executable_class.<locals>._WrappedExecutable"
        return {"SingleAgentEnvRunner": runner, learning: learner, "evaluation": evaluation or learner}


@pytest.fixture
def apart(tmp_path):
    return Apart(tmp_path)


@pytest.fixture
def broken_module(tmp_path):
    """A module with the environment ``broken_module:Broken-v0``, which fails after 7,000 steps."""
    path = tmp_path / "broken_module.py"
    path.write_text(BROKEN)
    return path


@pytest.fixture
def files_of():
    """Return a function that reads what a run must leave equal to the last byte: reports, result and checkpoint."""

    def read(folder):
        kept = [folder / "reports.jsonl", folder / "result.json", *sorted(folder.glob("checkpoints/*/*"))]
        return {str(path.relative_to(folder)): path.read_bytes() for path in kept}

    return read


@pytest.fixture
def uninterrupted(files_of, tmp_path):
    """Return a function that tells what a run leaves when it is executed here and now."""

    def run(spec):
        folder = tmp_path / "here"
        folder.mkdir()
        (folder / "spec.json").write_text(spec.model_dump_json(indent=1) + "\n")
        execute(folder)
        return files_of(folder)

    return run
