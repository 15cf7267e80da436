"""The wire: header names, limits and errors of SageMaker's runtime protocol, and of the container contract.

Sources: botocore's service model ``sagemaker-runtime`` (2017-05-13), and the Developer Guide's "Use your own inference
code". Behind ``/endpoints/NAME/invocations`` a fault of the body is the container's and comes as a ModelError, as
SageMaker wraps it; behind ``/invocations`` it comes as the container would answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from policylab.deployment.decision import NEW_SESSION, Refusal, RefusalKind

Headers = Mapping[bytes, bytes]
Response = tuple[int, list[tuple[bytes, bytes]], bytes]
Streamed = tuple[int, list[tuple[bytes, bytes]], Iterator[bytes]]
"""A response whose body comes piece by piece."""

TARGET_VARIANT = b"x-amzn-sagemaker-target-variant"
INFERENCE_ID = b"x-amzn-sagemaker-inference-id"
SESSION_ID = b"x-amzn-sagemaker-session-id"
CUSTOM_ATTRIBUTES = b"x-amzn-sagemaker-custom-attributes"
INVOKED_VARIANT = b"x-amzn-invoked-production-variant"
NEW_SESSION_ID = b"x-amzn-sagemaker-new-session-id"
CLOSED_SESSION_ID = b"x-amzn-sagemaker-closed-session-id"
INVOCATION_ID = b"amz-sdk-invocation-id"
"""The same for all attempts of one call of an AWS client."""
REQUEST_ID = b"x-amzn-requestid"
ERROR_TYPE = b"x-amzn-errortype"
TARGET_MODEL = b"x-amzn-sagemaker-target-model"
NOT_OFFERED = {
    TARGET_MODEL: "TargetModel",
    b"x-amzn-sagemaker-target-container-hostname": "TargetContainerHostname",
    b"x-amzn-sagemaker-enable-explanations": "EnableExplanations",
    b"x-amzn-sagemaker-inference-component": "InferenceComponentName",
    b"x-amzn-sagemaker-prefix-aware-id": "PrefixAwareId",
}

NAMES = frozenset([TARGET_VARIANT, INFERENCE_ID, SESSION_ID, CUSTOM_ATTRIBUTES, INVOCATION_ID, *NOT_OFFERED])
"""Headers with which a request says more than its body does; most have none of them."""

_INFERENCE_ID = re.compile(r"[\x20-\x7e]{1,64}")
_SESSION_ID = re.compile(r"[a-zA-Z0-9](?:-*[a-zA-Z0-9])*")

_ERRORS: dict[RefusalKind, tuple[int, str]] = {
    "invalid": (400, "ValidationError"),
    "observation": (400, "ModelError"),
    "too_large": (413, "ValidationError"),
    "unsupported": (415, "ModelError"),
    "late": (408, "ValidationError"),
    "unauthorised": (401, "AccessDeniedException"),
    "missing": (404, "ValidationError"),
    "method": (405, "ValidationError"),
    "throttled": (429, "ThrottlingException"),
    "busy": (503, "ServiceUnavailable"),
    "conflict": (409, "ValidationError"),
    "not_ready": (429, "ModelNotReadyException"),
    "full": (507, "ModelError"),
    "failed": (500, "ModelError"),
}


def checked_inference_id(headers: Headers) -> str | None:
    """Return the inference id of a request, if it has one."""
    value = headers.get(INFERENCE_ID)
    if value is None:
        return None
    text = value.decode("latin-1")
    if not _INFERENCE_ID.fullmatch(text):
        raise Refusal("an inference id has 1 to 64 printable ASCII characters", kind="invalid")
    return text


def checked_session_id(headers: Headers) -> str | None:
    """Return the session id of a request, or `NEW_SESSION`, if it has one."""
    value = headers.get(SESSION_ID)
    if value is None:
        return None
    text = value.decode("latin-1")
    if text != NEW_SESSION and (len(text) > 256 or not _SESSION_ID.fullmatch(text)):
        raise Refusal(
            f"a session id is {NEW_SESSION}, or letters, digits and inner hyphens, at most 256", kind="invalid"
        )
    return text


def check_offered(headers: Headers) -> None:
    """Refuse what a request asks for and would not get."""
    if not NOT_OFFERED.keys().isdisjoint(headers):
        asked = next(text for name, text in NOT_OFFERED.items() if name in headers)
        raise Refusal(f"{asked} is not offered by this endpoint; leave it out", kind="invalid")
    attributes = headers.get(CUSTOM_ATTRIBUTES)
    if attributes is not None and (len(attributes) > 1024 or not attributes.isascii()):
        raise Refusal("custom attributes are at most 1024 ASCII characters", kind="invalid")


def refused(refusal: Refusal, *, wrapped: bool) -> Response:
    """Return the response of a refusal; ``wrapped`` as SageMaker wraps what containers answer."""
    status, shape = _ERRORS[refusal.kind]
    message = str(refusal)
    document: dict[str, object] = {"Message": message}
    if shape == "ModelError":
        document |= {"OriginalStatusCode": status, "OriginalMessage": message, "LogStreamArn": ""}
        status = 424 if wrapped else status
    headers = [(ERROR_TYPE, shape.encode())]
    if refusal.retry_after_s is not None or status in (429, 503):
        headers.append((b"retry-after", str(max(1, round(refusal.retry_after_s or 1))).encode()))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return json_response(document, status=status, headers=headers)


def json_response(document: object, *, status: int = 200, headers: list[tuple[bytes, bytes]] | None = None) -> Response:
    """Return a JSON document as a response."""
    body = json.dumps(document).encode()
    return status, [(b"content-type", b"application/json"), *(headers or [])], body


def text_response(text: str) -> Response:
    """Return metrics in Prometheus' text format as a response."""
    return 200, [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")], text.encode()


def session_header(new_session: tuple[str, float]) -> tuple[bytes, bytes]:
    """Return the header that tells a client its new session.

    >>> session_header(("abc", 1644859549.7))[1]
    b'abc; Expires=2022-02-14T17:25:49Z'
    """
    session_id, expires = new_session
    moment = datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return NEW_SESSION_ID, f"{session_id}; Expires={moment}".encode()
