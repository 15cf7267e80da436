"""`policylab jobs` against a real head node with its job server, on loopback."""

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

pytest.importorskip("ray")
pytest.importorskip("aiohttp_cors", reason="the job server needs ray[default]")

CONFIG = {
    "name": "submitted",
    "env": {"id": "FrozenLake-v1"},
    "agent": {"kind": "q_learning", "learning_rate": 0.1, "discount": 0.99, "execution": "plain"},
    "budget": {"steps": 2_000},
    "seeds": {"tune": 2, "confirm": 0},
    "evaluation": {"marks": 4},
    "tracking": {"kind": "none"},
}
START_S = 180


@pytest.fixture(scope="module")
def policylab(ray_environment):
    """Run a command; return what it printed, having checked its exit code and that it shows no traceback."""

    def run(*arguments, code=0):
        command = [sys.executable, "-m", "policylab", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=ray_environment)
        assert done.returncode == code, done.stderr + done.stdout
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def address(start_head):
    """The job server of a cluster of one node."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    dashboard = ["--include-dashboard", "true", "--dashboard-host", "127.0.0.1", "--dashboard-port", port]
    head, _ = start_head("--num-cpus", 2, *dashboard)
    deadline = time.monotonic() + START_S
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/api/jobs/", timeout=5):
            return f"http://127.0.0.1:{port}"
        assert head.process.poll() is None, head.output()
        assert time.monotonic() < deadline, head.output()
        time.sleep(0.5)


@pytest.fixture
def write(tmp_path):
    def written(**changes):
        path = tmp_path / "experiment.yaml"
        path.write_text(yaml.safe_dump({**CONFIG, **changes}))
        return path

    return written


@pytest.fixture
def submit(policylab, address):
    def submitted(config, out):
        return _submitted(policylab, address, config=config, out=out)

    return submitted


def _submitted(policylab, address, *, config, out):
    done = policylab("jobs", "submit", config, "--workers", 2, "--address", address, "--out", out, "--json")
    assert done.stderr == ""
    return json.loads(done.stdout)["job"]


def reports(out):
    return {str(path.relative_to(out))[-30:]: path.read_bytes() for path in sorted(Path(out).rglob("reports.jsonl"))}


@pytest.mark.slow
def test_a_submitted_experiment_leaves_what_it_leaves_here(policylab, submit, address, write, tmp_path):
    config = write()
    job = submit(config, tmp_path / "there")
    followed = policylab("jobs", "attach", job, "--address", address)
    assert "submitted: finished" in followed.stdout
    policylab("run", config, "--out", tmp_path / "here", "--json")
    assert reports(tmp_path / "there") == reports(tmp_path / "here")
    assert "submitted: finished" in policylab("jobs", "logs", job, "--address", address).stdout
    (listed,) = json.loads(policylab("jobs", "list", "--address", address, "--json").stdout)
    assert (listed["id"], listed["status"], listed["experiment"]) == (job, "SUCCEEDED", "submitted")
    stopped = json.loads(policylab("jobs", "stop", job, "--address", address, "--json").stdout)
    assert stopped == {"job": job, "stopping": False}


@pytest.mark.slow
def test_a_job_that_fails_says_why(policylab, submit, address, write, tmp_path):
    job = submit(write(budget={"steps": 1}, evaluation={"kind": "online", "marks": 1}), tmp_path / "there")
    followed = policylab("jobs", "attach", job, "--address", address, code=1)
    assert "no episode ended in 1 steps" in followed.stdout
    assert json.loads(policylab("jobs", "show", job, "--address", address, "--json").stdout)["status"] == "FAILED"


@pytest.mark.slow
def test_a_stopped_job_saves_its_runs(policylab, submit, address, write, tmp_path):
    job = submit(write(budget={"steps": 10_000_000}, evaluation={"marks": 10_000}), tmp_path / "there")
    deadline = time.monotonic() + 120
    while not reports(tmp_path / "there"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    policylab("jobs", "stop", job, "--address", address)
    policylab("jobs", "attach", job, "--address", address, code=130)
    (run_dir,) = (tmp_path / "there").iterdir()
    assert json.loads((run_dir / "run.json").read_text())["status"] == "interrupted"
    assert list(run_dir.glob("trials/*/*/checkpoints/0*"))


@pytest.mark.slow
def test_an_unknown_job_is_one_sentence(policylab, address):
    done = policylab("jobs", "show", "raysubmit_nobody", "--address", address, code=2)
    assert "knows no job 'raysubmit_nobody'" in done.stderr


def test_a_server_that_is_not_there_is_one_sentence_and_json(policylab):
    done = policylab("jobs", "list", "--address", "http://127.0.0.1:1", "--json", code=2)
    assert "no Ray job server at http://127.0.0.1:1" in json.loads(done.stdout)["error"]["message"]
    assert "not a URL" in policylab("jobs", "list", "--address", "somewhere", code=2).stderr


def test_the_number_of_workers_must_be_said(policylab, write):
    done = policylab("jobs", "submit", write(), "--address", "http://127.0.0.1:1", code=2)
    assert "--workers" in done.stderr
