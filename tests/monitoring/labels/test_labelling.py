"""Labelling as people do it: the commands, the page's routes with real requests, kill -9, hostile clients and files."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from policylab.agents import Bundle, Lineage, TabularPolicy, make_encoder, write_bundle
from policylab.agents.features import BinsFeatures
from policylab.cli import main
from policylab.errors import StorageError, UserError
from policylab.experiments.recording import record
from policylab.monitoring.labels.clips import curves, played_again
from policylab.monitoring.labels.segments import cut
from policylab.monitoring.labels.service import LabelService, agreement
from policylab.monitoring.labels.store import LabelFolder, joined

ANN, BEN = "ann", "ben"


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CartPole under a policy that pushes at random and lets the pole fall."""
    folder = tmp_path_factory.mktemp("recorded")
    env = gym.make("CartPole-v1")
    encoder = make_encoder(BinsFeatures(n_bins=2, low=(-2,) * 4, high=(2,) * 4), env.observation_space)
    weights = np.random.default_rng(0).normal(size=(16, 2))
    bundle: Bundle = write_bundle(
        folder / "policy", TabularPolicy(weights, encoder), env=env, lineage=Lineage(), metrics={}
    )
    record(bundle, folder / "log.parquet", episodes=30)
    env.close()
    return folder / "log.parquet"


@pytest.fixture(autouse=True)
def _leave_signals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)


def select(folder: Path, recording: Path, *, pairs: int = 6) -> LabelFolder:
    assert main(["labels", "select", str(folder), str(recording), "--segment-steps", "4", "--pairs", str(pairs)]) == 0
    return LabelFolder(folder)


def test_an_episode_is_played_again_exactly(recording: Path) -> None:
    segments = cut(recording, length=4)
    frames = played_again(segments, len(segments) - 1)
    assert len(frames) == 5
    assert frames[0].shape == (400, 600, 3)
    assert (frames[0] != frames[-1]).any()
    altered = segments.take(np.array([0]))
    altered.about["sha256"] = "0" * 64  # type: ignore[index]
    with pytest.raises(UserError, match="no longer the recording"):
        played_again(altered, 0)


def test_what_cannot_be_drawn_is_shown_as_curves(recording: Path) -> None:
    segments = cut(recording, length=4)
    drawn = curves(segments, 0)
    assert drawn.count("<polyline") == 5  # four numbers observed, one action
    assert "action: " in drawn


def test_segments_end_with_their_episode(recording: Path) -> None:
    segments = cut(recording, length=4)
    ends = {}
    for episode, start in zip(segments.episode.tolist(), segments.start.tolist(), strict=True):
        ends[episode] = start + 4
    whole = cut(recording, length=1)
    assert {episode: ends[episode] for episode in ends} == {
        episode: int(whole.start[whole.episode == episode].max()) + 1 for episode in ends
    }
    with pytest.raises(UserError, match="choose a smaller --segment-steps"):
        cut(recording, length=501)


