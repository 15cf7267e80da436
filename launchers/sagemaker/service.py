"""The training service: what policylab asks of a SageMaker client, how calls are retried, and how one is opened.

`TrainingService` has the names and the keyword arguments of the boto3 client, so that the client and the emulator are
interchangeable; both refuse by botocore's ``ClientError`` with the service's own codes.

A service that was never connected to is told at once: a wrong region or network is more likely than a fault that
passes, and boto3 has tried three times by itself. Once it has answered, a lost connection is a fault like any other.

Sources: AWS SDKs and Tools Reference Guide, "Retry behavior" (standard mode) and "Smart configuration defaults"
(the time to connect); "Exponential backoff and jitter", AWS Architecture Blog.
"""

from __future__ import annotations

import random
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from policylab.errors import RunError, UserError
from policylab.extras import require

Response = dict[str, Any]

THROTTLED = frozenset({
    "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestThrottledException",
    "TooManyRequestsException", "RequestLimitExceeded", "BandwidthLimitExceeded", "LimitExceededException", "SlowDown",
})  # fmt: skip
"""Codes of a service that is asked too often."""

TRANSIENT = frozenset({
    "RequestTimeout", "RequestTimeoutException", "InternalFailure", "InternalServerError", "InternalServerException",
    "ServiceUnavailable", "ServiceUnavailableException", "ConflictException",
})  # fmt: skip
"""Codes of a service that failed for a moment."""

DENIED = frozenset({
    "AccessDenied", "AccessDeniedException", "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId",
    "UnrecognizedClientException", "InvalidSignatureException", "SignatureDoesNotMatch",
})  # fmt: skip
"""Codes of credentials that are wrong, old, or not allowed to do this."""

BASE_S = 1.0
MAX_WAIT_S = 20.0
"""Longest wait before a repeated call."""

ATTEMPTS = 10
"""Calls of one operation before its failure is told; with the waits above about two minutes."""

CONNECT_S = 3.1
"""Time to make a connection, of which boto3 makes three attempts."""

_answered: weakref.WeakSet[Any] = weakref.WeakSet()
"""Clients that got an answer in this process, were it a refusal."""


class TrainingService(Protocol):
    """The part of ``boto3.client("sagemaker")`` that training jobs need.

    Every method raises ``botocore.exceptions.ClientError``; codes that callers distinguish are ``ResourceInUse`` (the
    name is taken), ``ResourceNotFound`` (or ``ValidationException`` with "not found"), ``ResourceLimitExceeded`` (a
    quota), ``ValidationException`` and ``ThrottlingException``.
    """

    def create_training_job(self, **request: Any) -> Response:
        """Start a job; return ``{"TrainingJobArn": ...}``."""
        ...

    def describe_training_job(self, *, TrainingJobName: str) -> Response:
        """Return the job's record."""
        ...

    def stop_training_job(self, *, TrainingJobName: str) -> Response:
        """Ask a job to stop: its containers get SIGTERM, and SIGKILL two minutes later."""
        ...

    def search(self, **query: Any) -> Response:
        """Return ``{"Results": [{"TrainingJob": record}], "NextToken"?}`` of what a SearchExpression matches."""
        ...

    def list_tags(self, *, ResourceArn: str) -> Response:
        """Return ``{"Tags": [{"Key", "Value"}]}``."""
        ...


def error_code(error: Exception) -> str | None:
    """Return the service's code for a failed call, or None for an error that is no answer of the service's.

    A job that does not exist is ``ResourceNotFound``, however the service words it.
    """
    response = getattr(error, "response", None)
    if not isinstance(response, Mapping):
        return None
    details = response.get("Error", {})
    code, message = str(details.get("Code", "")), str(details.get("Message", ""))
    missing = "not found" in message.lower() or "could not find" in message.lower()
    if code == "ResourceNotFoundException" or (code == "ValidationException" and missing):
        return "ResourceNotFound"
    return code


def http_status(error: Exception) -> int:
    """Return the HTTP status of a failed call, 0 if it got no answer."""
    response = getattr(error, "response", None) or {}
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def may_be_repeated(error: Exception) -> bool:
    """Return whether the same call may succeed later: throttling, a fault of the service, a broken connection."""
    code = error_code(error)
    if code is None:
        exceptions = require("botocore.exceptions", extra="sagemaker")
        lost = (exceptions.HTTPClientError, exceptions.ConnectionError, ConnectionError, TimeoutError)
        return isinstance(error, lost)
    return code in THROTTLED or code in TRANSIENT or http_status(error) in (429, 500, 502, 503, 504)


