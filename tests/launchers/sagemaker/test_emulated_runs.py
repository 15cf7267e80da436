"""Experiments over the emulator: the literal requests, executed by processes, end as they do on this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from policylab.experiments.rundir import create_run
from policylab.experiments.schema import load_experiment
from policylab.experiments.study import search
from policylab.launchers.sagemaker.launcher import CLOSE_S

pytestmark = pytest.mark.slow
WAIT_S = 1200

EMULATED = ["launcher.kind=sagemaker", "launcher.emulate=true", "launcher.parallel=2", "tracking.kind=none"]
SMALL = ["budget.steps=3000", "seeds.tune=2", "seeds.confirm=1", "evaluation.marks=6"]


def folder_bytes(folder):
    kept = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in kept if path.name != "cost.jsonl"}


def test_a_study_of_four_trials_with_promotions_decides_as_on_this_machine(tmp_path):
    searching = ["search.scheduler.kind=hyperband", "search.limits.trials=4", "search.parallel=1", *SMALL]
    run = create_run(load_experiment("taxi_tune", overrides=[*EMULATED, *searching]), parent=tmp_path / "jobs")
    local = ["launcher.kind=inline", "launcher.workers=1", "tracking.kind=none", *searching]
    there = create_run(load_experiment("taxi_tune", overrides=local), parent=tmp_path / "local")
    assert search(run) == search(there)
    assert folder_bytes(run.path / "trials") == folder_bytes(there.path / "trials")
    lines = [json.loads(line) for line in (run.path / "jobs.jsonl").read_text().splitlines()]
    sent = [line for line in lines if line["event"] == "sent"]
    assert len({line["run"] for line in sent}) < len(sent)  # a promotion is a new job for the same run
    assert {line["status"] for line in lines if line["event"] == "ended"} == {"Completed"}


def test_ctrl_c_stops_emulated_jobs_which_save_and_resume_ends_the_run(tmp_path):
    command = [sys.executable, "-m", "policylab", "run", "frozenlake", "--launcher", "sagemaker", "--emulate", "--json"]
    options = ["seeds.tune=1", "seeds.confirm=0", "tracking.kind=none", "budget.steps=600000", "agent.execution=plain"]
    options += ["launcher.environment={POLICYLAB_SAVE_EVERY_S: '0.5'}"]  # the first report comes soon, the end does not
    command += [part for one in options for part in ("--set", one)] + ["--out", str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as begun:
        wait_for(lambda: list(tmp_path.glob("*/trials/0000/tune-000/reports.jsonl")), process=begun)
        os.kill(begun.pid, signal.SIGINT)
        out, err = begun.communicate(timeout=WAIT_S)
    assert begun.returncode == 130, err
    run_dir = json.loads(out)["run_dir"]
    assert "interrupted: 1 run saves, in at most 30 s; press Ctrl-C again to stop at once" in err
    assert f"continue with: policylab resume {run_dir}" in err
    assert ended(run_dir) == ["Stopped"]
    resume = [sys.executable, "-m", "policylab", "resume", run_dir]
    resumed = subprocess.run(resume, capture_output=True, timeout=WAIT_S)
    assert resumed.returncode == 0, resumed.stderr
    assert ended(run_dir) == ["Stopped", "Completed"]


def test_a_second_ctrl_c_kills_emulated_jobs_that_do_not_save(tmp_path):
    command = [sys.executable, "-m", "policylab", "run", "frozenlake", "--launcher", "sagemaker", "--emulate"]
    options = ["seeds.tune=1", "seeds.confirm=0", "tracking.kind=none", "agent.execution=plain"]
    options += ["budget.steps=500000000", "evaluation.marks=1"]  # its only mark is hours away
    command += [part for one in options for part in ("--set", one)] + ["--out", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as begun:
        wait_for(lambda: list(tmp_path.glob("*/**/jobs/*/logs/*")), process=begun)
        time.sleep(8.0)  # it trains by then, and hears of the stop at its mark alone
        os.kill(begun.pid, signal.SIGINT)
        assert any("press Ctrl-C again to stop at once" in line for line in begun.stderr)
        os.kill(begun.pid, signal.SIGINT)
        begun.communicate(timeout=CLOSE_S / 2)
    assert begun.returncode == 130


def ended(run_dir):
    lines = map(json.loads, Path(run_dir, "jobs.jsonl").read_text().splitlines())
    return [line["status"] for line in lines if line["event"] == "ended"]


def wait_for(found, *, process):
    deadline = time.monotonic() + WAIT_S
    while not found():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
