"""`Topics`: what becomes of asynchronous invocations, told as SageMaker tells it through Amazon SNS.

The topic ``arn:aws:sns:REGION:ACCOUNT:NAME`` is the file FOLDER/.topics/NAME.jsonl here, of one message a line. As with
SNS, a message comes at least once: that of an invocation whose process was killed at its end comes twice.

Source: "Check prediction results" of https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference.html. The form of
a failure's message beyond its status, and that of an included response (``responseBody``), were not checked there.
"""

from __future__ import annotations

import base64
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from policylab.deployment.asynchronous.queue import Invocation
from policylab.deployment.mode_settings import AsynchronousSettings
from policylab.files import append_line, drop_torn_tail, storage_errors

TOPICS = ".topics"
"""In the place of a bucket, whose name cannot begin with a dot."""
MAX_INCLUDED = 128 * 2**10


class Topics:
    """The topics of one endpoint.

    Args:
        endpoint: its name.
        settings: with the topics, and the folder of their files.
    """

    def __init__(self, endpoint: str, settings: AsynchronousSettings) -> None:
        self._endpoint = endpoint
        self._settings = settings
        self._folder = settings.folder / TOPICS
        self._lock = threading.Lock()
        for topic in (settings.success_topic, settings.error_topic):
            if topic is not None:
                drop_torn_tail(self._file(topic))

    def tell(self, invocation: Invocation, content: bytes, *, failure: str | None, now: float) -> None:
        """Tell of an invocation that has ended, if there is a topic for it.

        Args:
            invocation: which.
            content: of its answer or its failure.
            failure: why it failed; None: it did not.
            now: seconds since 1970.

        Raises:
            StorageError: the message cannot be written.
        """
        topic = self._settings.success_topic if failure is None else self._settings.error_topic
        if topic is None:
            return
        message = self._message(invocation, failure=failure, now=now, region=topic.split(":")[3])
        kind = "SUCCESS_NOTIFICATION_TOPIC" if failure is None else "ERROR_NOTIFICATION_TOPIC"
        if kind in self._settings.include_response_in and len(content) <= MAX_INCLUDED:
            message["responseBody"] = {"content": base64.b64encode(content).decode(), "encoding": "BASE64"}
        with self._lock, storage_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            append_line(self._file(topic), message)

    def _file(self, topic: str) -> Path:
        return self._folder / f"{topic.rpartition(':')[2]}.jsonl"

    def _message(self, invocation: Invocation, *, failure: str | None, now: float, region: str) -> dict[str, Any]:
        headers = invocation.headers
        asked = {"contentType": headers.get("content-type"), "endpointName": self._endpoint,
                 "inputLocation": invocation.input}  # fmt: skip
        ended: dict[str, Any] = {"invocationStatus": "Completed", "responseParameters": {
            "contentType": headers.get("accept", "application/json"), "outputLocation": invocation.output}}  # fmt: skip
        if failure is not None:
            ended = {"invocationStatus": "Failed", "failureReason": failure,
                     "responseParameters": {"failureLocation": invocation.failure}}  # fmt: skip
        return {
            "awsRegion": region,
            "eventTime": _time(now),
            "receivedTime": _time(invocation.received),
            **ended,
            "requestParameters": {name: value for name, value in asked.items() if value is not None},
            "inferenceId": invocation.inference_id,
            "eventVersion": "1.0",
            "eventSource": "aws:sagemaker",
            "eventName": "InferenceResult",
        }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
