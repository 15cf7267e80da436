"""`tune` from Python: what a user gets, on any callable."""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policylab import tuning
from policylab.errors import ConfigError, RunDirectoryError, RunError, UnknownNameError
from policylab.files import locked
from policylab.tuning import SCHEDULERS, SEARCHERS, Limits, StudyResult, Task, tune

SPACE = {
    "parameters": {
        "x": {"kind": "continuous", "low": 0.0, "high": 10.0},
        "kind": {"kind": "categorical", "values": ["good", "bad"]},
    }
}
FINITE = {"parameters": {"x": {"kind": "integer", "low": 1, "high": 4, "step": 1}}}


def bowl(task: Task) -> float:
    return (task.configuration["x"] - 3) ** 2 + (task.configuration["kind"] == "bad")


def curve(task: Task) -> Iterator[tuple[int, float]]:
    """Learn towards 10 - x, a step at a time, from the checkpoint."""
    file = task.checkpoint / "value.txt"
    task.checkpoint.mkdir(parents=True, exist_ok=True)
    value = float(file.read_text()) if task.resource else 0.0
    for step in range(task.resource + 1, task.until + 1):
        value += (10 - task.configuration["x"] - value) / 4 + 0.01 * task.seed
        file.write_text(repr(value))
        yield step, value


def rows(result: StudyResult) -> list[Any]:
    return [(dict(trial.configuration), trial.resource, dict(trial.values)) for trial in result.trials]


def test_public_names_are_all_there() -> None:
    assert sorted(tuning.__all__) == sorted(set(tuning.__all__))
    assert all(hasattr(tuning, name) for name in tuning.__all__)


@pytest.mark.parametrize("searcher", [name for name in SEARCHERS.names() if name != "grid"])
def test_every_searcher_finds_the_bowl(searcher: str) -> None:
    result = tune(bowl, SPACE, limits={"trials": 30}, searcher=searcher, mode="min")
    assert result.best.value == min(trial.value for trial in result.trials)
    assert result.best.value < {"random": 1.0}.get(searcher, 0.1)
    assert result.best.configuration["kind"] == "good"
    assert result.spent == len(result.trials) == 30
    assert result.reason.startswith("limits.trials")


def test_maximising_and_minimising_mirror_each_other() -> None:
    low = tune(bowl, SPACE, limits=Limits(trials=15), mode="min")
    high = tune(lambda task: -bowl(task), SPACE, limits=Limits(trials=15))
    assert [t.configuration for t in low.trials] == [t.configuration for t in high.trials]
    assert low.best.value == -high.best.value >= 0


def test_a_target_is_in_the_metrics_own_direction() -> None:
    result = tune(bowl, SPACE, limits={"trials": 100, "target": 0.5}, mode="min")
    assert len(result.trials) < 100
    assert result.best.value <= 0.5
    assert "limits.target" in result.reason


@pytest.mark.parametrize("scheduler", SCHEDULERS.names())
def test_every_scheduler_works_with_the_default_searcher(scheduler: str) -> None:
    result = tune(curve, SPACE, limits={"steps": 150}, scheduler=scheduler, seeds=3, max_resource=9)
    assert result.spent <= 150
    assert result.best.resource == 9
    assert result.best.value > 8


def test_seeds_are_averaged() -> None:
    result = tune(lambda task: task.configuration["x"] + 100.0 * task.seed, FINITE, limits={}, searcher="grid", seeds=3)
    assert result.best.configuration == {"x": 4}
    assert result.best.values == {0: 4.0, 1: 104.0, 2: 204.0}
    assert result.best.value == 104.0


def test_the_grid_is_tried_in_full_and_its_count_is_checked() -> None:
    result = tune(lambda task: float(task.configuration["x"]), FINITE, limits={"trials": 4}, searcher="grid")
    assert [trial.configuration["x"] for trial in result.trials] == [1, 2, 3, 4]
    with pytest.raises(ConfigError, match=r"limits.trials: a grid has 4 points, got 5; leave it out"):
        tune(bowl, FINITE, limits={"trials": 5}, searcher="grid")


def test_a_grid_without_end_is_refused_before_it_is_counted() -> None:
    parameters = {f"x{axis}": {"kind": "integer", "low": 1, "high": 1000, "step": 1} for axis in range(6)}
    with pytest.raises(ConfigError, match="is beyond 100000; use random search"):
        tune(bowl, {"parameters": parameters}, limits={}, searcher="grid")


