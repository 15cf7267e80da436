"""Jobs looked after from another machine: found by tags, followed, stopped, accounted for."""

import pytest

from policylab.errors import UserError
from policylab.experiments.schema import load_experiment
from policylab.launchers.sagemaker.outgoing import Outgoing, source_bundle
from policylab.launchers.sagemaker.service import Patience, PatientService
from policylab.launchers.sagemaker.training_jobs import TrainingJobs

OVERRIDES = [
    "launcher.kind=sagemaker", "launcher.emulate=true", "launcher.max_runtime_s=3600",
    "seeds.tune=2", "seeds.confirm=0", "budget.steps=2000", "evaluation.marks=4",
]  # fmt: skip


@pytest.fixture
def service(make_service, store):
    """Two jobs of one study that take half an hour each, on machines for 0.23 an hour."""
    made = make_service(duration_s=1810.0)
    config = load_experiment("frozenlake", overrides=OVERRIDES)
    bundle = source_bundle(config.launcher, config.specs()[0])
    for spec in config.specs():
        outgoing = Outgoing.of(config.launcher, spec, bundle=bundle)
        outgoing.upload(store)
        made.create_training_job(**outgoing.request)
    return made


@pytest.fixture
def jobs(service, store, clock, monkeypatch):
    monkeypatch.setattr("policylab.launchers.sagemaker.training_jobs.time.sleep", clock.sleep)
    return TrainingJobs(PatientService(service, patience=Patience(sleep=clock.sleep)), store, logs=None)


@pytest.fixture
def study(service):
    tags = next(iter(service.jobs.values()))["request"]["Tags"]
    return next(tag["Value"] for tag in tags if tag["Key"] == "policylab:study")


def test_a_study_is_followed_from_its_start_to_its_end(jobs, study, service, clock):
    told = list(jobs.follow(study))
    for name in service.jobs:
        of_job = [
            (change.record.status, change.record.phase, change.steps) for change in told if change.record.name == name
        ]
        assert of_job == [
            ("InProgress", "Starting", 0),
            ("InProgress", "Training", 0),
            ("Completed", "Completed", 2000),
        ]
    assert all(change.record.tags["policylab:study"] == study for change in told)
    assert service.calls.count("describe") < 200  # half an hour of two jobs, with longer and longer pauses


def test_stopping_a_study_stops_what_runs(jobs, study, service, clock):
    first = next(iter(service.jobs))
    assert jobs.stop(first) == [first]
    assert set(jobs.stop(study)) == set(service.jobs)
    clock.sleep(100)
    assert jobs.stop(study) == []
    assert {record.status for record in jobs.search()} == {"Stopped"}


def test_the_cost_of_a_study_so_far_and_at_most(jobs, study, service, clock):
    clock.sleep(100)
    jobs.stop(next(iter(service.jobs)))
    clock.sleep(20)
    early = jobs.cost(study)
    assert early["at_most"] == pytest.approx(0.23 + 0.23 * 110 / 3600)  # one may still take its hour
    clock.sleep(10_000)
    late = jobs.cost(study)
    assert late["so_far"] == late["at_most"] == pytest.approx(0.23 * (110 + 1800) / 3600)
    assert late["steps"] == 500 + 2000
    assert late["per_million_steps"] == pytest.approx(late["so_far"] / 2500 * 1e6)
    assert [(row["trial"], row["jobs"]) for row in late["trials"]] == [(0, 2)]


def test_a_caller_who_may_not_look_is_not_told_that_there_is_nothing(jobs, service, refuse_call):
    refuse_call(service, "search", "AccessDeniedException")
    with pytest.raises(UserError, match=r"AWS refuses search \(AccessDeniedException\)"):
        jobs.find("anything")
