"""``policylab serve`` and ``policylab endpoint``: what a user types, and what comes back."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.deployment.conftest import ServerProcess, endpoint_file, lake_bundle, running

from policylab.cli import main

pytest.importorskip("uvicorn")
pytest.importorskip("httptools")
pytest.importorskip("msgspec")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("commands")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    variants = [
        {"name": name, "bundle": lake_bundle(folder / name, action=action)} for name, action in (("a", 0), ("b", 2))
    ]
    file = endpoint_file(folder, {"name": "lake", "variants": variants, "capture": {"folder": "data"}})
    with running(file) as found:
        yield found


def command(capsys: pytest.CaptureFixture[str], server: ServerProcess, *words: str, code: int = 0) -> Any:
    """Run ``policylab endpoint ... --json`` and return its document, or what it prints on its standard error."""
    assert main(["endpoint", *words, "--url", server.url, "--json"]) == code
    printed = capsys.readouterr()
    return json.loads(printed.out) if code == 0 else printed.err


def test_weights_move_the_traffic(capsys: pytest.CaptureFixture[str], server: ServerProcess) -> None:
    status = command(capsys, server, "status")
    assert (status["name"], status["status"]) == ("lake", "InService")
    assert [one["share"] for one in status["variants"]] == [0.5, 0.5]
    assert [one["share"] for one in command(capsys, server, "weights", "a=0", "b=2")["variants"]] == [0.0, 1.0]
    assert {command(capsys, server, "invoke", "3")["action"] for _ in range(10)} == {2}
    assert "did you mean" in command(capsys, server, "weights", "aa=1", code=2)
    assert "weights are VARIANT=NUMBER" in command(capsys, server, "weights", "a", code=2)
    command(capsys, server, "weights", "a=1", "b=1")


def test_invoke_asks_as_a_client_does(capsys: pytest.CaptureFixture[str], server: ServerProcess) -> None:
    aimed = command(capsys, server, "invoke", "3", "--variant", "a", "--inference-id", "one", "--mask", "0101")
    assert (aimed["variant"], aimed["action"] in (1, 3)) == ("a", True)
    assert "16 is not a whole number" not in command(capsys, server, "invoke", "99", code=2)
    assert "must be JSON" in command(capsys, server, "invoke", "[", code=2)
    reward = command(capsys, server, "reward", aimed["decision_id"], "1.5")
    assert reward == {"accepted": 1, "repeated": 0, "recorded": True}


def test_text_is_for_people(capsys: pytest.CaptureFixture[str], server: ServerProcess) -> None:
    assert main(["endpoint", "status", "--url", server.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "lake: InService, generation 1"
    assert lines[1].split() == ["variant", "version", "share", "requests", "fallbacks", "failures", "p99", "ms"]


def test_an_update_is_followed_by_status(
    capsys: pytest.CaptureFixture[str], server: ServerProcess, folder: Path
) -> None:
    (folder / "next").mkdir(exist_ok=True)
    config = {
        "name": "lake",
        "variants": [{"name": "a", "bundle": folder / "b"}],
        "capture": {"folder": folder / "data"},
        "guardrail": {"kind": "canary", "size": 0.5, "bake_s": 600},
    }
    file = endpoint_file(folder / "next", config)
    begun = command(capsys, server, "update", str(file))
    assert (begun["status"], begun["update"]["steps"]) == ("Updating", [0.5, 1.0])
    assert "an update is under way" in command(capsys, server, "weights", "a=1", code=2)
    assert main(["endpoint", "status", "--url", server.url]) == 0
    assert "update to generation 2: canary 50% > 100%, step 1" in capsys.readouterr().out
    assert command(capsys, server, "rollback")["events"][-1]["what"] == "rolled back"
    assert "nothing to roll back" in command(capsys, server, "rollback", code=2)
    other = endpoint_file(folder / "next", {**config, "name": "pond"})
    assert "name cannot change" in command(capsys, server, "update", str(other), code=2)


def test_a_server_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["endpoint", "status", "--url", "http://127.0.0.1:9"]) == 1
    assert "is the endpoint running there?" in capsys.readouterr().err
    assert main(["endpoint", "status", "--url", "ftp://x"]) == 2


def test_what_cannot_be_served_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, folder: Path) -> None:
    assert main(["serve", str(tmp_path / "nothing")]) == 2
    assert "no such bundle or endpoint file" in capsys.readouterr().err
    (tmp_path / "bundle").mkdir()
    assert main(["serve", str(tmp_path / "bundle"), "--port", "0"]) == 2
    assert "is refused as a policy bundle" in capsys.readouterr().err
    assert main(["serve", str(folder / "a"), "--port", "1", "--host", "203.0.113.1"]) == 2
    assert "POLICYLAB_TOKEN" in capsys.readouterr().err


def test_without_the_extra_it_says_how_to_get_it(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "httptools", None)
    assert main(["serve", str(folder / "a")]) == 2
    assert "pip install 'policylab[serve]'" in capsys.readouterr().err


def test_a_run_directory_serves_the_bundle_in_it(tmp_path: Path) -> None:
    lake_bundle(tmp_path / "run" / "bundle", action=1)
    with running(tmp_path / "run") as found:
        assert found.name == "policy"


def test_editors_get_a_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "endpoint"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document["required"]) == {"name"}
    assert {"variants", "models", "asynchronous", "serverless"} <= set(document["properties"])
    assert document["$defs"]["Limits"]["properties"]["batch"]["description"]


def test_a_port_in_use_is_told(capsys: pytest.CaptureFixture[str], server: ServerProcess, folder: Path) -> None:
    assert main(["serve", str(folder / "a"), "--port", str(server.port)]) == 2
    assert f"cannot listen on 127.0.0.1 port {server.port}: Address already in use" in capsys.readouterr().err
