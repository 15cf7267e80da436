"""An endpoint on Ray Serve: the same answers from all replicas, more of them under load, nothing left behind."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.deployment.conftest import ServerProcess, endpoint_file, running
from tests.deployment.test_serving import Load, request, status
from tests.launchers.conftest import join, ray_environment, start_head, start_node  # noqa: F401 - fixtures

from policylab.deployment.endpoint import EndpointConfig, load_endpoint
from policylab.errors import ConfigError

pytest.importorskip("uvicorn")
pytest.importorskip("httptools")
pytest.importorskip("msgspec")


def scaled(bundles: dict[str, Path], **sections: Any) -> dict[str, Any]:
    """Return the document of an endpoint on Ray Serve that reacts soon."""
    cooldowns = {"scale_out_cooldown_s": 1, "scale_in_cooldown_s": 2}
    return {
        "name": "lake",
        "variants": [{"name": "a", "bundle": bundles["soft"]}, {"name": "b", "bundle": bundles["left"]}],
        "ray_serve": {"cpus_per_replica": 0.1},
        "autoscaling": {"max_capacity": 3, "concurrent_requests": 1, **cooldowns},
        **sections,
    }


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"capture": {"folder": "data"}}, "cannot have capture, since its replicas share no memory"),
        ({"comparison": {"reward_low": 0, "reward_high": 1}}, "cannot have comparison"),
        ({"shadows": [{"name": "c", "bundle": "x"}]}, "cannot have shadows"),
        ({"asynchronous": {"folder": "s3"}}, "cannot have asynchronous"),
        ({"sessions": {"expire_s": 3}}, "cannot have sessions"),
        ({"guardrail": {"kind": "canary", "size": 0.1, "bake_s": 1}}, "cannot have guardrail"),
        ({"limits": {"requests_per_s": 9}}, r"cannot have limits\.requests_per_s"),
        ({"limits": {"body_timeout_s": 9}}, r"cannot have limits\.body_timeout_s"),
        ({"autoscaling": None}, "ray_serve needs a target"),
        ({"autoscaling": {"max_capacity": 3, "requests_per_s": 9}}, "ray_serve needs a target"),
        ({"ray_serve": None}, "autoscaling is for Ray Serve or SageMaker"),
    ],
)
def test_what_needs_one_memory_is_refused_at_once(
    bundles: dict[str, Path], tmp_path: Path, sections: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        load_endpoint(endpoint_file(tmp_path, scaled(bundles, **sections)))


def test_options_of_one_server_are_refused(bundles: dict[str, Path], tmp_path: Path) -> None:
    file = endpoint_file(tmp_path, scaled(bundles))
    for options in (["--workers", "2"], ["--drain", "3"]):
        with pytest.raises(AssertionError, match="takes no --workers or --drain"):
            ServerProcess(file, *options)


def test_a_replica_decides_and_refuses_what_would_have_to_reach_all(bundles: dict[str, Path]) -> None:
    from policylab.deployment.http.access import Access
    from policylab.deployment.scale_out import ReplicaApp

    config = EndpointConfig.model_validate(scaled(bundles))
    replicas = [ReplicaApp(config, secret=b"s" * 32, access=Access()) for _ in range(2)]

    def ask(app: ReplicaApp, page: str = "/invocations", **headers: str) -> tuple[int, dict[str, Any]]:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b'{"observation": 3}'}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        names = {"content-type": "application/json", "host": "localhost", **headers}
        scope = {
            "type": "http",
            "method": "GET" if page in ("/ping", "/openapi.json") else "POST",
            "path": page if page.startswith(("/ping", "/openapi")) else f"/endpoints/lake{page}",
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in names.items()],
        }
        asyncio.run(app(scope, receive, send))
        return sent[0]["status"], json.loads(sent[1]["body"] or b"{}")

    for i in range(20):
        answers = [ask(one, x_amzn_sagemaker_inference_id=f"id-{i}") for one in replicas]
        assert answers[0] == answers[1]  # a retry gets the same decision wherever it goes
        assert answers[0][0] == 200
    for verb in ("weights", "update", "promote", "rollback", "rewards"):
        code, told = ask(replicas[0], f"/{verb}")
        assert (code, told["Message"][:54]) == (400, "an endpoint on Ray Serve stays as it was started, and ")
    code, told = ask(replicas[0], x_amzn_sagemaker_session_id="NEW_SESSION")
    assert (code, told["Message"]) == (400, "an endpoint on Ray Serve keeps no sessions; leave SessionId out")
    paths = ask(replicas[0], "/openapi.json")[1]["paths"]
    asked = {f"/endpoints/lake{page}" for page in ("", "/invocations", "/invocations-response-stream")}
    assert set(paths) == asked | {"/invocations", "/ping", "/execution-parameters", "/openapi.json"}


@pytest.fixture
def family() -> Iterator[list[psutil.Process]]:
    """Processes that must have ended after the test."""
    pytest.importorskip("ray.serve", exc_type=ImportError)
    found: list[psutil.Process] = []
    yield found
    assert found
    deadline = time.monotonic() + 30.0
    while alive := [process for process in found if lives(process)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.1)


def lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def client_of(server: ServerProcess) -> Any:
    boto3, config = pytest.importorskip("boto3"), pytest.importorskip("botocore.config")
    return boto3.client("sagemaker-runtime", endpoint_url=server.url, region_name="us-east-1",
                        aws_access_key_id="unused", aws_secret_access_key="unused",
                        config=config.Config(retries={"max_attempts": 0}))  # fmt: skip


def test_boto3_asks_two_replicas(bundles: dict[str, Path], tmp_path: Path, family: list[psutil.Process]) -> None:
    two = {"min_capacity": 2, "max_capacity": 2, "concurrent_requests": 4}
    with running(endpoint_file(tmp_path, scaled(bundles, autoscaling=two))) as found:
        client = client_of(found)
        family += psutil.Process(found.process.pid).children(recursive=True)

        def ask(**about: str) -> dict[str, Any]:
            answer = client.invoke_endpoint(EndpointName="lake", Body=b'{"observation": 3}',
                                            ContentType="application/json", **about)  # fmt: skip
            assert answer["InvokedProductionVariant"] in ("a", "b")
            return dict(json.loads(answer["Body"].read()))

        drawn = [ask() for _ in range(40)]
        assert len({one["decision_id"] for one in drawn}) == 40
        assert {one["variant"] for one in drawn} == {"a", "b"}
        same = [ask(InferenceId="again") for _ in range(20)]
        assert all(one == same[0] for one in same)
        assert ask(TargetVariant="b")["action"] == 0
        with pytest.raises(client.exceptions.ModelError, match="99 is not a whole number"):
            client.invoke_endpoint(EndpointName="lake", Body=b'{"observation": 99}', ContentType="application/json")
        assert status(found)["ray_serve"] == {"running": 2}
        assert found.stop() == 0
        assert found.errors == ""


@pytest.mark.slow
def test_kill_9_leaves_no_process(bundles: dict[str, Path], tmp_path: Path, family: list[psutil.Process]) -> None:
    two = {"min_capacity": 2, "max_capacity": 2, "concurrent_requests": 4}
    with running(endpoint_file(tmp_path, scaled(bundles, autoscaling=two))) as found:
        family += psutil.Process(found.process.pid).children(recursive=True)
        names = {process.pid: process.name() for process in family}
        for part in ("raylet", "gcs_server", "ServeController", "ServeReplica"):
            assert part in " ".join(names.values())
        with Load(found, n_clients=2) as load:
            load.wait(20)
            found.kill()
    # Ray's agents tell the cluster, which is no more, of its end for a minute; the others go within seconds.
    _, left = psutil.wait_procs(family, timeout=30.0)
    assert {names[process.pid] for process in left} <= {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}
    psutil.wait_procs(left, timeout=90.0)


@pytest.mark.slow
def test_replicas_follow_the_load(bundles: dict[str, Path], tmp_path: Path, family: list[psutil.Process]) -> None:
    failures: list[str] = []
    stop = threading.Event()
    scaling = {**scaled(bundles)["autoscaling"], "concurrent_requests": 4}  # far from one client and from 24
    with running(endpoint_file(tmp_path, scaled(bundles, autoscaling=scaling))) as found:
        family += psutil.Process(found.process.pid).children(recursive=True)

        def replicas(wanted: dict[str, int]) -> None:
            deadline = time.monotonic() + 60.0
            while status(found)["ray_serve"] != wanted:
                assert time.monotonic() < deadline, status(found)["ray_serve"]
                time.sleep(0.2)

        def ask() -> None:
            client = client_of(found)
            while not stop.is_set():
                try:
                    client.invoke_endpoint(EndpointName="lake", Body=b"3", ContentType="application/json")
                except Exception as error:
                    failures.append(repr(error))

        replicas({"running": 1})
        threads = [threading.Thread(target=ask) for _ in range(24)]
        for thread in threads:
            thread.start()
        try:
            replicas({"running": 3})
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        with Load(found, n_clients=1) as load:  # who goes on while replicas leave
            replicas({"running": 1})
            load.wait(50)
        assert failures == load.failures == []
        assert set(load.statuses) == {200}
        assert request(found)[0] == 200
        assert found.stop() == 0


def test_a_cluster_that_is_not_there_is_told_in_words(bundles: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("ray.serve", exc_type=ImportError)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        file = endpoint_file(tmp_path, scaled(bundles, ray_serve={"address": address}))
        with pytest.raises(AssertionError, match=f"ray_serve.address={address}: cannot be reached") as told:
            ServerProcess(file)
    assert "Traceback" not in str(told.value)


@pytest.mark.slow
def test_a_running_cluster_of_two_nodes_serves_and_stays(
    bundles: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    start_head: Any,  # noqa: F811 - fixtures
    join: Any,  # noqa: F811
) -> None:
    pytest.importorskip("ray.serve", exc_type=ImportError)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    head, address = start_head("--num-cpus", 1)
    join(address, "--num-cpus", 1)
    two = {"min_capacity": 2, "max_capacity": 2, "concurrent_requests": 4}
    # Neither node has room for both replicas.
    ray_serve = {"address": address, "cpus_per_replica": 0.6, "start_timeout_s": 180}
    file = endpoint_file(tmp_path, scaled(bundles, ray_serve=ray_serve, autoscaling=two))
    for _ in range(2):  # the cluster stays, and takes the next endpoint
        with running(file) as found:
            deadline = time.monotonic() + 120.0
            while status(found)["ray_serve"] != {"running": 2}:
                assert time.monotonic() < deadline, status(found)["ray_serve"]
                time.sleep(0.2)
            client = client_of(found)
            about = {"EndpointName": "lake", "ContentType": "application/json", "InferenceId": "again"}
            answers = [client.invoke_endpoint(Body=b"3", **about)["Body"].read() for _ in range(20)]
            assert len(set(answers)) == 1
            with Load(found, n_clients=2) as load:
                load.wait(200)
            assert load.failures == []
            assert set(load.statuses) == {200}
            assert found.stop() == 0
            assert found.errors == ""
        assert head.process.poll() is None
