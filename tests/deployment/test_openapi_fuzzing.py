"""Schemathesis on the OpenAPI document of running servers: what is documented is what is answered, whatever is sent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from tests.deployment.conftest import ServerProcess, endpoint_file, running
from tests.deployment.test_serving import request as asked

pytest.importorskip("uvicorn")
pytest.importorskip("httptools")
pytest.importorskip("msgspec")
schemathesis = pytest.importorskip("schemathesis")

EXAMPLES = 12
"""Of each route and each way to make requests: those that follow the document, and those that break it."""

UNTYPED = ("text/csv", "application/jsonlines")
"""Of these the document says that they are text, and the number 0 in the place of a text is sent as one: a good one."""


@pytest.fixture(scope="module", params=["variants", "models", "asynchronous"])
def server(
    request: pytest.FixtureRequest, bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    variants = [{"name": "a", "bundle": bundles["left"]}, {"name": "b", "bundle": bundles["soft"]}]
    sections: dict[str, dict[str, Any]] = {
        "variants": {"variants": variants, "capture": {"folder": "data"}},
        "models": {"models": {"folder": bundles["left"].parent}},
        "asynchronous": {"variants": variants, "asynchronous": {"folder": "s3"}},
    }
    folder = tmp_path_factory.mktemp("openapi")
    with running(endpoint_file(folder, {"name": "lake", **sections[request.param]})) as found:
        yield found


@pytest.mark.parametrize("strict", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_answers_are_as_documented(server: ServerProcess, *, strict: bool) -> None:
    """Strict: what it forbids is refused, too; which wrong requests are tried depends on what is imported."""
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) >= 10
    for operation in operations:
        for mode in schemathesis.GenerationMode:
            with contextlib.suppress(Unsatisfiable):  # what takes nothing cannot be sent anything wrong
                check(operation, mode, strict=strict)
    assert asked(server, b"", path="/ping", method="GET")[0] == 200
    assert "Traceback" not in server.errors


def check(operation: Any, mode: Any, *, strict: bool) -> None:
    """Send requests of one kind to one route; statuses, content types, headers and bodies must be documented ones."""
    checks = schemathesis.checks
    # Which requests are refused depends on more than their form: the variants, an update under way, ids that were used.
    semantic = [checks.CHECKS.get_one(name) for name in ("positive_data_acceptance", "negative_data_rejection")]

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def conform(case: Any) -> None:
        response = case.call()
        case.validate_response(response, excluded_checks=semantic)
        assert response.status_code < 500, case.as_curl_command()
        may_pass = mode is schemathesis.GenerationMode.POSITIVE or case.media_type in UNTYPED
        assert not strict or may_pass or response.status_code >= 400, case.as_curl_command()
        assert b"Traceback" not in response.content
        assert b'File "' not in response.content

    conform()
