"""The launcher over a training service that keeps the service's rules: what is sent, found and brought back."""

import json

import pytest

from policylab.cli.main import main
from policylab.errors import ConfigError, RunDirectoryError, RunError, StorageError, UserError
from policylab.experiments.rundir import create_run
from policylab.experiments.runner import drive
from policylab.experiments.schema import load_experiment
from policylab.experiments.study import search
from policylab.launchers import State, open_launcher
from policylab.launchers.sagemaker.connection import Connection
from policylab.launchers.sagemaker.dry_run import dry_run
from policylab.launchers.sagemaker.launcher import SageMakerLauncher
from policylab.launchers.sagemaker.sender import without_sender
from policylab.launchers.sagemaker.service import Patience, PatientService

SAGEMAKER = [
    "launcher.kind=sagemaker",
    "launcher.role_arn=arn:aws:iam::123456789012:role/policylab",
    "launcher.image=123456789012.dkr.ecr.eu-west-1.amazonaws.com/policylab:1",
    "launcher.s3_prefix=s3://bucket/policylab",
]
SMALL = ["budget.steps=2000", "seeds.tune=2", "seeds.confirm=1", "evaluation.marks=4", "tracking.kind=none"]


@pytest.fixture
def experiment(tmp_path):
    def make(*overrides, name="frozenlake", parent="runs"):
        config = load_experiment(name, overrides=[*SAGEMAKER, *SMALL, *overrides])
        return create_run(config, parent=tmp_path / parent)

    return make


@pytest.fixture
def connect(clock, store, monkeypatch):
    """Let launchers made by the runner use a service, and the clock."""

    def use(service, *, patience=None):
        patient = PatientService(service, patience=patience or Patience(sleep=clock.sleep))

        def make(settings, *, n_workers, folder):
            there = Connection(
                patient, store, outlives=True, first_look_s=5.0, longest_pause_s=30.0, logs="the log of {job}"
            )
            return SageMakerLauncher(settings, there, n_workers=n_workers, folder=folder, clock=clock)

        monkeypatch.setattr(SageMakerLauncher, "make", staticmethod(make))
        return patient

    return use


def carry(run, *, observe=lambda launcher: None):
    """Have every run of an experiment that has no result executed; return how each ended."""
    folders = [run.folder(spec) for spec in run.config.specs()]
    with open_launcher(run.config.launcher, n_workers=run.config.n_workers, folder=run.path) as launcher:
        handles = [launcher.submit(folder) for folder in folders if not (folder / "result.json").exists()]
        while not all(launcher.poll(handle).state.ended for handle in handles):
            launcher.wait(timeout_s=1000.0)
            observe(launcher)
        return [launcher.poll(handle) for handle in handles]


def folder_bytes(folder):
    kept = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in kept if path.name != "cost.jsonl"}


