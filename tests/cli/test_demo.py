"""``policylab demo rollout``: the whole story on a real server, from evidence alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from policylab.cli import main

pytest.importorskip("uvicorn")
pytest.importorskip("httptools")
pytest.importorskip("msgspec")


def test_a_bad_candidate_is_rolled_back_and_a_good_one_promoted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "rollout", "--out", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["bad"].startswith("rolled back: reward: new minus old is in [-")
    assert document["good"] == "updated: generation 2 has all the traffic"
    timeline = json.loads((out / "timeline.json").read_text())
    assert [event["what"] for event in timeline["events"]] == ["update", "rolled back", "update", "step", "updated"]
    shares = {
        phase: {one["share"] for one in timeline["samples"] if one["phase"] == phase} for phase in ("bad", "good")
    }
    assert 1.0 not in shares["bad"]
    assert 1.0 in shares["good"]
    assert (out / "rollout.png").read_bytes().startswith(b"\x89PNG")
    assert not (out / "endpoints" / "demo" / "server.json").exists()  # it was ended
    assert main(["demo", "rollout", "--out", str(out)]) == 2
    assert "is not empty" in capsys.readouterr().err
