"""The local launcher against real worker processes that speak its protocol."""

import json
import os
import sys
import time

import pytest

from policylab.attempts import Attempts
from policylab.launchers import LocalLauncher, State

WORKER = """
import json, sys, time, os, threading, queue
inbox = queue.Queue()
def read():
    for line in sys.stdin:
        inbox.put(json.loads(line))
    inbox.put(None)
threading.Thread(target=read, daemon=True).start()
def send(**event):
    print(json.dumps(event), flush=True)
while (command := inbox.get()) is not None:
    if "run" not in command:
        continue
    folder = command["run"]
    name = os.path.basename(folder)
    if name == "dies":
        os._exit(7)
    if name == "hangs":
        from policylab.stacks import answer
        answer(int(os.environ["POLICYLAB_STACKS"]))
        send(event="progress", steps=0, value=None)
        child = os.fork()  # it keeps the pipes open, and must not survive either
        open(os.path.join(folder, "pids"), "a").write(f"{os.getpid()} ")
        while True:
            pass
    if name == "wrong":
        send(event="failed", error="a user's mistake", user_error=True); continue
    send(event="progress", steps=5, value=0.5)
    if name == "long":
        following = inbox.get(timeout=30)
        open(os.path.join(folder, "saved"), "w").write(json.dumps(following))
        if following is None:
            break
        send(event="stopped"); continue
    send(event="finished")
"""


@pytest.fixture
def launcher(tmp_path):
    with LocalLauncher(n_workers=2, log=tmp_path / "log", command=[sys.executable, "-c", WORKER]) as made:
        yield made


def submit(launcher, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    return launcher.submit(folder)


def wait_for(launcher, handle, *states):
    deadline = time.monotonic() + 30
    while launcher.poll(handle).state not in states:
        assert time.monotonic() < deadline, launcher.poll(handle)
        time.sleep(0.01)
    return launcher.poll(handle)


def test_many_runs_finish_on_few_workers(launcher, tmp_path):
    handles = [submit(launcher, tmp_path, f"run{i}") for i in range(20)]
    for handle in handles:
        progress = wait_for(launcher, handle, State.FINISHED)
        assert (progress.steps, progress.value, progress.error) == (5, 0.5, None)


def test_a_dead_worker_fails_its_run_and_the_next_run_gets_a_new_one(launcher, tmp_path):
    dead = submit(launcher, tmp_path, "dies")
    assert "its worker process died (exit 7)" in wait_for(launcher, dead, State.FAILED).error
    for i in range(4):
        wait_for(launcher, submit(launcher, tmp_path, f"after{i}"), State.FINISHED)


def test_a_hung_run_is_killed_with_all_it_started_and_its_stack_is_told(tmp_path):
    command, bounded = [sys.executable, "-c", WORKER], Attempts(max_runtime_s=1.0)
    with LocalLauncher(n_workers=1, log=tmp_path / "log", command=command, attempts=bounded) as launcher:
        hung = submit(launcher, tmp_path, "hangs")
        after = submit(launcher, tmp_path, "after")
        wait_for(launcher, after, State.FINISHED)
        progress = launcher.poll(hung)
    assert (progress.state, progress.error) == (State.FAILED, "ran longer than 1 s")
    assert 'File "<string>", line ' in progress.traceback
    for pid in map(int, (hung.folder / "pids").read_text().split()):
        wait_until_gone(pid)


def wait_until_gone(pid):
    deadline = time.monotonic() + 30
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_failure_carries_its_reason(launcher, tmp_path):
    progress = wait_for(launcher, submit(launcher, tmp_path, "wrong"), State.FAILED)
    assert progress.error == "a user's mistake"
    assert progress.user_error


def test_stop_reaches_a_running_run(launcher, tmp_path):
    handle = submit(launcher, tmp_path, "long")
    wait_for(launcher, handle, State.RUNNING)
    deadline = time.monotonic() + 30
    while launcher.poll(handle).steps == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    launcher.stop(handle)
    wait_for(launcher, handle, State.STOPPED)
    assert json.loads((handle.folder / "saved").read_text()) == {"stop": str(handle.folder)}


def test_closing_lets_the_worker_save_and_drops_what_waits(tmp_path):
    with LocalLauncher(n_workers=1, log=tmp_path / "log", command=[sys.executable, "-c", WORKER]) as launcher:
        running = submit(launcher, tmp_path, "long")
        waiting = submit(launcher, tmp_path, "never")
        deadline = time.monotonic() + 30
        while launcher.poll(running).steps == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert (running.folder / "saved").read_text() == "null"
    assert launcher.poll(running).state is State.STOPPED
    assert launcher.poll(waiting).state is State.STOPPED


def test_a_worker_that_cannot_start_is_a_reason_not_a_traceback(tmp_path):
    with LocalLauncher(n_workers=1, log=tmp_path / "log", command=["/no/such/program"]) as launcher:
        progress = wait_for(launcher, submit(launcher, tmp_path, "run"), State.FAILED)
    assert "cannot start a worker process" in progress.error


def test_attach_knows_only_what_was_submitted(launcher, tmp_path):
    handle = submit(launcher, tmp_path, "run")
    assert launcher.attach(handle.folder) == handle
    assert launcher.attach(tmp_path / "other") is None
