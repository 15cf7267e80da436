"""Against a moto server over HTTP: the literal requests, tags, search, S3 layout, logs.

What moto cannot show: it takes any request, also a second one of the same name, and its jobs are Completed at once
without any work done; it neither stops jobs nor bills them. So a "Completed" of moto's proves nothing here, and what
refuses, runs, stops and costs is proven by `test_launcher` and on the emulator.
"""

import json
import re

import pytest

from policylab.aws.service_model import structure_findings
from policylab.cli.main import main
from policylab.errors import RunError
from policylab.experiments.rundir import create_run
from policylab.experiments.schema import load_experiment
from policylab.launchers import State, open_launcher
from policylab.launchers.sagemaker.object_store import S3Store
from policylab.launchers.sagemaker.preflight import preflight
from policylab.launchers.sagemaker.service import Patience, PatientService, client
from policylab.launchers.sagemaker.training_jobs import TrainingJobs

pytest.importorskip("moto")

SETTINGS = [
    "launcher.kind=sagemaker",
    "launcher.role_arn=arn:aws:iam::123456789012:role/policylab",
    "launcher.image=123456789012.dkr.ecr.eu-west-1.amazonaws.com/policylab:1",
    "launcher.s3_prefix=s3://bucket/policylab",
    "launcher.tags={team: rl}",
    "launcher.spot.max_wait_s=90000",
    "launcher.environment={LOG_LEVEL: info}",
    "launcher.attempts=2",
]
SMALL = ["budget.steps=2000", "seeds.tune=2", "seeds.confirm=1", "evaluation.marks=4", "tracking.kind=none"]


@pytest.fixture
def sent(monkeypatch):
    """The requests as they are about to be serialised, from every client that is made meanwhile."""
    import boto3

    captured = []
    plain = boto3.Session.client

    def capturing(session, service, **options):
        made = plain(session, service, **options)
        event = "before-parameter-build.sagemaker.CreateTrainingJob"
        made.meta.events.register(event, lambda params, **_: captured.append(json.loads(json.dumps(params))))
        return made

    monkeypatch.setattr(boto3.Session, "client", capturing)
    return captured


@pytest.fixture
def run(tmp_path):
    return create_run(load_experiment("frozenlake", overrides=[*SETTINGS, *SMALL]), parent=tmp_path / "runs")


def carry(run):
    folders = run.folders(run.config.specs())
    with open_launcher(run.config.launcher, n_workers=4, folder=run.path) as launcher:
        handles = [launcher.submit(folder) for folder in folders]
        while not all(launcher.poll(handle).state.ended for handle in handles):
            launcher.wait(timeout_s=0.5)
        return [launcher.poll(handle) for handle in handles]


@pytest.fixture
def jobs(aws, sent, run, tmp_path, monkeypatch, do_the_work):
    """Three jobs that moto took and whose work was then done in S3, as their containers would have."""
    hurry(monkeypatch)
    carry(run)
    store = S3Store(client("s3", region=None))
    for request in sent:
        folder = tmp_path / request["TrainingJobName"]
        folder.mkdir()
        assert do_the_work(request, store, folder, stopping=False) is None
    return sent


def hurry(monkeypatch):
    """Look at jobs at once: moto's have ended before they can be looked at."""
    monkeypatch.setattr("policylab.launchers.sagemaker.connection.FIRST_LOOK_S", 0.0)


def test_a_completed_job_of_motos_is_not_taken_for_a_success(aws, run, monkeypatch):
    hurry(monkeypatch)
    ended = carry(run)
    assert {one.state for one in ended} == {State.FAILED}
    assert all("completed, but left no result" in one.error for one in ended)


def test_the_requests_that_reach_the_service_obey_every_rule_and_are_the_kept_ones(jobs, run):
    assert len(jobs) == 3
    for request in jobs:
        assert structure_findings("CreateTrainingJob", request) == []
        assert preflight(request).findings == ()
        kept = json.loads((run.path / "requests" / f"{request['TrainingJobName']}.json").read_text())
        assert request == kept


def test_another_machine_finds_the_jobs_and_brings_their_results(jobs, tmp_path):
    other = create_run(load_experiment("frozenlake", overrides=[*SETTINGS, *SMALL]), parent=tmp_path / "elsewhere")
    ended = carry(other)
    assert {one.state for one in ended} == {State.FINISHED}
    assert [one.steps for one in ended] == [2000] * 3
    assert len(jobs) == 3  # nothing was sent again


def test_what_lies_in_s3_is_what_the_requests_say(jobs):
    store = S3Store(client("s3", region=None))
    names = {one.uri.removeprefix("s3://bucket/policylab/") for one in store.list("s3://bucket/policylab/")}
    places = {re.sub(r"[0-9a-f]{64}", "HASH", name) for name in names}
    runs = {f"checkpoints/{jobs[0]['Tags'][1]['Value']}/{run}" for run in ("0000-tune-000", "0000-confirm-000")}
    assert {"code/HASH/bootstrap.py", "code/HASH/policylab.zip", "runs/HASH/spec.json"} <= places
    assert {f"{run}/{name}" for run in runs for name in ("reports.jsonl", "result.json")} <= places
    assert all(any(re.fullmatch(rf"{run}/000001-[0-9a-f]{{16}}\.tar", name) for name in places) for run in runs)
    for request in jobs:
        for channel in request["InputDataConfig"]:
            assert store.list(channel["DataSource"]["S3DataSource"]["S3Uri"])


