"""Searches as SageMaker tuning jobs: what is sent, what a training job of one executes, and how one comes back."""

import datetime
import json
import re

import pytest
import yaml

from policylab.aws.service_model import structure_findings
from policylab.cli.main import main
from policylab.errors import ConfigError, RunError, UserError
from policylab.experiments.finish import finish
from policylab.experiments.rundir import open_run
from policylab.experiments.runner import drive
from policylab.experiments.schema import load_experiment
from policylab.experiments.study_import import fetch_record, import_study
from policylab.experiments.study_request import request_document
from policylab.experiments.tuning_jobs import outgoing_study, spec_of
from policylab.launchers.sagemaker.service import Patience
from policylab.tuning.parents import read_parent

SETTINGS = [
    "launcher.kind=sagemaker",
    "launcher.role_arn=arn:aws:iam::123456789012:role/policylab",
    "launcher.image=123456789012.dkr.ecr.eu-west-1.amazonaws.com/policylab:1",
    "launcher.s3_prefix=s3://bucket/policylab",
]
SEARCH = ["search.limits={trials: 8}", "search.scheduler.kind=fixed", "seeds.tune=1", "tracking.kind=none"]
RANGES = {
    "ContinuousParameterRanges": [
        {"Name": "agent.learning_rate", "MinValue": "0.01", "MaxValue": "1.0", "ScalingType": "Logarithmic"},
        {"Name": "agent.discount", "MinValue": "0.9", "MaxValue": "0.999", "ScalingType": "ReverseLogarithmic"},
        {"Name": "agent.exploration.epsilon.fraction", "MinValue": "0.05", "MaxValue": "1.0"},
    ]
}


@pytest.fixture
def config():
    return load_experiment("taxi_tune", overrides=[*SETTINGS, *SEARCH])


def drawn(rate):
    return {
        "agent.learning_rate": str(rate), "agent.discount": "0.95", "agent.exploration.epsilon.fraction": "0.5",
    }  # fmt: skip


def record(**changes):
    def job(name, status, rate, value=None, **more):
        final = {} if value is None else {
            "FinalHyperParameterTuningJobObjectiveMetric": {"MetricName": "eval/return_mean", "Value": value}
        }  # fmt: skip
        return {
            "TrainingJobName": name,
            "TrainingJobStatus": status,
            "TunedHyperParameters": drawn(rate),
            **final,
            **more,
        }

    objective = {"Type": "Maximize", "MetricName": "eval/return_mean"}
    return {
        "HyperParameterTuningJobName": "taxi-1",
        "HyperParameterTuningJobStatus": "Completed",
        "HyperParameterTuningJobConfig": {
            "Strategy": "Bayesian", "HyperParameterTuningJobObjective": objective, "ParameterRanges": RANGES,
        },
        "TrainingJobDefinition": {},
        "TrainingJobSummaries": [
            job("taxi-1-001", "Completed", 0.1, 5.5),
            job("taxi-1-002", "Completed", 0.2, 7.5),
            job("taxi-1-003", "Stopped", 0.3, 9.0),
            job("taxi-1-004", "Failed", 0.4, FailureReason="AlgorithmError: boom"),
        ],
        **changes,
    }  # fmt: skip


def test_the_request_is_valid_and_its_name_follows_from_its_content(config):
    outgoing = outgoing_study(config)
    assert outgoing.document["errors"] == []
    request = outgoing.document["request"]
    assert structure_findings("CreateHyperParameterTuningJob", request) == []
    assert len(outgoing.name) <= 32
    assert outgoing_study(config).name == outgoing.name
    other = load_experiment("taxi_tune", overrides=[*SETTINGS, *SEARCH, "budget.steps=1000"])
    assert outgoing_study(other).name != outgoing.name
    uris = [one["DataSource"]["S3DataSource"]["S3Uri"] for one in request["TrainingJobDefinition"]["InputDataConfig"]]
    assert all(any(name.startswith(uri) for name in outgoing.files) for uri in uris)


def outgoing_with(*settings):
    return outgoing_study(load_experiment("taxi_tune", overrides=[*SETTINGS, *SEARCH, *settings]))


