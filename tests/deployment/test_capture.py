"""Capture: SageMaker's format and ours, on a thread that requests never wait for, whatever the disk does."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import pytest
from tests.deployment.conftest import endpoint, served, wait_written

from policylab.deployment.capture import line_file
from policylab.deployment.capture.format import DecisionFacts, captured_line, parse_captured, parse_reward
from policylab.deployment.capture.reading import read_captured, read_rewards
from policylab.deployment.decision import DecisionRequest, Refusal
from policylab.errors import UserError

JSON = "application/json"
FACTS = {
    "endpoint": "lake",
    "variant": "left",
    "policy_version": "0" * 64,
    "variant_probability": 0.5,
    "assignment": "random",
    "source": "policy",
    "exploration": True,
    "propensity": 0.25,
    "log_propensity": -1.3862943611198906,
    "propensity_kind": "probability",
    "sampling_probability": 1.0,
}


def test_a_line_is_one_that_sagemaker_writes(bundles: dict[str, Path], tmp_path: Path) -> None:
    """Field for field the example of the Developer Guide's page on data capture."""
    config = endpoint({"name": "left", "bundle": bundles["left"]}, capture={"folder": tmp_path})
    with served(config, wall_clock=lambda: 1644859549.7) as server:
        server.decide(DecisionRequest((3,), inference_id="mine"))
        server.decide(DecisionRequest((4,)))
    (file,) = tmp_path.glob("captured/lake/left/2022/02/14/17/*.jsonl")
    first, second = (json.loads(line) for line in file.read_text().splitlines())
    assert first["captureData"] == {
        "endpointInput": {"observedContentType": JSON, "mode": "INPUT", "encoding": "JSON", "data": "3"},
        "endpointOutput": {"observedContentType": JSON, "mode": "OUTPUT", "encoding": "JSON", "data": "0"},
    }
    assert first["eventVersion"] == "0"
    assert first["eventMetadata"]["inferenceId"] == "mine"
    assert first["eventMetadata"]["inferenceTime"] == "2022-02-14T17:25:49Z"
    assert "inferenceId" not in second["eventMetadata"]  # only what the client gave
    assert set(first["policylab"]) == set(DecisionFacts.model_fields)


def test_what_is_read_back_is_what_was_decided(bundles: dict[str, Path], tmp_path: Path) -> None:
    config = endpoint({"name": "soft", "bundle": bundles["soft"]}, capture={"folder": tmp_path})
    with served(config) as server:
        answer = server.decide(DecisionRequest((1, 2, 3), episode="e1", step=10))
    captured = list(read_captured(tmp_path, endpoint="lake", variant="soft"))
    assert [one.observation for one in captured] == [1, 2, 3]
    for one, decision in zip(captured, answer.decisions, strict=True):
        assert (one.action, one.decision_id) == (decision.action, decision.decision_id)
        assert one.facts.propensity == decision.propensity
        assert (one.facts.episode, one.facts.step) == ("e1", decision.step)
    assert [one.facts.step for one in captured] == [10, 11, 12]


def test_rewards_join_late_and_twice_reported_ones_once(bundles: dict[str, Path], tmp_path: Path) -> None:
    config = endpoint({"name": "left", "bundle": bundles["left"]}, capture={"folder": tmp_path})
    with served(config) as server:
        named = server.decide(DecisionRequest((3,), inference_id="mine")).decisions[0]
        unnamed = server.decide(DecisionRequest((4,))).decisions[0]
        assert server.rewards.take("mine", reward=1.0, reward_id="r1")
        assert not server.rewards.take("mine", reward=1.0, reward_id="r1")
        assert server.rewards.take(unnamed.decision_id, reward=0.5)
        assert server.rewards.take(unnamed.decision_id, reward=0.25)  # rewards without an id add up
    rewards = list(read_rewards(tmp_path, endpoint="lake"))
    totals = {
        name: sum(one.reward for one in rewards if one.decision_id == name) for name in ("mine", unnamed.decision_id)
    }
    assert totals == {"mine": 1.0, unnamed.decision_id: 0.75}
    assert {one.reward_id for one in read_captured(tmp_path, endpoint="lake")} == set(totals)
    assert named.inference_id == "mine"


def test_rewards_that_are_not_recorded_are_taken_all_the_same(bundles: dict[str, Path]) -> None:
    """A client that reports late must not begin to fail when the promotion test that used its rewards is over."""
    with served(endpoint({"name": "left", "bundle": bundles["left"]})) as server:
        assert server.rewards.take("a", reward=1.0)
        assert not server.rewards.recorded


def test_a_part_is_recorded_if_so_asked(bundles: dict[str, Path], tmp_path: Path) -> None:
    config = endpoint({"name": "left", "bundle": bundles["left"]}, capture={"folder": tmp_path, "sampling": 0.25})
    with served(config) as server:
        for _ in range(2000):
            server.decide(DecisionRequest((3,)))
    captured = list(read_captured(tmp_path, endpoint="lake"))
    assert 400 < len(captured) < 600  # five standard deviations
    assert {one.facts.sampling_probability for one in captured} == {0.25}


