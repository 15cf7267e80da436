"""When a study is over: each limit by itself, and which comes first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from policylab.tuning import History, Limits, Task, tune
from policylab.tuning.decisions import AddSeed, Start, Stop
from policylab.tuning.landscape import LandscapeBackend, RowSearcher
from policylab.tuning.limits import NotImproving
from policylab.tuning.log import EventLog
from policylab.tuning.scheduler import Horizon
from policylab.tuning.schedulers.fixed import Fixed
from policylab.tuning.study import Study

SPACE = {"parameters": {"x": {"kind": "continuous", "low": 0.0, "high": 10.0}}}


def finished(values: Sequence[float], *, order: Sequence[int] | None = None) -> History:
    """Return a study of one-step trials with these values, which ended in the given order."""
    history = History(max_resource=1)
    for trial in range(len(values)):
        history.decide(Start(trial, {"x": float(trial)}, 0, 1, "new"))
    for trial in order or range(len(values)):
        history.report(trial, 0, resource=1, value=values[trial])
        history.end(trial, 0)
    return history


def test_a_price_that_no_budget_reaches_is_no_limit() -> None:
    assert Limits(cost=1e300, cost_per_step=1e-300).budget is None
    assert Limits(cost=1e300, cost_per_step=1e-300, steps=9).budget == 9


def met(values: Sequence[float], *, elapsed_s: float = 0.0, order: Sequence[int] | None = None, **limits: Any) -> str:
    return Limits(**limits).met(finished(values, order=order), elapsed_s=elapsed_s) or ""


def test_steps_and_their_price() -> None:
    assert met([0.0] * 4, steps=5) == ""
    assert met([0.0] * 5, steps=5) == "limits.steps: 5 of 5 spent"
    assert met([0.0] * 4, cost=10.0, cost_per_step=2.0) == ""
    assert met([0.0] * 5, cost=10.0, cost_per_step=2.0) == "limits.cost: 10 of 10 spent"


def test_a_cost_without_a_price_would_never_be_reached() -> None:
    with pytest.raises(ValidationError, match="set cost_per_step, too"):
        Limits(trials=5, cost=3.0)


def test_the_clock() -> None:
    assert met([], elapsed_s=9.0, wall_clock_s=10) == ""
    assert met([], elapsed_s=10.0, wall_clock_s=10) == "limits.wall_clock_s: 10 of 10 s used"


def test_the_target_is_met_by_any_trial_and_by_no_value_that_is_none() -> None:
    assert met([math.nan, 0.5], target=1.0) == ""
    assert met([math.nan, 1.0, 0.5], target=1.0) == "limits.target: 1 reached 1"


def test_the_target_is_met_by_the_mean_over_the_seeds_so_far_and_that_may_be_one() -> None:
    """Whatever the first seeds promised, the winner's fresh seeds are what an experiment reports."""

    def lucky(task: Any) -> float:
        return 1.0 if task.seed == 0 else 0.0

    found = tune(lucky, SPACE, limits={"trials": 9, "target": 1.0}, seeds=3, searcher="random")
    assert [trial.values for trial in found.trials] == [{0: 1.0}]
    assert found.reason == "limits.target: 1 reached 1"
    found = tune(lambda task: 1.0 - lucky(task), SPACE, limits={"trials": 9, "target": 1.0}, seeds=3, searcher="random")
    assert {len(trial.values) for trial in found.trials} == {3}
    assert found.reason.startswith("limits.trials")


def test_who_met_the_target_is_selected_and_the_reason_has_the_metrics_sign() -> None:
    """The first configuration has all of its seeds, the one that met the target a single one."""
    values = iter([0.9, 0.8, 0.7, 0.1, 0.5, 0.5])
    found = tune(
        lambda task: next(values), SPACE, limits={"trials": 9, "target": 0.2}, seeds=3, searcher="random", mode="min"
    )
    assert found.reason == "limits.target: 0.1 reached 0.2"
    assert found.best.values == {0: 0.1}


def test_a_budget_whose_rest_pays_for_nothing_says_so() -> None:
    found = tune(lambda task: 1.0, SPACE, limits={"steps": 25}, max_resource=10, searcher="random", scheduler="fixed")
    assert found.reason == "limits.steps: 20 of 25 steps spent, the rest pays for no full training"
    price = {"cost": 12.5, "cost_per_step": 0.5}
    found = tune(lambda task: 1.0, SPACE, limits=price, max_resource=10, searcher="random", scheduler="fixed")
    assert found.reason == "limits.cost: 20 of 25 steps spent, the rest pays for no full training"
    few = {"parameters": {"x": {"kind": "categorical", "values": [1, 2]}}}
    found = tune(lambda task: 1.0, few, limits={"steps": 25}, searcher="random", scheduler="fixed")
    assert found.reason == "nothing left to try"


