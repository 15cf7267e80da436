"""How `tune` calls an objective: what crashes, hangs or answers NaN is recorded, repeated if asked; no study ends."""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policylab.cli.main import main
from policylab.errors import ConfigError
from policylab.tuning import StudyResult, Task, tune

FAULTS = {1: "raise", 3: "nan", 5: "die", 7: "hang"}
SPACE = {"parameters": {"x": {"kind": "integer", "low": 0, "high": 7, "step": 1}}}
SETTINGS: dict[str, Any] = {"limits": {}, "searcher": "grid", "max_resource": 4}
PIECES = {"kind": "median", "every": 0.5, "min_trials": 99}
"""Two pieces for each configuration, the second from the checkpoint of the first."""

ERRORS = {
    "raise": "ValueError: the pole fell over",
    "nan": "its last value is NaN",
    "die": "its process died (exit 3)",
    "hang": "ran longer than 1 s",
}


def learn(task: Task, fault: str | None = None) -> Iterator[tuple[int, float]]:
    """Learn towards x from the checkpoint; in the third step comes the fault."""
    file = task.checkpoint / f"{task.resource}.txt"
    task.checkpoint.mkdir(parents=True, exist_ok=True)
    value = float(file.read_text()) if task.resource else 0.0
    for step in range(task.resource + 1, task.until + 1):
        if step == 3 and fault == "raise":
            raise ValueError("the pole fell over")
        if step == 3 and fault == "die":
            os._exit(3)
        while step == 3 and fault == "hang":
            pass
        value = math.nan if fault == "nan" else value + (task.configuration["x"] - value) / 4
        (task.checkpoint / f"{step}.txt").write_text(repr(value))
        yield step, value


class Faulty:
    """An objective with the faults of `FAULTS`, each in the first ``times`` attempts at a configuration."""

    def __init__(self, folder: Path, *, times: int, kinds: tuple[str, ...] = tuple(ERRORS)) -> None:
        self._folder, self._times, self._kinds = folder, times, kinds

    def __call__(self, task: Task) -> Iterator[tuple[int, float]]:
        if not task.resource < 3 <= task.until:
            return learn(task)
        count = self._folder / f"attempts-{task.configuration['x']}"
        with count.open("a") as file:
            file.write(".")
        kind = FAULTS.get(task.configuration["x"])
        return learn(task, kind if kind in self._kinds and count.stat().st_size <= self._times else None)


def rows(result: StudyResult) -> list[Any]:
    return [(dict(trial.configuration), trial.resource, dict(trial.values)) for trial in result.trials]


def logged(folder: Path, kind: str) -> dict[int, list[dict[str, Any]]]:
    """Return the events of a kind by trial."""
    found: dict[int, list[dict[str, Any]]] = {}
    for event in map(json.loads, (folder / "events.jsonl").read_text().splitlines()):
        if event["event"] == kind:
            found.setdefault(event["trial"], []).append(event)
    return found


