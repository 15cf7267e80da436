"""Endpoints of many models: loaded when asked, unloaded when memory is short, and none that hurts another."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.deployment.conftest import ServerProcess, endpoint_file, lake_bundle, running
from tests.deployment.test_serving import EACH, Load, request, status

from policylab.agents.bundle import pack
from policylab.deployment.decision import Refusal
from policylab.deployment.endpoint import EndpointConfig, load_endpoint
from policylab.deployment.http.access import Access
from policylab.deployment.many_models import store as model_store
from policylab.deployment.many_models.app import PAGE, ModelsApp, RunningModels
from policylab.deployment.many_models.store import ModelStore
from policylab.errors import ConfigError

pytest.importorskip("uvicorn")
pytest.importorskip("httptools")
pytest.importorskip("msgspec")

TWO_MODELS_MB = 0.12
"""Room for two small models."""


@pytest.fixture(scope="module")
def folder(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hold models of four actions, as folders, and one as an archive; one that is broken; and ways out."""
    home = tmp_path_factory.mktemp("models")
    folder = home / "zoo"
    for action in range(4):
        lake_bundle(folder / f"always/{action}", action=action)
    pack(bundles["right"], folder / "right.tar.gz")
    shutil.copytree(bundles["left"], folder / "broken")
    (folder / "broken" / "arrays.npz").write_bytes(b"damaged")
    shutil.copytree(bundles["left"], home / "zoo-secret")
    (folder / "link").symlink_to(home / "zoo-secret")
    return folder


def zoo(folder: Path, **models: Any) -> EndpointConfig:
    return EndpointConfig.model_validate({"name": "lake", "models": {"folder": folder, **models}})


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    document = {"name": "lake", "models": {"folder": folder, "memory_mb": TWO_MODELS_MB, "exploration": False}}
    with running(endpoint_file(folder.parent, document)) as found:
        yield found


def test_boto3_names_a_model(server: ServerProcess) -> None:
    boto3 = pytest.importorskip("boto3")
    client = boto3.client("sagemaker-runtime", endpoint_url=server.url, region_name="us-east-1",
                          aws_access_key_id="unused", aws_secret_access_key="unused")  # fmt: skip

    def action(model: str) -> int:
        answer = client.invoke_endpoint(EndpointName="lake", TargetModel=model, Body=b"3")
        return int(json.loads(answer["Body"].read())["action"])

    for _ in range(2):
        assert [action(f"always/{i}") for i in range(4)] == [0, 1, 2, 3]
    assert action("right.tar.gz") == 2
    found = status(server)["models"]
    assert found["loaded"] == 2
    assert found["memory_mb"] <= TWO_MODELS_MB
    assert found["loads"] == found["unloads"] + 2 >= 9
    with pytest.raises(client.exceptions.ModelError, match=r"broken.*arrays\.npz has 7 bytes"):
        action("broken")
    for none in ("nothing", "../zoo-secret", "link"):
        with pytest.raises(client.exceptions.ClientError, match="ValidationError"):
            action(none)
    with pytest.raises(client.exceptions.ClientError, match="name one as TargetModel"):
        client.invoke_endpoint(EndpointName="lake", Body=b"3")
    assert action("always/1") == 1


def test_names_lead_nowhere_else(server: ServerProcess, folder: Path) -> None:
    names = ["..", "../zoo-secret", f"{folder.parent}/zoo-secret", "link", "always/../../zoo-secret", "", ".", "a//b",
             "always/", "%2e%2e/zoo-secret", "..%2fzoo-secret", "x" * 300, "x" * 2000, "a\tb", "\xfc"]  # fmt: skip
    for name in names:
        assert request(server, x_amzn_sagemaker_target_model=name)[0] == 400
        path = f"/models/{name}".encode("latin-1").hex(" ").replace(" ", "%")
        assert request(server, b"", path=f"/%{path}", method="GET")[0] in (400, 404)
        if name != "always/":  # a folder like any other to the service, which names its own places
            body = json.dumps({"model_name": "x", "url": name}).encode()
            assert request(server, body, path="/models", content_type="application/json")[0] == 400
    body = json.dumps({"model_name": "../x", "url": "always/1"}).encode()
    assert request(server, body, path="/models", content_type="application/json")[0] == 400
    for url in ("\0", "always/1\0", 3, None):
        body = json.dumps({"model_name": "x", "url": url}).encode()
        assert request(server, body, path="/models", content_type="application/json")[0] == 400


