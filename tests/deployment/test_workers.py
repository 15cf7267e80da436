"""An endpoint of several processes: what is remembered holds for all of them, and those that are killed come back."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.deployment.conftest import ServerProcess, running
from tests.deployment.test_serving import EACH, Load, one_policy, raw, request, status

from policylab.deployment.capture.reading import read_captured

pytest.importorskip("uvicorn")
pytest.importorskip("httptools")
pytest.importorskip("msgspec")
psutil = pytest.importorskip("psutil")

UPDATE = {"path": "/endpoints/lake/update", "content_type": "application/json"}


def children(server: ServerProcess, role: str) -> list[Any]:
    """Return the live processes of a role."""
    found = psutil.Process(server.process.pid).children()
    return [one for one in found if one.status() != psutil.STATUS_ZOMBIE and role in one.cmdline()]


def until(condition: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def server(bundles: dict[str, Path], tmp_path: Path) -> Iterator[ServerProcess]:
    file = one_policy(tmp_path, bundles["left"], capture={"folder": "data"}, limits={"body_bytes": 100_000})
    with running(file, "--workers", "2", "--state", str(tmp_path / "state")) as found:
        yield found


def test_all_workers_know_the_same(server: ServerProcess, bundles: dict[str, Path], tmp_path: Path) -> None:
    assert len(children(server, "worker")) == 2
    answers = [request(server, x_amzn_sagemaker_inference_id="one")[2] for _ in range(20)]  # a connection each
    assert len(set(answers)) == 1
    assert status(server)["retries"] == 19
    assert request(server, b"4", x_amzn_sagemaker_inference_id="one")[0] == 400  # used for another request
    config = {"name": "lake", "variants": [{"name": "left", "bundle": str(bundles["right"])}],
              "capture": {"folder": str(tmp_path / "data")}, "limits": {"body_bytes": 100_000}}  # fmt: skip
    assert request(server, json.dumps({"config": config}).encode(), **UPDATE)[0] == 200
    until(lambda: status(server)["generation"] == 2)
    assert {json.loads(request(server)[2])["action"] for _ in range(20)} == {2}
    code, headers, content = request(server, b"[3, 4]", path="/endpoints/lake/invocations-response-stream")
    assert (code, headers["content-type"]) == (200, "application/vnd.amazon.eventstream")
    assert content.count(b"decision_id") == 2
    assert request(server, b"0" * 2_000_000)[0] == 413
    assert request(server, b"", path="/nothing", method="GET")[0] == 404
    assert raw(server, b"\0" * 1000, half_close=True)[:12] != b"HTTP/1.1 500"
    assert b"policylab_decisions_total" in request(server, b"", path="/metrics", method="GET")[2]
    assert server.stop() == 0
    assert len(list(read_captured(tmp_path / "data", endpoint="lake"))) == 23


def test_the_processes_end_with_their_parent(server: ServerProcess) -> None:
    found = children(server, "worker") + children(server, "keeper")
    assert len(found) == 3
    server.kill()
    psutil.wait_procs(found, timeout=60.0)
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in found)


@EACH
def test_no_request_fails_when_the_keeper_is_killed(server: ServerProcess, bundles: dict[str, Path], n: int,
                                                    tmp_path: Path) -> None:  # fmt: skip
    """Not even once: the workers hold what it has not answered, and the update under way goes on where it was."""
    config = {"name": "lake", "variants": [{"name": "left", "bundle": str(bundles["right"])}],
              "capture": {"folder": str(tmp_path / "data")}, "limits": {"body_bytes": 100_000},
              "guardrail": {"kind": "canary", "size": 0.5, "bake_s": 3600.0}}  # fmt: skip
    assert request(server, json.dumps({"config": config}).encode(), **UPDATE)[0] == 200
    with Load(server) as load:
        for _ in range(2):
            load.wait(n // 2)
            (keeper,) = children(server, "keeper")
            os.kill(keeper.pid, signal.SIGKILL)
            load.wait(20)
    assert load.failures == []
    assert set(load.statuses) == {200}
    found = status(server)
    assert found["update"]["step"] == 0
    assert [event["what"] for event in found["events"]] == ["update", "resumed", "resumed"]
    body = {"path": "/endpoints/lake/rollback", "content_type": "application/json"}
    assert request(server, b"{}", **body)[0] == 200


@EACH
def test_no_request_fails_when_workers_are_killed(server: ServerProcess, tmp_path: Path, n: int) -> None:
    """Connections of a process that is killed are lost; whoever repeats as boto3 does gets one decision, once."""
    with Load(server, repeats=True) as load:
        for _ in range(2):
            load.wait(n // 2)
            until(lambda: len(children(server, "worker")) == 2)
            os.kill(children(server, "worker")[0].pid, signal.SIGKILL)
            load.wait(20)
    assert load.failures == []
    assert set(load.statuses) == {200}
    until(lambda: len(children(server, "worker")) == 2)
    assert server.stop() == 0
    captured = [one.inference_id for one in read_captured(tmp_path / "data", endpoint="lake")]
    assert sorted(captured) == sorted(load.answered)  # each of them once
    assert server.errors.count("has ended with code -9") == 2


@EACH
def test_no_request_fails_when_all_of_it_stops(server: ServerProcess, tmp_path: Path, n: int) -> None:
    with Load(server) as load:
        load.wait(n)
        assert server.stop() == 0
        load.ended.wait(0.5)
    assert load.failures == []
    assert set(load.statuses) == {200}
    assert len(list(read_captured(tmp_path / "data", endpoint="lake"))) == len(load.statuses)


def test_what_is_wrong_with_the_endpoint_is_told(bundles: dict[str, Path], tmp_path: Path) -> None:
    file = one_policy(tmp_path, bundles["left"], fallback={"action": 99})
    with pytest.raises(AssertionError, match=r"fallback\.action"):
        ServerProcess(file, "--workers", "1")
    with pytest.raises(AssertionError, match="--workers must be 0"):
        ServerProcess(file, "--workers", "-1")
