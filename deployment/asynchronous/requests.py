"""InvokeEndpointAsync: from a request to an `Invocation`, and the response that tells where its answer will be.

Source: botocore's service model ``sagemaker-runtime`` (2017-05-13), InvokeEndpointAsyncInput and -Output.
"""

from __future__ import annotations

import re
import secrets
import uuid

from policylab.deployment.asynchronous.queue import Invocation
from policylab.deployment.decision import Refusal
from policylab.deployment.http import wire

MAX_INLINE = 128_000
_PREFIX = b"x-amzn-sagemaker-"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PART = re.compile(r"(?!\.)[\w!.*'() =+@&$,;:-]{1,255}", re.ASCII)
_FILENAME = re.compile(r"(?!.*\..*\.)[a-zA-Z0-9][a-zA-Z0-9_.-]{0,31}")
_KEPT = (b"content-encoding", b"x-amzn-sagemaker-custom-attributes")
_NOT_OFFERED = {*wire.NOT_OFFERED, wire.TARGET_VARIANT, wire.SESSION_ID}


def invocation_of(headers: wire.Headers, body: bytes, *, output: str, failures: str, now: float) -> Invocation:
    """Return the invocation that a request asks for.

    Args:
        headers: of the request.
        body: inline input, or empty.
        output: prefix of answers.
        failures: prefix of failures.
        now: seconds since 1970.

    Raises:
        Refusal: the request breaks a rule.
    """
    for name in _NOT_OFFERED & headers.keys():
        raise Refusal(f"{name.decode()} is not offered for asynchronous invocations; leave it out", kind="invalid")
    wire.check_offered(headers)
    place = _text(headers, b"inputlocation")
    if (place is None) == (not body):
        raise Refusal("give either InputLocation or a Body", kind="invalid")
    if len(body) > MAX_INLINE:
        raise Refusal(f"a body has at most {MAX_INLINE} bytes; give an InputLocation", kind="too_large")
    if place is not None:
        _check_location(place)
    named = wire.checked_inference_id(headers)
    repeated = headers.get(wire.INVOCATION_ID)
    inference_id = named or str(uuid.uuid4())
    key = f"attempt {repeated[:256].decode('latin-1')}" if repeated and not named else f"id {inference_id}"
    stem = f"{uuid.uuid4()}"
    kept = {name.decode(): headers[name].decode("latin-1") for name in _KEPT if name in headers}
    for name in (b"content-type", b"accept"):  # prefixed, unlike those of InvokeEndpoint
        if (value := headers.get(_PREFIX + name)) is not None:
            kept[name.decode()] = value.decode("latin-1")
    return Invocation(
        key=key,
        inference_id=inference_id,
        input=place,
        body=body or None,
        headers=kept,
        output=_output(headers, output, name=f"{stem}.out"),
        failure=f"{failures.rstrip('/')}/{stem}-error.out",
        expires=now + _number(headers, b"requestttlseconds", bounds=(60, 21_600), default=21_600),
        timeout_s=_number(headers, b"invocationtimeoutseconds", bounds=(1, 3600), default=900),
        received=now,
    )


def accepted(invocation: Invocation) -> wire.Response:
    """Return the response that tells an invocation was taken."""
    places = [
        (b"x-amzn-sagemaker-outputlocation", invocation.output.encode()),
        (b"x-amzn-sagemaker-failurelocation", invocation.failure.encode()),
        (wire.REQUEST_ID, secrets.token_hex(16).encode()),
    ]
    return wire.json_response({"InferenceId": invocation.inference_id}, status=202, headers=places)


def _text(headers: wire.Headers, name: bytes) -> str | None:
    value = headers.get(_PREFIX + name)
    return None if value is None else value.decode("latin-1")


def _number(headers: wire.Headers, name: bytes, *, bounds: tuple[int, int], default: int) -> int:
    text = _text(headers, name)
    if text is None:
        return default
    low, high = bounds
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise Refusal(f"{name.decode()} is a whole number from {low} to {high}, got {text[:20]!r}", kind="invalid")
    return int(text)


def _check_location(place: str) -> None:
    """Refuse a location that names no file: parts are checked one by one, so that none leads elsewhere."""
    bucket, _, key = place.removeprefix("s3://").partition("/")
    named = place.startswith("s3://") and len(place) <= 1024 and _BUCKET.fullmatch(bucket)
    if not named or not all(_PART.fullmatch(part) for part in key.split("/")):
        raise Refusal(f"InputLocation is s3://BUCKET/KEY, in plain letters, got {place[:100]!r}", kind="invalid")


def _output(headers: wire.Headers, prefix: str, *, name: str) -> str:
    extension, filename = _text(headers, b"s3outputpathextension"), _text(headers, b"filename")
    parts = [] if extension is None else extension.strip("/").split("/")
    if extension is not None and (len(extension) > 512 or not all(_PART.fullmatch(part) for part in parts)):
        raise Refusal("S3OutputPathExtension is a plain path, at most 512 characters", kind="invalid")
    if filename is not None and not _FILENAME.fullmatch(filename):
        raise Refusal("Filename has at most 32 letters, digits, - and _, and one dot", kind="invalid")
    return "/".join([prefix.rstrip("/"), *parts, filename or name])
