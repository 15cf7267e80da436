"""`policylab run --launcher ray` as a process: silent, equal to the local one, and gone when it ends in any way."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import psutil
import pytest
import yaml

from policylab.files import read_lines

pytest.importorskip("ray")
pytest.importorskip("fsspec")

STUDY = {
    "name": "studied",
    "env": {"id": "FrozenLake-v1"},
    "agent": {"kind": "q_learning", "learning_rate": 0.1, "discount": 0.99, "execution": "plain"},
    "budget": {"steps": 12_000},
    "seeds": {"tune": 1, "confirm": 2},
    "evaluation": {"marks": 12},
    "tracking": {"kind": "none"},
    "search": {
        "space": {"parameters": {"agent.learning_rate": {"kind": "continuous", "low": 0.01, "high": 1.0}}},
        "searcher": {"kind": "random"},
        "scheduler": {"kind": "fixed"},
        "limits": {"trials": 4},
        "parallel": 1,  # the order of a study's events, and so its decisions, do not depend on which run is faster
        "storage": "none",
    },
}


@pytest.fixture
def marked():
    """Start policylab in a session of its own; every process below it carries a mark, by which it is found again."""
    mark, started = uuid.uuid4().hex, []
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t") as folder:  # socket paths have at most 107 characters

        def start(*arguments):
            process = subprocess.Popen(
                [sys.executable, "-m", "policylab", *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "TEST_MARK": mark, "TMPDIR": folder},
                start_new_session=True,
            )
            started.append(process)
            return process

        def alive():
            found = []
            for process in psutil.process_iter():
                try:
                    if process.environ().get("TEST_MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                        found.append(process)
                except psutil.Error:
                    continue
            return found

        yield start, alive
        for process in alive():
            process.kill()
        for process in started:
            process.communicate()


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "studied.yaml"
    path.write_text(yaml.safe_dump(STUDY))
    return path


@pytest.fixture(scope="module")
def expected(config, tmp_path_factory):
    """What the local launcher leaves."""
    out = tmp_path_factory.mktemp("local")
    command = [sys.executable, "-m", "policylab", "run", str(config), "--out", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return left_by(out)


def left_by(out):
    """Every report and result of the one run directory in ``out``, and the events of its study but its clocks."""
    (run_dir,) = Path(out).iterdir()
    files = {
        str(path.relative_to(run_dir)): path.read_bytes()
        for path in sorted(run_dir.glob("trials/**/*"))
        if path.name in ("reports.jsonl", "result.json", "spec.json")
    }
    return files, read_lines(run_dir / "study" / "events.jsonl")


def wait_until(condition, *, timeout_s=120):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def under_way(out):
    """Whether the second trial has been reported."""
    return any(Path(out).glob("*/trials/0001/*/reports.jsonl"))


def test_it_is_silent_and_leaves_what_the_local_launcher_leaves(marked, config, expected, tmp_path):
    start, alive = marked
    process = start("run", config, "--launcher", "ray", "--out", tmp_path, "--json")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert json.loads(out)["status"] == "finished"
    assert [line for line in err.splitlines() if not line.startswith(("run directory: ", "warning: "))] == []
    assert left_by(tmp_path) == expected
    wait_until(lambda: alive() == [], timeout_s=20)


@pytest.mark.slow
def test_ctrl_c_saves_and_leaves_no_process(marked, config, expected, tmp_path):
    start, alive = marked
    process = start("run", config, "--launcher", "ray", "--out", tmp_path, "--json")
    wait_until(lambda: under_way(tmp_path))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    wait_until(lambda: alive() == [], timeout_s=20)
    (run_dir,) = tmp_path.iterdir()
    assert json.loads((run_dir / "run.json").read_text())["status"] == "interrupted"
    process = start("resume", run_dir, "--json")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert left_by(tmp_path)[0] == expected[0]


@pytest.mark.slow
def test_kill_9_leaves_no_process_and_resume_goes_on(marked, config, expected, tmp_path):
    start, alive = marked
    process = start("run", config, "--launcher", "ray", "--out", tmp_path, "--json")
    wait_until(lambda: under_way(tmp_path))
    process.kill()
    process.communicate(timeout=60)
    wait_until(lambda: alive() == [], timeout_s=30)
    (run_dir,) = tmp_path.iterdir()
    process = start("resume", run_dir, "--json")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert left_by(tmp_path) == expected


def test_a_cluster_that_is_not_there_is_one_sentence(marked, config, tmp_path):
    start, _ = marked
    nowhere = ["--set", "launcher.address=127.0.0.1:1", "--set", "launcher.workers=1"]
    process = start("run", config, "--launcher", "ray", *nowhere, "--out", tmp_path)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "launcher.address=127.0.0.1:1: cannot be reached" in err
    assert "Traceback" not in err
