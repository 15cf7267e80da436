"""The means that limits look at: kept as a history goes on, they are what a look at the whole of it finds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from policylab.tuning import History, Horizon, Limits
from policylab.tuning import means as means_module
from policylab.tuning.history import Trial
from policylab.tuning.landscape import LandscapeBackend, landscape_study
from policylab.tuning.log import EventLog
from policylab.tuning.means import Means
from policylab.tuning.schedulers.fixed import Fixed
from policylab.tuning.schedulers.median import Median, MedianSettings
from policylab.tuning.schedulers.race import Race, RaceSettings

FULL = 6
HORIZON = Horizon(max_resource=FULL, budget=20 * FULL, n_seeds=3)


def make(kind: str) -> Any:
    if kind == "median":
        return Median.make(MedianSettings(grace=0.0, min_trials=1), HORIZON)
    return Race.make(RaceSettings(drop=0.1), HORIZON) if kind == "race" else Fixed(HORIZON, n_seeds=3)


def events(kind: str, *, n: int = 40) -> list[dict[str, Any]]:
    """Return the log of a study with values that are no numbers, and with runs that fail, are stopped and go on."""
    rng = np.random.default_rng(1)
    values = rng.standard_normal((n, 3, FULL))
    values[rng.random(values.shape) < 0.02] = np.nan
    values[rng.random(values.shape) < 0.05] = -np.inf
    log = EventLog(None)
    landscape_study(LandscapeBackend(values, capacity=3, pace=rng.uniform(0.5, 5.0, n)), make(kind), log=log).run()
    return log.events


@pytest.mark.parametrize("kind", ["fixed", "median", "race"])
def test_what_was_followed_is_what_a_look_at_the_whole_finds(kind: str) -> None:
    followed = History(max_resource=FULL)
    lines, n_looks = events(kind), 0
    for place, event in enumerate(lines):
        followed.apply(event)
        if place % 3:  # several events between two looks
            continue
        fresh = History(max_resource=FULL)
        for line in lines[: place + 1]:
            fresh.apply(line)
        found, expected = Means.of(followed), Means.of(fresh)
        assert (found.values, found.best) == (expected.values, expected.best)
        n_looks += bool(found.values)
    assert n_looks > 20
    assert math.isfinite(Means.of(followed).best)


def test_a_look_costs_what_happened_since_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []
    ended = means_module._ended

    def counted(trial: Trial, *, full: int) -> means_module.Ended | None:
        looked_at.append(trial.id)
        return ended(trial, full=full)

    monkeypatch.setattr(means_module, "_ended", counted)
    study = landscape_study(LandscapeBackend(np.zeros((20, 3, FULL))), make("fixed"), limits=Limits(target=1e9))
    study.run()
    assert len(set(looked_at)) == len(study.history.trials) > 5
    assert len(looked_at) <= len(study.history.touched)
    n_looks = len(looked_at)
    Means.of(study.history)
    assert len(looked_at) == n_looks, "nothing has happened since"
