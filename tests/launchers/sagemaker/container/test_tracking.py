"""A job that tracks its own run in a real MLflow server."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

pytestmark = pytest.mark.filterwarnings("ignore")  # of MLflow's


@pytest.fixture
def server(tmp_path, free_port):
    """An MLflow server's address."""
    port = free_port()
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
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
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
