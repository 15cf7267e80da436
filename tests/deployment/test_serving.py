"""Real servers on loopback: an unmodified boto3 client, hostile and clumsy clients, load, and the end."""

from __future__ import annotations

import contextlib
import gc
import gzip
import http.client
import io
import itertools
import json
import os
import socket
import stat
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.deployment.conftest import ServerProcess, endpoint_file, running

from policylab.deployment.capture.format import EpisodeEnd, Reward
from policylab.deployment.capture.reading import read_captured, read_rewards
from policylab.deployment.http.listening import let_everybody_in, let_nobody_in

pytest.importorskip("uvicorn")
pytest.importorskip("httptools")
pytest.importorskip("msgspec")

TOKEN = "a-secret-of-some-length"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lake")


@pytest.fixture(scope="module")
def server(bundles: dict[str, Path], folder: Path) -> Iterator[ServerProcess]:
    config = {
        "name": "lake",
        "variants": [
            {"name": "left", "bundle": bundles["left"], "weight": 1},
            {"name": "soft", "bundle": bundles["soft"], "weight": 1},
        ],
        "shadows": [{"name": "right", "bundle": bundles["right"]}],
        "capture": {"folder": "data"},
        "limits": {"body_bytes": 100_000, "body_timeout_s": 2.0, "batch": 100},
    }
    with running(endpoint_file(folder, config)) as found:
        yield found


