"""``policylab endpoint create``, ``promote``, ``logs`` and ``delete``: an endpoint that outlives its command."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.deployment.conftest import endpoint_file, lake_bundle

from policylab.cli import main
from policylab.deployment.processes.background import BackgroundEndpoint

pytest.importorskip("uvicorn")
pytest.importorskip("httptools")
pytest.importorskip("msgspec")


class Shell:
    """Types commands in a folder of its own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        bundles = {name: lake_bundle(folder / name, action=action) for name, action in (("old", 0), ("new", 2))}
        (folder / "next").mkdir()
        for name, place in (("old", folder), ("new", folder / "next")):
            guardrail = {"kind": "linear", "size": 0.5, "bake_s": 3600.0}
            endpoint_file(
                place,
                {"name": "lake", "variants": [{"name": "main", "bundle": bundles[name]}], "guardrail": guardrail},
            )

    def __call__(self, *words: str, code: int = 0) -> Any:
        found = main(["endpoint", *words, "--json"])
        printed = self.capsys.readouterr()
        assert found == code, printed.err
        return json.loads(printed.out) if code == 0 else printed.err


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    monkeypatch.chdir(tmp_path)
    yield Shell(tmp_path, capsys)
    for record in tmp_path.glob("endpoints/*/server.json"):
        endpoint = BackgroundEndpoint(tmp_path / "endpoints", record.parent.name)
        if endpoint.alive():
            os.kill(json.loads(record.read_text())["pid"], signal.SIGKILL)


def test_an_endpoint_of_the_background_from_creation_to_deletion(shell: Shell, tmp_path: Path) -> None:
    created = shell("create", "endpoint.yaml", "--port", "0", "--set", "limits.batch=7")
    assert created["name"] == "lake"
    assert shell("status", "--name", "lake")["status"] == "InService"  # found by its name, without its address
    assert shell("invoke", "3", "--name", "lake")["action"] == 0
    assert "runs already" in shell("create", "endpoint.yaml", "--port", "0", code=2)
    assert "nothing to promote" in shell("promote", "--name", "lake", code=2)
    shell("update", "next/endpoint.yaml", "--set", "limits.batch=7", "--name", "lake")
    assert shell("promote", "--name", "lake")["update"]["step"] == 1
    assert shell("promote", "--full", "--name", "lake")["generation"] == 2
    assert shell("invoke", "3", "--name", "lake")["action"] == 2
    assert any("promoted: asked for" in line for line in shell("logs")["lines"])
    assert len(shell("logs", "--lines", "1")["lines"]) == 1
    os.kill(created["pid"], signal.SIGKILL)  # as when the machine goes down
    endpoint = BackgroundEndpoint(tmp_path / "endpoints", "lake")
    while endpoint.alive():
        pass
    assert "is the endpoint running there?" in shell("status", "--name", "lake", code=1)
    shell("create", "endpoint.yaml", "--port", "0", "--set", "limits.batch=7")
    assert shell("status", "--name", "lake")["generation"] == 2  # where it was
    assert shell("delete", "--name", "lake")["was_alive"] is True
    assert not endpoint.alive()
    assert not endpoint.state.exists()
    assert "no endpoint 'lake'" in shell("delete", "--name", "lake", code=2)
    assert shell("logs", "--name", "lake")["lines"]  # the log stays


def test_what_is_wrong_is_told_at_once_or_in_the_words_of_the_server(shell: Shell, tmp_path: Path) -> None:
    assert "no such bundle or endpoint file" in shell("create", "nothing.yaml", code=2)
    assert "set POLICYLAB_TOKEN" in shell("create", "endpoint.yaml", "--host", "0.0.0.0", "--port", "0", code=2)
    (tmp_path / "old" / "manifest.json").write_text("{}")
    assert "manifest" in shell("create", "endpoint.yaml", "--port", "0", code=2)
    assert "--name is pond" in shell("create", "endpoint.yaml", "--name", "pond", code=2)
    assert "a name has letters" in shell("delete", "--name", "../x", code=2)
    assert "--name must say which" in shell("delete", code=2)
    assert "--lines must be 0" in shell("logs", "--lines", "-1", code=2)
    assert "no log" in shell("logs", "--name", "none", code=2)