class Client:
    """Sends requests as a browser does."""

    def __init__(self, port: int) -> None:
        self._port = port

    def ask(self, path: str, body: Any = None, *, headers: dict[str, str] | None = None) -> tuple[int, Any, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        sent = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = {} if body is None else {"Content-Type": "application/json"}
        connection.request("GET" if body is None else "POST", path, sent, {**kind, **(headers or {})})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        is_json = answer.headers["Content-Type"] == "application/json"
        return answer.status, json.loads(content) if is_json else content, answer.headers


def started(folder: Path, **environment: str) -> tuple[subprocess.Popen[str], Client]:
    command = [sys.executable, "-m", "policylab", "labels", "serve", str(folder), "--port", "0", "--json"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    assert server.stdout is not None
    url = json.loads(server.stdout.readline())["url"]
    return server, Client(int(url.rstrip("/").rpartition(":")[2]))


@pytest.fixture
def served(tmp_path: Path, recording: Path) -> Iterator[tuple[LabelFolder, Client, subprocess.Popen[str]]]:
    folder = select(tmp_path / "labels", recording)
    server, client = started(folder.path)
    yield folder, client, server
    server.kill()
    server.communicate()


def test_a_session_of_labelling(served: tuple[LabelFolder, Client, subprocess.Popen[str]]) -> None:
    folder, client, server = served
    status, page, headers = client.ask("/")
    assert status == 200
    assert b"page.js" in page
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    _, standing, _ = client.ask(f"/next?labeller={ANN}")
    assert (standing["n_done"], standing["n_pairs"], standing["can_undo"]) == (0, 6, False)
    first = standing["pair"]
    status, clip, headers = client.ask(f"/clips/{first}/1")
    assert (status, headers["Content-Type"], clip[:4]) == (200, "image/gif", b"GIF8")
    _, standing, _ = client.ask("/labels", {"pair": first, "labeller": ANN, "choice": "first"})
    assert standing["n_done"] == 1
    assert standing["pair"] != first
    _, back, _ = client.ask("/undo", {"labeller": ANN})
    assert (back["withdrawn"], back["pair"], back["n_done"]) == (first, first, 0)
    assert folder.given() == {ANN: {}}
    for _ in range(6):
        pair = client.ask(f"/next?labeller={BEN}")[1]["pair"]
        client.ask("/labels", {"pair": pair, "labeller": BEN, "choice": "second"})
    assert client.ask(f"/next?labeller={BEN}")[1]["pair"] is None
    # A killed server loses no label that it has acknowledged, and goes on where it was.
    server.send_signal(signal.SIGKILL)
    server.wait()
    assert len(folder.given()[BEN]) == 6
    with folder.labels_file.open("a") as file:
        file.write('{"pair": "torn')
    again, client = started(folder.path)
    try:
        assert client.ask(f"/next?labeller={BEN}")[1]["n_done"] == 6
        assert client.ask("/labels", {"pair": first, "labeller": ANN, "choice": "skip"})[0] == 200
        assert folder.given()[ANN] == {first: "skip"}
    finally:
        again.kill()
        again.communicate()


def test_strangers_and_hostile_clients_are_refused(served: tuple[LabelFolder, Client, subprocess.Popen[str]]) -> None:
    folder, client, _ = served
    pair = client.ask(f"/next?labeller={ANN}")[1]["pair"]
    label = {"pair": pair, "labeller": ANN, "choice": "first"}
    assert client.ask("/labels", label, headers={"Host": "evil.example"})[0] == 401  # DNS rebinding
    assert client.ask("/labels", label, headers={"Content-Type": "text/plain"})[0] == 400  # a form of another site
    for wrong in ({**label, "choice": "both"}, {**label, "pair": "0" * 16}, {**label, "labeller": "<script>"},
                  {**label, "labeller": ["a"]}, [], b"{", b"[" * 3_000, b"x" * 5_000):  # fmt: skip
        assert client.ask("/labels", wrong)[0] == 400
    assert client.ask("/next?labeller=../../etc")[0] == 400
    assert client.ask("/clips/../../etc/passwd/0")[0] == 404
    assert client.ask("/page.py")[0] == 404
    assert folder.given() == {}


def test_other_machines_need_a_token(tmp_path: Path, recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = select(tmp_path / "labels", recording)
    monkeypatch.delenv("POLICYLAB_TOKEN", raising=False)
    assert main(["labels", "serve", str(folder.path), "--host", "0.0.0.0"]) == 2
    secret = "a-secret-of-the-team"
    server, client = started(folder.path, POLICYLAB_TOKEN=secret)
    try:
        assert client.ask("/")[0] == 200  # the page itself holds nothing
        assert client.ask(f"/next?labeller={ANN}")[0] == 401
        assert client.ask(f"/next?labeller={ANN}", headers={"Authorization": f"Bearer {secret}"})[0] == 200
    finally:
        server.kill()
        server.communicate()


def by_angle(folder: LabelFolder) -> dict[str, str]:
    """What somebody says who wants the pole upright."""
    found = {}
    for pair, selection, row in joined(folder.selections()):
        lean = [np.abs(selection.segments.observation[i][:, 2]).sum() for i in selection.pairs[row]]
        found[pair] = "first" if lean[0] < lean[1] else "second"
    return found


def test_from_pairs_to_a_reward_and_automatic_labels(
    tmp_path: Path, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, model = select(tmp_path / "labels", recording, pairs=250), tmp_path / "model"
    command = ["labels", "consolidate", str(folder.path), "--json"]
    assert main(command) == 2  # nobody has labelled anything
    truth = by_angle(folder)
    labelled = dict(list(truth.items())[:190])
    for i, (pair, choice) in enumerate(labelled.items()):
        folder.give(pair, labeller=ANN, choice=choice)
        folder.give(pair, labeller=BEN, choice=choice if i % 10 else "equal")
    capsys.readouterr()
    assert main(command) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["n_people"] == 190
    assert 0.7 < document["agreement"]["two"][0]["cohen_kappa"] < 1.0
    assert main(["labels", "train", str(folder.path), "--out", str(model), "--hidden", "8", "--json"]) == 0
    trained = json.loads(capsys.readouterr().out)
    assert trained["validation"]["accuracy"] > 0.75
    assert len(trained["sha256"]) == 64
    assert main(["labels", "auto", str(folder.path), str(model), "--accuracy", "0.999", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["n_automatic"] == 0  # some 40 labels cannot show that
    # Pairs of another selection were chosen otherwise: without labels of their own they stay with people.
    again = ["labels", "select", str(folder.path), str(recording), "--segment-steps", "4", "--seed", "7"]
    assert main([*again, "--model", str(model), "--pairs", "20"]) == 0
    capsys.readouterr()
    assert main(["labels", "auto", str(folder.path), str(model), "--accuracy", "0.6", "--json"]) == 0
    automatic, given = json.loads(capsys.readouterr().out), folder.automatic()
    assert automatic["n_automatic"] == len(given) > 0
    assert automatic["n_people"] >= 20
    assert given.keys() <= truth.keys() - labelled.keys()
    assert np.mean([(mu > 0.5) == (truth[pair] == "first") for pair, mu in given.items()]) > 0.6
    assert LabelService(folder).standing("new")["n_pairs"] == len(by_angle(folder)) - len(given)


def test_agreement_counts_only_what_was_decided() -> None:
    given = {"a": {"p": "first", "q": "skip", "r": "second"}, "b": {"p": "first", "q": "first", "r": "second"}, "c": {}}
    found = agreement(given)
    assert found["n_labels"] == {"a": 2, "b": 3}
    assert found["two"] == [{"labellers": ["a", "b"], "n_pairs": 2, "cohen_kappa": 1.0}]
    assert found["all"] == {"n_pairs": 2, "fleiss_kappa": 1.0}


def test_a_full_disk_is_no_given_label(tmp_path: Path, recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = select(tmp_path / "labels", recording)
    service = LabelService(folder)
    pair = service.standing(ANN)["pair"]
    folder.labels_file.mkdir()  # nothing can be appended
    with pytest.raises(StorageError, match="cannot write"):
        service.give(pair, labeller=ANN, choice="first")
    assert service.standing(ANN)["n_done"] == 0


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04"])
def test_damaged_pairs_are_one_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "0001.npz").write_bytes(content)
    with pytest.raises(UserError, match="no pairs that could be read"):
        LabelFolder(tmp_path).selections()
    with pytest.raises(UserError, match="holds no pairs; choose some"):
        LabelFolder(tmp_path / "none").selections()
