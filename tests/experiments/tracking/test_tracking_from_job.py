"""A job that tracks its own run, beside the command that follows the jobs: each finds what the other has made."""

import importlib.util
import json
import socket

import pytest
import yaml
from mlflow import MlflowClient

from policylab.errors import TrackingError, UserError
from policylab.experiments.tracking import mlflow_adapter, mlflow_runs, mlflow_study
from policylab.experiments.tracking.follow import check_reachable
from policylab.experiments.tracking.from_job import JobFollower, JobTracker, JobTracking, order_of
from policylab.experiments.tracking.mlflow_adapter import MlflowTracker
from policylab.experiments.tracking.settings import MlflowTracking
from policylab.experiments.tracking.tracker import Projection

pytestmark = pytest.mark.filterwarnings("ignore")  # of MLflow's
PATH = "0003/tune-001"


@pytest.fixture
def client(store):
    return MlflowClient(f"sqlite:///{store}")


@pytest.fixture
def sent(make_run):
    """Make a run directory whose runs are jobs; told whether it is a search."""

    def make(*, search=False, **tracking):
        run = make_run()
        config = yaml.safe_load((run.folder / "config.yaml").read_text())
        config |= {"launcher": {"kind": "sagemaker"}, "tracking": {**config["tracking"], **tracking}}
        (run.folder / "config.yaml").write_text(yaml.safe_dump(config))
        if search:
            run.search()
        return run

    return make


def order_for(run, store):
    """What a job of ``run`` is told; the store is a file here, which only a job on this machine can reach."""
    told = json.loads(order_of(run.folder))
    return JobTracking.model_validate({**told, "uri": f"sqlite:///{store}"})


def follow(run, store):
    """Upload as the command does that follows the jobs."""
    settings = MlflowTracking(uri=f"sqlite:///{store}").resolved(experiment="lake", folder=run.folder)
    projection = Projection(run.folder, MlflowTracker(settings))
    projection.open()
    return projection


def below(client, *, path=f"trials/{PATH}"):
    experiment = client.get_experiment_by_name("lake").experiment_id
    return client.search_runs([experiment], f"tags.`policylab.path` = '{path}'")


def history(client, run, name):
    return [(one.step, one.value, one.timestamp) for one in client.get_metric_history(run.info.run_id, name)]


SERVER = "https://mlflow.example"


def test_jobs_are_told_of_servers_only_and_of_no_password(sent, caplog):
    run = sent(uri=SERVER)
    told = json.loads(order_of(run.folder))
    assert told == {
        "uri": SERVER, "experiment": "lake", "run_id": "lake-1", "created_ms": 1767323045000
    }  # fmt: skip
    assert len(order_of(run.folder)) < 512, "longest value of an environment variable of a training job"
    config = yaml.safe_load((run.folder / "config.yaml").read_text())
    for uri, words in (("sqlite:///mlflow.db", ""), ("https://ann:s3cret@mlflow.example", "password")):
        config["tracking"]["uri"] = uri
        (run.folder / "config.yaml").write_text(yaml.safe_dump(config))
        assert order_of(run.folder) is None
        assert words in caplog.text
    assert "s3cret" not in caplog.text
    assert order_of(run.folder / "nothing") is None


@pytest.mark.parametrize("first", ["job", "sender"])
def test_what_both_upload_is_there_once(first, sent, store, client):
    run = sent(uri=SERVER)
    projection = follow(run, store)
    folder = run.trial(PATH)
    run.report(PATH, 3)
    job = JobTracker(order_for(run, store), folder, path=f"trials/{PATH}")
    for push in (job.push, projection.push) if first == "job" else (projection.push, job.push):
        push()
    run.report(PATH, 2)
    job.push()
    run.result(PATH)
    job.push()
    job.end()
    assert [child.info.status for child in below(client)] == ["FINISHED"]
    projection.push()
    (child,) = below(client)
    assert [row[:2] for row in history(client, child, "train/return_mean")] == [
        (100.0 * (i + 1), pytest.approx(i / 10)) for i in range(5)
    ]
    assert child.data.metrics["final/value"] == 0.5
    assert child.data.params["agent.kind"] == "q_learning"
    assert child.data.tags["rl.role"] == "tune"


@pytest.fixture
def between(monkeypatch):
    """Let the other side push between the moments when one side looks for a run and creates it."""

    def arrange(push):
        create, waiting = mlflow_runs.create_run, [push]

        def interrupted(*arguments, **options):
            while waiting:
                waiting.pop()()
            return create(*arguments, **options)

        for module in (mlflow_runs, mlflow_study, mlflow_adapter):
            monkeypatch.setattr(module, "create_run", interrupted)

    return arrange