def test_the_first_that_is_met_is_the_reason() -> None:
    assert met([1.0] * 3, steps=9, target=1.0, not_improving={"trials": 3}).startswith("limits.target")
    result = tune(lambda task: task.configuration["x"], SPACE, limits={"trials": 50, "steps": 8, "target": 11.0})
    assert (len(result.trials), result.reason) == (8, "limits.steps: 8 of 8 spent")


@pytest.mark.parametrize(
    ("values", "threshold", "stops"),
    [
        ([1.0, 0.2, 0.3], 0.0, False),  # three are needed after the best
        ([1.0, 0.2, 0.3, 0.4], 0.0, True),
        ([1.0, 1.005, 0.3, 0.4], 0.01, True),  # the API page: at least 1 %
        ([1.0, 1.005, 0.3, 0.4], 0.0, False),  # the guide: any improvement
        ([1.0, 1.02, 0.3, 0.4], 0.01, False),
        ([-1.0, -0.995, -2.0, -2.0], 0.01, True),
    ],
)
def test_no_improvement_in_so_many_trials(values: list[float], threshold: float, stops: bool) -> None:
    reason = met(values, not_improving={"trials": 3, "threshold": threshold})
    assert reason == ("limits.not_improving: no improvement in 3 trials" if stops else "")


def test_trials_count_in_the_order_in_which_they_finished() -> None:
    """The second configuration, which took longest, has just become the best."""
    values = [1.0, 9.0, 0.5, 0.5, 0.5]
    assert met(values, not_improving={"trials": 3}, order=[0, 2, 3, 1]) == ""
    assert met(values, not_improving={"trials": 3}, order=[0, 2, 3, 1, 4]) == ""
    assert met(values, not_improving={"trials": 3}) != ""


@pytest.mark.parametrize(
    ("rule", "at_most"), [({"not_improving": {"trials": 5}}, 8), ({"convergence": {"trials": 5}}, 12)]
)
def test_trials_that_were_given_up_count_too(rule: dict[str, Any], at_most: int) -> None:
    """A flat objective of which the median rule stops nearly all: what ended is told from trained in full."""

    tasks: list[float] = []
    full: set[float] = set()

    def flat(task: Task) -> Iterator[tuple[int, float]]:
        tasks.append(task.configuration["x"])
        for step in range(task.resource + 1, task.until + 1):
            yield step, 1.1 if task.configuration["x"] == tasks[0] else 1.0
        full.update([task.configuration["x"]] if task.until == 10 else [])

    scheduler = {"kind": "median", "grace": 0, "min_trials": 1}
    found = tune(flat, SPACE, searcher="random", scheduler=scheduler, max_resource=10, limits={"trials": 60, **rule})
    assert found.reason.startswith(f"limits.{next(iter(rule))}")
    assert len(found.trials) <= at_most
    assert full == {tasks[0]}, "one was trained in full"


def test_a_trial_with_a_failed_run_meets_no_target_and_is_no_best() -> None:
    history = History(max_resource=1)
    for trial, value in enumerate([9.0, 1.0, 2.0, 1.5, 1.0]):
        for seed in (0, 1):
            history.decide(Start(trial, {}, 0, 1, "") if seed == 0 else AddSeed(trial, 1, 1, ""))
            history.report(trial, seed, resource=1, value=value)
            history.end(trial, seed, error="broke" if (trial, seed) == (0, 1) else None)
    assert Limits(target=5.0).met(history, elapsed_s=0.0) is None
    assert Limits(target=2.0).met(history, elapsed_s=0.0) == "limits.target: 2 reached 2"
    stalled = Limits(not_improving=NotImproving(trials=3))
    assert stalled.met(history, elapsed_s=0.0) is None, "2 is better than 1, and 9 does not count"


def test_a_target_is_met_by_full_trainings_only() -> None:
    history = History(max_resource=2)
    for trial in range(2):
        history.decide(Start(trial, {}, 0, 2, "new"))
        history.report(trial, 0, resource=1, value=9.0)
    history.decide(Stop(0, None, "below the median"))
    assert Limits(target=5.0).met(history, elapsed_s=0.0) is None


