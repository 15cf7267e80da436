"""`policylab verify` as a user types it."""

import json

import gymnasium as gym
import pytest

from policylab.cli import main

EXACT = "Taxi: optimal return, discount"


@pytest.fixture
def _rainy_taxi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gym.spec("Taxi-v3").kwargs, "is_rainy", True)


def test_text_has_one_line_per_row_and_a_count(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--only", "Gambler, p = 0.4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["name", "measured", "published", "tolerance"]
    assert all(line.startswith("pass  Gambler, p = 0.4: chance to win from ") for line in lines[1:-1])
    assert lines[-1] == "4 of 4 passed"
    assert len({line.index("Sutton") for line in lines[1:4]}) == 1


def test_json_is_one_document_with_the_promised_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--only", EXACT, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["rows"]
    (row,) = document["rows"]
    assert list(row) == ["name", "measured", "published", "tolerance", "source", "passed"]
    assert (row["published"], row["passed"]) == (6.3274643149, True)
    assert row["measured"] == pytest.approx(6.3274643149, abs=1e-9)


@pytest.mark.usefixtures("_rainy_taxi")
def test_a_wrong_number_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--only", EXACT]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(f"FAIL  {EXACT}")
    assert "2.72281732" in lines[1]
    assert lines[-1] == "0 of 1 passed"
    assert main(["verify", "--only", EXACT, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["rows"][0]["passed"] is False


def test_only_without_a_match_is_a_user_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--only", "chess"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: no row of verify has 'chess' in its name")
    assert main(["verify", "--only", "chess", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "UnknownNameError"