def ledger(run, event):
    lines = map(json.loads, (run.path / "jobs.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == event]


def reported(run):
    text = (run.path / "trials/0000/tune-000/reports.jsonl").read_text()
    return [json.loads(line)["step"] for line in text.splitlines()]


def states(progress):
    return [one.state for one in progress]


def test_runs_over_jobs_leave_the_bytes_of_runs_on_this_machine(experiment, connect, make_service):
    service = make_service()
    connect(service)
    run = experiment()
    assert states(carry(run)) == [State.FINISHED] * 3
    local = load_experiment("frozenlake", overrides=[*SMALL, "launcher.kind=inline"])
    there = create_run(local, parent=run.path.parent)
    assert states(carry(there)) == [State.FINISHED] * 3
    assert folder_bytes(run.path / "trials") == folder_bytes(there.path / "trials")
    assert len(service.jobs) == 3
    assert [line["status"] for line in ledger(run, "ended")] == ["Completed"] * 3


def test_code_is_uploaded_once_and_every_request_is_kept_as_it_was_sent(experiment, connect, make_service, store):
    service = make_service()
    connect(service)
    run = experiment()
    carry(run)
    code = [one.uri for one in store.list("s3://bucket/policylab/code/")]
    assert sum(uri.endswith("/bootstrap.py") for uri in code) == 1
    assert len({uri.rpartition("/")[0] for uri in code}) == 1
    assert len(store.list("s3://bucket/policylab/runs/")) == 3
    for name, job in service.jobs.items():
        assert json.loads((run.path / "requests" / f"{name}.json").read_text()) == job["request"]


def test_a_dry_run_shows_the_requests_that_are_sent(experiment, connect, make_service):
    service = make_service()
    connect(service)
    run = experiment()
    shown = dry_run(run.config.launcher, run.config.specs(), out=run.path.parent)
    assert service.calls == []
    carry(run)
    assert shown["requests"] == [without_sender(job["request"]) for job in service.jobs.values()]
    told = next(iter(service.jobs.values()))["request"]["Environment"]
    assert told == {"POLICYLAB_RESUME_COMMAND": f"policylab resume {run.path}"}
    assert [name for name in shown["added_when_sent"] if name in told] == ["POLICYLAB_RESUME_COMMAND"]
    again = dry_run(run.config.launcher, run.config.specs(), out=run.path.parent)
    assert again["last"]["difference"] == []
    assert again["price"]["expected_per_job"] == pytest.approx(0.23 * 290 / 3600)


def test_the_same_experiment_again_finds_its_jobs_from_any_machine(experiment, connect, make_service):
    service = make_service()
    connect(service)
    first, again = experiment(), experiment(parent="elsewhere")
    carry(first)
    assert states(carry(again)) == [State.FINISHED] * 3
    assert service.calls.count("create") == 3
    assert all(line["found"] for line in ledger(again, "sent"))
    assert folder_bytes(again.path / "trials") == folder_bytes(first.path / "trials")


def test_ctrl_c_leaves_the_jobs_alone_and_another_session_follows_them(experiment, connect, make_service):
    service = make_service()
    connect(service)
    run = experiment()

    def interrupt(launcher):
        raise KeyboardInterrupt("by the user")

    with pytest.raises(KeyboardInterrupt, match="by the user"):
        carry(run, observe=interrupt)
    assert "stop" not in service.calls
    assert states(carry(run)) == [State.FINISHED] * 3
    assert service.calls.count("create") == len(service.jobs) == 3


def test_the_command_says_how_to_follow_the_jobs_again_and_how_to_end_them(
    connect, make_service, tmp_path, monkeypatch, capsys
):
    service = make_service()
    connect(service)

    def interrupted(self, *, timeout_s):
        self._turn()
        raise KeyboardInterrupt

    monkeypatch.setattr(SageMakerLauncher, "wait", interrupted)
    options = [part for one in [*SAGEMAKER, *SMALL] for part in ("--set", one)]
    assert main(["run", "frozenlake", "--out", str(tmp_path / "runs"), *options]) == 130
    (run_dir,) = (tmp_path / "runs").iterdir()
    (study,) = {
        tag["Value"] for job in service.jobs.values() for tag in job["request"]["Tags"] if "study" in tag["Key"]
    }
    told = capsys.readouterr().err
    assert f"the jobs go on (policylab jobs stop {study} --launcher sagemaker ends them)" in told
    assert f"continue with: policylab resume {run_dir}" in told
    assert len(service.jobs) == 3
    assert "stop" not in service.calls


@pytest.mark.parametrize("drawn", [0.0, 0.5, 0.999])
def test_any_other_error_stops_the_jobs_however_their_looks_are_spread(
    drawn, experiment, connect, make_service, monkeypatch
):
    monkeypatch.setattr("random.SystemRandom.random", lambda self: drawn)
    service = make_service()
    connect(service)

    def fail(launcher):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        carry(experiment(), observe=fail)
    assert [job["status"] for job in service.jobs.values()] == ["Stopped"] * 3


def test_a_job_that_somebody_stopped_is_no_success_and_the_run_goes_on_from_its_checkpoint(
    experiment, connect, make_service
):
    service = make_service()
    connect(service)
    run = experiment("seeds.tune=1", "seeds.confirm=0")

    def stop_it(launcher):
        job = next(iter(service.jobs))
        if service.describe_training_job(TrainingJobName=job)["TrainingJobStatus"] == "InProgress":
            service.stop_training_job(TrainingJobName=job)

    (ended,) = carry(run, observe=stop_it)
    assert ended.state is State.FAILED
    assert "was stopped; see the log of frozenlake-t0-tune0-" in ended.error
    assert reported(run) == [500]
    assert states(carry(run)) == [State.FINISHED]
    assert len(service.jobs) == 2
    assert reported(run) == [500, 1000, 1500, 2000]


def test_a_run_is_stopped_and_goes_on_from_its_checkpoint_under_the_next_name(experiment, connect, make_service):
    service = make_service()
    connect(service)
    run = experiment("seeds.tune=1", "seeds.confirm=0")
    folder = run.folder(run.config.specs()[0])
    with open_launcher(run.config.launcher, n_workers=1, folder=run.path) as launcher:
        handle = launcher.submit(folder)
        launcher.wait(timeout_s=1000.0)
        launcher.stop(handle)
        while not launcher.poll(handle).state.ended:
            launcher.wait(timeout_s=1000.0)
        assert launcher.poll(handle).state is State.STOPPED
        assert launcher.poll(handle).steps == 500
        launcher.submit(folder)
        while not launcher.poll(handle).state.ended:
            launcher.wait(timeout_s=1000.0)
    assert launcher.poll(handle).state is State.FINISHED
    assert len(service.jobs) == 2


def test_a_session_that_finds_its_job_stopping_waits_for_it_and_goes_on(experiment, connect, make_service):
    service = make_service()
    connect(service)
    run = experiment("seeds.tune=1", "seeds.confirm=0")

    def leave(launcher):
        service.stop_training_job(TrainingJobName=next(iter(service.jobs)))
        raise KeyboardInterrupt("by the user")

    with pytest.raises(KeyboardInterrupt, match="by the user"):
        carry(run, observe=leave)
    assert states(carry(run)) == [State.FINISHED]
    assert [job["status"] for job in service.jobs.values()] == ["Stopped", "Completed"]


def test_a_job_that_was_sent_with_other_code_is_followed_while_it_runs(experiment, connect, make_service, tmp_path):
    service = make_service()
    connect(service)
    alone = ("seeds.tune=1", "seeds.confirm=0")

    def interrupt(launcher):
        raise KeyboardInterrupt("by the user")

    with pytest.raises(KeyboardInterrupt, match="by the user"):
        carry(experiment(*alone), observe=interrupt)
    (tmp_path / "mine.py").write_text("CODE = 'changed'")
    other = experiment(*alone, f"launcher.include=[{tmp_path / 'mine.py'}]", parent="elsewhere")
    assert states(carry(other)) == [State.FINISHED]
    assert len(service.jobs) == 1  # two jobs would have written the same checkpoints
    again = experiment(*alone, f"launcher.include=[{tmp_path / 'mine.py'}]", parent="later")
    assert states(carry(again)) == [State.FINISHED]
    assert len(service.jobs) == 2  # nothing runs any more, so the changed code is sent, and finds the work done


def test_trouble_of_the_store_that_passes_is_waited_for(experiment, connect, make_service, store, monkeypatch, caplog):
    service = make_service()
    connect(service)
    plain, failures = store.list, iter(range(4))

    def failing(prefix):
        if "/checkpoints/" in prefix and service.jobs and next(failures, None) is not None:
            raise StorageError("S3 refuses (SlowDown)")
        return plain(prefix)

    monkeypatch.setattr(store, "list", failing)
    assert states(carry(experiment("seeds.tune=1", "seeds.confirm=0"))) == [State.FINISHED]
    assert caplog.text.count("SlowDown); tried again") == 4


def test_trouble_while_a_job_is_sent_is_waited_for_as_well(experiment, connect, make_service, store, monkeypatch):
    service = make_service()
    connect(service)
    plain, failures = store.put_bytes, iter(range(2))

    def failing(content, uri):
        if next(failures, None) is not None:
            raise StorageError("S3 refuses (SlowDown)")
        plain(content, uri)

    monkeypatch.setattr(store, "put_bytes", failing)
    assert states(carry(experiment("seeds.tune=1", "seeds.confirm=0"))) == [State.FINISHED]
    assert len(service.jobs) == 1


def test_a_network_that_is_away_for_minutes_ends_nothing(experiment, connect, make_service, clock, monkeypatch):
    service = make_service(duration_s=2000.0)
    connect(service)
    plain, away = service.describe_training_job, (clock.now + 500, clock.now + 1000)

    def describe_training_job(*, TrainingJobName):
        if away[0] < clock.now < away[1]:
            raise ConnectionResetError("no route to host")
        return plain(TrainingJobName=TrainingJobName)

    monkeypatch.setattr(service, "describe_training_job", describe_training_job)
    assert states(carry(experiment("seeds.tune=1", "seeds.confirm=0"))) == [State.FINISHED]
    assert "stop" not in service.calls


def test_a_stop_that_does_not_get_through_is_asked_for_again(experiment, connect, make_service, monkeypatch):
    service = make_service(duration_s=100_000.0)
    connect(service)
    run = experiment("seeds.tune=1", "seeds.confirm=0")
    plain, failures = service.stop_training_job, iter(range(15))

    def stop_training_job(*, TrainingJobName):
        if next(failures, None) is not None:
            raise ConnectionResetError("no route to host")
        return plain(TrainingJobName=TrainingJobName)

    monkeypatch.setattr(service, "stop_training_job", stop_training_job)
    with open_launcher(run.config.launcher, n_workers=1, folder=run.path) as launcher:
        handle = launcher.submit(run.folder(run.config.specs()[0]))
        launcher.wait(timeout_s=100.0)
        launcher.stop(handle)
        while not launcher.poll(handle).state.ended:
            launcher.wait(timeout_s=1000.0)
        assert launcher.poll(handle).state is State.STOPPED


def test_a_service_that_never_answers_is_told_at_once(experiment, connect, make_service, clock, monkeypatch):
    service = make_service()
    connect(service)

    def describe_training_job(*, TrainingJobName):
        raise ConnectionResetError("no such host")

    monkeypatch.setattr(service, "describe_training_job", describe_training_job)
    began = clock.now
    with pytest.raises(RunError, match="AWS cannot be reached for describe_training_job: no such host"):
        carry(experiment("seeds.tune=1", "seeds.confirm=0"))
    assert clock.now - began < 300


def test_a_ledger_that_was_edited_is_told(experiment, connect, make_service):
    connect(make_service())
    run = experiment()
    (run.path / "jobs.jsonl").write_text('{"event": "sent"}\n')
    with pytest.raises(RunDirectoryError, match=r"jobs.jsonl: not the ledger"):
        carry(run)


def test_trouble_that_stays_ends_the_command_and_asks_the_jobs_to_stop(
    experiment, connect, make_service, store, monkeypatch
):
    service = make_service(duration_s=100_000.0)
    connect(service)
    plain = store.list

    def failing(prefix):
        if "/checkpoints/" in prefix and service.jobs:
            raise StorageError("S3 refuses (AccessDenied)")
        return plain(prefix)

    monkeypatch.setattr(store, "list", failing)
    with pytest.raises(StorageError, match="AccessDenied"):
        carry(experiment("seeds.tune=1", "seeds.confirm=0"))
    assert "stop" in service.calls


def test_a_failed_job_is_told_with_its_reason_and_tried_again_only_when_asked(experiment, connect, make_service):
    service = make_service(work=lambda *arguments, **options: "AlgorithmError: ValueError: boom, exit code: 1")
    connect(service)
    run = experiment("seeds.tune=1", "seeds.confirm=0")
    for n_jobs in (1, 2):
        (ended,) = carry(run)
        assert ended.state is State.FAILED
        assert "AlgorithmError: ValueError: boom" in ended.error
        assert len(service.jobs) == n_jobs


def test_a_failure_while_nobody_followed_is_told_before_anything_is_tried_again(
    experiment, connect, make_service, clock
):
    service = make_service(work=lambda *arguments, **options: "AlgorithmError: boom, exit code: 1")
    connect(service)
    run = experiment("seeds.tune=1", "seeds.confirm=0")

    def interrupt(launcher):
        raise KeyboardInterrupt("by the user")

    with pytest.raises(KeyboardInterrupt, match="by the user"):
        carry(run, observe=interrupt)
    clock.sleep(10_000)
    (ended,) = carry(run)
    assert "AlgorithmError: boom" in ended.error
    assert len(service.jobs) == 1


def test_completed_without_a_result_is_no_success(experiment, connect, make_service):
    connect(make_service(work=lambda *arguments, **options: None))
    (ended,) = carry(experiment("seeds.tune=1", "seeds.confirm=0"))
    assert ended.state is State.FAILED
    assert "completed, but left no result in s3://bucket/policylab/checkpoints/" in ended.error


def test_nothing_is_sent_when_a_request_breaks_a_rule_and_every_one_is_told(experiment, connect, make_service, store):
    service = make_service()
    connect(service)
    run = experiment("launcher.instance_type=ml.bogus", "launcher.spot.max_wait_s=60", "launcher.role_arn=me")
    with pytest.raises(ConfigError, match="InstanceType") as refused:
        carry(run)
    broken = {line.split(": ")[1] for line in str(refused.value).splitlines()}
    assert broken == {"ResourceConfig.InstanceType", "StoppingCondition.MaxWaitTimeInSeconds", "RoleArn"}
    assert service.calls == []
    assert store.list("s3://bucket/") == []


def test_a_run_that_reads_a_file_of_this_machine_is_not_sent(experiment, connect, make_service):
    connect(make_service())
    run = experiment("seeds.tune=1", "seeds.confirm=0")
    folder = run.folder(run.config.specs()[0])
    spec = json.loads((folder / "spec.json").read_text())
    spec["agent"]["dataset"] = "data/played.parquet"
    (folder / "spec.json").write_text(json.dumps(spec))
    with (
        open_launcher(run.config.launcher, n_workers=1, folder=run.path) as launcher,
        pytest.raises(UserError, match=r"a training job does not see this machine's files; give it through a channel"),
    ):
        launcher.submit(folder)


def test_a_quota_is_waited_for(experiment, connect, make_service):
    service = make_service(quota=1)
    connect(service)
    assert states(carry(experiment())) == [State.FINISHED] * 3
    assert len(service.jobs) == 3


def test_a_quota_that_no_job_fits_is_told_at_once(experiment, connect, make_service):
    connect(make_service(quota=0))
    with pytest.raises(UserError, match="quota of 0 instances is too small for a job of 1"):
        carry(experiment())


def test_no_job_is_sent_that_might_pass_the_cap(experiment, connect, make_service):
    service = make_service(duration_s=1810.0)  # 1800 s of ml.m5.xlarge cost 0.115
    connect(service)
    limits = ("launcher.max_runtime_s=3600", "launcher.parallel=3")
    with pytest.raises(RunError, match=r"max_cost_usd 0.5 is reached: 0.3[45] are spent .* up to 0.23"):
        carry(experiment(*limits, "launcher.max_cost_usd=0.5", "seeds.tune=3", "seeds.confirm=1"))
    assert sorted(job["began"] for job in service.jobs.values())[2] > 1810.0  # two at a time, though three may
    assert len(service.jobs) == 3


def test_the_cap_counts_what_earlier_sessions_spent(experiment, connect, make_service):
    service = make_service(duration_s=1810.0)
    connect(service)
    run = experiment("launcher.max_runtime_s=3600", "launcher.max_cost_usd=0.3", "launcher.parallel=1")
    for _ in range(2):
        with pytest.raises(RunError, match=r"max_cost_usd 0.3 is reached: 0.12 are spent"):
            carry(run)
    assert len(service.jobs) == 1


def test_an_experiment_ends_with_the_document_of_one_on_this_machine(experiment, connect, make_service):
    connect(make_service())
    document = drive(experiment("seeds.tune=1", "seeds.confirm=0"))
    assert document["status"] == "finished"
    assert document["cost"]["env_steps"] == 2000


SEARCH = ["seeds.tune=2", "seeds.confirm=1", "budget.steps=3000", "evaluation.marks=6"]


@pytest.mark.parametrize(
    ("scheduler", "name"),
    [
        ("fixed", "frozenlake8x8_warmstart"),
        ("median", "taxi_tune"),
        ("hyperband", "taxi_tune"),
        ("race", "taxi_tune"),
        ("population", "taxi_tune"),
    ],
)
def test_every_strategy_decides_over_jobs_as_on_this_machine(
    experiment, connect, make_service, scheduler, name, tmp_path
):
    searching = [*SEARCH, f"search.scheduler.kind={scheduler}", "search.limits.trials=4", "search.parallel=1"]
    service = make_service()
    connect(service)
    run = experiment(*searching, name=name)
    local = load_experiment(name, overrides=[*SMALL, *searching, "launcher.kind=inline", "launcher.workers=1"])
    there = create_run(local, parent=tmp_path / "local")
    assert search(run) == search(there)
    assert folder_bytes(run.path / "trials") == folder_bytes(there.path / "trials")
    if scheduler in ("hyperband", "race"):
        promoted = {line["run"] for line in ledger(run, "sent")}
        assert len(promoted) < len(service.jobs)  # some runs took more than one job
