"""What a warm-started search started from is what it goes on from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policylab.errors import RunDirectoryError
from policylab.experiments.parents import parents_of
from policylab.experiments.rundir import RunDirectory, create_run
from policylab.experiments.runner import Observer, drive
from policylab.experiments.schema import ExperimentConfig, load_experiment
from policylab.experiments.study import read_history
from policylab.tuning.history import History
from policylab.tuning.log import EventLog
from policylab.tuning.parents import find_parent

LAKE: dict[str, Any] = {
    "name": "lake",
    "env": {"id": "FrozenLake-v1"},
    "agent": {"kind": "q_learning"},
    "budget": {"steps": 1_000},
    "seeds": {"tune": 1, "confirm": 0},
    "launcher": {"kind": "inline", "workers": 1},
    "tracking": {"kind": "none"},
}
SEARCH: dict[str, Any] = {
    "space": {"parameters": {"agent.learning_rate": {"kind": "continuous", "low": 0.01, "high": 1.0}}},
    "searcher": {"kind": "random"},
    "scheduler": {"kind": "fixed"},
    "limits": {"trials": 6},
    "parallel": 1,
    "storage": "none",
}
WARM = {**SEARCH, "warm_start": {"kind": "identical_data_and_algorithm", "parents": ["lake"]}}
CHILD = {**WARM, "searcher": {"kind": "bayesian"}}


def lake(folder: Path, *, root: int = 0, search: dict[str, Any] = SEARCH) -> RunDirectory:
    config = {**LAKE, "seeds": {**LAKE["seeds"], "root": root}, "search": search}
    return create_run(ExperimentConfig.model_validate(config), parent=folder)


def configurations(run: RunDirectory) -> list[Any]:
    return [trial.configuration for trial in read_history(run).trials.values()]


def interrupt_after(n_trials: int) -> Observer:
    def study(history: History) -> None:
        if len(history.trials) >= n_trials:
            raise KeyboardInterrupt("seen")

    return Observer(study=study)


def test_a_later_run_of_a_parents_name_changes_nothing(tmp_path: Path) -> None:
    runs, moved = tmp_path / "runs", tmp_path / "moved"
    parent = lake(runs)
    drive(parent)
    child = lake(runs, root=1, search=WARM)  # of its parent's name, and newer: not its own parent
    with pytest.raises(KeyboardInterrupt, match="seen"):
        drive(child, observer=interrupt_after(3))
    other = lake(runs, root=2)
    drive(other)
    runs.rename(moved)
    resumed = RunDirectory(moved / child.path.name)
    found = drive(resumed)
    assert [best["study"] for best in found["search"]["bests"] if best["study"]] == [parent.path.name]
    whole = lake(
        moved / "alone",
        root=1,
        search={**WARM, "warm_start": {**WARM["warm_start"], "parents": [str(moved / parent.path.name)]}},
    )
    drive(whole)
    assert configurations(resumed) == configurations(whole)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, Path]:
    """Names of a parent that was cut off and of a child that was, too, and their folder."""
    folder = tmp_path_factory.mktemp("begun")
    parent, child = lake(folder), lake(folder, root=1, search=CHILD)
    for run in (parent, child):
        with pytest.raises(KeyboardInterrupt, match="seen"):
            drive(run, observer=interrupt_after(4))
    return parent.path.name, child.path.name, folder


@pytest.fixture(scope="module")
def whole(begun: tuple[str, str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What the child tries when nothing has changed meanwhile."""
    return resumed_in(begun, tmp_path_factory.mktemp("whole"), change=lambda parent, child: None)


def resumed_in(begun: tuple[str, str, Path], folder: Path, *, change: Callable[[Path, Path], object]) -> list[Any]:
    """Return what the child tries, resumed in a copy after a ``change`` of it or of its parent."""
    copy = Path(shutil.copytree(begun[2], folder / "copy"))
    change(copy / begun[0], copy / begun[1])
    child = RunDirectory(copy / begun[1])
    bests = drive(child)["search"]["bests"]
    assert {best["study"] for best in bests} == {None, begun[0]}
    return configurations(child)


def test_a_parent_that_goes_on_changes_nothing(begun: tuple[str, str, Path], whole: list[Any], tmp_path: Path) -> None:
    assert resumed_in(begun, tmp_path, change=lambda parent, child: drive(RunDirectory(parent))) == whole


def test_a_parent_that_is_deleted_changes_nothing(
    begun: tuple[str, str, Path], whole: list[Any], tmp_path: Path
) -> None:
    assert resumed_in(begun, tmp_path, change=lambda parent, child: shutil.rmtree(parent)) == whole