def test_clients_of_all_models_at_once_get_their_answers(server: ServerProcess) -> None:
    wrong: list[Any] = []

    def ask(first: int) -> None:
        for i in range(25):
            model = (first + i) % 4
            code, _, content = request(server, x_amzn_sagemaker_target_model=f"always/{model}")
            if code != 200 or json.loads(content)["action"] != model:
                wrong.append((code, content))
            request(server, x_amzn_sagemaker_target_model="broken")

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    metrics = request(server, b"", path="/metrics", method="GET")[2].decode()
    assert 'policylab_models_loaded{endpoint="lake"} 2.0' in metrics


@EACH
def test_no_request_fails_while_models_come_and_go(folder: Path, tmp_path: Path, n: int) -> None:
    models = {"folder": folder, "memory_mb": TWO_MODELS_MB}
    places = [*(f"always/{i}" for i in range(4)), "right.tar.gz"]
    with running(endpoint_file(tmp_path, {"name": "lake", "models": models})) as found:
        with Load(found, models=places) as load:
            load.wait(n)
        loads = status(found)["models"]["loads"]
        assert found.stop() == 0
        assert found.errors == ""
    assert load.failures == []
    assert set(load.statuses) == {200}
    assert loads > n / 3  # it loads and unloads all the time


def test_workers_share_the_models(folder: Path, tmp_path: Path) -> None:
    file = endpoint_file(tmp_path, {"name": "lake", "models": {"folder": folder}})
    with running(file, "--workers", "1") as found:
        assert request(found, x_amzn_sagemaker_target_model="right.tar.gz")[0] == 200
        listed = request(found, b"", path="/models?next_page_token=s", method="GET")[2]
        assert json.loads(listed) == {"models": []}  # the token reaches the keeper


# ------------------------------------------------------------------ the store


def stored(config: EndpointConfig, use: Callable[[ModelStore], Awaitable[None]]) -> None:
    async def run() -> None:
        store = ModelStore(config, secret=b"s" * 32)
        try:
            await use(store)
        finally:
            store.close()

    asyncio.run(run())


def test_first_requests_at_once_load_once(folder: Path) -> None:
    async def use(store: ModelStore) -> None:
        found = await asyncio.gather(*(store.find("always/1") for _ in range(50)))
        assert len(set(map(id, found))) == 1
        assert store.n_loads == 1
        outcomes = await asyncio.gather(*(store.find("broken") for _ in range(50)), return_exceptions=True)
        assert {type(one) for one in outcomes} == {Refusal}
        assert store.n_failures == 1

    stored(zoo(folder), use)


def test_the_least_recently_used_makes_room_unless_it_is_in_use(folder: Path) -> None:
    async def use(store: ModelStore) -> None:
        first = await store.find("always/0")
        with first.used():
            await store.find("always/1")
            await store.find("always/2")  # 0 was used least recently, and is in use
            assert list(store.loaded) == ["always/0", "always/2"]
        await store.find("always/0")
        await store.find("always/3")
        assert list(store.loaded) == ["always/0", "always/3"]

    stored(zoo(folder, memory_mb=TWO_MODELS_MB), use)


def test_what_does_not_fit_is_told(folder: Path) -> None:
    async def use(store: ModelStore) -> None:
        with pytest.raises(Refusal, match=r"no memory for model 'always/0' of 0\.0 MB.*models\.memory_mb") as found:
            await store.find("always/0")
        assert found.value.kind == "full"
        assert not store.loaded

    stored(zoo(folder, memory_mb=0.001), use)


def test_unloading_frees_memory_once_nobody_uses_it(folder: Path) -> None:
    async def use(store: ModelStore) -> None:
        model = await store.find("always/0")
        with model.used():
            unloading = asyncio.create_task(store.unload("always/0"))
            await asyncio.sleep(0)
            assert not unloading.done()
            assert not store.loaded
        await unloading
        policy = weakref.ref(model.server.fleet.bundle.policy)
        del model, unloading
        gc.collect()
        assert policy() is None
        assert store.n_bytes == 0

    stored(zoo(folder), use)


def test_a_slow_load_is_told_and_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, load_fleet = threading.Event(), model_store.load_fleet

    def slow(*arguments: Any, **options: Any) -> Any:
        go_on.wait(60.0)
        return load_fleet(*arguments, **options)

    monkeypatch.setattr(model_store, "load_fleet", slow)

    async def use(store: ModelStore) -> None:
        with pytest.raises(Refusal, match="still being loaded") as found:
            await store.find("always/0")
        assert found.value.kind == "not_ready"
        go_on.set()
        while "always/0" not in store.loaded:
            await asyncio.sleep(0.01)
        assert (await store.find("always/0")).name == "always/0"

    stored(zoo(folder, load_wait_s=0.01), use)