def told(capsys, *arguments, code=0):
    assert main(["jobs", *arguments, "--launcher", "sagemaker", "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_jobs_are_listed_shown_followed_and_priced_by_their_tags(jobs, capsys):
    study = next(tag["Value"] for tag in jobs[0]["Tags"] if tag["Key"] == "policylab:study")
    listed = told(capsys, "list", "--study", study)
    assert {one["job"] for one in listed} == {request["TrainingJobName"] for request in jobs}
    name = jobs[0]["TrainingJobName"]
    shown = told(capsys, "show", name)
    assert shown["tags"] == {tag["Key"]: tag["Value"] for tag in jobs[0]["Tags"]}
    assert shown["status"] == "Completed"
    assert len(told(capsys, "attach", study)) == 3
    cost = told(capsys, "cost", study)
    assert cost["jobs"] == 3
    assert cost["steps"] == 6000
    assert [row["trial"] for row in cost["trials"]] == [0]
    assert told(capsys, "stop", study) == {"stopping": []}  # they have ended; moto itself cannot stop any


def test_logs_come_from_cloudwatch_host_by_host(jobs, capsys):
    logs, name = client("logs", region=None), jobs[0]["TrainingJobName"]
    assert told(capsys, "logs", name)["logs"] == ""  # not even the log group is there
    logs.create_log_group(logGroupName="/aws/sagemaker/TrainingJobs")
    for host in ("algo-1", "algo-2"):
        stream = f"{name}/{host}-1795647841"
        logs.create_log_stream(logGroupName="/aws/sagemaker/TrainingJobs", logStreamName=stream)
        events = [{"timestamp": 1795647841000 + i, "message": f"line {i}"} for i in range(2)]
        logs.put_log_events(logGroupName="/aws/sagemaker/TrainingJobs", logStreamName=stream, logEvents=events)
    lines = ["algo-1: line 0", "algo-1: line 1", "algo-2: line 0", "algo-2: line 1"]
    assert told(capsys, "logs", name)["logs"].splitlines() == lines


def test_all_jobs_of_policylab_are_asked_for_by_a_valid_query_that_moto_cannot_answer(jobs, aws):
    import boto3
    from botocore.config import Config

    queries = []
    sagemaker = boto3.client("sagemaker", config=Config(retries={"total_max_attempts": 1}))
    sagemaker.meta.events.register(
        "before-parameter-build.sagemaker.Search", lambda params, **_: queries.append(params)
    )
    patient = PatientService(sagemaker, patience=Patience(attempts=1))
    with pytest.raises(RunError, match="keeps failing search"):  # moto knows no Operator that has no Value
        TrainingJobs(patient, S3Store(client("s3", region=None)), logs=None).search()
    assert structure_findings("Search", queries[0]) == []
    assert queries[0]["SearchExpression"] == {"Filters": [{"Name": "Tags.policylab:study", "Operator": "Exists"}]}


@pytest.mark.parametrize("verb", ["show", "attach", "logs", "stop", "cost"])
def test_a_name_that_nothing_has_is_a_user_error(aws, capsys, verb):
    document = told(capsys, verb, "nobody", code=2)
    assert "'nobody' in this region; see `policylab jobs list`" in document["error"]["message"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("jobs show nobody --launcher sagemaker", "there is no training job 'nobody' in this region"),
        ("registry list nobody --registry sagemaker", "there is no model package group 'nobody' in this region"),
        ("study import nobody taxi_tune", "Could not find hyper parameter tuning job 'nobody'"),
    ],
)
def test_commands_that_read_no_launcher_take_the_region_of_the_project_file(
    aws, tmp_path, monkeypatch, capsys, command, words
):
    def message():
        assert main([*command.split(), "--json"]) == 2
        return json.loads(capsys.readouterr().out)["error"]["message"]

    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.chdir(tmp_path)
    assert "no AWS region" in message()
    project = tmp_path / "policylab.yaml"
    project.write_text("launchers: {sagemaker: {region: eu-west-1}}")
    assert words in message()
    project.write_text("launchers: {sagemaker: {region: 7}}")
    assert "policylab.yaml:1:25: launchers.sagemaker.region: must be a text, got 7" in message()


def test_no_secret_is_in_a_request(jobs):
    assert "testing" not in json.dumps(jobs)


def test_a_tuning_job_is_sent_once(aws, capsys, tmp_path):
    import boto3

    options = [part for one in [*SETTINGS, "search.limits={trials: 3}", "seeds.tune=1"] for part in ("--set", one)]
    command = ["study", "to-sagemaker", "taxi_tune", *options, "--send", "--json"]
    assert main(command) == 0
    name = json.loads(capsys.readouterr().out)["tuning_job"]
    sent = boto3.client("sagemaker").describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    assert sent["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxNumberOfTrainingJobs"] == 3
    for channel in sent["TrainingJobDefinition"]["InputDataConfig"]:
        assert S3Store(client("s3", region=None)).list(channel["DataSource"]["S3DataSource"]["S3Uri"])
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["tuning_job"] == name
