"""Ctrl-C in the middle of a search: it says at once what happens, bounds what it waits for, and can be resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ENVIRONMENT = '''
import pathlib, time
import gymnasium as gym

class Hanging(gym.Env):
    """Two states; a run that takes 600 steps while there is a file in `folder` removes it and hangs."""

    observation_space, action_space, steps = gym.spaces.Discrete(2), gym.spaces.Discrete(2), 0

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = 0
        return 0, {}

    def step(self, action):
        self.steps += 1
        if self.steps == 600:
            for file in self.folder.glob("hang"):
                file.rename(self.folder / "hangs")
                time.sleep(600)
        self.state = int(self.np_random.random() < 0.3 + 0.4 * (action == self.state))
        return self.state, float(self.state), False, False, {}

gym.register("Hanging-v0", Hanging, max_episode_steps=20)
'''
STUDY: dict[str, Any] = {
    "name": "hanging",
    "agent": {"kind": "q_learning", "learning_rate": 0.1, "discount": 0.9},
    "budget": {"steps": 1_000},
    "seeds": {"tune": 1, "confirm": 0},
    "evaluation": {"kind": "rollout", "marks": 4, "episodes": 1, "final_episodes": 1},
    "tracking": {"kind": "none"},
    "search": {
        "space": {"parameters": {"agent.learning_rate": {"kind": "continuous", "low": 0.05, "high": 0.5}}},
        "searcher": {"kind": "random"},
        "scheduler": {"kind": "fixed"},
        "limits": {"trials": 4},
        "storage": "none",
    },
}
BOUNDED = (
    "import sys\n"
    "from policylab.launchers import inline, launcher, pool\n"
    "inline.SAVE_S = launcher.SAVE_S = pool.SAVE_S = float(sys.argv[1])\n"
    "from policylab.cli.main import main\n"
    "sys.exit(main(sys.argv[2:]))\n"
)
"""The command line, with the seconds that runs get to save as its first argument."""

LAUNCHERS = ["inline", "local", pytest.param("ray", marks=pytest.mark.slow)]
Start = Callable[..., "subprocess.Popen[str]"]


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def marked(mark: str) -> set[int]:
    """Return the processes that a test has started, by what their environment holds."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"TEST_MARK={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
        except OSError:  # it ended meanwhile, or is another user's
            continue
    return found


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the command line in a process group of its own, as a shell does; nothing of it is left afterwards."""
    (tmp_path / "hanging_module.py").write_text(ENVIRONMENT)
    (tmp_path / "faults").mkdir()
    settings = {**STUDY, "env": {"id": "hanging_module:Hanging-v0", "kwargs": {"folder": str(tmp_path / "faults")}}}
    (tmp_path / "hanging.yaml").write_text(yaml.safe_dump(settings))
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "TEST_MARK": str(tmp_path)}
    started: list[subprocess.Popen[str]] = []

    def call(*arguments: str, save_s: float = 20.0) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", BOUNDED, str(save_s), *arguments],
            cwd=tmp_path,
            env=environment,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield call
    for pid in marked(str(tmp_path)):
        os.kill(pid, signal.SIGKILL)
    for process in started:
        process.communicate()


def hung(start: Start, tmp_path: Path, launcher: str, *, save_s: float) -> tuple[subprocess.Popen[str], Path]:
    """Return a search, one of whose runs hangs, and its run directory."""
    (tmp_path / "faults" / "hang").touch()
    process = start("tune", "hanging.yaml", "--launcher", launcher, "--out", "runs", save_s=save_s)
    wait_until(lambda: (tmp_path / "faults" / "hangs").exists() or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    (run_dir,) = (tmp_path / "runs").iterdir()
    return process, run_dir


def told(process: subprocess.Popen[str], sentence: str) -> str:
    """Return what the process says on standard error, until it has said the sentence."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if sentence in line:
            return "".join(lines)
    raise AssertionError("".join(lines))


def ends(process: subprocess.Popen[str], run_dir: Path, tmp_path: Path) -> str:
    """Check that an interrupted search ends as it should; return what it says last."""
    _, text = process.communicate(timeout=120)
    assert process.returncode == 130, text
    assert "Traceback" not in text
    assert f"continue with: policylab resume {run_dir}" in text
    assert json.loads((run_dir / "run.json").read_text())["status"] == "interrupted"
    wait_until(lambda: not marked(str(tmp_path)), timeout_s=30)
    return text


def resumed(start: Start, run_dir: Path) -> dict[str, Any]:
    """Return the result of a search that goes on, after every run was trained to its end."""
    process = start("resume", str(run_dir), "--json")
    out, text = process.communicate(timeout=240)
    assert process.returncode == 0, text
    log = [json.loads(line) for line in (run_dir / "study" / "events.jsonl").read_text().splitlines()]
    assert [event["error"] for event in log if event["event"] == "end"] == [None] * 4
    document: dict[str, Any] = json.loads(out)
    return document


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_run_that_hangs_is_ended_when_its_time_to_save_is_over(launcher: str, start: Start, tmp_path: Path) -> None:
    process, run_dir = hung(start, tmp_path, launcher, save_s=1.0)
    os.killpg(process.pid, signal.SIGINT)
    told(process, "in at most 1 s; press Ctrl-C again to stop at once")
    assert "they go on from their last checkpoint: 000" in ends(process, run_dir, tmp_path)
    document = resumed(start, run_dir)
    assert (document["search"]["n_trials"], document["search"]["n_failed"]) == (4, 0)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_second_ctrl_c_ends_what_hangs_at_once(launcher: str, start: Start, tmp_path: Path) -> None:
    process, run_dir = hung(start, tmp_path, launcher, save_s=3600.0)
    os.killpg(process.pid, signal.SIGINT)
    told(process, "in at most 3600 s; press Ctrl-C again to stop at once")
    os.killpg(process.pid, signal.SIGINT)
    ends(process, run_dir, tmp_path)
    assert resumed(start, run_dir)["search"]["n_trials"] == 4


@pytest.mark.slow
def test_the_worker_of_a_killed_search_does_not_keep_its_run_from_going_on(start: Start, tmp_path: Path) -> None:
    process, run_dir = hung(start, tmp_path, "local", save_s=20.0)
    process.kill()
    process.wait()
    assert resumed(start, run_dir)["search"]["n_failed"] == 0


def test_a_second_controller_is_refused_and_the_first_goes_on(start: Start, tmp_path: Path) -> None:
    process, run_dir = hung(start, tmp_path, "inline", save_s=1.0)
    log = (run_dir / "study" / "events.jsonl").read_bytes()
    second = start("resume", str(run_dir))
    out, text = second.communicate(timeout=120)
    assert second.returncode not in (0, None)
    assert "is in use by another policylab process; wait for it or stop it" in text
    assert "Traceback" not in out + text
    assert (run_dir / "study" / "events.jsonl").read_bytes().startswith(log)
    assert json.loads((run_dir / "run.json").read_text())["status"] == "running"
    process.kill()
    process.wait()
    assert resumed(start, run_dir)["search"]["n_trials"] == 4
