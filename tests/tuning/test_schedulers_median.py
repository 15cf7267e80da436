"""The variants of the median rule, on curves made by hand and against Optuna's own pruner."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import get_args

import numpy as np
import optuna
import pytest

from policylab.tuning import Task, tune
from policylab.tuning.history import History
from policylab.tuning.landscape import LandscapeBackend, landscape_study
from policylab.tuning.scheduler import Horizon
from policylab.tuning.schedulers.median import Median, MedianSettings, MedianVariant


def run(curves: list[list[float]], variant: MedianVariant, *, min_trials: int = 1, grace: float = 0.0) -> History:
    """Tune over the curves one after the other, looking at each of their values."""
    values = np.array(curves)[:, None, :]
    n = values.shape[2]
    chosen = MedianSettings(variant=variant, every=1 / n, grace=grace, min_trials=min_trials)
    study = landscape_study(LandscapeBackend(values), Median.make(chosen, Horizon(n, budget=None, n_seeds=1)))
    study.run()
    return study.history


def stops(history: History) -> list[int]:
    """Return how far each trial got."""
    return [trial.runs[0].resource for trial in history.trials.values()]


def test_amt_compares_the_value_with_the_median_of_running_averages() -> None:
    # Running averages of the first three: (1, 2, 3), (3, 3, 3), (5, 4, 3). Their medians: 3, 3, 3.
    first = [[1, 3, 5, 7], [3, 3, 3, 3], [5, 3, 1, 1]]
    assert stops(run([*first, [3, 2.9, 9, 9]], "amt", min_trials=3))[-1] == 2  # 2.9 < 3: the best so far is no excuse
    assert stops(run([*first, [3, 3, 3, 3]], "amt", min_trials=3))[-1] == 4  # equal is not worse
    history = run([*first, [3, 3, 2, 9]], "amt", min_trials=3)  # the own running average 2.67 does not count
    assert history.trials[3].stopped == "median rule (amt) at 3: 2 is below 3 of 3 trials"


def test_a_look_saves_nothing() -> None:
    history = run([[9, 9, 9, 9], [1, 1, 1, 1], [1, 1, 1, 1]], "amt", min_trials=2)
    assert history.saved == 0, "without looks, each run would have been trained in one piece"


def test_amt_takes_earlier_trials_as_far_as_they_got() -> None:
    # The second is stopped at once; its first value still counts for the third: the median of 10 and 0 is 5.
    history = run([[10, 10, 10], [0, 10, 10], [5, 10, 10], [4.9, 10, 10]], "amt")
    assert stops(history) == [3, 1, 3, 1]


@pytest.mark.parametrize("variant", ["vizier", "azure"])
def test_vizier_and_azure_forgive_a_fall_after_a_high(variant: MedianVariant) -> None:
    first = [[1, 3, 5, 7], [3, 3, 3, 3], [5, 3, 1, 1]]
    assert stops(run([*first, [4, 0, 0, 0]], "amt", min_trials=3))[-1] == 2
    assert stops(run([*first, [4, 0, 0, 0]], variant, min_trials=3))[-1] == 4


def test_azure_counts_trials_that_were_stopped_and_vizier_does_not() -> None:
    curves = [[10, 10], [0, 0], [0, 0], [1, 1]]
    assert stops(run(curves, "vizier")) == [2, 1, 1, 1]
    assert stops(run(curves, "azure")) == [2, 1, 1, 2]  # the last meets the median 0 of (10, 0, 0)


def test_optuna_compares_raw_values() -> None:
    # At the second step the raw values' median is 0, that of the running averages 5.
    first = [[10, 0, 0]] * 3
    assert stops(run([*first, [10, 1, 1]], "optuna", min_trials=3))[-1] == 3
    assert stops(run([*first, [4, 1, 1]], "optuna", min_trials=3))[-1] == 1
    assert stops(run([*first, [10, 4, 1]], "amt", min_trials=3))[-1] == 2


def test_nothing_stops_before_the_grace_and_the_least_number_of_trials() -> None:
    curves = [[9, 9, 9, 9], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert stops(run(curves, "amt", grace=0.75)) == [4, 3, 3]
    assert stops(run(curves, "amt", min_trials=2)) == [4, 4, 1]  # the median of 9 and 1 is 5
    assert stops(run(curves, "amt", min_trials=3)) == [4, 4, 4]


def test_the_optuna_variant_is_optunas_median_pruner() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    values = np.random.default_rng(0).standard_normal((60, 1, 8)).cumsum(axis=2)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    reached = []
    for curve in values[:, 0]:
        trial = study.ask()
        state, k = optuna.trial.TrialState.COMPLETE, 0
        for k, value in enumerate(curve, start=1):
            trial.report(float(value), k)
            if k < 8 and trial.should_prune():  # the last value ends the training whatever it is
                state = optuna.trial.TrialState.PRUNED
                break
        study.tell(trial, float(value) if state is optuna.trial.TrialState.COMPLETE else None, state=state)
        reached.append(k)
    assert len(set(reached)) > 3
    assert stops(run(values[:, 0].tolist(), "optuna", min_trials=5, grace=0.25)) == reached


def walks(n: int = 60) -> np.ndarray:
    """Return random learning curves of eight values."""
    return np.random.default_rng(0).standard_normal((n, 8)).cumsum(axis=1)


def test_the_ray_variant_is_rays_median_stopping_rule() -> None:
    schedulers = pytest.importorskip("ray.tune.schedulers")
    rule = schedulers.MedianStoppingRule(
        time_attr="k", metric="value", mode="max", grace_period=3, min_samples_required=4
    )

    class Alone:
        """A tuner with no other trial at work."""

        @staticmethod
        def get_live_trials() -> list[object]:
            return []

    reached = []
    for curve in walks():
        trial = type("Trial", (), {"trial_id": str(len(reached))})()
        for k, value in enumerate(curve, start=1):
            answer = rule.on_trial_result(Alone, trial, {"k": k, "value": value})
            if answer == rule.STOP:
                break
        reached.append(k)
    assert len(set(reached)) > 3
    assert stops(run(walks().tolist(), "ray", min_trials=4, grace=3 / 8)) == reached


def test_the_syne_tune_variant_counts_ranks() -> None:
    """By its definition: running averages at a step, ranked; stopped if more than half of all are strictly better."""
    reached: list[int] = []
    seen: dict[int, list[float]] = {k: [] for k in range(1, 9)}
    for curve in walks():
        for k in range(1, 9):
            own = float(np.mean(curve[:k]))
            better = sum(value > own for value in seen[k])
            seen[k].append(own)
            if k < 8 and len(seen[k]) >= 5 and better / len(seen[k]) > 0.5:
                break
        reached.append(k)
    assert len(set(reached)) > 3
    assert stops(run(walks().tolist(), "syne_tune", min_trials=4)) == reached


def test_the_amt_variant_is_the_guides_rule_on_random_curves() -> None:
    """Stop when the value is below the median of the running averages of all earlier jobs that got as far."""
    reached: list[int] = []
    for number, curve in enumerate(walks()):
        for k in range(1, 9):
            earlier = [np.mean(walks()[i, :k]) for i in range(number) if reached[i] >= k]
            if k < 8 and earlier and curve[k - 1] < np.median(earlier):
                break
        reached.append(k)
    assert len(set(reached)) > 3
    assert stops(run(walks().tolist(), "amt")) == reached


@pytest.mark.parametrize("variant", get_args(MedianVariant))
def test_a_report_that_is_no_number_stops_nobody_else(variant: MedianVariant) -> None:
    def objective(task: Task) -> Iterator[tuple[int, float]]:
        curve = [math.nan, 1.0, 1.0, 1.0] if task.configuration["x"] == "broken" else [2.0] * 4
        yield from list(enumerate(curve, start=1))[task.resource : task.until]

    found = tune(
        objective,
        {"parameters": {"x": {"kind": "categorical", "values": ["broken", "good"]}}},
        limits={"trials": 2},
        searcher="grid",
        scheduler={"kind": "median", "variant": variant, "every": 0.5, "grace": 0.0, "min_trials": 1},
        max_resource=4,
    )
    assert found.trials[1].values == {0: 2.0}
    assert found.trials[1].stopped is None