def test_a_tuning_job_is_priced_and_carries_the_tags_of_the_settings():
    sent = outgoing_with("launcher.tags={team: rl}", "launcher.max_runtime_s=3600", "launcher.max_cost_usd=2")
    assert sent.document["errors"] == []
    price = sent.document["price"]
    assert (price["most_per_job"], price["most"]) == (pytest.approx(0.23), pytest.approx(8 * 0.23))
    assert sent.document["request"]["Tags"] == [
        {"Key": "team", "Value": "rl"}, {"Key": "policylab:experiment", "Value": "taxi_tune"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["launcher.max_runtime_s=3600", "launcher.max_cost_usd=1.8"], "up to 1.84, got 1.8; raise it, or lower"),
        (["launcher.max_cost_usd=9", "search.limits={steps: 100000}"], "without end, got 9.0; set search.limits"),
        (["launcher.max_cost_usd=9", "launcher.instance_type=ml.c5n.xlarge"], "the price table lacks ml.c5n.xlarge"),
        (["launcher.environment={API_KEY: x}"], "Definition.Environment.API_KEY: a request holds no secrets"),
    ],
)
def test_what_sagemaker_does_not_look_after_is_an_error_of_the_request(settings, words):
    errors = outgoing_with(*settings).document["errors"]
    assert any(words in error for error in errors), errors


def test_the_time_of_a_tuning_job_limits_its_price_too():
    limits = "search.limits={trials: 100, wall_clock_s: 3600}"
    sent = outgoing_with(limits, "search.parallel=3", "launcher.max_cost_usd=1")
    assert sent.document["errors"] == []
    assert sent.document["price"]["most"] == pytest.approx(3 * 0.23)


def test_a_tuning_job_is_not_emulated_and_nothing_is_sent(aws, capsys):
    command = ["study", "to-sagemaker", "taxi_tune", "--launcher", "sagemaker", "--emulate", "--send", "--json"]
    assert main(command) == 2
    message = json.loads(capsys.readouterr().out)["error"]["message"]
    assert "search over emulated jobs with `policylab tune --launcher sagemaker --emulate`" in message


def test_a_training_job_executes_the_first_seed_with_the_values_drawn(config, tmp_path):
    outgoing = outgoing_study(config)
    (name,) = (name for name in outgoing.files if name.endswith("experiment.yaml"))
    file = tmp_path / "experiment.yaml"
    file.write_bytes(outgoing.files[name])
    spec = spec_of(file, {**drawn(0.25), "sagemaker_program": "bootstrap.py", "_tuning_objective_metric": "x"})
    assert (spec.role, spec.index, spec.config_hash) == ("tune", 0, config.config_hash)
    assert spec.agent["learning_rate"] == {"kind": "constant", "value": 0.25}
    assert spec.seed == config.spec("tune", 0).seed
    with pytest.raises(ConfigError, match="none of the experiment's search space"):
        spec_of(file, drawn("fast"))