def request(
    server: ServerProcess, body: bytes = b"3", *, path: str | None = None, method: str = "POST", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Send one request by the standard library's client."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path or f"/endpoints/{server.name}/invocations", body=body, headers=named)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, content


def healthy(server: ServerProcess) -> bool:
    return server.process.poll() is None and request(server)[0] == 200


# ------------------------------------------------------------------ boto3


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Any:
    boto3 = pytest.importorskip("boto3")
    return boto3.client(
        "sagemaker-runtime",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id="unused",
        aws_secret_access_key="unused",
    )


def test_boto3_invokes_the_endpoint(client: Any) -> None:
    answer = client.invoke_endpoint(EndpointName="lake", Body=b"3", ContentType="application/json")
    decision = json.loads(answer["Body"].read())
    assert answer["ContentType"] == "application/json"
    assert answer["InvokedProductionVariant"] == decision["variant"]
    assert answer["ResponseMetadata"]["RequestId"] == decision["decision_id"]
    assert 0.0 < decision["propensity"] <= 1.0
    assert len(decision["policy_version"]) == 64


def test_boto3_aims_at_a_variant_and_names_requests(client: Any) -> None:
    answers = [
        client.invoke_endpoint(EndpointName="lake", Body=b"3", TargetVariant="soft", InferenceId="named")
        for _ in range(5)
    ]
    assert {answer["InvokedProductionVariant"] for answer in answers} == {"soft"}
    assert len({answer["Body"].read() for answer in answers}) == 1  # the same decision again


def test_boto3_reads_a_stream(client: Any) -> None:
    observations = [i % 16 for i in range(100)]
    body = json.dumps({"observations": observations}).encode()

    def parts(**options: Any) -> list[bytes]:
        answer = client.invoke_endpoint_with_response_stream(
            EndpointName="lake", ContentType="application/json", **options
        )
        assert answer["InvokedProductionVariant"] in ("left", "soft")
        assert answer["ContentType"] == ("text/csv" if "Accept" in options else "application/jsonlines")
        return [event["PayloadPart"]["Bytes"] for event in answer["Body"]]  # botocore checks the checksums

    streamed = parts(Body=body, InferenceId="stream")
    assert len(streamed) > 1
    decisions = [json.loads(line) for line in b"".join(streamed).splitlines()]
    whole = client.invoke_endpoint(EndpointName="lake", Body=body, ContentType="application/json", InferenceId="stream")
    assert decisions == json.loads(whole["Body"].read())["decisions"]  # one variant, and the same decisions
    assert len(b"".join(parts(Body=body, Accept="text/csv")).splitlines()) == 100
    assert json.loads(b"".join(parts(Body=b"3")))["source"] == "policy"
    with pytest.raises(client.exceptions.ModelError, match="99"):
        parts(Body=b"99")
    with pytest.raises(client.exceptions.ClientError, match="cannot begin a session"):
        parts(Body=b"3", SessionId="NEW_SESSION")


def test_boto3_keeps_a_session(client: Any) -> None:
    opened = client.invoke_endpoint(
        EndpointName="lake", Body=b'{"requestType": "NEW_SESSION"}', SessionId="NEW_SESSION"
    )
    session, _, expires = opened["NewSessionId"].partition("; Expires=")
    assert time.strptime(expires, "%Y-%m-%dT%H:%M:%SZ")
    variants = {
        client.invoke_endpoint(EndpointName="lake", Body=b"3", SessionId=session)["InvokedProductionVariant"]
        for _ in range(20)
    }
    assert len(variants) == 1
    closed = client.invoke_endpoint(EndpointName="lake", Body=b'{"requestType": "CLOSE"}', SessionId=session)
    assert closed["ClosedSessionId"] == session
    with pytest.raises(client.exceptions.ModelError, match="no session"):
        client.invoke_endpoint(EndpointName="lake", Body=b'{"requestType": "CLOSE"}', SessionId=session)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"EndpointName": "other"}, "Endpoint other not found"),
        ({"EndpointName": "../../etc"}, "not found"),
        ({"TargetVariant": "sotf"}, "did you mean 'soft'"),
        ({"TargetModel": "one.tar.gz"}, "TargetModel is not offered"),
        ({"SessionId": "-"}, "session id"),
    ],
)
def test_boto3_gets_validation_errors(client: Any, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(client.exceptions.ValidationError, match=message):
        client.invoke_endpoint(**{"EndpointName": "lake", "Body": b"3", **arguments})


def test_boto3_gets_model_errors_for_what_a_container_refuses(client: Any) -> None:
    with pytest.raises(client.exceptions.ModelError, match="99 is not a whole number from 0 to 15") as error:
        client.invoke_endpoint(EndpointName="lake", Body=b"99")
    assert error.value.response["OriginalStatusCode"] == 400
    with pytest.raises(client.exceptions.ModelError, match="is not read") as error:
        client.invoke_endpoint(EndpointName="lake", Body=b"3", ContentType="application/x-recordio")
    assert error.value.response["OriginalStatusCode"] == 415


def test_boto3_sends_and_gets_csv_and_npy(client: Any) -> None:
    csv = client.invoke_endpoint(
        EndpointName="lake", Body=b"3\n4\n", ContentType="text/csv", Accept="text/csv", TargetVariant="left"
    )
    rows = [line.split(",") for line in csv["Body"].read().decode().splitlines()]
    assert [(row[0], row[1], row[2]) for row in rows] == [("0", "1.0", "left")] * 2
    assert csv["ContentType"] == "text/csv"
    sent = io.BytesIO()
    np.save(sent, np.array([3, 4, 5]))
    npy = client.invoke_endpoint(
        EndpointName="lake", Body=sent.getvalue(), ContentType="application/x-npy", Accept="application/x-npy",
        TargetVariant="left",
    )  # fmt: skip
    assert np.load(io.BytesIO(npy["Body"].read()), allow_pickle=False).tolist() == [0, 0, 0]


# ------------------------------------------------------------------ the other routes


def test_the_container_contract(server: ServerProcess) -> None:
    assert request(server, b"", path="/ping", method="GET")[::2] == (200, b"")
    status, headers, body = request(server, path="/invocations")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body)["action"] in range(4)
    status, headers, body = request(server, b"99", path="/invocations")
    assert (status, headers["x-amzn-errortype"]) == (400, "ModelError")  # not wrapped: it is the container that answers
    assert request(server, b"3", path="/invocations", content_type="text/html")[0] == 415


def test_a_mask_holds_over_http(server: ServerProcess) -> None:
    body = json.dumps({"observations": [3] * 50, "masks": [[0, 1, 0, 1]] * 50}).encode()
    decisions = json.loads(request(server, body)[2])["decisions"]
    assert {one["action"] for one in decisions} <= {1, 3}


def test_pages_that_do_not_exist_and_methods_they_do_not_take(server: ServerProcess) -> None:
    assert request(server, path="/nothing")[0] == 404
    assert request(server, b"", method="GET")[0] == 405
    assert request(server, path="/endpoints/lake/..%2Fweights")[0] == 404


