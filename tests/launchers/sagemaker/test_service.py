"""Calls that fail: which are repeated, how long is waited between, and what a person is told."""

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError, NoCredentialsError

from policylab.errors import RunError, UserError
from policylab.launchers.sagemaker.service import Patience, PatientService, ServiceRefusalError, client, error_code


def failure(code, status=400, message="words"):
    details = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(details, "DescribeTrainingJob")


class Failing:
    """A service that fails so often before it answers."""

    def __init__(self, error, times):
        self.error = error
        self.times = times
        self.calls = 0

    def describe_training_job(self, **arguments):
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return {"TrainingJobStatus": "Completed", **arguments}


def describe(service, draw=lambda: 1.0):
    waited = []
    patient = PatientService(service, patience=Patience(sleep=waited.append, draw=draw))
    return patient.describe_training_job(TrainingJobName="job"), waited


@pytest.mark.parametrize(
    "error",
    [
        failure("ThrottlingException"),
        failure("InternalFailure", 500),
        failure("503", 503),
        failure("TooManyRequestsException", 429),
        ConnectionClosedError(endpoint_url="https://example.invalid"),
        ConnectionResetError("peer"),
    ],
)
def test_what_may_pass_is_tried_again(error):
    answer, waited = describe(Failing(error, times=3))
    assert answer["TrainingJobName"] == "job"
    assert len(waited) == 3


UNREACHABLE = EndpointConnectionError(endpoint_url="https://example.invalid")


def test_a_service_that_was_never_reached_is_told_at_once():
    service = Failing(UNREACHABLE, times=1)
    with pytest.raises(RunError, match=r"cannot be reached for describe_training_job: .*check region and network"):
        describe(service)
    assert service.calls == 1, "boto3 has tried it three times already"


@pytest.mark.parametrize("first", [None, failure("ThrottlingException")], ids=["an answer", "a refusal"])
def test_a_service_that_was_reached_once_is_waited_for(first):
    service = Failing(first, times=1 if first else 0)
    describe(service)
    service.error, service.calls, service.times = UNREACHABLE, 0, 9
    answer, waited = describe(service)
    assert answer["TrainingJobName"] == "job"
    assert len(waited) == 9


def test_a_closed_port_is_one_sentence(monkeypatch):
    for name, value in {"ENDPOINT_URL": "http://127.0.0.1:1", "ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    patient = PatientService(client("sagemaker", region="eu-west-1"), patience=Patience(sleep=pytest.fail))
    with pytest.raises(RunError, match=r"Could not connect to the endpoint URL: .*127\.0\.0\.1:1"):
        patient.describe_training_job(TrainingJobName="job")


def test_waits_double_up_to_a_bound_and_are_spread():
    _, longest = describe(Failing(failure("ThrottlingException"), times=9))
    assert longest == [1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0, 20.0, 20.0]
    _, halved = describe(Failing(failure("ThrottlingException"), times=9), draw=lambda: 0.5)
    assert halved == [wait / 2 for wait in longest]


@pytest.mark.parametrize("code", ["ResourceInUse", "ResourceLimitExceeded", "ValidationException"])
def test_a_refusal_is_passed_on_at_once(code):
    service = Failing(failure(code), times=1)
    with pytest.raises(ServiceRefusalError, match=rf"AWS refuses describe_training_job \({code}\): words") as refused:
        describe(service)
    assert refused.value.code == code
    assert service.calls == 1


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (failure("ExpiredTokenException"), UserError, "renew the credentials"),
        (failure("AccessDeniedException"), UserError, "extend the policy"),
        (NoCredentialsError(), UserError, "Unable to locate credentials"),
        (failure("ThrottlingException"), RunError, "keeps failing describe_training_job"),
        (
            failure("502", 502, "<!doctype html>\n<h1>Bad Gateway"),
            RunError,
            r"\(502\): a web page instead of an answer;",
        ),
        (ConnectionClosedError(endpoint_url="https://example.invalid"), RunError, "AWS cannot be reached"),
        (ConnectionResetError("peer"), RunError, "AWS cannot be reached"),
    ],
)
def test_a_person_is_told_in_one_sentence(error, kind, words):
    with pytest.raises(kind, match=words):
        describe(Failing(error, times=1000))


def test_a_missing_job_has_one_code_however_the_service_words_it():
    assert error_code(failure("ValidationException", message="Requested resource not found.")) == "ResourceNotFound"
    assert error_code(failure("ResourceNotFound")) == "ResourceNotFound"
    assert error_code(failure("ValidationException", message="bad name")) == "ValidationException"
    assert error_code(ValueError("x")) is None