class Patience:
    """How a call is repeated: exponential back-off with full jitter, at most so often.

    Args:
        attempts: calls of one operation, the first included.
        base_s: the most that is waited after the first failure; doubled after each.
        max_wait_s: the most that is waited after any.
        sleep: waits; another clock in tests.
        draw: returns a number in [0, 1).
    """

    def __init__(
        self,
        *,
        attempts: int = ATTEMPTS,
        base_s: float = BASE_S,
        max_wait_s: float = MAX_WAIT_S,
        sleep: Callable[[float], object] = time.sleep,
        draw: Callable[[], float] | None = None,
    ) -> None:
        self._attempts = attempts
        self._base_s = base_s
        self._max_wait_s = max_wait_s
        self._sleep = sleep
        self._draw = draw or random.SystemRandom().random

    def wait_s(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row."""
        return self._draw() * min(self._max_wait_s, self._base_s * 2.0 ** (failures - 1))

    def call(self, operation: Callable[..., Response], /, **arguments: Any) -> Response:
        """Call ``operation``; repeat it while that may help.

        Raises:
            Exception: what the last call raised.
        """
        asked = getattr(operation, "__self__", operation)
        for failures in range(1, self._attempts + 1):
            try:
                answer = operation(**arguments)
            except Exception as error:
                if not _is_unconnected(error):
                    _answered.add(asked)
                if failures == self._attempts or not may_be_repeated(error) or asked not in _answered:
                    raise
                self._sleep(self.wait_s(failures))
            else:
                _answered.add(asked)
                return answer
        raise AssertionError("at least one attempt is made")


def _is_unconnected(error: Exception) -> bool:
    """Whether a call failed before there was a connection: no such name, nobody listens, no way there."""
    return isinstance(error, require("botocore.exceptions", extra="sagemaker").ConnectionError)


class ServiceRefusalError(UserError):
    """The service refuses a call.

    Attributes:
        code: the service's, ``ResourceNotFound`` for a job that does not exist, however it is worded.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class PatientService:
    """A training service whose calls are repeated; anything but an answer becomes one sentence.

    Every method raises `ServiceRefusalError`, `UserError` for credentials that cannot be used, and `RunError` when the
    service keeps failing or cannot be reached.

    A repeated ``create_training_job`` may find that the first call did start the job: the service then answers
    ResourceInUse, which the caller settles by looking at the job.

    Args:
        service: a boto3 client or the emulator.
        patience: how calls are repeated.
    """

    def __init__(self, service: TrainingService, *, patience: Patience | None = None) -> None:
        self._service = service
        self._patience = patience or Patience()

    def create_training_job(self, **request: Any) -> Response:
        """Start a job."""
        return self._call("create_training_job", **request)

    def describe_training_job(self, *, TrainingJobName: str) -> Response:
        """Return the job's record."""
        return self._call("describe_training_job", TrainingJobName=TrainingJobName)

    def stop_training_job(self, *, TrainingJobName: str) -> Response:
        """Ask a job to stop."""
        return self._call("stop_training_job", TrainingJobName=TrainingJobName)

    def search(self, **query: Any) -> Response:
        """Return the jobs that a query matches."""
        return self._call("search", **query)

    def list_tags(self, *, ResourceArn: str) -> Response:
        """Return a job's tags."""
        return self._call("list_tags", ResourceArn=ResourceArn)

    def _call(self, name: str, **arguments: Any) -> Response:
        return patiently(getattr(self._service, name), self._patience, **arguments)


def patiently(operation: Callable[..., Response], patience: Patience | None = None, /, **arguments: Any) -> Response:
    """Call an operation of a client, repeat it while that may help, and tell in one sentence what does not.

    Raises:
        ServiceRefusalError: the service refuses.
        UserError: credentials are missing or not enough.
        RunError: it keeps failing, or cannot be reached.
    """
    try:
        return (patience or Patience()).call(operation, **arguments)
    except Exception as error:
        name, code = operation.__name__, error_code(error)
        if code is not None:
            raise _refusal(error, code, operation=name) from None
        if may_be_repeated(error):
            remedy = "check region and network, or try again later"
            raise RunError(f"AWS cannot be reached for {name}: {error}; {remedy}") from None
        if _is_from_botocore(error):
            raise UserError(f"AWS cannot be used: {error}; docs/sagemaker.md tells of credentials and region") from None
        raise


def _refusal(error: Exception, code: str, *, operation: str) -> Exception:
    said = f"{operation} ({code}): {_message(error)}"
    if code in DENIED:
        return UserError(f"AWS refuses {said}; renew the credentials, or extend the policy by docs/sagemaker.md")
    if may_be_repeated(error):
        return RunError(f"AWS keeps failing {said}; try again later")
    return ServiceRefusalError(f"AWS refuses {said}", code=code)


def _is_from_botocore(error: Exception) -> bool:
    return isinstance(error, require("botocore.exceptions", extra="sagemaker").BotoCoreError)


def _message(error: Exception) -> str:
    response = getattr(error, "response", None) or {}
    said = str(response.get("Error", {}).get("Message") or error)
    return "a web page instead of an answer" if said.lstrip().startswith("<") else said


def client(service: str, *, region: str | None) -> Any:
    """Return a boto3 client that repeats calls itself as AWS advises and paces itself when throttled.

    Raises:
        UserError: no region is configured, or the profile is unknown.
    """
    boto3, sessions = require("boto3", extra="sagemaker"), require("botocore.session", extra="sagemaker")
    config = require("botocore.config", extra="sagemaker").Config(
        connect_timeout=CONNECT_S, retries={"mode": "adaptive", "total_max_attempts": 3}, user_agent_extra="policylab"
    )
    failures = require("botocore.exceptions", extra="sagemaker")
    session = sessions.get_session()
    session.set_default_client_config(config)  # of the clients too that fetch credentials for a profile
    try:
        return boto3.Session(botocore_session=session).client(service, region_name=region)
    except failures.NoRegionError:
        raise UserError(
            "no AWS region: set launcher.region (or --region), AWS_REGION, or region in the AWS profile"
        ) from None
    except failures.BotoCoreError as error:
        raise UserError(f"AWS cannot be used: {error}") from None