def test_files_are_rotated(bundles: dict[str, Path], tmp_path: Path) -> None:
    config = endpoint({"name": "left", "bundle": bundles["left"]}, capture={"folder": tmp_path, "max_file_bytes": 1024})
    with served(config) as server:
        for i in range(1, 6):
            server.decide(DecisionRequest((3,) * 4))
            wait_written(server.recorder, 4 * i)
    assert len(list(tmp_path.rglob("*.jsonl"))) == 5
    assert len(list(read_captured(tmp_path, endpoint="lake"))) == 20


def test_a_full_disk_costs_lines_and_no_decision(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of a write fits, as on a disk that fills up; then there is room again."""
    full, write = threading.Event(), os.write

    def scarce(handle: int, content: bytes) -> int:
        if not full.is_set():
            return write(handle, content)
        write(handle, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(line_file.os, "write", scarce)
    config = endpoint({"name": "left", "bundle": bundles["left"]}, capture={"folder": tmp_path})
    with served(config) as server:
        for stage in range(3):
            full.set() if stage == 1 else full.clear()
            assert [server.decide(DecisionRequest((stage,))).decisions[0].action for _ in range(10)] == [0] * 10
            wait_written(server.recorder, 10 * (stage + 1))
        assert (server.recorder.n_written, server.recorder.n_dropped) == (20, 10)
    captured = list(read_captured(tmp_path, endpoint="lake"))  # no line is torn
    assert [one.observation for one in captured] == [0] * 10 + [2] * 10
    assert [one.facts.n_dropped for one in captured] == [0] * 10 + [10] * 10


def test_a_folder_that_is_moved_away_is_made_again(bundles: dict[str, Path], tmp_path: Path) -> None:
    config = endpoint({"name": "left", "bundle": bundles["left"]}, capture={"folder": tmp_path / "data"})
    with served(config) as server:
        for observation in range(3):
            server.decide(DecisionRequest((observation,)))
            wait_written(server.recorder, observation + 1)
            if observation == 0:
                (tmp_path / "data").rename(tmp_path / "collected")
        assert server.recorder.n_dropped == 0
    assert [one.observation for one in read_captured(tmp_path / "collected", endpoint="lake")] == [0]
    assert [one.observation for one in read_captured(tmp_path / "data", endpoint="lake")] == [1, 2]


def test_a_disk_that_is_too_full_is_left_alone(bundles: dict[str, Path], tmp_path: Path) -> None:
    config = endpoint({"name": "left", "bundle": bundles["left"]}, capture={"folder": tmp_path, "max_disk_use": 1e-9})
    with served(config) as server:
        server.decide(DecisionRequest((3,)))
        wait_written(server.recorder, 1)
        assert server.recorder.n_dropped == 1
    assert list(tmp_path.rglob("*.jsonl")) == []


def test_a_slow_disk_drops_and_never_blocks(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, go_on, write = threading.Event(), threading.Event(), os.write

    def slow(handle: int, content: bytes) -> int:
        stuck.set()
        go_on.wait(60.0)
        return write(handle, content)

    monkeypatch.setattr(line_file.os, "write", slow)
    config = endpoint({"name": "left", "bundle": bundles["left"]}, capture={"folder": tmp_path, "queue": 50})
    with served(config) as server:
        server.decide(DecisionRequest((0,)))
        assert stuck.wait(30.0)
        for _ in range(200):
            server.decide(DecisionRequest((3,)))
        assert server.recorder.n_dropped == 150
        with pytest.raises(Refusal, match="faster than they can be written") as refusal:
            server.rewards.take("a", reward=1.0)  # a reward is not lost silently: its sender hears of it
        assert refusal.value.kind == "busy"
        go_on.set()
    assert len(list(read_captured(tmp_path, endpoint="lake"))) == 51


def test_damaged_lines_are_told_with_their_place(tmp_path: Path) -> None:
    folder = tmp_path / "captured/lake/left/2026/01/01/00"
    folder.mkdir(parents=True)
    line = captured_line(decision_id="a", inference_id=None, time_s=0.0, observation=[1.5], action=2, facts=FACTS)
    (folder / "a.jsonl").write_text(json.dumps(line) + "\n" + json.dumps(line)[:50])  # being written: left out
    assert [one.observation for one in read_captured(tmp_path, endpoint="lake")] == [[1.5]]
    (folder / "a.jsonl").write_text(json.dumps(line) + "\n{}\n")
    with pytest.raises(UserError, match=r"a\.jsonl:2: not a line of the capture format"):
        list(read_captured(tmp_path, endpoint="lake"))


def test_foreign_lines_are_refused() -> None:
    line = captured_line(decision_id="a", inference_id=None, time_s=0.0, observation=1, action=2, facts=FACTS)
    with pytest.raises(UserError, match="propensity: Input should be greater than or equal to 0"):
        parse_captured(json.dumps({**line, "policylab": {**FACTS, "propensity": -1}}))
    with pytest.raises(UserError, match="not a reward line"):
        parse_reward("{}")
