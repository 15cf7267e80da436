"""A warm-started study that is resumed decides as it would have, whatever became of its parents meanwhile."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policylab.errors import ConfigError, RunDirectoryError
from policylab.files import locked
from policylab.tuning.history import History
from policylab.tuning.kept_parents import FILE, found_parents
from policylab.tuning.log import EventLog
from policylab.tuning.result import StudyResult
from policylab.tuning.tune import tune

SPACE = {"parameters": {name: {"kind": "continuous", "low": 0.0, "high": 1.0} for name in ("x", "y")}}
OLD, NEW = "lake-20260101-000000", "lake-20260102-000000"
N_TRIALS = 12


def study(folder: Path, *, n_trials: int, stop_at: int | None = None, **settings: Any) -> StudyResult | None:
    """Carry a study on; ``stop_at`` cuts it off when it has so many trials, and None is returned."""

    def observe(history: History) -> None:
        if len(history.trials) == stop_at:
            raise KeyboardInterrupt

    try:
        return tune(
            lambda task: -((task.configuration["x"] - 0.3) ** 2) - (task.configuration["y"] - 0.7) ** 2,
            SPACE,
            limits={"trials": n_trials},
            folder=folder,
            observe=observe,
            **settings,
        )
    except KeyboardInterrupt:
        return None


def parent(root: Path, *, stop_at: int | None = None, name: str = OLD, seed: int = 0) -> None:
    study(root / name, n_trials=14, stop_at=stop_at, seed=seed)


def child(root: Path, *, stop_at: int | None = None, source: str = "lake") -> list[Any] | None:
    result = study(root / "child", n_trials=N_TRIALS, stop_at=stop_at, seed=1, warm_start={"parents": [source]})
    return None if result is None else [trial.configuration for trial in result.trials]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A folder with a parent that was cut off and a child that was, and what the child tries, uninterrupted."""
    root = tmp_path_factory.mktemp("begun")
    parent(root, stop_at=6)
    whole = child(root)
    assert whole is not None
    shutil.rmtree(root / "child")
    assert child(root, stop_at=5) is None
    return root, whole


def goes_on(root: Path) -> None:
    parent(root)


def newer_run(root: Path) -> None:
    parent(root, name=NEW, seed=5)


def deleted(root: Path) -> None:
    shutil.rmtree(root / OLD)


@pytest.mark.parametrize("source", ["lake", OLD])
@pytest.mark.parametrize("change", [goes_on, newer_run, deleted])
def test_what_became_of_a_parent_changes_nothing(
    change: Callable[[Path], None], source: str, begun: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(begun[0], tmp_path / "copy"))
    change(root)
    log = (root / "child" / "events.jsonl").read_bytes()
    assert child(root, source=source) == begun[1]
    assert (root / "child" / "events.jsonl").read_bytes().startswith(log)


def test_another_parent_is_another_study(begun: tuple[Path, list[Any]], tmp_path: Path) -> None:
    root = Path(shutil.copytree(begun[0], tmp_path / "copy"))
    newer_run(root)
    kept = (root / "child" / FILE).read_bytes()
    with pytest.raises(RunDirectoryError, match="study with other settings"):
        child(root, source=NEW)
    assert (root / "child" / FILE).read_bytes() == kept


def damaged(text: str) -> dict[str, str]:
    data = json.loads(text)
    observed = data["parents"][0]["parent"]["ranked"][0]
    return {
        "no JSON": text[:-40],
        "nested too deeply": "[" * 100_000,
        "another value": text.replace(str(observed["values"][0]), "1e9"),
        "a list of no paths": json.dumps([1, None]),
        "a list of nothing": "[]",
        "nothing": "null",
        "no parents": json.dumps({"sha256": data["sha256"]}),
        "no digest": json.dumps({"parents": data["parents"]}),
        "another form": json.dumps(signed([{"source": "lake", "name": OLD, "parent": {}}])),
        "no list": json.dumps(signed(7)),
    }


def signed(parents: Any) -> dict[str, Any]:
    from policylab.tuning.kept_parents import digest

    return {"sha256": digest(parents), "parents": parents}