def test_metrics_are_what_prometheus_reads(server: ServerProcess) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    for _ in range(10):
        request(server, x_amzn_sagemaker_target_variant="left")
    request(server, b"99")
    text = request(server, b"", path="/metrics", method="GET")[2].decode()
    families = {family.name: family for family in parser.text_string_to_metric_families(text)}
    left = [s for s in families["policylab_requests"].samples if s.labels["variant"] == "left"]
    assert left[0].value >= 10
    assert {s.labels["kind"] for s in families["policylab_refused"].samples} >= {"observation"}
    histogram = families["policylab_decision_seconds"]
    buckets = [s for s in histogram.samples if s.name.endswith("_bucket") and s.labels["variant"] == "left"]
    assert buckets[-1].labels["le"] == "+Inf"
    assert [s.value for s in buckets] == sorted(s.value for s in buckets)
    assert buckets[-1].value == left[0].value


def test_the_openapi_document_describes_what_is_there(server: ServerProcess) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    document = json.loads(request(server, b"", path="/openapi.json", method="GET")[2])
    for path, methods in document["paths"].items():
        for method in methods:
            assert request(server, b"{}", path=path, method=method.upper())[0] not in (404, 405), path
    content = document["paths"]["/invocations"]["post"]
    sent, answered = content["requestBody"]["content"], content["responses"]["200"]["content"]
    for body in ({"observation": 3, "mask": [True, False, True, True]}, {"observations": [3, 4]}):
        jsonschema.validate(body, sent["application/json"]["schema"])
        jsonschema.validate(
            json.loads(request(server, json.dumps(body).encode())[2]), answered["application/json"]["schema"]
        )


def test_weights_rewards_and_status(server: ServerProcess, folder: Path) -> None:
    def posted(page: str, document: Any) -> tuple[int, Any]:
        status, _, body = request(
            server, json.dumps(document).encode(), path=f"/endpoints/lake{page}", content_type="application/json"
        )
        return status, json.loads(body)

    status, document = posted("/weights", {"weights": {"soft": 3}})
    assert status == 200
    assert {one["name"]: one["share"] for one in document["variants"]} == {"left": 0.25, "soft": 0.75}
    assert posted("/weights", {"weights": {"soft": 0, "left": 0}})[0] == 400
    assert posted("/weights", {"weights": {"soft": "much"}})[0] == 400
    assert posted("/weights", {"weights": {"soft": 1}})[0] == 200
    decision = json.loads(request(server)[2])
    report = {"decision_id": decision["decision_id"], "reward": 0.5, "reward_id": "a"}
    assert posted("/rewards", {"rewards": [report]})[1] == {"accepted": 1, "repeated": 0, "recorded": True}
    assert posted("/rewards", {"rewards": [report]})[1] == {"accepted": 0, "repeated": 1, "recorded": True}
    for bad in ({}, {"rewards": []}, {"rewards": [{"decision_id": "a"}]}, {"rewards": [{**report, "reward": True}]}):
        assert posted("/rewards", bad)[0] == 400
    last = {"decision_id": decision["decision_id"], "reward": 0.0}
    over = {"terminated": True}
    for end in ({"truncated": True}, {"next_observation": 3}, {"terminated": 1}, {**over, "next_observation": 99}):
        assert posted("/rewards", {"rewards": [{**last, **end}]})[0] == 400, end
    end = {"terminated": True, "truncated": False, "next_observation": 0}
    assert posted("/rewards", {"rewards": [{**last, **end}]})[0] == 200
    deadline = time.monotonic() + 10.0
    told: list[Reward] = []
    while len(told) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        told = [one for one in read_rewards(folder / "data", endpoint="lake") if one.decision_id == last["decision_id"]]
    assert told[0].end is None
    assert told[1].end == EpisodeEnd(terminated=True, next_observation=0)
    captured = {one.decision_id: one for one in read_captured(folder / "data", endpoint="lake")}
    facts = captured[decision["decision_id"]].facts
    assert (facts.variant, facts.propensity) == (decision["variant"], decision["propensity"])
    assert [shadow.variant for shadow in facts.shadows] == ["right"]


def test_a_page_of_another_site_cannot_change_weights(server: ServerProcess) -> None:
    """Its form has no application/json; under a name of its own, it is not this machine that it names."""
    body = b'{"weights": {"soft": 5}}'
    place = "/endpoints/lake/weights"
    assert request(server, body, path=place, content_type="text/plain")[0] == 415
    assert request(server, body, path=place, content_type="application/json", host="evil.example")[0] == 401
    assert request(server, body, path=place, content_type="application/json", host="localhost:80")[0] == 200
    request(server, b'{"weights": {"soft": 1}}', path=place, content_type="application/json")