@pytest.mark.parametrize(
    ("execution", "kinds"),
    [({}, ("raise", "nan")), ({"workers": 3, "max_runtime_s": 1.0}, tuple(ERRORS))],
    ids=["in process", "in processes"],
)
@pytest.mark.parametrize("retries", [0, 1])
def test_what_fails_is_recorded_with_its_traceback_and_the_study_goes_on(
    tmp_path: Path,
    execution: dict[str, Any],
    kinds: tuple[str, ...],
    retries: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Attempts that all fail are recorded; one that fails once and may be repeated leaves no difference."""
    objective = Faulty(tmp_path, times=9, kinds=kinds)
    repeated = {**execution, "retries": retries, "retry_errors": True}
    result = tune(objective, SPACE, **SETTINGS, folder=tmp_path / "study", execution=repeated)
    assert result.best.configuration == {"x": 6 if "hang" in kinds else 7}
    assert {trial.configuration["x"]: trial.failed for trial in result.trials if trial.failed} == {
        x: ERRORS[kind] for x, kind in FAULTS.items() if kind in kinds
    }
    ends, again = logged(tmp_path / "study", "end"), logged(tmp_path / "study", "retry")
    assert {trial: len(events) for trial, events in again.items()} == {
        x: retries for x, kind in FAULTS.items() if kind in kinds and retries
    }
    traces = {trial: event.get("traceback", "") for trial, (event,) in ends.items()}
    assert "line" in traces[1]
    assert 'raise ValueError("the pole fell over")' in traces[1] == result.trials[1].traceback
    assert ("in learn" in traces[7]) == ("hang" in kinds)
    assert traces[0] == ""
    assert main(["study", "show", str(tmp_path / "study")]) == 0
    shown = capsys.readouterr().out
    assert "finished; nothing left to try" in shown
    assert "failed: trial 1 on seed 0: ValueError: the pole fell over\n    Traceback (most recent" in shown
    assert f"{len(again)} tried again" in shown


@pytest.mark.parametrize(
    ("execution", "kinds"),
    [({}, ("raise", "nan")), ({"workers": 3, "max_runtime_s": 1.0}, tuple(ERRORS))],
    ids=["in process", "in processes"],
)
def test_an_attempt_that_succeeds_leaves_what_an_undisturbed_one_does(
    tmp_path: Path, execution: dict[str, Any], kinds: tuple[str, ...]
) -> None:
    whole = tune(learn, SPACE, **SETTINGS, scheduler=PIECES)
    objective = Faulty(tmp_path, times=2, kinds=kinds)
    repeated = {**execution, "retries": 2, "retry_errors": True}
    result = tune(objective, SPACE, **SETTINGS, scheduler=PIECES, folder=tmp_path / "study", execution=repeated)
    assert rows(result) == rows(whole)
    assert [event["error"] for event in logged(tmp_path / "study", "retry")[1]] == [ERRORS["raise"]] * 2
    assert set(logged(tmp_path / "study", "retry")) == {x for x, kind in FAULTS.items() if kind in kinds}
    assert (result.best.id, result.spent) == (whole.best.id, whole.spent)


@pytest.mark.parametrize("execution", [{}, {"workers": 3}], ids=["in process", "in processes"])
def test_attempts_before_a_kill_count_after_it(tmp_path: Path, execution: dict[str, Any]) -> None:
    """The log is cut where the second of three failures is in it; another attempt is left, and no more."""
    objective, folder = Faulty(tmp_path, times=9, kinds=("raise",)), tmp_path / "study"
    settings = {**SETTINGS, "folder": folder, "execution": {**execution, "retries": 2, "retry_errors": True}}
    whole = tune(objective, SPACE, **settings)
    lines = (folder / "events.jsonl").read_text().splitlines(keepends=True)
    retries = [place for place, line in enumerate(lines) if json.loads(line)["event"] == "retry"]
    (folder / "events.jsonl").write_text("".join(lines[: retries[1] + 1]))
    (tmp_path / "attempts-1").unlink()
    again = tune(objective, SPACE, **settings)
    assert (tmp_path / "attempts-1").read_text() == "."
    assert sorted(map(repr, rows(again))) == sorted(map(repr, rows(whole)))
    assert (len(logged(folder, "retry")[1]), again.trials[1].failed) == (2, ERRORS["raise"])


def test_a_limit_that_is_met_between_two_attempts_ends_them() -> None:
    def failing(task: Task) -> float:
        time.sleep(0.05)
        raise ValueError("the pole fell over")

    execution = {"retries": 100, "retry_errors": True}
    result = tune(failing, SPACE, limits={"wall_clock_s": 0.2}, searcher="random", execution=execution)
    assert result.reason.startswith("limits.wall_clock_s")
    assert [trial.failed for trial in result.trials] == [None]


def test_errors_are_repeated_only_if_that_is_asked_for(tmp_path: Path) -> None:
    objective = Faulty(tmp_path, times=1, kinds=("raise", "die"))
    result = tune(objective, SPACE, **SETTINGS, execution={"workers": 2, "retries": 1})
    assert [trial.configuration["x"] for trial in result.trials if trial.failed] == [1]


@pytest.mark.parametrize(
    ("execution", "message"),
    [
        ({"retries": 1}, "in this process nothing but exceptions can be retried: set retry_errors, or workers"),
        ({"max_runtime_s": 0}, r"execution: max_runtime_s: .*greater than 0, got 0"),
        ({"timeout": 3}, "execution: timeout: unknown key"),
    ],
)
def test_what_cannot_be_done_is_refused(execution: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tune(learn, SPACE, **SETTINGS, execution=execution)


def test_a_limit_of_the_study_ends_calls_that_are_under_way() -> None:
    def endless(task: Task) -> float:
        time.sleep(600)
        return 0.0

    result = tune(endless, SPACE, limits={"wall_clock_s": 0.2}, searcher="random", execution={"workers": 2})
    assert result.reason.startswith("limits.wall_clock_s")
    assert {trial.stopped or trial.failed for trial in result.trials} == {None}


def test_killed_with_its_processes_it_ends_the_same(tmp_path: Path) -> None:
    """The controller is killed by a signal, at any moment, and taken up again until it is over."""
    settings = {**SETTINGS, "scheduler": PIECES}
    whole = tune(learn, SPACE, **settings)
    chance, folder, killed = random.Random(0), tmp_path / "study", 0
    execution = {"workers": 3, "max_runtime_s": 60.0}
    while killed < 5:
        process = multiprocessing.get_context("fork").Process(
            target=tune, args=(slow, SPACE), kwargs={**settings, "folder": folder, "execution": execution}
        )
        process.start()
        process.join(chance.uniform(0.05, 0.4))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        if process.exitcode == 0:
            break
    assert killed >= 3, "it was over before it could be killed"
    again = tune(slow, SPACE, **settings, folder=folder, execution=execution)
    assert sorted(map(repr, rows(again))) == sorted(map(repr, rows(whole)))
    assert again.best.configuration == whole.best.configuration


def slow(task: Task) -> Iterator[tuple[int, float]]:
    for report in learn(task):
        time.sleep(0.05)
        yield report


def test_no_process_survives_a_killed_controller(tmp_path: Path) -> None:
    def endless(task: Task) -> float:
        (tmp_path / "pid").write_text(f"{os.getpid()}\n")
        while True:
            time.sleep(600)

    process = multiprocessing.get_context("fork").Process(
        target=tune, args=(endless, SPACE), kwargs={**SETTINGS, "execution": {"workers": 1}}
    )
    process.start()
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"))
    process.kill()
    process.join()
    wait_until(lambda: not alive(int((tmp_path / "pid").read_text())))


def test_ctrl_c_ends_calls_that_hang_at_once_and_the_study_goes_on(tmp_path: Path) -> None:
    (hangs, folder), settings = (tmp_path / "hangs", tmp_path / "study"), {**SETTINGS, "execution": {"workers": 2}}
    hangs.mkdir()

    def hanging(task: Task) -> float:
        while task.configuration["x"] >= 2 and hangs.exists():
            (hangs / str(os.getpid())).touch()
            time.sleep(0.01)
        return float(task.configuration["x"])

    def tuned() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            tune(hanging, SPACE, **settings, folder=folder)
            os._exit(1)

    process = multiprocessing.get_context("fork").Process(target=tuned)
    process.start()
    wait_until(lambda: len(list(hangs.iterdir())) == 2)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(timeout=30)
    assert process.exitcode == 0
    pids = [int(path.name) for path in hangs.iterdir()]
    wait_until(lambda: not any(map(alive, pids)))
    shutil.rmtree(hangs)
    result = tune(hanging, SPACE, **settings, folder=folder)
    assert result.best.configuration == {"x": 7}
    assert sum(map(len, logged(folder, "end").values())) == len(result.trials) == 8


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process is there that is not only waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("abc", "an objective returns its value, a number, or yields (resource, value), got 'abc'"),
        (None, "an objective returns its value, a number, or yields (resource, value), got None"),
        ([("a", 1)], "an objective returns its value, a number, or yields (resource, value), got ('a', 1)"),
        (np.zeros(2), "an objective returns its value, a number, or yields (resource, value), got "),
    ],
    ids=["text", "nothing", "pair of no numbers", "array"],
)
def test_what_is_no_value_is_told_in_a_sentence(answer: Any, told: str) -> None:
    found = tune(lambda task: answer, SPACE, searcher="random", limits={"trials": 1})
    assert (found.trials[0].failed or "").startswith(told)


@pytest.mark.parametrize("value", [np.float32(0.5), np.array(0.5), 1, True], ids=str)
def test_whatever_is_a_number_is_a_value(value: Any) -> None:
    found = tune(lambda task: value, SPACE, searcher="random", limits={"trials": 1})
    assert found.best.value == float(value)


def test_what_cannot_be_an_objective_or_its_execution_is_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match="the objective must be callable, got 3"):
        tune(3, SPACE, limits={"trials": 1})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="execution holds settings as a mapping, got 'local'"):
        tune(lambda task: 1.0, SPACE, limits={"trials": 1}, execution="local")  # type: ignore[arg-type]


def test_what_an_error_says_does_not_reach_the_terminal_as_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def hostile(task: Task) -> float:
        raise ValueError("\x1b[31mred\x1b]0;title\x07")

    tune(hostile, SPACE, searcher="random", limits={"trials": 1}, folder=tmp_path / "study")
    assert main(["study", "show", str(tmp_path / "study")]) == 0
    told = capsys.readouterr().out
    assert "failed: trial 0" in told
    assert "ValueError: ?[31mred?]0;title?" in told
    assert all(letter.isprintable() for letter in told.replace("\n", ""))