def test_a_finished_tuning_job_comes_back_as_a_study(config, tmp_path, capsys):
    run = import_study(config, record(), out=tmp_path)
    assert main(["study", "show", str(run.path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["trials"], shown["failed_runs"], shown["status"]) == (4, 1, "finished")
    assert shown["leaders"][0]["configuration"]["agent.learning_rate"] == 0.2
    assert "taxi-1" in shown["reason"]
    assert main(["study", "best", str(run.path)]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["agent"]["learning_rate"]["value"] == 0.2


def test_an_imported_study_is_a_parent_of_a_warm_start(config, tmp_path):
    run = import_study(config, record(), out=tmp_path)
    parent = read_parent(run.path)
    assert parent.status == "completed"
    assert sorted(one.values[0] for one in parent.observed) == [5.5, 5.5, 7.5]  # the failed one counts as the worst
    child = load_experiment(
        "taxi_tune",
        overrides=[
            *SEARCH,
            "budget.steps=1000",
            f"search.warm_start={{kind: transfer_learning, parents: [{run.path}]}}",
        ],
    )
    assert child.search.warm_start.parents == (str(run.path),)


def test_an_imported_study_has_no_runs_to_resume_and_none_to_report(config, tmp_path):
    run = import_study(config, record(), out=tmp_path)
    for call in (drive, finish):
        with pytest.raises(UserError, match="was imported from SageMaker: there are no runs to go on with, report"):
            call(open_run(run.path))


def test_a_job_that_was_stopped_early_says_so(config, tmp_path, capsys):
    run = import_study(config, record(), out=tmp_path)
    assert main(["study", "show", str(run.path), "--json"]) == 0
    (stopped,) = [one for one in json.loads(capsys.readouterr().out)["leaders"] if one["trial"] == 2]
    assert (stopped["state"], stopped["reason"]) == ("stopped", "stopped early by SageMaker")


def test_what_the_request_fixes_is_what_the_experiment_does(config, tmp_path):
    """A tuning job that was made by hand from the request comes back, with its static hyperparameters."""
    static = request_document(config)["request"]["TrainingJobDefinition"]["StaticHyperParameters"]
    assert static["agent.kind"] == "q_learning"
    run = import_study(config, record(TrainingJobDefinition={"StaticHyperParameters": static}), out=tmp_path)
    assert len(read_parent(run.path).observed) == 3


def searching(*more):
    ranges = {**RANGES, "ContinuousParameterRanges": [*RANGES["ContinuousParameterRanges"], *more]}
    return {"HyperParameterTuningJobConfig": {**record()["HyperParameterTuningJobConfig"], "ParameterRanges": ranges}}


def fixing(name, text):
    return {"TrainingJobDefinition": {"StaticHyperParameters": {name: text}}}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            searching({"Name": "agent.trace", "MinValue": "0", "MaxValue": "1"}),
            "taxi-1: agent.trace was searched there, and is not by the experiment; import it with the experiment it",
        ),
        (fixing("agent.kind", "sarsa"), "agent.kind was 'sarsa' there, and is 'q_learning' in the experiment"),
        (fixing("env.id", "Taxi-v4"), "env.id was 'Taxi-v4' there, and is 'Taxi-v3' in the experiment"),
        (fixing("agent.trace", "0.5"), "agent.trace was 0.5 there, and is no setting of the experiment"),
    ],
)
def test_a_record_of_another_experiment_is_refused(config, tmp_path, changes, told):
    with pytest.raises(ConfigError, match=re.escape(told)):
        import_study(config, record(**changes), out=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([], "job.json: Input should be a valid dictionary"),
        (None, "job.json: Input should be a valid dictionary"),
        ({"WarmStartConfig": {"ParentHyperParameterTuningJobs": ["x"]}}, "ParentHyperParameterTuningJobs.0: Input"),
        ({"WarmStartConfig": {"ParentHyperParameterTuningJobs": {"a": 1}}}, "ParentHyperParameterTuningJobs: Input"),
    ],
)
def test_a_file_of_another_shape_is_told_by_its_place(content, told, tmp_path, capsys):
    file = tmp_path / "job.json"
    file.write_text(json.dumps({**record(), **content} if isinstance(content, dict) else content))
    assert main(["study", "import", str(file), "taxi_tune", "--out", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert told in message
    assert "store the describe answer" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"HyperParameterTuningJobStatus": "InProgress"}, "is under way"),
        ({"TrainingJobSummaries": [{"TrainingJobName": "a", "TunedHyperParameters": drawn(99)}]}, "not in the"),
        ({"TrainingJobSummaries": [{"TrainingJobName": "a", "TunedHyperParameters": {}}]}, "not in the"),
        ({"TrainingJobSummaries": None}, "store the describe answer"),
    ],
)
def test_a_record_that_cannot_be_imported_leaves_nothing(config, tmp_path, changes, words):
    with pytest.raises(ConfigError, match=words):
        import_study(config, record(**changes), out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_record_of_another_metric(tmp_path):
    other = load_experiment("taxi_tune", overrides=[*SEARCH, "search.metric=train/return_mean"])
    with pytest.raises(ConfigError, match="has optimised eval/return_mean"):
        import_study(other, record(), out=tmp_path)


class Pages:
    """Answers as boto3 gives them: times as datetimes, training jobs in pages, which moto cannot list at all."""

    def describe_hyper_parameter_tuning_job(self, *, HyperParameterTuningJobName):
        assert HyperParameterTuningJobName == "taxi-1"
        answer = {key: value for key, value in record().items() if key != "TrainingJobSummaries"}
        created = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
        return {**answer, "CreationTime": created, "ResponseMetadata": {"HTTPStatusCode": 200}}

    def list_training_jobs_for_hyper_parameter_tuning_job(self, *, NextToken="0", **query):
        assert structure_findings("ListTrainingJobsForHyperParameterTuningJob", query) == []
        jobs = record()["TrainingJobSummaries"]
        place = int(NextToken)
        more = {"NextToken": str(place + 1)} if place + 1 < len(jobs) else {}
        return {"TrainingJobSummaries": [jobs[place]], **more}


def test_a_record_is_fetched_whole_and_can_be_stored(config, tmp_path):
    fetched = fetch_record(Pages(), "taxi-1")
    assert fetched["TrainingJobSummaries"] == record()["TrainingJobSummaries"]
    assert json.loads(json.dumps(fetched)) == fetched
    assert "ResponseMetadata" not in fetched
    run = import_study(config, fetched, out=tmp_path)
    assert read_parent(run.path / "study" / "sagemaker.json").created == "2026-11-01"


@pytest.fixture
def sent(aws, capsys):
    """The name of a tuning job that moto took, and the options of the experiment it was made from."""
    options = [part for one in [*SETTINGS, *SEARCH] for part in ("--set", one)]
    assert main(["study", "to-sagemaker", "taxi_tune", *options, "--send", "--json"]) == 0
    return json.loads(capsys.readouterr().out)["tuning_job"], options


def test_moto_cannot_list_the_jobs_of_a_tuning_job_so_a_live_import_gets_no_further(sent, monkeypatch):
    """What moto falls short of: ListTrainingJobsForHyperParameterTuningJob, which it answers with HTTP 500.

    So what can be shown against it is that the record itself is described, that the question it cannot answer is a
    valid one, and that the end of a user's patience is one sentence.
    """
    import boto3
    from botocore.config import Config

    monkeypatch.setattr(Patience, "wait_s", lambda *_: 0.0)
    queries = []
    service = boto3.client("sagemaker", config=Config(retries={"total_max_attempts": 1}))
    event = "before-parameter-build.sagemaker.ListTrainingJobsForHyperParameterTuningJob"
    service.meta.events.register(event, lambda params, **_: queries.append(dict(params)))
    with pytest.raises(RunError, match="keeps failing list_training_jobs_for_hyper_parameter_tuning_job"):
        fetch_record(service, sent[0])
    assert queries[0]["HyperParameterTuningJobName"] == sent[0]
    assert structure_findings("ListTrainingJobsForHyperParameterTuningJob", queries[0]) == []


def test_a_tuning_job_is_imported_from_a_service_that_lists_its_jobs(sent, tmp_path, monkeypatch, capsys):
    """The command over HTTP, against moto with the one operation it lacks; the jobs are ours, for moto starts none."""
    from moto.sagemaker.responses import SageMakerResponse

    def listed(self):
        assert json.loads(self.body)["HyperParameterTuningJobName"] == sent[0]
        more = {"TrainingJobArn": "arn:aws:sagemaker:eu-west-1:123456789012:training-job/taxi", "CreationTime": 1.8e9}
        return json.dumps({"TrainingJobSummaries": [{**job, **more} for job in record()["TrainingJobSummaries"]]})

    name = "list_training_jobs_for_hyper_parameter_tuning_job"
    monkeypatch.setattr(SageMakerResponse, name, listed, raising=False)
    assert main(["study", "import", sent[0], "taxi_tune", *sent[1], "--out", str(tmp_path), "--json"]) == 0
    run_dir = json.loads(capsys.readouterr().out)["run_dir"]
    assert main(["study", "show", run_dir, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["trials"], shown["failed_runs"], shown["status"]) == (4, 1, "finished")
    assert sent[0] in shown["reason"]
