"""How an endpoint is invoked, where it is not a few variants in real time: sections of the endpoint file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from policylab.config import Settings
from policylab.launchers.sagemaker.settings import S3Uri

TopicArn = Annotated[
    str, Field(max_length=2048, pattern=r"^arn:aws[a-z\-]*:sns:[a-z0-9\-]*:[0-9]{12}:[a-zA-Z0-9_.\-]{1,240}$")
]
NotifiedTopic = Literal["SUCCESS_NOTIFICATION_TOPIC", "ERROR_NOTIFICATION_TOPIC"]

VARIANT = "AllTraffic"
"""The one variant of an endpoint of many models, under the name that SageMaker's own tools give it."""


class ModelsSettings(Settings):
    """Many policies behind one endpoint, loaded when they are first asked and unloaded when memory is short.

    The header X-Amzn-SageMaker-Target-Model names a bundle by its path below the folder, such as
    ``sites/basel.tar.gz``. Policies need not have the same spaces.
    """

    folder: Path = Field(description="holds bundle folders and archives at any depth, relative to the endpoint file")
    memory_mb: float = Field(
        default=1024.0,
        gt=0.0,
        le=1e6,
        description="of all loaded models together; the least recently used ones make room",
    )
    load_wait_s: float = Field(
        default=50.0,
        gt=0.0,
        le=3600.0,
        description="how long a request waits for its model; then it gets 429, and loading goes on",
    )
    exploration: bool = Field(default=True, description="draw actions from the policies; false: deterministic")


class AsynchronousSettings(Settings):
    """Requests and answers through files; the endpoint then takes no others.

    A location ``s3://BUCKET/KEY`` is the file FOLDER/BUCKET/KEY. The queue is FOLDER/.queue/NAME, on disk.
    """

    folder: Path = Field(description="of all locations and of the queue, relative to the endpoint file")
    output: S3Uri | None = Field(default=None, description="prefix of answers; default: s3://NAME/output")
    failures: S3Uri | None = Field(default=None, description="prefix of failures; default: s3://NAME/failures")
    success_topic: TopicArn | None = Field(
        default=None, description="of notifications of answers, an SNS topic; here the file FOLDER/.topics/NAME.jsonl"
    )
    error_topic: TopicArn | None = Field(default=None, description="the same of failures")
    include_response_in: tuple[NotifiedTopic, ...] = Field(
        default=(), max_length=2, description="topics whose messages hold the response, if it is at most 128 KB"
    )
    max_concurrent: int = Field(default=4, ge=1, le=1000, description="invocations at the same time")
    max_waiting: int = Field(default=100_000, ge=1, le=10_000_000, description="invocations in the queue; more get 503")
    input_bytes: int = Field(default=2**30, ge=1, le=2**30, description="largest input, also after decompression")


class ServerlessSettings(Settings):
    """Policies are in memory only while they are asked."""

    idle_s: float = Field(
        default=300.0, gt=0.0, le=86_400.0, description="time without a request until they are unloaded"
    )
    max_concurrency: int = Field(default=5, ge=1, le=200, description="requests at the same time; more get 429")
