"""Tracking as the runner and the command line use it: a process beside the run that never fails it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policylab.errors import ConfigError, RunDirectoryError, TrackingError
from policylab.experiments.tracking import MlflowTracking, NoTracking, SyncResult, open_tracker, sync_run
from policylab.experiments.tracking.state import read_state
from policylab.files import locked


def trained(run: Any) -> Any:
    run.trial("0000/tune-000")
    run.report("0000/tune-000", 3)
    run.result("0000/tune-000")
    run.finish()
    return run


def test_a_run_is_tracked_while_it_is_written(make_run: Callable[..., Any], store: Path) -> None:
    run = make_run()
    warned: list[str] = []
    with open_tracker(run.folder, MlflowTracking(uri=f"sqlite:///{store}", flush_s=0.1), warn=warned.append) as tracker:
        run.trial("0000/tune-000")
        run.report("0000/tune-000", 2)
        while not (read_state(run.folder) or SyncResult("mlflow")).synced.get("trials/0000/tune-000"):
            time.sleep(0.05)  # pytest's own limit ends a wait for what never comes
        trained_run_id = (read_state(run.folder) or SyncResult("mlflow")).run_id
        run.report("0000/tune-000", 1)
        run.result("0000/tune-000")
        run.finish()
    assert (warned, tracker.warnings) == ([], [])
    assert tracker.result.complete
    assert tracker.result.synced == {"trials/0000/tune-000": 3}
    assert tracker.result.model_uri == "models:/lake/1"
    summary = tracker.summary()
    assert summary["uri"] == f"sqlite:///{store}"
    assert summary["run_id"] == trained_run_id
    assert summary["open_with"] == f"mlflow ui --backend-store-uri sqlite:///{store}"
    document = json.loads((run.folder / "tracking.json").read_text())
    assert {"kind": "mlflow", "complete": True, "error": None, "run_id": trained_run_id}.items() <= document.items()


def test_without_tracking_nothing_is_started_or_written(make_run: Callable[..., Any]) -> None:
    run = make_run()
    with open_tracker(run.folder, NoTracking()) as tracker:
        pass
    assert tracker.result == SyncResult(kind="none", complete=True)
    assert not (run.folder / "tracking.json").exists()


def test_a_tracker_that_is_down_leaves_one_warning_and_sync_uploads_later(
    make_run: Callable[..., Any], store: Path, tmp_path: Path
) -> None:
    missing = tmp_path / "missing"
    run = make_run(uri=f"sqlite:///{missing}/mlflow.db")
    warned: list[str] = []
    settings = MlflowTracking(uri=f"sqlite:///{missing}/mlflow.db", flush_s=0.1)
    with open_tracker(run.folder, settings, warn=warned.append) as tracker:
        trained(run)
        while not warned:
            time.sleep(0.05)
    assert not tracker.result.complete
    assert warned == tracker.warnings
    assert len(warned) == 1
    assert f"the folder {missing} does not exist" in warned[0]
    assert f"policylab sync {run.folder}" in warned[0]
    with pytest.raises(TrackingError, match="does not exist; create it"):
        sync_run(run.folder)
    missing.mkdir()
    store.rename(missing / "mlflow.db")
    result = sync_run(run.folder)
    assert (result.new_runs, result.new_reports, result.complete) == (1, 3, True)


def test_a_server_that_refuses_is_reported_without_its_password(
    make_run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run = trained(make_run(uri="http://ann:s3cret@127.0.0.1:9"))
    with pytest.raises(
        TrackingError, match=r"http://ann:\*\*\*@127.0.0.1:9 took nothing: .*cannot be reached"
    ) as caught:
        sync_run(run.folder)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in (run.folder / "tracking.json").read_text()


def test_a_server_that_never_answers_does_not_hold_the_end(make_run: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        run = make_run()
        settings = MlflowTracking(uri=f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=1.0)
        with open_tracker(run.folder, settings) as tracker:
            trained(run)
    assert tracker.result.error is not None
    assert "was not ready in 1 s" in tracker.result.error
    assert (read_state(run.folder) or tracker.result).error == tracker.result.error


def test_a_folder_that_cannot_be_tracked_does_not_stop_the_run(tmp_path: Path) -> None:
    with open_tracker(tmp_path, MlflowTracking(uri="sqlite:////x.db")) as tracker:
        trained_anyway = True
    assert trained_anyway
    assert "not a run directory" in tracker.warnings[0]


def test_an_error_of_the_run_passes_through_a_failing_tracker(make_run: Callable[..., Any], tmp_path: Path) -> None:
    run = make_run()

    def fail() -> None:
        with open_tracker(run.folder, MlflowTracking(uri=f"sqlite:///{tmp_path}/missing/mlflow.db")):
            run.status("failed")
            raise ZeroDivisionError("the training failed")

    with pytest.raises(ZeroDivisionError, match="the training failed"):
        fail()
    state = read_state(run.folder)
    assert state is not None
    assert "does not exist" in str(state.error)


def test_the_follower_ends_with_its_parent(make_run: Callable[..., Any], store: Path) -> None:
    run = make_run()
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from policylab.experiments.tracking import MlflowTracking, open_tracker\n"
        "with open_tracker(Path(sys.argv[1]), MlflowTracking(uri=sys.argv[2])) as tracker:\n"
        "    print(tracker._follower._process.pid, flush=True)\n    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", script, str(run.folder), f"sqlite:///{store}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        follower = int(parent.stdout.readline())
        assert os.getpgid(follower) != os.getpgid(parent.pid)  # Ctrl-C does not reach it
        os.kill(parent.pid, signal.SIGKILL)
    while _alive(follower):
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_store_used_before_is_used_again_from_another_folder(
    make_run: Callable[..., Any], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(make_run(uri="sqlite:///mlflow.db"))
    monkeypatch.chdir(store.parent)
    first = sync_run(run.folder)
    monkeypatch.chdir(tmp_path)
    again = sync_run(run.folder)
    assert (again.run_id, again.new_runs, again.new_reports) == (first.run_id, 0, 0)
    assert not (tmp_path / "mlflow.db").exists()


def test_a_run_made_without_tracking_is_uploaded_on_request(
    make_run: Callable[..., Any], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(make_run())
    (run.folder / "config.yaml").write_text("name: lake\ntracking: {kind: none}\n")
    with pytest.raises(ConfigError, match=r"kind: none.*; name a tracker, e.g. `policylab sync .* --uri"):
        sync_run(run.folder)
    with pytest.raises(ConfigError, match="plain folder"):
        sync_run(run.folder, uri="mlruns")
    monkeypatch.chdir(store.parent)
    assert sync_run(run.folder, uri="sqlite:///mlflow.db").complete


def test_sync_refuses_what_is_no_run_directory(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"not a run directory: it has no run.json"):
        sync_run(tmp_path)


def test_two_uploads_of_one_run_do_not_meet(make_run: Callable[..., Any]) -> None:
    run = make_run()
    with (
        locked(run.folder / ".tracking.lock"),
        pytest.raises(RunDirectoryError, match="in use by another policylab process"),
    ):
        sync_run(run.folder)