@pytest.mark.parametrize("search", [False, True])
@pytest.mark.parametrize("slow", ["job", "sender"])
def test_a_run_that_both_create_at_the_same_moment_is_there_once(slow, search, sent, store, client, between):
    run = sent(uri=SERVER, search=search)
    projection = follow(run, store)
    if search:
        run.event("start", trial=3, configuration={"agent.learning_rate": 0.1}, seed=1, until=300, reason="new")
        projection.push()
    folder = run.trial(PATH)
    run.report(PATH, 2, metrics={"eval/return_mean": 0.5})
    if search:  # the command writes a seed's run when its piece has ended
        run.piece(3, 1, until=300, values={300: 0.5})
    job = JobTracker(order_for(run, store), folder, path=f"trials/{PATH}")
    first, second = (job.push, projection.push) if slow == "job" else (projection.push, job.push)
    between(second)
    first()
    assert len(below(client)) == 1
    if not search:
        run.report(PATH, 1, metrics={"eval/return_mean": 0.5})
        run.result(PATH)
    for push in (job.push, job.end, projection.push):
        push()
    (child,) = below(client)
    assert [row[:2] for row in history(client, child, "eval/return_mean")] == [(100, 0.5), (200, 0.5), (300, 0.5)]
    assert child.info.status == "FINISHED"
    assert child.data.metrics["final/value"] == 0.5


def test_two_runs_that_a_killed_command_left_become_one(sent, store, client):
    run = sent(uri=SERVER)
    follow(run, store)
    run.trial(PATH)
    run.report(PATH, 2)
    parent = client.search_runs([client.get_experiment_by_name("lake").experiment_id])[0]
    tags = {"policylab.path": f"trials/{PATH}", "mlflow.parentRunId": parent.info.run_id}
    place = {"experiment_id": parent.info.experiment_id, "started_ms": 0}
    mlflow_runs.create_run(client, "job's", tags={**tags, mlflow_runs.MADE_BY: "job"}, **place)
    ours = mlflow_runs.create_run(client, "command's", tags=tags, **place)
    follow(run, store).push()
    (child,) = below(client)
    assert child.info.run_id == ours.info.run_id
    assert len(history(client, child, "train/return_mean")) == 2


def test_a_job_waits_for_the_run_of_its_run_directory(sent, store, client):
    run = sent(uri=SERVER)
    folder = run.trial(PATH)
    run.report(PATH, 2)
    job = JobTracker(order_for(run, store), folder, path=f"trials/{PATH}")
    with pytest.raises(TrackingError, match="there is no experiment 'lake' yet"):
        job.push()
    follow(run, store)
    job.push()
    assert len(below(client)) == 1


def test_a_run_of_a_search_lies_below_its_configuration(sent, store, client):
    run = sent(uri=SERVER, search=True)
    projection = follow(run, store)
    run.event("start", trial=3, configuration={"agent.learning_rate": 0.1}, seed=1, until=300, reason="new")
    folder = run.trial(PATH)
    job = JobTracker(order_for(run, store), folder, path=f"trials/{PATH}")
    with pytest.raises(TrackingError, match="lake-1 is not there yet"):
        job.push()
    projection.push()
    run.report(PATH, 2, metrics={"eval/return_mean": 0.5, "train/td_error": 0.1})
    job.push()
    run.piece(3, 1, until=300, values={300: 0.5})
    projection.push()
    (child,) = below(client)
    (configuration,) = below(client, path="trials/0003")
    assert child.data.tags["mlflow.parentRunId"] == configuration.info.run_id
    assert [row[:2] for row in history(client, child, "eval/return_mean")] == [(100, 0.5), (200, 0.5), (300, 0.5)]
    assert "train/td_error" not in child.data.metrics
    assert child.data.metrics["final/value"] == 0.5


def test_a_tracker_that_is_down_is_told_of_and_harms_nothing(sent, capfd):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    run = sent(uri=address)
    folder = run.trial(PATH)
    run.report(PATH, 2)
    follower = JobFollower(order_of(run.folder), folder, path=f"trials/{PATH}")
    follower.finish(60.0)
    told = capfd.readouterr().err
    assert f"tracking: MLflow at {address} took nothing: it cannot be reached" in told
    assert "Traceback" not in told


def test_an_order_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match="POLICYLAB_TRACKING: no order of policylab's"):
        JobFollower('{"uri": 3}', tmp_path, path="trials/0000/tune-000")


ARN = "arn:aws:sagemaker:eu-west-1:123456789012:mlflow-tracking-server/lab"


def test_a_server_of_sagemakers_is_told_by_its_arn_and_found_in_its_region(sent):
    """As far as it goes without an account: the address that the plugin makes of it, and the signing of calls."""
    pytest.importorskip("sagemaker_mlflow")
    told = json.loads(order_of(sent(uri=ARN).folder))
    assert told["uri"] == ARN
    credentials = MlflowClient(told["uri"])._tracking_client.store.get_host_creds()
    assert (credentials.host, credentials.auth) == ("https://eu-west-1.experiments.sagemaker.aws", "arn")


def test_an_arn_without_its_plugin_is_told_with_the_remedy(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sagemaker_mlflow" else found(name))
    with pytest.raises(TrackingError, match=r"needs sagemaker-mlflow; pip install 'policylab\[sagemaker\]'"):
        check_reachable(MlflowTracking(uri=ARN))
