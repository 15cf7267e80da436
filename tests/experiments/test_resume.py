"""Killed anywhere and resumed, an experiment ends as if nothing had happened, to the last byte."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from policylab.errors import CheckpointError, RunDirectoryError
from policylab.experiments.execute import execute
from policylab.experiments.rundir import create_run, open_run
from policylab.experiments.schema import ExperimentConfig

PLAIN = {
    "name": "resumed",
    "env": {"id": "FrozenLake-v1"},
    "agent": {"kind": "q_learning", "learning_rate": 0.1, "discount": 0.99, "execution": "plain"},
    "budget": {"steps": 40_000},
    "seeds": {"tune": 2, "confirm": 1},
    "evaluation": {"marks": 40},
    "tracking": {"kind": "none"},
}


def start(run_dir, command="resume"):
    return subprocess.Popen(
        [sys.executable, "-m", "policylab", command, str(run_dir), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(run_dir):
    """Everything deterministic that a run directory holds: reports, results and checkpoint arrays."""
    found = {}
    for path in sorted(Path(run_dir).glob("trials/**/*")):
        name = str(path.relative_to(run_dir))
        if path.name in ("reports.jsonl", "result.json", "spec.json", "state.json"):
            found[name] = path.read_bytes()
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                found[name] = {key: arrays[key].tobytes() for key in sorted(arrays)}
    return found


@pytest.fixture(scope="module")
def config():
    return ExperimentConfig.model_validate(PLAIN)


@pytest.fixture(scope="module")
def uninterrupted(config, tmp_path_factory):
    run = create_run(config, parent=tmp_path_factory.mktemp("uninterrupted"))
    process = start(run.path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return outcome(run.path), json.loads(out)


@pytest.mark.parametrize("attempt", range(3))
def test_kill_9_at_a_random_moment_then_resume_is_bit_identical(config, uninterrupted, tmp_path, attempt):
    run = create_run(config, parent=tmp_path)
    chance = random.Random(attempt)
    kills = 0
    for _ in range(2):
        process = start(run.path)
        deadline = time.monotonic() + chance.uniform(1.0, 5.0)
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
    process = start(run.path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    expected, document = uninterrupted
    assert outcome(run.path) == expected
    for key in ("selected", "confirmed", "exact"):
        assert json.loads(out)[key] == document[key]


def test_ctrl_c_saves_says_how_to_go_on_and_exits_130(config, uninterrupted, tmp_path):
    run = create_run(config, parent=tmp_path)
    process = start(run.path)
    reports = run.path / "trials/0000/tune-000/reports.jsonl"
    deadline = time.monotonic() + 60
    while not reports.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    if process.returncode != 0:  # it may have finished in the meantime
        assert process.returncode == 130, err
        assert f"policylab resume {run.path}" in err
        assert "Traceback" not in err
        assert open_run(run.path).manifest.status == "interrupted"
        assert list(run.path.glob("trials/0000/*/checkpoints/0*"))
    process = start(run.path)
    process.communicate(timeout=120)
    assert outcome(run.path) == uninterrupted[0]


@pytest.fixture
def one_run(tmp_path):
    """The folder of a single run, trained to its end, with its result removed so that it would continue."""
    run = create_run(ExperimentConfig.model_validate({**PLAIN, "budget": {"steps": 2000}}), parent=tmp_path)
    folder = run.folder(run.config.specs()[0])
    execute(folder)
    os.remove(folder / "result.json")
    return folder


def test_a_damaged_checkpoint_is_one_clear_error_and_nothing_is_lost(one_run):
    (checkpoint,) = (one_run / "checkpoints").iterdir()
    (arrays,) = checkpoint.glob("*.npz")
    whole = arrays.read_bytes()
    arrays.write_bytes(whole[: len(whole) // 2])
    before = (one_run / "reports.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match=r"npz.*to train this run again from its start, delete"):
        execute(one_run)
    assert (one_run / "reports.jsonl").read_bytes() == before
    arrays.write_bytes(whole)
    execute(one_run)


def test_a_foreign_checkpoint_is_refused(one_run, config, tmp_path):
    spec = json.loads((one_run / "spec.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    spec["agent"]["kind"] = "sarsa"
    (other / "spec.json").write_text(json.dumps(spec))
    shutil.copytree(one_run / "checkpoints", other / "checkpoints")
    shutil.copy(one_run / "reports.jsonl", other)
    with pytest.raises(CheckpointError, match=r"sarsa|another"):
        execute(other)


def test_reports_that_lost_the_checkpoints_row_are_refused(one_run):
    lines = (one_run / "reports.jsonl").read_bytes().splitlines(keepends=True)
    (one_run / "reports.jsonl").write_bytes(b"".join(lines[:-1]))
    with pytest.raises(RunDirectoryError, match="the row of step 2000 is missing"):
        execute(one_run)


def test_an_edited_configuration_is_refused(config, tmp_path):
    run = create_run(config, parent=tmp_path)
    text = (run.path / "config.yaml").read_text()
    (run.path / "config.yaml").write_text(text.replace("steps: 40000", "steps: 50000"))
    with pytest.raises(RunDirectoryError, match="changed after the run was made"):
        _ = run.config


def test_a_run_in_use_is_refused(config, tmp_path):
    run = create_run(config, parent=tmp_path)
    first = start(run.path)
    deadline = time.monotonic() + 60
    while not (run.path / "workers.log").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    second = start(run.path)
    _, err = second.communicate(timeout=60)
    assert second.returncode == 2, err
    assert "in use by another policylab process" in err
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