def test_a_search_converges_when_the_values_to_come_promise_nothing() -> None:
    rng = np.random.default_rng(0)
    wide = (1.0 + 0.3 * rng.standard_normal(40)).tolist()
    settled = [*wide, *(max(wide) + 1e-4 * rng.standard_normal(10)).tolist()]
    far_below = [*wide, *(-9.0 + 0.1 * rng.standard_normal(10)).tolist()]
    assert met(wide, convergence={}) == ""
    assert met(settled, convergence={}) == "limits.convergence: 10 more trials promise no improvement"
    assert met(far_below, convergence={}) != ""
    assert met([1.0] * 19, convergence={}) == "", "the first ten are a search's beginning"
    assert met([1.0] * 20, convergence={}) != ""


def test_a_bayesian_search_ends_by_itself_and_a_random_one_goes_on() -> None:
    def bowl(task: Any) -> float:
        return 1.0 - (task.configuration["x"] - 3.0) ** 2

    limits = {"trials": 40, "convergence": {}}
    found = tune(bowl, SPACE, limits=limits)
    assert found.reason.startswith("limits.convergence")
    assert found.best.value > 0.99
    assert tune(bowl, SPACE, limits=limits, searcher="random").reason.startswith("limits.trials")


def test_without_convergence_limits_are_written_as_before_there_was_such_a_rule() -> None:
    assert "convergence" not in Limits(trials=3).model_dump(mode="json")
    written = Limits(trials=3, convergence={"trials": 5}).model_dump(mode="json")  # type: ignore[arg-type]
    assert written["convergence"] == {"trials": 5, "threshold": 0.01}
    assert Limits.model_validate(written).convergence is not None


def test_a_search_in_which_nothing_works_ends_though_nothing_is_spent() -> None:
    def broken(task: Task) -> float:
        raise ValueError("no such environment")

    found = tune(broken, SPACE, searcher="random", scheduler="fixed", limits={"steps": 100, "failures": 7})
    assert found.reason == "limits.failures: 7 runs in a row failed"
    assert [trial.failed for trial in found.trials] == ["ValueError: no such environment"] * 7


def test_failures_between_which_something_works_do_not_end_a_search() -> None:
    def often_broken(task: Task) -> float:
        if task.configuration["x"] > 3.0:
            raise ValueError("out of range")
        return 1.0

    found = tune(often_broken, SPACE, searcher="random", scheduler="fixed", limits={"trials": 60, "failures": 20})
    assert found.reason == "limits.trials: 60 configurations tried"
    assert sum(trial.failed is not None for trial in found.trials) > 20
    assert "failures" not in Limits(trials=1).model_dump()
    assert Limits(trials=1, failures=3).model_dump()["failures"] == 3


class Finishing(LandscapeBackend):
    """Runs that are asked to stop in the last stretch of their training still report its end."""

    def stop(self, trial: int, seed: int) -> None:
        pass


def test_a_limit_that_was_met_stays_met_by_a_kill_too() -> None:
    values = np.zeros((4, 2, 2))
    values[0, 0, 1], values[1:] = 12.0, 3.0  # the second seed lowers the mean of the first below the target
    limits = Limits(trials=4, target=10.0)

    def study(log: EventLog) -> Study:
        return Study(
            searcher=RowSearcher(range(4)), scheduler=Fixed(Horizon(max_resource=2, budget=16, n_seeds=2), n_seeds=2),
            backend=Finishing(values, capacity=2), log=log, limits=limits, max_resource=2, seed=0,
        )  # fmt: skip

    log = EventLog(None)
    assert study(log).run() == "limits.target: 12 reached 10"
    assert {event["trial"] for event in log.events if event["event"] == "report"} == {0}
    (stopped,) = [place for place, event in enumerate(log.events) if event["event"] == "stop"]
    for cut in range(stopped + 1, len(log.events)):
        again = EventLog(None)
        again.extend(log.events[:cut])
        assert study(again).run() == "limits.target: 12 reached 10"


@pytest.mark.parametrize("scheduler", ["fixed", "hyperband", "asha", "race"])
def test_a_cost_is_planned_with_and_not_overspent(scheduler: str) -> None:
    def objective(task: Task) -> Iterator[tuple[int, float]]:
        for resource in range(task.resource + 1, task.until + 1):
            yield resource, task.configuration["x"] * resource

    limits = {"cost": 20.0, "cost_per_step": 0.1}
    found = tune(objective, SPACE, limits=limits, searcher="random", scheduler=scheduler, max_resource=27, seeds=2)
    assert 0.8 * 200 <= found.spent <= 200
    assert found.best.resource == 27
