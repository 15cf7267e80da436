"""The program that SageMaker starts to host a policy, as a process with a private root on a loopback port."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from tests.deployment.conftest import lake_bundle

from policylab.deployment.sagemaker.inside import endpoint_inside
from policylab.errors import ConfigError, UserError

WAIT_S = 120


@pytest.fixture
def root(tmp_path):
    lake_bundle(tmp_path / "ml" / "model", action=2)
    return tmp_path / "ml"


@pytest.fixture
def container(root):
    """Start the program; return its address."""
    started = []

    def start(**environment):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        own = {"POLICYLAB_ML_ROOT": str(root), "POLICYLAB_HOST": "127.0.0.1", "SAGEMAKER_BIND_TO_PORT": str(port)}
        command = [sys.executable, "-m", "policylab", "container", "serve"]
        process = subprocess.Popen(command, env={**os.environ, **own, **environment})
        started.append(process)
        address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + WAIT_S
        while True:
            try:
                urllib.request.urlopen(f"{address}/ping", timeout=10).close()
                return process, address
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)

    yield start
    for process in started:
        process.kill()
        process.wait()


def post(address, path, body, **headers):
    headers = {"content-type": "application/json", **headers}
    request = urllib.request.Request(address + path, data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_the_container_answers_the_contract_and_ends_when_told(container):
    told = {"name": "lake", "variants": [{"name": "blue", "bundle": "/opt/ml/model"}]}
    process, address = container(POLICYLAB_ENDPOINT=json.dumps(told))
    decision, _ = post(address, "/invocations", b"[3, 4]")["decisions"]
    assert (decision["action"], decision["variant"]) == (2, "blue")
    for path in ("/endpoints/lake/weights", "/endpoints/lake/rollback"):
        with pytest.raises(urllib.error.HTTPError, match=r"40[13]") as refused:
            post(address, path, b"{}")
        refused.value.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def test_a_transform_job_sends_and_gets_lines(container):
    told = {"name": "lake", "variants": [{"name": "blue", "bundle": "/opt/ml/model"}], "limits": {"batch": 1}}
    batch = {"SAGEMAKER_BATCH": "true", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "2", "SAGEMAKER_BATCH_STRATEGY": "MULTI_RECORD"}
    _, address = container(POLICYLAB_ENDPOINT=json.dumps(told), **batch)
    with urllib.request.urlopen(f"{address}/execution-parameters", timeout=30) as answer:
        found = json.load(answer)
    assert found == {"MaxConcurrentTransforms": 1, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 2}
    lines = b"".join(b'{"observation": %d, "mask": [1, 0, %d, 1]}\n' % (i % 16, i % 2) for i in range(3000))
    kind = {"content-type": "application/jsonlines", "accept": "application/jsonlines"}
    request = urllib.request.Request(f"{address}/invocations", data=lines, headers=kind)
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.headers["content-type"] == "application/jsonlines"
        decisions = [json.loads(line) for line in answer]
    assert len(decisions) == 3000
    assert {one["action"] for one in decisions[1::2]} == {2}
    assert 2 not in {one["action"] for one in decisions[::2]}


def test_the_service_loads_and_unloads_models(root, container):
    shutil.copytree(root / "model", root / "models" / "0a1b" / "model")
    told = {"name": "lake", "models": {"folder": "/opt/ml/models"}}
    _, address = container(SAGEMAKER_MULTI_MODEL="true", POLICYLAB_ENDPOINT=json.dumps(told))
    place = str(root / "models" / "0a1b" / "model")
    load = json.dumps({"model_name": "0a1b", "url": place}).encode()
    assert post(address, "/models", load) == {"modelName": "0a1b", "modelUrl": place}
    assert post(address, "/models/0a1b/invoke", b"3")["action"] == 2
    unload = urllib.request.Request(f"{address}/models/0a1b", method="DELETE")
    urllib.request.urlopen(unload, timeout=30).close()
    with pytest.raises(urllib.error.HTTPError, match="404") as refused:
        post(address, "/models/0a1b/invoke", b"3")
    refused.value.close()


def test_without_a_file_the_bundle_is_served_as_it_is(root):
    config = endpoint_inside({"POLICYLAB_ML_ROOT": str(root)})
    assert [str(variant.bundle) for variant in config.variants] == [str(root / "model")]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (
            {"SAGEMAKER_MULTI_MODEL": "true", "POLICYLAB_ENDPOINT": '{"name": "l", "variants": []}'},
            "needs at least one variant",
        ),
        (
            {
                "SAGEMAKER_MULTI_MODEL": "true",
                "POLICYLAB_ENDPOINT": '{"name": "l", "variants": [{"name": "a", "bundle": "x"}]}',
            },
            "must have a section `models`",
        ),
        (
            {"POLICYLAB_ENDPOINT": '{"name": "lake", "variants": [{"name": "a", "bundel": "x"}]}'},
            "did you mean 'bundle'",
        ),
        ({"POLICYLAB_ENDPOINT": "3"}, "expected a mapping"),
        (
            {"POLICYLAB_ENDPOINT": json.dumps({"name": "l", "variants": [{"name": n, "bundle": "x"} for n in "ab"]})},
            "a container serves one variant",
        ),
    ],
)
def test_what_cannot_be_served_is_refused(root, environment, words):
    with pytest.raises((UserError, ConfigError), match=words):
        endpoint_inside({"POLICYLAB_ML_ROOT": str(root), **environment})


def test_a_model_that_is_no_bundle_is_one_sentence(root):
    shutil.rmtree(root / "model")
    done = subprocess.run(
        [sys.executable, "-m", "policylab", "container", "serve"],
        env={**os.environ, "POLICYLAB_ML_ROOT": str(root), "POLICYLAB_HOST": "127.0.0.1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "no policy bundle" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_none_is_refused(root):
    done = subprocess.run(
        [sys.executable, "-m", "policylab", "container", "serve"],
        env={**os.environ, "POLICYLAB_ML_ROOT": str(root), "SAGEMAKER_BIND_TO_PORT": "eighty"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, "error: SAGEMAKER_BIND_TO_PORT=eighty: not a port")