def test_a_finite_space_ends_by_itself() -> None:
    result = tune(lambda task: float(task.configuration["x"]), FINITE, limits={}, searcher="random")
    assert sorted(trial.configuration["x"] for trial in result.trials) == [1, 2, 3, 4]
    assert result.reason == "nothing left to try"


def test_a_dying_objective_is_recorded_and_never_wins() -> None:
    def dying(task: Task) -> float:
        if task.configuration["x"] > 5:
            raise ValueError("the pole fell over")
        return math.nan if task.configuration["x"] < 1 else task.configuration["x"]

    result = tune(dying, SPACE, limits={"trials": 25}, searcher="random")
    failed = [trial for trial in result.trials if trial.failed]
    assert failed
    assert {trial.failed for trial in failed} == {"ValueError: the pole fell over", "its last value is NaN"}
    assert 1 <= result.best.configuration["x"] <= 5


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("odd", [math.inf, -math.inf])
def test_an_infinite_value_never_wins(mode: str, odd: float) -> None:
    result = tune(lambda task: odd if task.configuration["x"] > 5 else 1.0, SPACE, limits={"trials": 12}, mode=mode)
    failed = [trial for trial in result.trials if trial.configuration["x"] > 5]
    assert failed
    assert {trial.failed for trial in failed} == {"its last value is infinite"}
    assert result.best.value == 1.0


