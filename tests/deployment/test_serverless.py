"""Serverless endpoints: policies in memory only while they are asked, and no more requests at once than allowed."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.deployment.conftest import endpoint, endpoint_file, lake_bundle, running
from tests.deployment.test_serving import request, status

from policylab.deployment.http.access import Access
from policylab.deployment.serverless import RunningServerless, ServerlessApp
from policylab.errors import BundleError

pytest.importorskip("uvicorn")
pytest.importorskip("httptools")
pytest.importorskip("msgspec")

INVOKE = "/endpoints/lake/invocations"


class Page:
    """Calls the application without a server."""

    def __init__(self, bundle: Path, **settings: Any) -> None:
        config = endpoint({"name": "left", "bundle": bundle}, serverless=settings)
        self.running = RunningServerless(config)
        self.app = ServerlessApp(self.running, access=Access())

    async def __call__(self, method: str, path: str, body: bytes = b"", *, wait: asyncio.Event | None = None,
                       **headers: str) -> tuple[int, dict[str, Any]]:  # fmt: skip
        sent: list[dict[str, Any]] = []
        named = {"content-type": "application/json", "host": "localhost",
                 **{key.replace("_", "-"): value for key, value in headers.items()}}  # fmt: skip
        scope = {"type": "http", "method": method, "path": path,
                 "headers": [(key.encode(), value.encode()) for key, value in named.items()]}  # fmt: skip

        async def receive() -> dict[str, Any]:
            if wait is not None:
                await wait.wait()
            return {"type": "http.request", "body": body}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        content = sent[1]["body"]
        return sent[0]["status"], json.loads(content) if content.startswith(b"{") else {"text": content.decode()}

    async def asleep(self) -> None:
        while (await self("GET", "/endpoints/lake"))[1]["serverless"]["awake"]:
            await asyncio.sleep(0.01)


def called(page: Page, use: Callable[[Page], Awaitable[None]]) -> None:
    async def run() -> None:
        try:
            await asyncio.wait_for(use(page), 60.0)
        finally:
            page.running.close()

    asyncio.run(run())


def test_it_wakes_when_asked_and_sleeps_when_idle(bundles: dict[str, Path]) -> None:
    async def use(page: Page) -> None:
        for path in ("/ping", "/metrics", "/openapi.json"):
            assert (await page("GET", path))[0] == 200
        _, found = await page("GET", "/endpoints/lake")
        assert (found["serverless"]["awake"], found["serverless"]["cold_starts"]) == (False, 0)
        answers = await asyncio.gather(*(page("POST", INVOKE, b"3") for _ in range(20)))
        assert {code for code, _ in answers} == {200}
        assert page.running.awake is not None
        policy = weakref.ref(page.running.awake.server.fleet.bundle.policy)
        del answers
        await page.asleep()
        while policy() is not None:  # until what was captured is written
            gc.collect()
            await asyncio.sleep(0.01)
        _, found = await page("GET", "/endpoints/lake")
        assert found["serverless"]["cold_starts"] == 1  # for all of them
        assert found["serverless"]["last_cold_start_ms"] > 0.0
        first = await page("POST", INVOKE, b"3", x_amzn_sagemaker_inference_id="one")
        await page.asleep()
        assert await page("POST", INVOKE, b"3", x_amzn_sagemaker_inference_id="one") == first  # the secret is kept
        assert 'cold_starts_total{endpoint="lake"} 3.0' in (await page("GET", "/metrics"))[1]["text"]

    called(Page(bundles["random"], idle_s=0.3, max_concurrency=20), use)


def test_more_requests_at_once_than_allowed_are_refused(bundles: dict[str, Path]) -> None:
    async def use(page: Page) -> None:
        go_on = asyncio.Event()
        held = [asyncio.create_task(page("POST", INVOKE, b"3", wait=go_on)) for _ in range(2)]
        while page.app._n_under_way < 2:
            await asyncio.sleep(0.01)
        code, refused = await page("POST", INVOKE, b"3")
        assert code == 429
        assert "serverless.max_concurrency" in refused["Message"]
        assert (await page("GET", "/ping"))[0] == 200
        go_on.set()
        assert {code for code, _ in await asyncio.gather(*held)} == {200}
        assert (await page("POST", INVOKE, b"3"))[0] == 200

    called(Page(bundles["left"], max_concurrency=2), use)


def test_a_bundle_that_vanishes_is_told_and_may_come_back(tmp_path: Path) -> None:
    lake_bundle(tmp_path / "b", action=1)
    page = Page(tmp_path / "b", idle_s=0.05)
    manifest = tmp_path / "b" / "manifest.json"

    async def use(page: Page) -> None:
        content = manifest.read_bytes()
        manifest.unlink()
        code, told = await page("POST", INVOKE, b"3")
        assert (code, "no manifest" in told["Message"]) == (424, True)
        manifest.write_bytes(content)
        assert (await page("POST", INVOKE, b"3"))[1]["action"] == 1

    called(page, use)
    manifest.unlink()
    with pytest.raises(BundleError, match="no manifest"):
        Page(tmp_path / "b")


def test_boto3_wakes_a_served_endpoint(bundles: dict[str, Path], tmp_path: Path) -> None:
    boto3 = pytest.importorskip("boto3")
    variants = [{"name": "left", "bundle": bundles["left"]}]
    file = endpoint_file(tmp_path, {"name": "lake", "variants": variants, "serverless": {"idle_s": 0.05}})
    with running(file) as found:
        client = boto3.client("sagemaker-runtime", endpoint_url=found.url, region_name="us-east-1",
                              aws_access_key_id="unused", aws_secret_access_key="unused")  # fmt: skip
        for _ in range(3):
            assert client.invoke_endpoint(EndpointName="lake", Body=b"3")["InvokedProductionVariant"] == "left"
            while status(found)["serverless"]["awake"]:
                pass
        assert status(found)["serverless"]["cold_starts"] == 3
        assert request(found, b"", path="/nothing", method="GET")[0] == 404
        assert found.stop() == 0


def test_the_file_says_what_goes_together(bundles: dict[str, Path]) -> None:
    left = {"name": "left", "bundle": bundles["left"]}
    with pytest.raises(ValueError, match="a serverless endpoint has no second variant"):
        endpoint(left, {**left, "name": "right"}, serverless={})
    with pytest.raises(ValueError, match="a serverless endpoint has no asynchronous"):
        endpoint(left, serverless={}, asynchronous={"folder": "s3"})
