"""Whatever is posted to whichever page, nobody gets a 500 or a traceback, and the endpoint goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.deployment.conftest import ServerProcess, endpoint_file, running
from tests.deployment.test_serving import healthy, request

pytest.importorskip("uvicorn")
pytest.importorskip("httptools")
pytest.importorskip("msgspec")

PAGES = (
    "",
    "/invocations",
    "/invocations-response-stream",
    "/async-invocations",
    "/rewards",
    "/weights",
    "/update",
    "/promote",
    "/rollback",
    "/nothing",
)
KEYS = ("weights", "a", "b", "config", "name", "variants", "guardrail", "comparison", "full", "rewards", "decision_id",
        "reward", "reward_id", "observation", "observations", "mask", "masks", "episode", "step")  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def server(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    variants = [{"name": "a", "bundle": bundles["left"]}, {"name": "b", "bundle": bundles["soft"]}]
    rules = {"reward_low": 0.0, "reward_high": 1.0}
    document = {"name": "lake", "variants": variants, "comparison": rules, "capture": {"folder": "data"}}
    with running(endpoint_file(tmp_path_factory.mktemp("fuzzing"), document)) as found:
        yield found


def harmless(server: ServerProcess, page: str, body: bytes, **options: str) -> None:
    status, _, content = request(server, body, path=f"/endpoints/lake{page}", **options)
    assert status < 500, content
    assert b"Traceback" not in content
    assert b'File "' not in content


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(page=st.sampled_from(PAGES), document=JSON, method=st.sampled_from(["POST", "POST", "POST", "GET", "PUT"]))
def test_documents_of_any_form_do_no_harm(server: ServerProcess, page: str, document: Any, method: str) -> None:
    body = json.dumps(document).encode("utf-8", errors="surrogatepass")  # NaN and infinities are sent too
    harmless(server, page, body, method=method, content_type="application/json")


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    page=st.sampled_from(PAGES),
    body=st.binary(max_size=200),
    content_type=st.sampled_from(["application/json", "text/csv", "application/x-npy", "x", ""]),
    name=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80),
)
def test_bytes_and_headers_of_any_form_do_no_harm(
    server: ServerProcess, page: str, body: bytes, content_type: str, name: str
) -> None:
    harmless(server, page, body, content_type=content_type, x_amzn_sagemaker_inference_id=name,
             x_amzn_sagemaker_session_id=name, x_amzn_sagemaker_target_variant=name)  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_deep_documents_do_no_harm(server: ServerProcess, page: str) -> None:
    harmless(server, page, b"[" * 100_000, content_type="application/json")
    harmless(server, page, b'{"config":' * 20_000 + b"1" + b"}" * 20_000, content_type="application/json")


def test_it_is_whole_afterwards(server: ServerProcess) -> None:
    assert healthy(server)
    assert "Traceback" not in server.errors