def test_without_any_value_the_first_error_is_told() -> None:
    def broken(task: Task) -> float:
        raise KeyError("nope")

    result = tune(broken, SPACE, limits={"trials": 3})
    with pytest.raises(RunError, match=r"none of 3 trials has a value; the first error: KeyError: 'nope'"):
        _ = result.best


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"limits": {}}, ConfigError, "limits: set trials, steps"),
        ({"limits": {"trails": 3}}, ConfigError, r"limits: trails: unknown key; did you mean 'trials'\?"),
        ({"limits": {"trials": 0}}, ConfigError, "limits: trials: .*greater than or equal to 1, got 0"),
        ({"space": {"parameters": {}}}, ConfigError, "space: parameters: .*at least 1 entry, got 0"),
        ({"searcher": "bayesain"}, UnknownNameError, "unknown searcher 'bayesain'; did you mean 'bayesian'"),
        ({"searcher": {"kind": "random", "sobel": True}}, ConfigError, "searcher: sobel: unknown key; did you mean"),
        ({"scheduler": "hyperbnd"}, UnknownNameError, "unknown scheduler 'hyperbnd'; did you mean 'hyperband'"),
        ({"searcher": "grid"}, ConfigError, "x: a grid needs a step"),
        ({"seeds": 0}, ConfigError, "seeds must be at least 1 and an integer, got 0"),
        ({"max_resource": 0}, ConfigError, "max_resource must be at least 1 and an integer, got 0"),
        ({"seeds": 2.5}, ConfigError, "seeds must be .* an integer, got 2.5"),
        ({"seed": -1}, ConfigError, "seed must be at least 0 .* got -1"),
        ({"seed": "a"}, ConfigError, "seed must be .* an integer, got 'a'"),
        ({"limits": 5}, ConfigError, "limits holds settings as a mapping, got 5"),
        ({"warm_start": "FOLDER"}, ConfigError, "warm_start holds settings as a mapping, got 'FOLDER'"),
        ({"searcher": None}, ConfigError, "searcher is a name or settings with a kind, got None"),
        (
            {"space": {"parameters": {"x": {"kind": "categorical", "values": "abc"}}}},
            ConfigError,
            "x.values: expected a list, got 'abc'",
        ),
        ({"mode": "maximise"}, ConfigError, "mode must be 'max' or 'min', got 'maximise'"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tune(bowl, **{"space": SPACE, "limits": {"trials": 3}, **change})


def test_called_again_it_returns_the_result_without_work(tmp_path: Path) -> None:
    first = tune(curve, SPACE, limits={"trials": 12}, max_resource=4, folder=tmp_path)

    def never(task: Task) -> float:
        raise AssertionError("nothing is trained twice")

    second = tune(never, SPACE, limits={"trials": 12}, max_resource=4, folder=tmp_path)
    assert rows(first) == rows(second)
    assert first.reason == second.reason
    with pytest.raises(RunDirectoryError, match="belongs to a study with other settings"):
        tune(curve, SPACE, limits={"trials": 12}, max_resource=5, folder=tmp_path)


def test_the_order_of_parameters_is_a_setting(tmp_path: Path) -> None:
    tune(bowl, SPACE, limits={"trials": 2}, folder=tmp_path)
    turned = {"parameters": dict(reversed(SPACE["parameters"].items()))}
    with pytest.raises(RunDirectoryError, match="belongs to a study with other settings"):
        tune(bowl, turned, limits={"trials": 2}, folder=tmp_path)


def test_a_second_controller_is_refused(tmp_path: Path) -> None:
    with locked(tmp_path / ".lock"), pytest.raises(RunDirectoryError, match="in use by another policylab process"):
        tune(bowl, SPACE, limits={"trials": 2}, folder=tmp_path)


SETTINGS: dict[str, Any] = {"limits": {"steps": 160}, "scheduler": "race", "seeds": 3, "max_resource": 8}


@pytest.mark.parametrize("searcher", ["bayesian", "tpe"])
def test_cut_off_anywhere_it_ends_the_same(tmp_path: Path, searcher: str) -> None:
    """The log is cut after any number of lines, with half a line behind it, as kill -9 leaves it."""
    whole = tune(curve, SPACE, **SETTINGS, searcher=searcher, folder=tmp_path / "whole")
    log = (tmp_path / "whole" / "events.jsonl").read_bytes()
    lines = log.splitlines(keepends=True)
    rng = np.random.default_rng(0)
    for cut in sorted(rng.choice(np.arange(1, len(lines)), size=4, replace=False)):
        # Jobs are logged as a whole, so a cut falls between them.
        while cut < len(lines) and json.loads(lines[cut])["event"] in ("report", "end"):
            cut += 1
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir(exist_ok=True)
        (folder / "events.jsonl").write_bytes(b"".join(lines[:cut]) + b'{"event": "rep')
        copy_checkpoints(tmp_path / "whole", folder, lines=lines[:cut])
        again = tune(curve, SPACE, **SETTINGS, searcher=searcher, folder=folder)
        assert rows(again) == rows(whole)
        assert (folder / "events.jsonl").read_bytes() == log


def copy_checkpoints(source: Path, target: Path, *, lines: Iterable[bytes]) -> None:
    """Rebuild what the runs of a cut log had saved: the objective's state is its last reported value."""
    last: dict[str, float] = {}
    for event in map(json.loads, lines):
        if event["event"] == "report":
            last[f"{event['trial']:06d}-{event['seed']}"] = event["value"]
    for name, value in last.items():
        (target / "checkpoints" / name).mkdir(parents=True)
        (target / "checkpoints" / name / "value.txt").write_text(repr(value))


def test_killed_it_goes_on(tmp_path: Path) -> None:
    """A study is killed by a signal from inside its own objective, and ends as if it never was."""
    code = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_tune import SETTINGS, SPACE, curve, rows
from policylab.tuning import tune
import json
calls = 0
def fragile(task):
    global calls
    calls += 1
    if calls == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return curve(task)
print(json.dumps(len(rows(tune(fragile, SPACE, **SETTINGS, searcher="random", folder=Path(sys.argv[1]))))))
"""
    whole = tune(curve, SPACE, **SETTINGS, searcher="random", folder=tmp_path / "whole")
    folder = tmp_path / "killed"
    for after in (5, 0):
        command = [sys.executable, "-c", code, str(folder), os.path.dirname(__file__), str(after)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == (-signal.SIGKILL if after else 0), done.stderr
    again = tune(curve, SPACE, **SETTINGS, searcher="random", folder=folder)
    assert rows(again) == rows(whole)
    assert (folder / "events.jsonl").read_bytes() == (tmp_path / "whole" / "events.jsonl").read_bytes()


def restored(task: Task) -> Iterator[tuple[int, float]]:
    """As `curve`, with a checkpoint for each resource: a killed call may have saved more than the study knows of."""
    value = float((task.checkpoint / str(task.resource)).read_text()) if task.resource else 0.0
    task.checkpoint.mkdir(parents=True, exist_ok=True)
    for step in range(task.resource + 1, task.until + 1):
        value += (10 - task.configuration["x"] - value) / 4 + 0.01 * task.seed
        (task.checkpoint / str(step)).write_text(repr(value))
        yield step, value


def test_killed_at_fifty_random_moments_it_ends_the_same(tmp_path: Path) -> None:
    """Each study is killed by a signal from outside, at any moment, and taken up again until it is over."""
    started = time.monotonic()
    tune(restored, SPACE, **SETTINGS, searcher="random", folder=tmp_path / "whole")
    whole_s = time.monotonic() - started
    log = (tmp_path / "whole" / "events.jsonl").read_bytes()
    chance, kills, moments = random.Random(0), 0, set[int]()
    for number in itertools.count():
        folder = tmp_path / f"killed-{number}"
        settings = {**SETTINGS, "searcher": "random", "folder": folder}
        while True:
            process = multiprocessing.get_context("fork").Process(target=tune, args=(restored, SPACE), kwargs=settings)
            process.start()
            process.join(chance.uniform(0.0, whole_s))
            process.kill()
            process.join()
            found = (folder / "events.jsonl").read_bytes() if (folder / "events.jsonl").exists() else b""
            if process.exitcode == 0:
                break
            assert process.exitcode == -signal.SIGKILL
            kills += 1
            moments.add(len(found))
            kept = found[: found.rfind(b"\n") + 1]
            assert log.startswith(kept), "what was logged is what an uninterrupted study does"
        assert found == log
        if kills >= 50:
            break
    assert len(moments) > 10, "the moments differ"


@pytest.mark.parametrize(
    "damage", ['{"event": "report", "trial": 99, "seed": 0}', '{"event": "start", "trial": "x"}', "7"]
)
def test_a_log_that_was_changed_by_hand_is_told_by_its_line(damage: str, tmp_path: Path) -> None:
    settings = {"limits": {"trials": 3}, "searcher": "random", "folder": tmp_path}
    tune(bowl, SPACE, **settings)
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    (tmp_path / "events.jsonl").write_text("\n".join([*lines[:3], damage, *lines[4:-1]]) + "\n")
    with pytest.raises(RunDirectoryError, match=r"events.jsonl:4: damaged .*; restore it from a copy"):
        tune(bowl, SPACE, **settings)


def test_sessions_add_up_for_the_wall_clock(tmp_path: Path) -> None:
    (tmp_path / "sessions.jsonl").write_text('{"elapsed_s": 4000.0}\n')
    result = tune(bowl, SPACE, limits={"trials": 5, "wall_clock_s": 3600}, folder=tmp_path)
    assert result.trials == ()
    assert result.reason == "limits.wall_clock_s: 4000 of 3600 s used"


def test_why_a_study_ended_does_not_depend_on_its_sessions(tmp_path: Path) -> None:
    """The space is used up long before the end, when the scheduler asks for nothing: a new session tells the same."""
    space = {"parameters": {"x": {"kind": "categorical", "values": [1, 2, 3]}}}
    settings = {"searcher": "random", "scheduler": "race", "seeds": 5, "max_resource": 10, "limits": {"steps": 82}}
    settings |= {"folder": tmp_path}
    result = tune(lambda task: task.configuration["x"] + task.seed % 2 / 3, space, **settings)
    log = tmp_path / "events.jsonl"
    whole = log.read_bytes()
    log.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    assert tune(lambda task: 0.0, space, **settings).reason == result.reason == "nothing left to try"
    assert log.read_bytes() == whole


def test_a_rest_of_the_budget_that_pays_for_no_configuration_is_told() -> None:
    space = {"parameters": {"x": {"kind": "continuous", "low": 0.0, "high": 1.0}}}
    settings = {"searcher": "random", "scheduler": "fixed", "seeds": 2, "max_resource": 5}
    result = tune(lambda task: 0.0, space, limits={"steps": 16}, **settings)
    assert result.reason == "limits.steps: 10 of 16 steps spent, the scheduler has no use for the rest"
    finite = {"parameters": {"x": {"kind": "categorical", "values": [1]}}}
    assert tune(lambda task: 0.0, finite, limits={"steps": 60}, **settings).reason == "nothing left to try"


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_an_array_of_one_number_is_a_value(mode: str, shape: tuple[int, ...]) -> None:
    def objective(task: Task) -> Any:
        return np.full(shape, task.configuration["x"])

    space = {"parameters": {"x": {"kind": "continuous", "low": 1.0, "high": 2.0}}}
    result = tune(objective, space, searcher="random", limits={"trials": 5}, mode=mode)
    pick = min if mode == "min" else max
    assert result.best.values == {0: pick(trial.configuration["x"] for trial in result.trials)}


def test_nothing_is_left_behind_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tune(curve, SPACE, limits={"trials": 3}, max_resource=3)
    assert list(tmp_path.iterdir()) == []
