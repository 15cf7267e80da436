"""Limits of a study hold while nobody watches it and no run reports anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from policylab.errors import RunError
from policylab.experiments.rundir import create_run
from policylab.experiments.runner import drive
from policylab.experiments.schema import ExperimentConfig
from policylab.experiments.search import with_default
from policylab.experiments.study import RunBackend
from policylab.experiments.study_outcome import study_outcome
from policylab.launchers import LocalLauncher
from policylab.tuning import EventLog, Study
from policylab.tuning.decisions import Resume, Start
from policylab.tuning.history import History, RunState
from policylab.tuning.scheduler import SCHEDULERS
from policylab.tuning.searcher import SEARCHERS

SLOW: dict[str, Any] = {
    "name": "slow",
    "env": {"id": "FrozenLake-v1"},
    "agent": {"kind": "q_learning", "execution": "plain"},
    "budget": {"steps": 10**9},
    "seeds": {"tune": 1, "confirm": 0},
    "evaluation": {"marks": 10_000},
    "launcher": {"workers": 2},
    "tracking": {"kind": "none"},
    "search": {
        "space": {"parameters": {"agent.learning_rate": {"kind": "continuous", "low": 0.01, "high": 1.0}}},
        "searcher": {"kind": "random"},
        "scheduler": {"kind": "fixed"},
        "limits": {"trials": 50, "wall_clock_s": 4},
        "metric": "train/temperature",  # known, but epsilon-greedy learners have none to report
        "storage": "none",
    },
}


def test_the_wall_clock_stops_runs_that_report_nothing(tmp_path: Path) -> None:
    """A full training takes hours here; the study ends because its time is over, with every run stopped and saved."""
    run = create_run(ExperimentConfig.model_validate(SLOW), parent=tmp_path)
    config, settings = run.config, run.config.search
    assert settings is not None
    space = with_default(config)
    horizon = settings.horizon(budget_steps=config.budget.steps, n_seeds=1)
    log = EventLog(run.path / "study" / "events.jsonl")
    with LocalLauncher(n_workers=2, log=run.path / "workers.log") as launcher:
        study = Study(
            searcher=SEARCHERS.load("random").make(settings.searcher, space),
            scheduler=SCHEDULERS.load("fixed").make(settings.scheduler, horizon),
            backend=RunBackend(run, config, launcher=launcher, capacity=2),
            log=log,
            limits=settings.limits,
            max_resource=config.budget.steps,
            seed=0,
        )
        reason = study.run()
    assert reason.startswith("limits.wall_clock_s: ")
    assert log.completed == reason
    assert [one.state for _, one in study.history.runs()] == [RunState.STOPPED] * 2
    stops = [event for event in log.events if event["event"] == "stop"]
    assert [stop["reason"].partition(":")[0] for stop in stops] == ["limits.wall_clock_s"] * 2
    assert len(list(run.path.glob("trials/*/tune-000/checkpoints/0*"))) == 2, "what was trained is saved"


def test_a_search_that_ends_before_any_training_does_says_so_before_it_confirms(tmp_path: Path) -> None:
    config = {
        **SLOW,
        "budget": {"steps": 10**8},
        "seeds": {"tune": 1, "confirm": 1},
        "launcher": {"kind": "inline", "workers": 1},
        "search": {**SLOW["search"], "metric": "eval/return_mean", "parallel": 1},
    }
    run = create_run(ExperimentConfig.model_validate(config), parent=tmp_path)
    told = r"\(limits.wall_clock_s: .* trial 0, stands at [\d,]+ of 100,000,000 steps: set a higher"
    for _ in range(2):  # resumed, it is still over
        with pytest.raises(RunError, match=told):
            drive(run)
    assert not list(run.path.glob("trials/*/confirm-*"))


def test_a_search_in_which_the_promoted_failed_says_why_nothing_was_trained_in_full() -> None:
    history = History(max_resource=100)
    for trial in range(2):
        history.decide(Start(trial, {"x": trial}, 0, 50, "a new configuration"))
        history.report(trial, 0, resource=50, value=float(trial))
        history.end(trial, 0)
    history.decide(Resume(1, 0, 100, "the best"))
    history.end(1, 0, error="its checkpoint is damaged")
    told = "1 run failed, the first with: its checkpoint is damaged; the best, trial 0, stands at 50 of 100 steps"
    with pytest.raises(RunError, match=told):
        study_outcome(history, winner=0, reason="limits.trials: 2 configurations tried", own=None)