# ------------------------------------------------------------------ clumsy and hostile clients


def raw(server: ServerProcess, sent: bytes, *, half_close: bool = False) -> bytes:
    """Send bytes as they are; return all that comes back before the connection ends."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as connection:
        found = b""
        with contextlib.suppress(ConnectionError):  # a server that has refused may be gone before all is sent
            connection.sendall(sent)
            if half_close:
                with contextlib.suppress(OSError):  # ENOTCONN is no ConnectionError
                    connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                found += piece
        return found


INVOKE = b"POST /endpoints/lake/invocations HTTP/1.1\r\nhost: x\r\n"


def test_a_large_body_is_refused_with_an_answer_that_arrives(server: ServerProcess) -> None:
    for body in (b"[" + b"3," * 60_000 + b"3]", b"0" * 5_000_000):
        status, headers, _ = request(server, body)
        assert (status, headers["x-amzn-errortype"]) == (413, "ValidationError")
    assert request(server, gzip.compress(b"0" * 5_000_000), content_encoding="gzip")[0] == 413
    assert healthy(server)


def test_chunked_and_compressed_bodies_are_read(server: ServerProcess) -> None:
    chunked = (
        INVOKE + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n1\r\n[\r\n3\r\n3,4\r\n1\r\n]\r\n0\r\n\r\n"
    )
    assert raw(server, chunked).startswith(b"HTTP/1.1 200")
    status, _, body = request(server, gzip.compress(b"[3, 4]"), content_encoding="gzip")
    assert status == 200
    assert len(json.loads(body)["decisions"]) == 2
    assert request(server, b"no gzip", content_encoding="gzip")[0] == 424
    assert request(server, b"3", content_encoding="br")[0] == 424


def test_a_client_may_ask_whether_it_is_to_send_its_body(server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10.0) as connection:
        head = b"POST /invocations HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        connection.sendall(head + b"content-length: 1\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(b"3")
        assert connection.makefile("rb").read().startswith(b"HTTP/1.1 200 OK")


def test_an_answer_without_a_body_comes_too(server: ServerProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10.0)
    for method in ("HEAD", "GET", "HEAD"):
        connection.request(method, "/ping")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
    connection.close()


def test_a_half_closed_connection_gets_its_answer(server: ServerProcess) -> None:
    found = raw(server, INVOKE + b"content-length: 1\r\n\r\n3", half_close=True)
    assert found.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",  # a TLS handshake
        b"GET\r\n\r\n",
        b"\0" * 1000,
        INVOKE + b"content-length: -1\r\n\r\n",
        INVOKE + b"content-length: 1\r\ncontent-length: 2\r\n\r\n3",
        INVOKE + b"content-length: 100\r\n\r\n3",
        INVOKE + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        INVOKE + b"x: " + b"y" * 200_000 + b"\r\n\r\n",
    ],
)
def test_malformed_requests_hurt_nobody(server: ServerProcess, sent: bytes) -> None:
    found = raw(server, sent, half_close=True)
    assert not found.startswith((b"HTTP/1.1 2", b"HTTP/1.1 500"))
    assert healthy(server)


def test_a_request_that_does_not_become_whole_is_ended(server: ServerProcess) -> None:
    began = time.monotonic()
    for sent in (b"POST /endp", INVOKE, INVOKE + b"content-length: 100\r\n\r\n3"):
        assert raw(server, sent).startswith(b"HTTP/1.1 408")
    assert time.monotonic() - began < 30.0  # limits.body_timeout_s is 2
    assert healthy(server)


def test_headers_that_do_not_end_are_not_read_for_ever(server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as connection:
        connection.sendall(INVOKE)
        with contextlib.suppress(ConnectionError):  # it is closed while we send
            for _ in range(10_000):
                connection.sendall(b"x: " + b"y" * 10_000 + b"\r\n")
            pytest.fail("a hundred megabytes of headers were taken")
    assert healthy(server)


def test_slow_clients_keep_nobody_waiting(server: ServerProcess) -> None:
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(50)]
    try:
        for connection in slow:
            connection.sendall(INVOKE + b"content-length: 1000\r\n\r\n3")
        assert all(request(server)[0] == 200 for _ in range(50))
    finally:
        for connection in slow:
            connection.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.one_of(
        st.binary(max_size=100),
        st.recursive(
            st.one_of(st.integers(), st.booleans(), st.none(), st.text(max_size=3)),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                st.sampled_from(["observation", "observations", "mask", "rewards", "weights", "requestType"]), inner),
            max_leaves=6,
        ).map(lambda value: json.dumps(value).encode()),
    ),
    page=st.sampled_from(["/invocations", *(f"/endpoints/lake/{p}" for p in ("invocations", "rewards", "weights"))]),
    kind=st.sampled_from(["application/json", "text/csv", "application/x-npy", "x", ""]),
    header=st.sampled_from(["target-variant", "inference-id", "session-id", "custom-attributes", "target-model"]),
    value=st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=70),
    accept=st.sampled_from(["*/*", "text/csv", "application/x-npy", "x"]),
)  # fmt: skip
def test_nothing_that_is_sent_makes_it_fail(
    server: ServerProcess, body: bytes, page: str, kind: str, header: str, value: str, accept: str
) -> None:
    headers = {"content-type": kind, f"x-amzn-sagemaker-{header}": value.strip(), "accept": accept}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("POST", page, body=body, headers=headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    assert response.status < 500, content
    assert b"Traceback" not in content
    if response.status != 200:
        assert set(json.loads(content)) >= {"Message"}
        assert response.headers["x-amzn-errortype"]


def test_no_error_was_logged(server: ServerProcess) -> None:
    """After all that the tests above have sent; it must stand below them."""
    assert healthy(server)
    assert "Traceback" not in server.errors


# ------------------------------------------------------------------ limits and access


def one_policy(folder: Path, bundle: Path, **sections: Any) -> Path:
    return endpoint_file(folder, {"name": "lake", "variants": [{"name": "left", "bundle": bundle}], **sections})


def test_more_requests_than_allowed_are_told_when_to_come_again(bundles: dict[str, Path], tmp_path: Path) -> None:
    with running(one_policy(tmp_path, bundles["left"], limits={"requests_per_s": 1})) as found:
        answers = [request(found) for _ in range(30)]
        refused = [headers for status, headers, _ in answers if status == 429]
        assert len(refused) >= 15
        assert {headers["x-amzn-errortype"] for headers in refused} == {"ThrottlingException"}
        assert all(int(headers["retry-after"]) >= 1 for headers in refused)
        assert request(found, b"", path="/ping", method="GET")[0] == 200  # health is never refused


def test_more_connections_than_allowed_are_told_when_to_come_again(bundles: dict[str, Path], tmp_path: Path) -> None:
    with running(one_policy(tmp_path, bundles["left"], limits={"connections": 3})) as found:
        held = [socket.create_connection(("127.0.0.1", found.port)) for _ in range(3)]
        time.sleep(0.2)
        answer = raw(found, b"")
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1" in answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["Message"]
        for connection in held:
            connection.close()
        deadline = time.monotonic() + 10.0
        while not healthy(found):  # it has to notice that they have gone
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_token_is_needed_where_one_is_set(bundles: dict[str, Path], tmp_path: Path) -> None:
    env = {"POLICYLAB_TOKEN": TOKEN, "POLICYLAB_ADMIN_TOKEN": TOKEN + "-admin"}
    with running(one_policy(tmp_path, bundles["left"]), "--host", "0.0.0.0", env=env) as found:
        assert request(found)[0] == 401
        assert request(found, authorization="Bearer wrong")[0] == 401
        assert request(found, authorization=f"Bearer {TOKEN}")[0] == 200
        place = {"path": "/endpoints/lake/weights", "content_type": "application/json"}
        body = b'{"weights": {"left": 2}}'
        assert request(found, body, authorization=f"Bearer {TOKEN}", **place)[0] == 401
        assert request(found, body, authorization=f"Bearer {TOKEN}-admin", **place)[0] == 200
        assert request(found, b"", path="/ping", method="GET")[0] == 200


def test_without_a_token_others_are_not_let_in(bundles: dict[str, Path]) -> None:
    with pytest.raises(AssertionError, match=r"can be reached from other machines: set POLICYLAB_TOKEN"):
        ServerProcess(bundles["left"], "--host", "0.0.0.0", env={"POLICYLAB_TOKEN": ""})


def test_boto3_can_send_a_token(bundles: dict[str, Path], tmp_path: Path) -> None:
    """As docs/serving.md says: a hook of the client, since boto3 has no bearer tokens for this service."""
    boto3 = pytest.importorskip("boto3")
    with running(one_policy(tmp_path, bundles["left"]), env={"POLICYLAB_TOKEN": TOKEN}) as found:
        client = boto3.client("sagemaker-runtime", endpoint_url=found.url, region_name="us-east-1",
                              aws_access_key_id="unused", aws_secret_access_key="unused")  # fmt: skip

        def send_token(request: Any, **_: Any) -> None:
            request.headers["Authorization"] = f"Bearer {TOKEN}"

        client.meta.events.register("before-send.sagemaker-runtime", send_token)
        assert client.invoke_endpoint(EndpointName="lake", Body=b"3")["InvokedProductionVariant"] == "left"


# ------------------------------------------------------------------ changes and the end, under load


class Load:
    """Clients that ask without a pause over kept connections, and what they were answered.

    With ``repeats``, they ask again when their connection is lost, as boto3 does, under the inference id they had.
    With ``models``, each request names the next of them.
    """

    def __init__(
        self, server: ServerProcess, *, n_clients: int = 4, repeats: bool = False, models: Sequence[str] = ()
    ) -> None:
        self._models = itertools.cycle(models)
        self.server, self.repeats, self.ended = server, repeats, threading.Event()
        self.answered: list[str] = []
        self.n_repeated = 0
        self.statuses: list[int] = []
        self.failures: list[str] = []
        self.variants: set[str] = set()
        self._threads = [threading.Thread(target=self._ask) for _ in range(n_clients)]

    def __enter__(self) -> Load:
        gc.disable()  # a collection in a large test process pauses the clients for as long as a server waits for them
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self._threads:
            thread.join(30.0)
        gc.enable()

    def wait(self, n: int) -> None:
        """Wait for so many more answers."""
        until, deadline = len(self.statuses) + n, time.monotonic() + 120.0
        while len(self.statuses) < until and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(self.statuses) >= until

    def _ask(self) -> None:
        connection: http.client.HTTPConnection | None = None
        name: str | None = None
        connected, asked, n_asked = 0.0, 0.0, 0
        while not self.ended.is_set() or name is not None:
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
                    connection.connect()
                    connected, n_asked = time.monotonic(), 0
            except OSError:
                if connection is not None:
                    connection.close()
                return  # the server listens no more: nothing was asked, nothing failed
            try:
                name = name or (uuid.uuid4().hex if self.repeats else None)
                headers = {} if name is None else {"x-amzn-sagemaker-inference-id": name}
                if (model := next(self._models, None)) is not None:
                    headers["x-amzn-sagemaker-target-model"] = model
                n_asked, asked = n_asked + 1, time.monotonic()
                connection.request("POST", "/endpoints/lake/invocations", b"3", headers)
                response = connection.getresponse()
                response.read()
                self.statuses.append(response.status)
                if name is not None:
                    self.answered.append(name)
                    name = None
                self.variants.add(str(response.headers["x-amzn-invoked-production-variant"]))
                if response.headers["connection"] == "close":
                    connection.close()
                    connection = None
            except Exception as error:
                if name is not None and isinstance(error, ConnectionError | http.client.HTTPException):
                    self.n_repeated += 1
                else:
                    after_s, took_s = asked - connected, time.monotonic() - asked
                    when = f"request {n_asked} of a connection, {after_s:.3f} s after its begin, after {took_s:.3f} s"
                    self.failures.append(f"{error!r} ({when})")
                    name = None
                connection.close()
                connection = None
        if connection is not None:
            connection.close()


EACH = pytest.mark.parametrize("n", [500, pytest.param(10_000, marks=pytest.mark.slow)])
"""Requests under which nothing may fail."""


@EACH
def test_no_request_fails_while_weights_change(bundles: dict[str, Path], tmp_path: Path, n: int) -> None:
    variants = [{"name": name, "bundle": bundles[name]} for name in ("left", "right")]
    with running(endpoint_file(tmp_path, {"name": "lake", "variants": variants})) as found, Load(found) as load:
        for i in range(10):
            load.wait(n // 10)
            body = json.dumps({"weights": {"left": i % 2, "right": 1 - i % 2}}).encode()
            assert request(found, body, path="/endpoints/lake/weights", content_type="application/json")[0] == 200
        load.wait(50)
    assert load.failures == []
    assert set(load.statuses) == {200}
    assert load.variants == {"left", "right"}


@EACH
def test_no_request_fails_of_an_update_and_its_rollback(bundles: dict[str, Path], tmp_path: Path, n: int) -> None:
    file = one_policy(tmp_path, bundles["left"])
    with running(file, "--state", str(tmp_path / "state")) as found, Load(found) as load:
        for kind in ("canary", "linear", "rolling", "all_at_once"):
            config = {
                "name": "lake",
                "variants": [{"name": "left", "bundle": str(bundles["right"])}],
                "guardrail": {"kind": kind, "size": 0.5, "bake_s": 300 if kind == "linear" else 0.3},
            }
            body = json.dumps({"config": config}).encode()
            place = {"path": "/endpoints/lake/update", "content_type": "application/json"}
            assert request(found, body, **place)[0] == 200
            load.wait(n // 2)
            if kind == "linear":
                assert request(found, b"{}", path="/endpoints/lake/rollback", content_type="application/json")[0] == 200
            deadline = time.monotonic() + 20.0
            while status(found)["status"] == "Updating":
                assert time.monotonic() < deadline
                time.sleep(0.05)
            load.wait(n // 2)
        assert status(found)["generation"] == 4
    assert load.failures == []
    assert set(load.statuses) == {200}


def status(server: ServerProcess) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(request(server, b"", path="/endpoints/lake", method="GET")[2])
    return found


@EACH
def test_no_request_fails_when_it_stops(bundles: dict[str, Path], tmp_path: Path, n: int) -> None:
    file = one_policy(tmp_path, bundles["left"], capture={"folder": "data"})
    with running(file) as found, Load(found) as load:
        load.wait(n)
        assert found.stop() == 0
        load.ended.wait(0.5)
    assert load.failures == []
    assert set(load.statuses) == {200}
    captured = list(read_captured(tmp_path / "data", endpoint="lake"))
    assert len(captured) == len(load.statuses)  # what waited was written before the end
    assert found.errors == ""


@pytest.mark.skipif(sys.platform != "linux", reason="a filter of Linux")
def test_who_has_begun_to_connect_is_let_in_and_nobody_else() -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)  # a client is half-way until it sends
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(5.0)
        with socket.create_connection(listener.getsockname()) as client:
            let_nobody_in(listener)
            client.sendall(b"3")
            with listener.accept()[0] as connection:
                assert connection.recv(1) == b"3"
        with pytest.raises(TimeoutError, match="timed out"):
            socket.create_connection(listener.getsockname(), timeout=0.2)
        let_everybody_in(listener)
        with socket.create_connection(listener.getsockname(), timeout=5.0):
            pass


def test_an_update_goes_on_after_kill_9(bundles: dict[str, Path], tmp_path: Path) -> None:
    file, state = one_policy(tmp_path, bundles["left"]), str(tmp_path / "state")
    update = {
        "name": "lake",
        "variants": [{"name": "left", "bundle": str(bundles["right"])}],
        "guardrail": {"kind": "canary", "size": 0.5, "bake_s": 2.0},
    }
    with running(file, "--state", state) as found:
        body = json.dumps({"config": update}).encode()
        assert request(found, body, path="/endpoints/lake/update", content_type="application/json")[0] == 200
        found.kill()
    assert stat.S_IMODE(os.stat(tmp_path / "state" / "secret").st_mode) == 0o600
    with running(file, "--state", state) as found:
        deadline = time.monotonic() + 30.0
        while status(found)["generation"] == 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert [event["what"] for event in status(found)["events"]] == ["update", "resumed", "step", "updated"]
        assert {json.loads(request(found)[2])["action"] for _ in range(20)} == {2}


def test_one_process_has_the_state_at_a_time(bundles: dict[str, Path], tmp_path: Path) -> None:
    file, state = one_policy(tmp_path, bundles["left"]), str(tmp_path / "state")
    with running(file, "--state", state), pytest.raises(AssertionError, match="in use by another policylab process"):
        ServerProcess(file, "--state", state)
