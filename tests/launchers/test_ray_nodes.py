"""A whole node is lost while a study runs on it: the study ends as if nothing had happened."""

import json
import subprocess
import sys
import time

import pytest
import yaml

from policylab.files import read_lines

pytest.importorskip("ray")
pytest.importorskip("fsspec")
pytestmark = pytest.mark.slow

STUDY = {
    "name": "spread",
    "env": {"id": "FrozenLake-v1"},
    "agent": {"kind": "q_learning", "learning_rate": 0.1, "discount": 0.99, "execution": "plain"},
    "budget": {"steps": 54_000},
    "seeds": {"tune": 2, "confirm": 2},
    "evaluation": {"marks": 54},
    "tracking": {"kind": "none"},
    "search": {
        "space": {"parameters": {"agent.learning_rate": {"kind": "continuous", "low": 0.01, "high": 1.0}}},
        "searcher": {"kind": "random"},
        "scheduler": {"kind": "fixed"},
        "limits": {"trials": 4},
        "parallel": 2,
        "storage": "none",
    },
}


@pytest.fixture(scope="module")
def head(start_head):
    """The address of a head without processors, which no run can be on."""
    return start_head("--num-cpus", 0, "--include-dashboard", "false")[1]


@pytest.fixture(scope="module")
def policylab(ray_environment, tmp_path_factory):
    """Begin the study in a folder of its own with some settings; return the process and the folder."""
    config = tmp_path_factory.mktemp("config") / "spread.yaml"
    config.write_text(yaml.safe_dump(STUDY))

    def start(*settings):
        out = tmp_path_factory.mktemp("runs")
        command = [sys.executable, "-m", "policylab", "run", str(config), "--out", str(out), "--json"]
        command += [part for setting in settings for part in ("--set", setting)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, text=True, env=ray_environment, **pipes), out

    return start


def finished(process, out):
    """Return what it decided and every report and result it left."""
    document, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    (run_dir,) = out.iterdir()
    files = {
        str(path.relative_to(run_dir)): path.read_bytes()
        for path in sorted(run_dir.glob("trials/**/*"))
        if path.name in ("reports.jsonl", "result.json")
    }
    document = json.loads(document)
    return {"files": files, "selected": document["selected"], "confirmed": document["confirmed"]}


@pytest.fixture(scope="module")
def expected(policylab):
    return finished(*policylab())


def under_way(out):
    """Return the runs that have begun and have not ended."""
    begun = {path.parent for path in out.glob("*/trials/*/tune-*/reports.jsonl")}
    return begun - {path.parent for path in out.glob("*/trials/*/tune-*/result.json")}


@pytest.mark.parametrize("carried", [False, True], ids=["shared folder", "storage"])
def test_a_lost_node_costs_a_slice_of_its_runs(join, head, policylab, expected, tmp_path, carried):
    nodes = [join(head, "--num-cpus", 1) for _ in range(2)]
    settings = ["launcher.kind=ray", f"launcher.address={head}", "launcher.workers=2", "launcher.start_timeout_s=180"]
    if carried:
        settings += [f"launcher.storage=file://{tmp_path}/store", "launcher.sync_every_s=0.2"]
    process, out = policylab(*settings)
    while process.poll() is None and len(under_way(out)) < 2:  # one on each node
        time.sleep(0.02)
    nodes[0].lose()
    assert under_way(out)
    assert finished(process, out) == expected
    (run_dir,) = out.iterdir()
    events = read_lines(run_dir / "study" / "events.jsonl")
    assert [event for event in events if event["event"] == "end" and event["error"]] == []
    nodes[1].lose()