def test_what_was_kept_and_damaged_is_told_in_one_sentence(begun: tuple[Path, list[Any]], tmp_path: Path) -> None:
    root = Path(shutil.copytree(begun[0], tmp_path / "copy"))
    file = root / "child" / FILE
    for why, text in damaged(file.read_text()).items():
        file.write_text(text)
        with pytest.raises(RunDirectoryError, match=re.escape(str(file))) as refused:
            child(root)
        told = str(refused.value)
        assert told.endswith("restore it from a copy"), why
        assert len(told.splitlines()) == 1, why


def test_a_study_begun_without_its_parents_kept_reads_them_where_they_are(
    begun: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(begun[0], tmp_path / "copy"))
    (root / "child" / FILE).unlink()
    assert child(root) == begun[1]
    assert not (root / "child" / FILE).exists(), "what they are now is not what it began with"


def test_nothing_is_kept_of_a_study_that_has_not_begun(tmp_path: Path) -> None:
    """A parent that is still searched is refused; when it has ended, the child begins with what it is then."""
    parent(tmp_path, stop_at=6)
    with locked(tmp_path / OLD / ".lock"), pytest.raises(ConfigError, match="in_progress"):
        child(tmp_path)
    parent(tmp_path)
    tried = child(tmp_path)
    shutil.rmtree(tmp_path / "child")
    assert tried == child(tmp_path)
    assert tried is not None


def test_a_study_is_not_its_own_parent(begun: tuple[Path, list[Any]], tmp_path: Path) -> None:
    root = Path(shutil.copytree(begun[0], tmp_path / "copy"))
    with pytest.raises(RunDirectoryError, match="no study, run directory or record 'child'"):
        child(root, source="child")


def test_a_study_without_parents_keeps_none(tmp_path: Path) -> None:
    study(tmp_path / "cold", n_trials=3)
    assert not (tmp_path / "cold" / FILE).exists()
    assert "warm_start" not in (tmp_path / "cold" / "events.jsonl").read_text()


RECORD: dict[str, Any] = {
    "HyperParameterTuningJobName": "lake-job",
    "HyperParameterTuningJobStatus": "Completed",
    "CreationTime": "2026-01-02T03:04:05Z",
    "HyperParameterTuningJobConfig": {
        "Strategy": "Bayesian",
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
        "ParameterRanges": {
            "ContinuousParameterRanges": [{"Name": "rate", "MinValue": "0.1", "MaxValue": "0.7"}],
            "CategoricalParameterRanges": [{"Name": "kind", "Values": ["b", "1", "2.0", "true", "[1, 2.0]"]}],
        },
    },
    "TrainingJobDefinition": {"StaticHyperParameters": {"z": "Infinity", "a": "NaN", "n": "null", "i": "3"}},
    "TrainingJobSummaries": [
        {
            "TunedHyperParameters": {"rate": "0.30000000000000004", "kind": kind},
            "FinalHyperParameterTuningJobObjectiveMetric": {"Value": value},
        }
        for kind, value in (("1", 1e-320), ("2.0", -0.0), ("[1, 2.0]", 0.1 + 0.2))
    ],
}


def test_what_is_kept_is_what_was_read(tmp_path: Path) -> None:
    """Orders, types, the last bit of each number, and those that are none."""
    record = tmp_path / "record.json"
    record.write_text(json.dumps(RECORD))
    live = found_parents(["job"], log=EventLog(None), find=lambda _: record)
    log = EventLog(tmp_path / "child" / "events.jsonl")
    kept = found_parents(["job"], log=log, find=lambda _: record)
    record.unlink()
    log.append({"event": "study"})
    again = found_parents(["job"], log=EventLog(tmp_path / "child" / "events.jsonl"), find=lambda _: record)
    assert repr(again) == repr(kept) == repr(live), "repr tells 1 from 1.0 and -0.0 from 0.0, and NaN is NaN"
    static = again[0].parent.facts.static
    assert static["z"] == math.inf
    assert math.isnan(static["a"])
    assert (again[0].source, again[0].name, again[0].parent.facts.name) == ("job", "record.json", "lake-job")