def test_a_broken_bundle_is_read_again_once_it_is_mended(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_store, "FAILED_S", 0.0)
    lake_bundle(tmp_path / "mended")
    (tmp_path / "mended" / "manifest.json").write_text("{")

    async def use(store: ModelStore) -> None:
        with pytest.raises(Refusal, match=r"mended.*manifest\.json is not strict JSON"):
            await store.find("mended")
        lake_bundle(tmp_path / "mended")
        assert (await store.find("mended")).name == "mended"

    stored(zoo(tmp_path), use)


# ------------------------------------------------------------------ the contract


class Page:
    """Calls the application without a server."""

    def __init__(self, config: EndpointConfig) -> None:
        self.running = RunningModels(config)
        self.app = ModelsApp(self.running, access=Access())

    async def __call__(
        self, method: str, path: str, body: bytes = b"", *, query: str = "", **headers: str
    ) -> tuple[int, Any]:
        sent: list[dict[str, Any]] = []
        named = {"content-type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(),
                 "headers": [(k.encode(), v.encode()) for k, v in named.items()]}  # fmt: skip

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        return sent[0]["status"], json.loads(sent[1]["body"])


def called(config: EndpointConfig, use: Callable[[Page], Awaitable[None]]) -> None:
    async def run() -> None:
        page = Page(config)
        try:
            await use(page)
        finally:
            page.running.close()

    asyncio.run(run())


def test_models_are_loaded_listed_asked_and_unloaded(folder: Path) -> None:
    def load(name: str, url: str) -> bytes:
        return json.dumps({"model_name": name, "url": url}).encode()

    async def use(page: Page) -> None:
        assert (await page("POST", "/models/a/invoke", b"3"))[0] == 404
        assert (await page("GET", "/models/a"))[0] == 404
        assert (await page("DELETE", "/models/a"))[0] == 404
        assert (await page("POST", "/models", load("a", "always/1")))[0] == 200
        assert (await page("POST", "/models", load("a", "always/1")))[0] == 409
        assert (await page("POST", "/models", load("b", str(folder / "always/2"))))[0] == 200
        code, refused = await page("POST", "/models", load("c", "always/3"))  # nothing makes room unasked
        assert (code, refused["OriginalStatusCode"]) == (507, 507)
        assert (await page("POST", "/models/a/invoke", b"3", x_amzn_sagemaker_target_model="a"))[1]["action"] == 1
        url = str((folder / "always/2").resolve())
        assert await page("GET", "/models/b") == (200, {"modelName": "b", "modelUrl": url})
        names = [one["modelName"] for one in (await page("GET", "/models"))[1]["models"]]
        assert names == ["a", "b"]
        assert (await page("DELETE", "/models/a"))[0] == 200
        assert (await page("POST", "/models", load("c", "always/3")))[0] == 200
        assert (await page("POST", "/models/c", b"3"))[0] == 405

    called(zoo(folder, memory_mb=TWO_MODELS_MB, exploration=False), use)


def test_a_long_list_has_pages(folder: Path) -> None:
    async def use(page: Page) -> None:
        store = page.running.store
        model = await store.find("always/1")
        store.loaded.update({f"m{i:04d}": model for i in range(PAGE + 20)})
        _, first = await page("GET", "/models")
        _, second = await page("GET", "/models", query=f"next_page_token={first['nextPageToken']}")
        assert len(first["models"]) == PAGE
        assert len(second["models"]) == 21
        assert "nextPageToken" not in second

    called(zoo(folder), use)


def test_retries_hold_across_unloading_and_are_apart_by_model(folder: Path) -> None:
    async def use(page: Page) -> None:
        async def ask(model: str) -> dict[str, Any]:
            code, found = await page("POST", "/endpoints/lake/invocations", b"3", x_amzn_sagemaker_target_model=model,
                                     x_amzn_sagemaker_inference_id="one")  # fmt: skip
            assert code == 200
            return dict(found)

        first = {name: await ask(name) for name in ("always/0", "always/1")}
        assert first["always/0"]["decision_id"] != first["always/1"]["decision_id"]
        await page.running.store.unload("always/0")
        assert await ask("always/0") == first["always/0"]
        assert page.running.store.retries.n_repeated == 1

    called(zoo(folder), use)


def test_the_file_says_what_goes_together(bundles: dict[str, Path], tmp_path: Path) -> None:
    variants = [{"name": "left", "bundle": str(bundles["left"])}]
    file = endpoint_file(tmp_path, {"name": "lake", "models": {"folder": "none"}})
    with pytest.raises(ConfigError, match=r"models\.folder: no such folder"):
        load_endpoint(file)
    file = endpoint_file(tmp_path, {"name": "lake", "models": {"folder": "."}, "variants": variants})
    with pytest.raises(ConfigError, match="an endpoint of many models has no variants"):
        load_endpoint(file)
