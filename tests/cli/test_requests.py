"""``--dry-run``: what is printed, and that nothing else happens."""

import json
import socket

import pytest

from policylab.aws.service_model import structure_findings
from policylab.cli.main import main
from policylab.launchers.sagemaker.preflight import differing

SMALL = ["--set", "seeds.tune=2", "--set", "seeds.confirm=1", "--set", "budget.steps=2000"]
SETTINGS = """
launchers:
  sagemaker:
    role_arn: arn:aws:iam::123456789012:role/policylab
    image: 123456789012.dkr.ecr.eu-west-1.amazonaws.com/policylab:1
    s3_prefix: s3://bucket/policylab
    max_runtime_s: 3600
"""


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A folder with a project file, and no way out of the machine."""
    (tmp_path / "policylab.yaml").write_text(SETTINGS)
    monkeypatch.chdir(tmp_path)

    def refuse(*arguments):
        raise AssertionError(f"something was to be sent to {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tmp_path


def dry_run(capsys, *options, code=0, config="frozenlake", command="run"):
    assert main([command, config, "--launcher", "sagemaker", "--dry-run", *SMALL, *options]) == code
    return capsys.readouterr()


def test_nothing_is_written_and_the_requests_are_valid(project, capsys):
    before = sorted(project.rglob("*"))
    document = json.loads(dry_run(capsys, "--json").out)
    assert sorted(project.rglob("*")) == before
    assert len(document["requests"]) == 3
    assert document["errors"] == []
    for request in document["requests"]:
        assert structure_findings("CreateTrainingJob", request) == []
    assert document["last"] is None
    assert document["price"]["most"] == pytest.approx(3 * 0.23)


def test_the_text_holds_the_literal_request_and_what_the_others_differ_in(capsys):
    requests = json.loads(dry_run(capsys, "--json").out)["requests"]
    text = dry_run(capsys).out
    assert json.loads(text[: text.index("\n}\n") + 3]) == requests[0]
    for request in requests[1:]:
        assert f"\n  {request['TrainingJobName']}\n" in text
    where = "TrainingJobName, InputDataConfig[run].DataSource.S3DataSource.S3Uri, CheckpointConfig.S3Uri"
    where += ", Tags[policylab:run].Value"
    assert text.count(f"and 2 further jobs, which differ in {where} (whole with --json):") == 1
    assert "price: at most 0.23 for each job, 0.69 for 3 jobs" in text


def test_what_only_some_requests_have_of_their_own_is_told_with_them():
    tags = [{"Key": "x", "Value": 1}]
    found = differing([{"A": 1, "L": tags}, {"A": 2, "L": []}, {"A": 3, "L": tags}])
    assert found == (["A"], [{"L[x].Key": None, "L[x].Value": None}, {}])
    assert differing([{"A": 1}]) == ([], [])


def test_a_search_shows_the_first_request(capsys):
    told = dry_run(capsys, "--set", "search.limits.trials=3", command="tune", config="taxi_tune")
    assert "taxi-tune-t0-tune0-" in told.out
    assert "as many jobs as the search makes" in told.out


def test_every_violation_is_told_at_once(capsys):
    wrong = ["launcher.instance_type=ml.m5.xlage", "launcher.role_arn=me", "launcher.spot.max_wait_s=60"]
    told = dry_run(capsys, *(part for one in wrong for part in ("--set", one)), code=2)
    errors = [line for line in told.err.splitlines() if line.startswith("error: ")]
    wanted = {"StoppingCondition.MaxWaitTimeInSeconds", "RoleArn", "ResourceConfig.InstanceType"}
    assert {line.split(": ")[1] for line in errors} == wanted
    assert "did you mean 'ml.m5.xlarge'?" in told.err


def test_a_secret_is_refused_and_never_printed(capsys):
    for option in ([], ["--json"]):
        told = dry_run(capsys, "--set", "launcher.environment.WANDB_API_KEY=hunter2", *option, code=2)
        assert "hunter2" not in told.out + told.err
        assert "a request holds no secrets" in told.err


def test_what_differs_from_the_last_request_of_the_same_run(project, capsys):
    requests = json.loads(dry_run(capsys, "--json").out)["requests"]
    folder = project / "runs" / "frozenlake-20260101-000000-abcdef" / "requests"
    folder.mkdir(parents=True)
    for request in requests:
        (folder / f"{request['TrainingJobName']}.json").write_text(json.dumps(request))
    (folder / "damaged.json").write_text("{")
    assert "nothing differs from the last one sent, runs/frozenlake-" in dry_run(capsys).out
    changed = json.loads(dry_run(capsys, "--json", "--set", "launcher.instance_type=ml.c5.xlarge").out)
    assert changed["last"]["path"].endswith(f"{requests[0]['TrainingJobName']}.json")
    assert [line.strip() for line in changed["last"]["difference"]] == [
        '-  "InstanceType": "ml.m5.xlarge",', '+  "InstanceType": "ml.c5.xlarge",',
    ]  # fmt: skip


def test_the_price_that_such_jobs_had_before(project, capsys):
    folder = project / "runs" / "frozenlake-20260101-000000-abcdef"
    folder.mkdir(parents=True)
    lines = []
    for job, billed, status in (("a", 900, "Completed"), ("b", 1800, "Completed"), ("c", 9, "Failed")):
        lines.append({"event": "sent", "job": job, "stop_at_steps": 2000})
        lines.append({"event": "ended", "job": job, "status": status, "billable_s": billed})
    (folder / "jobs.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    price = json.loads(dry_run(capsys, "--json").out)["price"]
    assert price["n_billed_before"] == 2
    assert price["expected_per_job"] == pytest.approx(0.23 * 1350 / 3600)


def test_a_price_table_of_ones_own(project, capsys):
    (project / "prices.yaml").write_text("as_of: now\nregion: here\ncurrency: EUR\nper_hour: {ml.m5.xlarge: 10.0}\n")
    price = json.loads(dry_run(capsys, "--json", "--set", "launcher.price_table=prices.yaml").out)["price"]
    assert (price["currency"], price["most_per_job"]) == ("EUR", pytest.approx(10.0))


def test_prices_of_another_region_are_a_warning(capsys):
    words = "launcher.price_table: its prices are those of us-east-1, and the jobs run in eu-west-1"
    assert words in dry_run(capsys, "--set", "launcher.region=eu-west-1").err
    assert "its prices" not in dry_run(capsys, "--set", "launcher.region=us-east-1").err


def test_what_the_cap_does_not_let_through_is_told(capsys):
    def told(*settings, code):
        return dry_run(capsys, *(part for one in settings for part in ("--set", one)), code=code).err

    assert "max_cost_usd: the jobs may cost up to 0.69" in told("launcher.max_cost_usd=0.5", code=0)
    assert "error: launcher.max_cost_usd: a job may cost up to 0.23, got 0.2" in told(
        "launcher.max_cost_usd=0.2", code=2
    )
    unpriced = ("launcher.max_cost_usd=5", "launcher.instance_type=ml.trn1.2xlarge")
    assert "lacks it, so the estimate does too and max_cost_usd cannot hold" in told(*unpriced, code=2)
    assert "max_cost_usd" not in told("launcher.max_cost_usd=0.7", code=0)


def test_a_launcher_that_sends_nothing_has_no_dry_run(capsys):
    assert main(["run", "frozenlake", "--dry-run"]) == 2
    assert "launcher 'local' sends none; add --launcher sagemaker" in capsys.readouterr().err
