"""The time of all sessions on a folder, those included that were killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from policylab import session_clock
from policylab.session_clock import SessionClock, elapsed_s
from policylab.tuning import Task, tune

SPACE = {"parameters": {"x": {"kind": "continuous", "low": 0.0, "high": 1.0}}}


def test_sessions_add_up(tmp_path: Path) -> None:
    file = tmp_path / "sessions.jsonl"
    for _ in range(2):
        with SessionClock(file) as clock:
            time.sleep(0.05)
    assert clock.earlier_s >= 0.05
    assert 0.1 <= elapsed_s(file) < 5


def test_ticks_write_a_line_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, now = tmp_path / "sessions.jsonl", [100.0]
    monkeypatch.setattr(session_clock.time, "monotonic", lambda: now[0])
    clock, told = SessionClock(file), []
    observe = clock.ticking(told.append)
    for second in range(1, 14):
        now[0] = 100.0 + second
        observe(second)
    assert told == list(range(1, 14))
    assert file.read_text() == '{"wall_s": 5.0}\n{"wall_s": 5.0}\n'
    assert elapsed_s(file) == 10.0, "what a process that is killed now leaves behind"


def test_a_long_session_writes_few_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, now = tmp_path / "sessions.jsonl", [0.0]
    monkeypatch.setattr(session_clock.time, "monotonic", lambda: now[0])
    with SessionClock(file) as clock:
        for second in range(0, 7 * 86_400, 5):
            now[0] = float(second)
            clock.tick()
    assert len(file.read_text().splitlines()) < 1000
    assert elapsed_s(file) == now[0]


def slow(task: Task) -> float:
    time.sleep(0.05)
    if task.configuration["x"] > 0.7:
        os.kill(os.getpid(), signal.SIGKILL)
    return 0.0


def session(folder: Path) -> None:
    session_clock.EVERY_S = 0.0
    tune(slow, SPACE, searcher="random", limits={"trials": 50, "wall_clock_s": 3600}, folder=folder)


def test_a_killed_study_has_used_its_time(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=session, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    n_done = (tmp_path / "events.jsonl").read_text().count('"end"')
    assert n_done >= 1
    assert elapsed_s(tmp_path / "sessions.jsonl") >= 0.05 * n_done
