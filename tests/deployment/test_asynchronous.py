"""Asynchronous endpoints: what was accepted is answered, or its failure is told, whatever ends in between."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.deployment.conftest import ServerProcess, endpoint_file, running
from tests.deployment.test_serving import request, status

from policylab.deployment.asynchronous.queue import MAX_ATTEMPTS, AsyncQueue, Invocation
from policylab.deployment.asynchronous.requests import invocation_of
from policylab.deployment.asynchronous.runner import AsyncRunner
from policylab.deployment.decision import Refusal
from policylab.deployment.endpoint import EndpointConfig, load_endpoint
from policylab.errors import ConfigError
from policylab.files import read_lines

pytest.importorskip("uvicorn")
pytest.importorskip("httptools")
pytest.importorskip("msgspec")

PATH = "/endpoints/lake/async-invocations"
BATCH = list(range(16)) * 6


def until(condition: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def file_at(folder: Path, location: str) -> Path:
    """Return where a location lies on disk."""
    return folder / location.removeprefix("s3://")


def placed(folder: Path, location: str, content: bytes) -> str:
    """Write an input; return its location."""
    path = file_at(folder, location)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return location


def lake(folder: Path, bundle: Path, **settings: Any) -> Path:
    return endpoint_file(folder, {
        "name": "lake", "variants": [{"name": "soft", "bundle": bundle}], "capture": {"folder": "captured"},
        "asynchronous": {"folder": "s3", "max_concurrent": 2, **settings},
    })  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lake") / "s3"


@pytest.fixture(scope="module")
def server(bundles: dict[str, Path], folder: Path) -> Iterator[ServerProcess]:
    with running(lake(folder.parent, bundles["soft"])) as found:
        yield found


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Any:
    return client_of(server)


def client_of(server: ServerProcess) -> Any:
    boto3 = pytest.importorskip("boto3")
    return boto3.client("sagemaker-runtime", endpoint_url=server.url, region_name="us-east-1",
                        aws_access_key_id="unused", aws_secret_access_key="unused")  # fmt: skip


def test_topics_are_told_of_answers_and_failures(bundles: dict[str, Path], tmp_path: Path) -> None:
    topic = "arn:aws:sns:eu-west-1:123456789012:lake-{}"
    topics = {"success_topic": topic.format("done"), "error_topic": topic.format("failed")}
    file = lake(tmp_path, bundles["soft"], **topics, include_response_in=["ERROR_NOTIFICATION_TOPIC"])
    with running(file) as found:
        client = client_of(found)
        taken = {}
        for name, body in (("good", b'{"observation": 3}'), ("bad", b'{"observation": 99}')):
            place = placed(tmp_path / "s3", f"s3://inputs/{name}.json", body)
            taken[name] = client.invoke_endpoint_async(
                EndpointName="lake", InputLocation=place, ContentType="application/json", InferenceId=name
            )
        files = [tmp_path / "s3" / ".topics" / f"lake-{end}.jsonl" for end in ("done", "failed")]
        until(lambda: all(path.exists() for path in files))
        assert found.stop() == 0
    done, failed = (read_lines(path) for path in files)
    assert len(done) == len(failed) == 1
    assert abs(datetime.fromisoformat(done[0].pop("eventTime")).timestamp() - time.time()) < 60.0
    assert abs(datetime.fromisoformat(done[0].pop("receivedTime")).timestamp() - time.time()) < 60.0
    asked = {"contentType": "application/json", "endpointName": "lake", "inputLocation": "s3://inputs/good.json"}
    assert done == [
        {
            "awsRegion": "eu-west-1",
            "invocationStatus": "Completed",
            "requestParameters": asked,
            "responseParameters": {
                "contentType": "application/json",
                "outputLocation": taken["good"]["OutputLocation"],
            },
            "inferenceId": "good",
            "eventVersion": "1.0",
            "eventSource": "aws:sagemaker",
            "eventName": "InferenceResult",
        }
    ]
    assert (failed[0]["invocationStatus"], failed[0]["inferenceId"]) == ("Failed", "bad")
    assert failed[0]["failureReason"] == "99 is not a whole number from 0 to 15"
    written = file_at(tmp_path / "s3", taken["bad"]["FailureLocation"]).read_bytes()
    assert base64.b64decode(failed[0]["responseBody"]["content"]) == written


def test_a_queue_of_an_older_version_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"
    headers = {b"x-amzn-sagemaker-inference-id": b"old"}
    queue = AsyncQueue(path, max_waiting=9)
    queue.add(invocation_of(headers, b"3", output="s3://out", failures="s3://out", now=time.time()), now=time.time())
    queue.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:  # as it was before notifications
        connection.execute("ALTER TABLE invocations DROP COLUMN received")
        connection.execute("PRAGMA user_version = 1")
    queue = AsyncQueue(path, max_waiting=9)
    found = queue.take()
    queue.close()
    assert found is not None
    assert (found.inference_id, found.received) == ("old", 0.0)


def test_a_topic_is_the_arn_of_one(bundles: dict[str, Path], tmp_path: Path) -> None:
    for topic in ("done", "arn:aws:sns:eu-west-1:123456789012:../done", "arn:aws:sqs:eu-west-1:123456789012:done"):
        with pytest.raises(ConfigError, match=r"asynchronous\.success_topic"):
            load_endpoint(lake(tmp_path, bundles["soft"], success_topic=topic))


def test_boto3_gets_its_answer_at_the_location(client: Any, folder: Path) -> None:
    place = placed(folder, "s3://inputs/batch.json", json.dumps({"observations": BATCH}).encode())
    taken = client.invoke_endpoint_async(EndpointName="lake", InputLocation=place, ContentType="application/json")
    assert taken["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert taken["OutputLocation"].startswith("s3://lake/output/")
    assert taken["FailureLocation"].startswith("s3://lake/failures/")
    output = file_at(folder, taken["OutputLocation"])
    until(output.exists)
    decisions = json.loads(output.read_bytes())["decisions"]
    assert len(decisions) == len(BATCH)
    assert not file_at(folder, taken["FailureLocation"]).exists()

    array = folder / "inputs" / "batch.npy"
    np.save(array, np.array(BATCH))
    named = client.invoke_endpoint_async(
        EndpointName="lake", InputLocation="s3://inputs/batch.npy", ContentType="application/x-npy", Accept="text/csv",
        InferenceId="mine", S3OutputPathExtension="a/b", Filename="answer.csv",
    )  # fmt: skip
    assert (named["InferenceId"], named["OutputLocation"]) == ("mine", "s3://lake/output/a/b/answer.csv")
    until(file_at(folder, named["OutputLocation"]).exists)
    assert len(file_at(folder, named["OutputLocation"]).read_text().splitlines()) == len(BATCH)

    inline = client.invoke_endpoint_async(EndpointName="lake", Body=b"3", ContentType="application/json")
    until(file_at(folder, inline["OutputLocation"]).exists)
    assert json.loads(file_at(folder, inline["OutputLocation"]).read_bytes())["variant"] == "soft"


@pytest.mark.parametrize(
    ("location", "content", "message"),
    [
        ("s3://inputs/none.json", None, "no such object"),
        ("s3://inputs/bad.json", b'{"observation": 99}', "99 is not a whole number from 0 to 15"),
        ("s3://inputs/long.json", json.dumps([3] * 2000).encode(), r"more than limits\.batch"),
    ],
)
def test_a_failure_is_told_at_its_location(
    client: Any, folder: Path, location: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        placed(folder, location, content)
    taken = client.invoke_endpoint_async(EndpointName="lake", InputLocation=location, ContentType="application/json")
    failure = file_at(folder, taken["FailureLocation"])
    until(failure.exists)
    document = json.loads(failure.read_bytes())
    assert document["InferenceId"] == taken["InferenceId"]
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(document["Message"])
    assert not file_at(folder, taken["OutputLocation"]).exists()


def test_a_repeated_request_is_one_invocation(client: Any, server: ServerProcess, folder: Path) -> None:
    options = {"EndpointName": "lake", "Body": b"3", "ContentType": "application/json", "InferenceId": "twice"}
    first, second = (client.invoke_endpoint_async(**options) for _ in range(2))
    assert first["OutputLocation"] == second["OutputLocation"]
    with pytest.raises(client.exceptions.ClientError, match="the id twice was used for another request"):
        client.invoke_endpoint_async(**{**options, "Body": b"4"})
    places = {
        request(server, b"3", path=PATH, amz_sdk_invocation_id="attempt")[1]["x-amzn-sagemaker-outputlocation"]
        for _ in range(3)
    }
    assert len(places) == 1


def test_what_is_wrong_is_told_at_once(client: Any, server: ServerProcess) -> None:
    error = client.exceptions.ClientError
    with pytest.raises(error, match=r"ValidationError.*this endpoint is asynchronous"):
        client.invoke_endpoint(EndpointName="lake", Body=b"3")
    with pytest.raises(error, match="either InputLocation or a Body"):
        client.invoke_endpoint_async(EndpointName="lake")
    for place in ("https://bucket/key", "s3://bucket", "s3://bucket/", "s3://../key", "s3://.queue/lake/secret",
                  "s3://bucket/../key", "s3://bucket//key", "s3://bucket/.hidden", "s3://Bucket/key"):  # fmt: skip
        with pytest.raises(error, match="InputLocation is s3://BUCKET/KEY"):
            client.invoke_endpoint_async(EndpointName="lake", InputLocation=place)
    for name, value in (("S3OutputPathExtension", "../x"), ("Filename", "../x"), ("RequestTTLSeconds", "59"),
                        ("RequestTTLSeconds", "21601"), ("RequestTTLSeconds", "1e3"),
                        ("InvocationTimeoutSeconds", "0")):  # fmt: skip
        code, _, told = request(server, b"3", path=PATH, **{f"x_amzn_sagemaker_{name}": value})
        assert (code, name.lower() in told.decode().lower()) == (400, True)
    assert request(server, b"3" * 128_001, path=PATH)[0] == 413
    assert request(server, b"3", path=PATH, x_amzn_sagemaker_session_id="a")[0] == 400
    with pytest.raises(error, match="not found"):
        client.invoke_endpoint_async(EndpointName="pond", Body=b"3")


def test_the_queue_is_told(server: ServerProcess) -> None:
    until(lambda: status(server)["asynchronous"]["waiting"] + status(server)["asynchronous"]["running"] == 0)
    assert status(server)["asynchronous"]["done"] >= 3
    metrics = request(server, b"", path="/metrics", method="GET")[2].decode()
    assert 'policylab_asynchronous_invocations{endpoint="lake",state="waiting"} 0.0' in metrics


def test_nothing_accepted_is_lost_when_the_process_is_killed(bundles: dict[str, Path], tmp_path: Path) -> None:
    """One invocation is under way, whose input is a pipe that nobody writes to, and the others wait for it."""
    file, folder, n = lake(tmp_path, bundles["soft"], max_concurrent=1), tmp_path / "s3", 20
    pipe = file_at(folder, placed(folder, "s3://inputs/pipe", b""))
    pipe.unlink()
    os.mkfifo(pipe)
    placed(folder, "s3://inputs/batch", json.dumps({"observations": BATCH}).encode())
    with running(file) as found:
        client = client_of(found)
        taken = [
            client.invoke_endpoint_async(EndpointName="lake", InferenceId=f"job {i}", ContentType="application/json",
                                         InputLocation=f"s3://inputs/{'batch' if i else 'pipe'}")
            for i in range(n)
        ]  # fmt: skip
        until(lambda: status(found)["asynchronous"]["running"] == 1)
        assert status(found)["asynchronous"]["waiting"] == n - 1
        found.kill()
    pipe.unlink()
    placed(folder, "s3://inputs/pipe", json.dumps({"observations": BATCH}).encode())
    outputs = [file_at(folder, one["OutputLocation"]) for one in taken]
    assert not any(path.exists() for path in outputs)
    with running(file) as found:
        until(lambda: status(found)["asynchronous"] == {"waiting": 0, "running": 0, "done": n, "failed": 0})
        with pytest.raises(AssertionError, match="in use by another policylab process"):
            ServerProcess(file)
        assert found.stop() == 0
    assert all(len(json.loads(path.read_bytes())["decisions"]) == len(BATCH) for path in outputs)


# ------------------------------------------------------------------ the queue and what takes from it


class Room:
    """A queue with a clock, and a runner of one thread that is not started."""

    def __init__(self, folder: Path, answered: Callable[..., Any] | None = None, *, max_waiting: int = 100) -> None:
        self.now, self.folder, self.calls = 1000.0, folder, 0
        self.queue = AsyncQueue(folder / "queue.sqlite", max_waiting=max_waiting)
        self.runner = AsyncRunner(self.queue, folder, answered=answered or self.answer, n_threads=1, max_bytes=100,
                                  wall_clock=lambda: self.now)  # fmt: skip

    def answer(self, headers: Any, body: bytes) -> Any:
        self.calls += 1
        return 200, [], b"answer to " + body

    def add(self, body: bytes = b"3", **headers: str) -> Invocation:
        named = {f"x-amzn-sagemaker-{name}".encode(): value.encode() for name, value in headers.items()}
        asked = invocation_of(named, body, output="s3://out/a", failures="s3://out/f", now=self.now)
        return self.queue.add(asked, now=self.now)

    def execute(self) -> None:
        found = self.queue.take()
        assert found is not None
        self.runner.execute(found)

    def failure(self, invocation: Invocation) -> str:
        return str(json.loads(file_at(self.folder, invocation.failure).read_bytes())["Message"])


def test_what_waited_too_long_expires(tmp_path: Path) -> None:
    room = Room(tmp_path)
    invocation = room.add(requestttlseconds="60")
    room.now += 61.0
    room.execute()
    assert "expired in the queue" in room.failure(invocation)
    assert (room.calls, room.queue.counts()["failed"]) == (0, 1)


def test_what_takes_too_long_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(headers: Any, body: bytes) -> Any:
        began = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: began + 2.0)
        return 200, [], b"late"

    room = Room(tmp_path, slow)
    invocation = room.add(invocationtimeoutseconds="1")
    room.execute()
    monkeypatch.undo()
    assert room.failure(invocation) == "the invocation took more than 1 s"
    assert not file_at(tmp_path, invocation.output).exists()


def test_first_in_first_out_and_bounded(tmp_path: Path) -> None:
    room = Room(tmp_path, max_waiting=2)
    first, second = room.add(b"1"), room.add(b"2")
    with pytest.raises(Refusal, match="too many invocations wait") as found:
        room.add(b"3")
    assert found.value.kind == "busy"
    room.execute()
    assert file_at(tmp_path, first.output).read_bytes() == b"answer to 1"
    assert not file_at(tmp_path, second.output).exists()
    room.add(b"3")


def test_what_ends_the_process_each_time_is_given_up(tmp_path: Path) -> None:
    invocation = Room(tmp_path).add()
    for _ in range(MAX_ATTEMPTS):
        room = Room(tmp_path)
        assert room.queue.take() is not None  # and the process is killed
    room = Room(tmp_path)
    room.execute()
    assert "the server ended 3 times" in room.failure(invocation)
    assert room.calls == 0


def test_a_bug_is_a_failure_and_the_thread_goes_on(tmp_path: Path) -> None:
    def broken(headers: Any, body: bytes) -> Any:
        raise ZeroDivisionError

    room = Room(tmp_path, broken)
    invocations = [room.add(b"1"), room.add(b"2")]
    room.runner.start()
    until(lambda: room.queue.counts()["failed"] == 2)
    room.runner.stop()
    assert {room.failure(one) for one in invocations} == {"the server failed; its log says why"}


def test_inputs_are_bounded(tmp_path: Path) -> None:
    room = Room(tmp_path)
    placed(tmp_path, "s3://inputs/large", b"3" * 101)
    invocation = room.add(b"", inputlocation="s3://inputs/large")
    room.execute()
    assert "is larger than 100 bytes" in room.failure(invocation)


def test_ended_invocations_are_forgotten_some_hours_later(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.add()
    room.execute()
    room.now += 30_000.0
    room.add()
    assert room.queue.counts() == {"waiting": 1, "running": 0, "done": 0, "failed": 0}


def test_a_file_that_is_no_queue_is_refused(tmp_path: Path) -> None:
    (tmp_path / "queue.sqlite").write_bytes(b"something else entirely" * 100)
    with pytest.raises(Exception, match=r"queue\.sqlite: .*not a database"):
        AsyncQueue(tmp_path / "queue.sqlite", max_waiting=1)


def test_many_models_are_not_asynchronous(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="an endpoint of many models has no asynchronous"):
        EndpointConfig.model_validate({
            "name": "lake", "models": {"folder": tmp_path}, "asynchronous": {"folder": tmp_path}
        })  # fmt: skip
