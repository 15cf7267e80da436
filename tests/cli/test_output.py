"""What commands show a person: the display of a running search, and the words about a finished one."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from policylab.cli.experiment import summary
from policylab.cli.live import Picture, watch
from policylab.config import Document, validate
from policylab.experiments.schema import ExperimentConfig
from policylab.tuning.decisions import AddSeed, Resume, Start, Stop
from policylab.tuning.history import History

EXPERIMENT: dict[str, Any] = {
    "name": "lake",
    "env": {"id": "FrozenLake-v1"},
    "agent": {"kind": "q_learning", "learning_rate": 0.1},
    "budget": {"steps": 1000},
    "seeds": {"tune": 3, "confirm": 2},
    "evaluation": {"marks": 2},
    "tracking": {"kind": "none"},
    "search": {
        "space": {"parameters": {"agent.learning_rate": {"kind": "continuous", "low": 0.01, "high": 1.0}}},
        "searcher": {"kind": "random"},
        "scheduler": {"kind": "hyperband"},
        "limits": {"trials": 6},
        "storage": "none",
    },
}


def config(**search: Any) -> ExperimentConfig:
    data = {**EXPERIMENT, "search": {**EXPERIMENT["search"], **search}}
    return validate(ExperimentConfig, Document(data=data, places={}, source="lake"))


def history(sign: float = 1.0) -> History:
    """Two trials trained in full, the first on three seeds, one dropped at a tenth, one failed, one running."""
    found = History(max_resource=1000)
    for trial, seed, until, value in ((0, 0, 1000, 0.5), (1, 0, 1000, 0.7), (2, 0, 100, 0.9), (3, 0, 100, None)):
        found.decide(Start(trial, {"agent.learning_rate": 0.1 * (trial + 1)}, seed, until, "new"))
        if value is not None:
            found.report(trial, seed, resource=until, value=sign * value)
            found.end(trial, seed)
    for seed, value in ((1, 0.6), (2, 0.55)):
        found.decide(AddSeed(0, seed, 1000, "seed"))
        found.report(0, seed, resource=1000, value=sign * value)
        found.end(0, seed)
    found.end(3, 0, error="it diverged")
    found.decide(Stop(2, None, "dropped"))
    found.decide(Start(4, {"agent.learning_rate": 0.5}, 0, 100, "new"))
    found.report(4, 0, resource=100, value=sign * 0.1)
    found.end(4, 0)
    found.decide(Resume(4, 0, 1000, "promoted"))
    return found


def shown(picture: Picture, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(picture.render())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return str(text)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_display_has_leaders_intervals_budget_savings_and_time_left() -> None:
    clock = Clock()
    picture = Picture(config(), planned_steps=10_000, n_leaders=10, clock=clock)
    assert "searching" in shown(picture)
    picture.look(History(max_resource=1000))
    clock.now = 10.0
    picture.look(history())
    text = shown(picture)
    lines = text.splitlines()
    assert lines[0].startswith("lake: random search, hyperband scheduler")
    rows = [line.split() for line in lines[2:6]]
    assert [row[0] for row in rows] == ["0", "1", "2", "4*"]  # furthest first, then seeds, then value
    assert rows[0][1] == "0.55"
    low, high = (float(end.strip("[],")) for end in rows[0][2:4])
    assert low < 0.55 < high
    assert "[" not in lines[3]  # one seed has no interval
    assert "learning_rate=0.1" in lines[2]
    assert "configurations 5 of 6, 1 running (*), 1 failed" in text
    # 4 runs of 1000 steps and 2 of 100; dropped at 100 of 1000; what failed saved nothing; 100 resumed.
    assert "steps 4.2k of about 10k; saved 900 by stopping, 100 by resuming" in text
    assert "42%" in text
    assert "elapsed 0:10, about 0:14 left" in text  # 4200 steps took 10 s, 5800 are left


@pytest.mark.parametrize("planned", [None, 10_000])
def test_a_clock_that_pays_for_less_is_what_is_left(planned: int | None) -> None:
    clock, one = Clock(), history()
    picture = Picture(config(), planned_steps=planned, n_leaders=10, clock=clock)
    picture.look(History(max_resource=1000))
    clock.now, one.paid_by_clock = 10.0, 8_400
    picture.look(one)
    assert "steps 4.2k of about 8.4k;" in shown(picture)
    assert "elapsed 0:10, about 0:10 left" in shown(picture)


def test_a_metric_to_be_minimised_is_shown_in_its_own_direction() -> None:
    picture = Picture(config(mode="min"), planned_steps=None, n_leaders=3, clock=Clock())
    picture.look(history(sign=-1.0))
    text = shown(picture)
    assert "eval/return_mean (min)" in text
    assert " 0.55 [0.5" in text
    assert "-0." not in text
    assert "left" not in text


def test_looking_often_costs_nothing() -> None:
    clock = Clock()
    picture = Picture(config(), planned_steps=None, n_leaders=3, clock=clock)
    picture.look(history())
    before = shown(picture)
    picture.look(History(max_resource=1000))
    assert shown(picture) == before
    clock.now = 1.0
    picture.look(History(max_resource=1000))
    assert "configurations 0 of 6" in shown(picture)


def test_long_configurations_do_not_break_the_table() -> None:
    picture = Picture(config(), planned_steps=5000, n_leaders=10, clock=Clock())
    one = history()
    one.trials[0].configuration = {"agent.learning_rate": "x" * 300}
    picture.look(one)
    for width in (40, 80, 200):
        assert len(shown(picture, width).splitlines()) == 6 + 4  # title, head, 4 leaders, bar, 3 lines
        assert max(map(len, shown(picture, width).splitlines())) <= width


@pytest.mark.parametrize("quiet", [True, False])
def test_silent_off_a_terminal(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with watch(config(), planned_steps=lambda: pytest.fail("asked for what is not shown"), quiet=quiet) as observer:
        observer.study(history())
        observer.runs([])
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_a_search_is_watched_and_then_its_confirmation(tmp_path: Path) -> None:
    (tmp_path / "lake.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    text = in_a_terminal("run", "lake.yaml", cwd=tmp_path)
    for expected in ("random search, hyperband scheduler", "configurations", "confirming", "lake: finished"):
        assert expected in text, expected
    assert "Traceback" not in text


def in_a_terminal(*arguments: str, cwd: Path) -> str:
    """Run policylab with its output on a pseudo-terminal; return all that was written to it."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "policylab", *arguments]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=environment) as process:
        os.close(theirs)
        chunks, deadline = [], time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                if select.select([ours], [], [], 1.0)[0]:
                    chunks.append(os.read(ours, 65536))
            except OSError:  # the other end is closed
                break
            if process.poll() is not None and not select.select([ours], [], [], 0)[0]:
                break
    os.close(ours)
    assert process.returncode == 0, b"".join(chunks)[-2000:]
    return b"".join(chunks).decode()


