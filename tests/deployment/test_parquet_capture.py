"""Capture as Parquet: what comes back, where it lies, and what a full disk or a damaged file costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from tests.deployment.conftest import endpoint, served, wait_written

from policylab.deployment.capture import parquet as parquet_capture
from policylab.deployment.capture.format import CapturedDecision
from policylab.deployment.capture.reading import read_captured
from policylab.deployment.decision import DecisionRequest
from policylab.deployment.endpoint import CaptureSettings
from policylab.errors import UserError

pq = pytest.importorskip("pyarrow.parquet")


def captured(bundles: dict[str, Path], folder: Path, **capture: Any) -> list[CapturedDecision]:
    """Decide a few times and return what was captured, in one order."""
    variants = [{"name": "left", "bundle": bundles["left"]}, {"name": "soft", "bundle": bundles["soft"]}]
    shadows = [{"name": "next", "bundle": bundles["right"]}]
    config = endpoint(*variants, shadows=shadows, capture={"folder": folder, **capture})
    with served(config, secret=b"s" * 32, wall_clock=lambda: 1.7e9) as server:
        for i in range(40):
            masks = ([True, False, True, True],) if i % 2 else None

            given = None if masks is None else tuple(np.array(mask) for mask in masks)
            session = "one" if i % 3 == 0 else None
            server.decide(DecisionRequest((i % 16,), given, inference_id=f"id-{i}", session_id=session))
    assert server.recorder.n_written == 40
    return sorted(read_captured(folder, endpoint="lake"), key=lambda one: str(one.inference_id))


def test_parquet_holds_what_lines_hold(bundles: dict[str, Path], tmp_path: Path) -> None:
    lines = captured(bundles, tmp_path / "lines")
    rows = captured(bundles, tmp_path / "rows", format="parquet")
    assert rows == lines
    assert len(list(read_captured(tmp_path / "rows", endpoint="lake", variant="left"))) == sum(
        one.facts.variant == "left" for one in lines
    )


def test_files_lie_by_policy_version_and_hour_for_any_reader(bundles: dict[str, Path], tmp_path: Path) -> None:
    rows = captured(bundles, tmp_path, format="parquet")
    folders = {path.parent for path in tmp_path.rglob("*.parquet")}
    versions = {one.facts.policy_version for one in rows}
    place = tmp_path / "captured-parquet" / "lake"
    assert folders == {place / f"policy_version={one}" / "date=2023-11-14" / "hour=22" for one in versions}
    dataset = pytest.importorskip("pyarrow.dataset")
    table = dataset.dataset(place, partitioning=["hour"], exclude_invalid_files=True).to_table(columns=["propensity"])
    assert table.num_rows == 40


def test_what_a_full_disk_refuses_is_counted_and_requests_go_on(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    config = endpoint({"name": "left", "bundle": bundles["left"]}, capture={"folder": tmp_path, "format": "parquet"})
    with served(config) as server:
        for _ in range(20):
            assert server.decide(DecisionRequest((3,))).decisions[0].action == 0
    assert (server.recorder.n_written, server.recorder.n_dropped) == (0, 20)
    assert list(tmp_path.rglob("*.parquet")) == []


def test_many_rows_are_written_before_the_end(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_capture, "MAX_ROWS", 5)
    assert len(captured(bundles, tmp_path, format="parquet")) == 40


def test_what_was_decided_becomes_a_file_after_the_time_that_was_set(bundles: dict[str, Path], tmp_path: Path) -> None:
    capture = {"folder": tmp_path, "format": "parquet", "write_s": 0.2}
    with served(endpoint({"name": "left", "bundle": bundles["left"]}, capture=capture)) as server:
        server.decide(DecisionRequest((3,)))
        wait_written(server.recorder, 1)  # while the server goes on
        assert [one.observation for one in read_captured(tmp_path, endpoint="lake")] == [3]
    with pytest.raises(ValidationError, match="write_s is of format: parquet; lines are written"):
        CaptureSettings(folder=tmp_path, write_s=1.0)
    lines = CaptureSettings(folder=tmp_path)
    assert CaptureSettings.model_validate(lines.model_dump()) == lines, "what a worker process is told is valid"


def test_a_damaged_file_is_told_by_its_name(bundles: dict[str, Path], tmp_path: Path) -> None:
    captured(bundles, tmp_path, format="parquet")
    file = next(tmp_path.rglob("*.parquet"))
    file.write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match=file.name):
        list(read_captured(tmp_path, endpoint="lake"))