@pytest.mark.parametrize("form", ["{0.name}", "{0}"])
def test_a_search_that_kept_only_where_its_parents_lie_goes_on(
    form: str, begun: tuple[str, str, Path], whole: list[Any], tmp_path: Path
) -> None:
    def keep_names(parent: Path, child: Path) -> None:
        drive(lake(parent.parent, root=3))  # newer, of the parent's name
        (child / "study" / "parents.json").write_text(json.dumps([form.format(parent)]))

    assert resumed_in(begun, tmp_path, change=keep_names) == whole


def test_a_shipped_parent_that_was_kept_by_name_is_found(tmp_path: Path) -> None:
    run = create_run(load_experiment("frozenlake8x8_warmstart"), parent=tmp_path)
    log = EventLog(run.path / "study" / "events.jsonl")
    (began,) = parents_of(["frozenlake_hyperband"], root=tmp_path, log=log)
    log.append({"event": "study"})
    (run.path / "study" / "parents.json").write_text('["shipped:frozenlake_hyperband"]')
    (tmp_path / "frozenlake_hyperband").mkdir()
    (found,) = parents_of(["frozenlake_hyperband"], root=tmp_path, log=log)
    assert repr(found) == repr(began)


def test_what_was_kept_and_damaged_is_told(begun: tuple[str, str, Path], tmp_path: Path) -> None:
    def damage(parent: Path, child: Path) -> None:
        file = child / "study" / "parents.json"
        file.write_text(file.read_text().replace('"stopped"', '"failed"'))

    with pytest.raises(RunDirectoryError, match=r"parents\.json: .*; restore it from a copy$"):
        resumed_in(begun, tmp_path, change=damage)


def test_a_run_that_ended_before_anything_was_learned_does_not_stand_for_its_study(tmp_path: Path) -> None:
    parent = lake(tmp_path)
    drive(parent)
    empty = lake(tmp_path, root=3)
    (empty.path / "study").mkdir()
    first = (parent.path / "study/events.jsonl").read_text().splitlines(keepends=True)[0]
    (empty.path / "study/events.jsonl").write_text(first)
    assert empty.path.name > parent.path.name, "the newest"
    assert find_parent("lake", root=tmp_path) == parent.path
    shutil.rmtree(parent.path)
    assert find_parent("lake", root=tmp_path) == empty.path, "there is no other"


def killed(run: RunDirectory, n_lines: int, *, folder: Path) -> RunDirectory:
    """Return a copy of ``run`` as a kill left it when its study's log had so many lines and half of another one.

    Of runs that went further later on nothing is left, as after a loss of their disk: they are trained anew.
    """
    copy = RunDirectory(shutil.copytree(run.path, folder))
    log = copy.path / "study" / "events.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:n_lines]) + b'{"event": "rep')
    until: list[dict[str, int]] = [{}, {}]
    for known, part in zip(until, (lines[:n_lines], lines), strict=True):
        for event in map(json.loads, part):
            if "until" in event:
                known[f"{event['trial']:04d}/tune-{event['seed']:03d}"] = event["until"]
    for path in (copy.path / "trials").glob("*/*"):
        name = f"{path.parent.name}/{path.name}"
        if name not in until[0] or until[0][name] != until[1][name]:
            shutil.rmtree(path)
    for later in ("result.json", "study/outcome.json", "study/optuna.db"):
        (copy.path / later).unlink(missing_ok=True)
    return copy


@pytest.mark.parametrize("searcher", ["bayesian", "tpe"])
def test_a_warm_started_search_of_a_model_goes_on_from_any_kill(searcher: str, tmp_path: Path) -> None:
    """A search that learns, promotes, adds seeds and has a parent, cut off at some moment, decides as it would have."""
    drive(lake(tmp_path))
    child = {**WARM, "searcher": {"kind": searcher}, "scheduler": {"kind": "race"}, "limits": {"steps": 12_000}}
    config = {**LAKE, "name": "child", "seeds": {"tune": 3, "confirm": 1, "root": 1}, "search": child}
    whole = create_run(ExperimentConfig.model_validate(config), parent=tmp_path)
    found = drive(whole)
    log = (whole.path / "study" / "events.jsonl").read_bytes()
    lines = [json.loads(line) for line in log.splitlines()]
    assert {event["event"] for event in lines} >= {"start", "resume", "add_seed", "report", "end", "complete"}
    for cut in np.random.default_rng(0).choice(np.arange(1, len(lines)), size=4, replace=False):
        while lines[cut]["event"] in ("report", "end"):
            cut += 1  # what a run tells is logged as a whole
        again = killed(whole, int(cut), folder=tmp_path / f"killed-{cut}")
        result = drive(again)
        assert (again.path / "study" / "events.jsonl").read_bytes() == log, cut
        for name in ("selected", "confirmed"):
            assert result[name] == found[name]
        shutil.rmtree(again.path)