def document(**changes: Any) -> dict[str, Any]:
    """A result document of a search."""
    estimate = {"value": 0.7, "ci": [0.6, 0.8], "n_seeds": 3, "measure": "return"}
    found = {
        "winner": 4, "default": 0, "n_trials": 12, "n_runs": 15, "n_failed": 2, "spent_steps": 12_000,
        "saved_by_resuming_steps": 3_000, "saved_by_stopping_steps": 5_000, "reason": "limits.trials: 12 tried",
        "configuration": {"agent.learning_rate": 0.123456, "agent.kind": "sarsa"}, "optimism_gap": 0.0312,
        "optimism_gap_ci": [-0.01, 0.07],
        "default_confirmed": {**estimate, "value": 0.5}, "beats_default": {"value": 0.9, "ci": [0.7, 1.0]},
        "improvement": {"value": 0.2, "ci": [0.1, 0.3], "method": "paired t", "probability": 0.995},
    }  # fmt: skip
    return {
        "name": "lake", "status": "finished", "selected": estimate, "confirmed": estimate, "exact": None,
        "baselines": [], "score": None,
        "search": {**found, **changes}, "cost": {"env_steps": 15_000, "runs": 19, "wall_s": 3.0},
        "execution": {"kind": "compiled", "reason": "a table"}, "report": "r.html", "policy_bundle": "bundle",
        "tracking": {"run_id": None}, "warnings": [],
    }  # fmt: skip


def improved(value: float, low: float | None, high: float | None, chance: float | None) -> dict[str, Any]:
    """What a document says of the winner against the default."""
    ends = None if low is None else [low, high]
    return {"improvement": {"value": value, "ci": ends, "method": "paired t", "probability": chance}}


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        (
            {},
            [
                "optimism gap       0.0312 [-0.01, 0.07]  by how much selected is better than confirmed",
                "beats default      by 0.2 [0.1, 0.3] seed by seed, with probability 99.5 %: better than the default; "
                "in 90% of runs",
                "best (trial 4)     agent.learning_rate = 0.1235",
                "                   agent.kind = sarsa",
                "search             12 configurations in 15 runs, 2 of them failed; limits.trials: 12 tried",
                "search budget      12,000 steps; saved 5,000 by stopping, 3,000 by resuming",
            ],
        ),
        (
            improved(0.2, -0.1, 0.5, 0.9),
            ["by 0.2 [-0.1, 0.5] seed by seed, with probability 90 %: indistinguishable from"],
        ),
        (
            improved(-0.3, -0.5, -0.1, 1e-5),
            ["by -0.3 [-0.5, -0.1] seed by seed, with probability < 0.1 %: worse than the default"],
        ),
        (improved(0.2, None, None, None), ["by 0.2: too few seeds to tell it from the default; in 90% of runs"]),
        ({"winner": 0}, ["the default itself was selected: nothing better was found"]),
    ],
    ids=["better", "indistinguishable", "worse", "one seed", "the default"],
)
def test_the_summary_says_what_the_search_is_worth(changes: dict[str, Any], lines: list[str]) -> None:
    text = summary(document(**changes))
    for line in lines:
        assert line in text, text


def test_without_confirmation_the_summary_claims_nothing_about_the_default() -> None:
    unconfirmed = document(optimism_gap=None, default_confirmed=None, improvement=None, beats_default=None)
    text = summary({**unconfirmed, "confirmed": None})
    assert "default" not in text
    assert "best (trial 4)" in text
