"""Jobs that track their own runs in a real MLflow server."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from policylab.cli import main
from policylab.launchers.sagemaker.emulator import cluster

pytestmark = pytest.mark.filterwarnings("ignore")  # of MLflow's


@pytest.fixture(scope="module")
def server(tmp_path_factory, free_port):
    """An MLflow server's address."""
    tmp_path, port = tmp_path_factory.mktemp("mlflow"), free_port()
    store = f"sqlite:///{tmp_path}/mlflow.db"
    command = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", *command, "--backend-store-uri", store],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            process_group=0,
        )
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 600
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "server.log").read_text()
                assert time.monotonic() < deadline, (tmp_path / "server.log").read_text()
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_a_job_tracks_its_run_and_leaves_nothing_behind(server, job, left_over, spec_of):
    from mlflow import MlflowClient

    client = MlflowClient(server)
    experiment = client.create_experiment("contained")
    above = client.create_run(experiment, tags={"policylab.run_id": "contained-1"})
    order = {"uri": server, "experiment": "contained", "run_id": "contained-1", "created_ms": 1_700_000_000_000}
    host = job.host(spec=spec_of(), tracking=json.dumps({**order, "flush_s": 0.2})).start()
    assert host.wait() == 0, host.text()
    (run,) = client.search_runs([experiment], "tags.`policylab.path` = 'trials/0000/tune-000'")
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == above.info.run_id
    assert run.data.tags["policylab.job"] == job.mark
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "eval/return_mean")]
    assert steps == [1000 * mark for mark in range(1, 31)]
    assert left_over() == ([], [])


def test_a_tracker_that_is_down_does_not_fail_the_job(free_port, job, left_over, spec_of):
    address = f"http://127.0.0.1:{free_port()}"
    order = {"uri": address, "experiment": "contained", "run_id": "contained-1", "created_ms": 0}
    host = job.host(spec=spec_of(), tracking=json.dumps(order)).start()
    assert host.wait() == 0, host.text()
    assert f"tracking: MLflow at {address} took nothing: it cannot be reached" in host.text()
    assert left_over() == ([], [])


RETURN = "eval/return_mean"
SEARCH = (
    "search: {space: {parameters: {agent.learning_rate: {kind: continuous, low: 0.1, high: 0.5}}}, limits: {trials: 2}}"
)
EXPERIMENT = """
env: {id: "patient_module:Patient-v0"}
agent: {kind: q_learning, learning_rate: 0.1, discount: 0.99, execution: plain}
budget: {steps: 4000}
seeds: {tune: 1, confirm: 1}
evaluation: {marks: 4, episodes: 5, final_episodes: 20}
tracking: {kind: mlflow, flush_s: 0.5, timeout_s: 600}
launcher: {kind: sagemaker, emulate: true, parallel: 1, include: [patient_module.py]}
"""
PATIENT = """
import json, os, time, urllib.request
import gymnasium

def is_tracked(order):
    query = {"experiment_ids": ["%s"], "filter": "tags.`policylab.job` = '" + os.environ["TRAINING_JOB_NAME"] + "'"}
    address = order["uri"] + "/api/2.0/mlflow/runs/search"
    request = urllib.request.Request(address, json.dumps(query).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bool(json.load(answer).get("runs"))

if "POLICYLAB_TRACKING" in os.environ:
    order, deadline = json.loads(os.environ["POLICYLAB_TRACKING"]), time.monotonic() + 600
    while not is_tracked(order) and time.monotonic() < deadline:
        time.sleep(0.5)

gymnasium.register("Patient-v0", "gymnasium.envs.toy_text.frozen_lake:FrozenLakeEnv", max_episode_steps=100)
"""
"""In a job, training begins when its tracker is there, however slow the machine is."""


@pytest.mark.slow
@pytest.mark.parametrize(("search", "n_jobs"), [("", 2), (SEARCH, 3)], ids=["run", "search"])
def test_emulated_jobs_and_their_command_leave_in_mlflow_what_the_run_directory_holds(
    server, tmp_path, monkeypatch, capfd, search, n_jobs
):
    """Hosts are plain processes here: isolated ones have no way out to a server."""
    from mlflow import MlflowClient

    monkeypatch.setattr(cluster, "why_not_isolated", lambda: "the server must be reached")
    monkeypatch.chdir(tmp_path)
    name = f"lake{n_jobs}"
    (tmp_path / "lake.yaml").write_text(f"name: {name}\n{EXPERIMENT}{search}")
    client = MlflowClient(server)
    experiment = client.create_experiment(name)
    (tmp_path / "patient_module.py").write_text(PATIENT.replace("%s", experiment))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    command = ["run", "lake.yaml", "--set", f"tracking.uri={server}", "--json"]
    assert main(command) == 0, capfd.readouterr().err
    run_dir = tmp_path / json.loads(capfd.readouterr().out)["run_dir"]

    found = client.search_runs([experiment])
    runs = {run.data.tags.get("policylab.path"): run for run in found}
    assert len(runs) == len(found), "nothing is there twice"
    result = json.loads((run_dir / "result.json").read_text())
    parent = runs.pop(None)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["policylab.run_id"] == json.loads((run_dir / "run.json").read_text())["run_id"]
    assert parent.data.metrics["confirmed/value"] == result["confirmed"]["value"]
    assert "config.yaml" in {file.path for file in client.list_artifacts(parent.info.run_id)}

    sent = [json.loads(line) for line in (run_dir / "jobs.jsonl").read_text().splitlines()]
    jobs = {f"trials/{line['run'].replace('-', '/', 1)}": line["job"] for line in sent if line["event"] == "sent"}
    assert len(jobs) == n_jobs
    for path, job in jobs.items():
        run = runs[path]
        assert (run.info.status, run.data.tags["policylab.job"]) == ("FINISHED", job)
        above = run.data.tags["mlflow.parentRunId"]
        assert above == (runs[str(Path(path).parent)] if search else parent).info.run_id
        lines = [json.loads(line) for line in (run_dir / path / "reports.jsonl").read_text().splitlines()]
        rows = [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, RETURN)]
        assert sorted(rows) == [(line["step"], line["metrics"][RETURN]) for line in lines]
        assert run.data.metrics["final/value"] == json.loads((run_dir / path / "result.json").read_text())["value"]
