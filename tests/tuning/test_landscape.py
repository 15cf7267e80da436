"""A table of curves plays back what a real backend would report, at the cost of what is new."""

from __future__ import annotations

import numpy as np

from policylab.tuning.backend import Job
from policylab.tuning.history import RunState
from policylab.tuning.landscape import ROW, LandscapeBackend, RowSearcher, landscape_study
from policylab.tuning.scheduler import Horizon
from policylab.tuning.schedulers.fixed import Fixed

VALUES = np.arange(24.0).reshape(2, 3, 4)  # two configurations, three seeds, four checkpoints


def job(row: int, *, resource: int = 0, until: int = 4, seed: int = 0) -> Job:
    return Job(trial=row, configuration={ROW: row}, seed=seed, resource=resource, until=until)


def test_a_job_reports_the_checkpoints_it_passes() -> None:
    backend = LandscapeBackend(VALUES)
    backend.submit(job(1, resource=1, until=3, seed=2))
    events = backend.wait()
    assert [event.get("resource") for event in events] == [2, 3, None]
    assert [event.get("value") for event in events] == [VALUES[1, 2, 1], VALUES[1, 2, 2], None]
    assert events[-1] == {"event": "end", "trial": 1, "seed": 2, "error": None}
    assert backend.wait() == []


def test_a_hole_in_the_table_fails_the_run_there() -> None:
    values = VALUES.copy()
    values[0, 0, 2] = np.nan
    backend = LandscapeBackend(values)
    backend.submit(job(0))
    events = backend.wait()
    assert [event["event"] for event in events] == ["report", "report", "end"]
    assert events[-1]["error"] == "no value at checkpoint 3"


def test_jobs_advance_together_and_fast_ones_overtake() -> None:
    backend = LandscapeBackend(VALUES, capacity=2, pace=np.array([3.0, 1.0]))
    backend.submit(job(0, until=1))
    backend.submit(job(1, until=2))
    order = [(event["trial"], event["event"]) for _ in range(3) for event in backend.wait()]
    assert order == [(1, "report"), (1, "report"), (1, "end"), (0, "report"), (0, "end")]


def test_a_stopped_job_ends_without_another_report() -> None:
    backend = LandscapeBackend(VALUES, capacity=2)
    backend.submit(job(0))
    backend.submit(job(1))
    backend.wait()
    backend.stop(1, 0)
    assert backend.wait() == [{"event": "end", "trial": 1, "seed": 0, "error": None}]
    assert {event["trial"] for _ in range(3) for event in backend.wait()} == {0}


def test_a_study_over_a_table_ends_with_the_table() -> None:
    scheduler = Fixed(Horizon(max_resource=4, budget=None, n_seeds=3), n_seeds=3)
    study = landscape_study(LandscapeBackend(VALUES), scheduler, searcher=RowSearcher([1, 0]))
    assert study.run() == "nothing left to try"
    assert study.history.spent == VALUES.size
    assert all(run.state is RunState.PAUSED for _, run in study.history.runs())
    assert scheduler.best(study.history) == 0  # the trial that got row 1
