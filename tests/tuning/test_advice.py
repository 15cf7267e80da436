"""Advice names its number and its remedy, and is silent where nothing is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from policylab.config import Settings
from policylab.tuning.advice import NO_LIMITS, advise
from policylab.tuning.limits import Convergence, Limits, NotImproving
from policylab.tuning.scheduler import Horizon
from policylab.tuning.schedulers.asha import AshaSettings
from policylab.tuning.schedulers.fixed import FixedSettings
from policylab.tuning.schedulers.hyperband import HyperbandSettings
from policylab.tuning.schedulers.median import MedianSettings
from policylab.tuning.schedulers.population import PopulationSettings
from policylab.tuning.schedulers.race import RaceSettings
from policylab.tuning.searcher import SEARCHERS
from policylab.tuning.space import Space


def space(**parameters: dict[str, Any]) -> Space:
    return Space.model_validate({"parameters": parameters or {"x": {"kind": "continuous", "low": 0.0, "high": 1.0}}})


def advice(
    *,
    searched: Space | None = None,
    searcher: str = "bayesian",
    scheduler: Settings | None = None,
    budget: int | None = None,
    n_trials: int | None = 64,
    n_seeds: int = 5,
    parallel: int = 1,
    limits: Limits = NO_LIMITS,
) -> list[str]:
    horizon = Horizon(max_resource=100, budget=budget, n_seeds=n_seeds, n_trials=n_trials)
    return advise(
        searched or space(),
        searcher=SEARCHERS.load(searcher).Settings(),
        scheduler=scheduler or FixedSettings(),
        horizon=horizon,
        parallel=parallel,
        limits=limits,
    )


def test_a_sound_plan_gets_no_advice() -> None:
    assert advice() == []


def test_too_many_hyperparameters() -> None:
    ranges = {f"p{i}": {"kind": "continuous", "low": 0.0, "high": 1.0} for i in range(7)}
    (found,) = advice(searched=space(**ranges), n_trials=34)
    assert found == (
        "7 hyperparameters are too many for 34 configurations: search the 6 that matter most, "
        "or give 35 configurations or more"
    )
    assert advice(searched=space(**ranges), n_trials=35) == []


def test_a_budget_in_steps_says_how_many_configurations_it_pays_for() -> None:
    ranges = {f"p{i}": {"kind": "continuous", "low": 0.0, "high": 1.0} for i in range(2)}
    # 4,500 / (100 x 5 seeds) = 9 configurations.
    (found,) = advice(searched=space(**ranges), searcher="random", n_trials=None, budget=4_500)
    assert "2 hyperparameters are too many for 9 configurations: search the 1 that matter" in found
    assert advice(searched=space(**ranges), searcher="random", n_trials=None, budget=5_000) == []


def test_a_race_enters_more_configurations_than_the_budget_trains_in_full() -> None:
    ranges = {f"p{i}": {"kind": "continuous", "low": 0.0, "high": 1.0} for i in range(7)}
    # Three quarters of the budget; of eight that enter four go on to 50 and two to 100: 8 x 20 + 4 x 30 + 2 x 50 = 380.
    (found,) = advice(searched=space(**ranges), n_trials=None, budget=1600, scheduler=RaceSettings())
    assert "too many for 25 configurations" in found
    assert advice(searched=space(**ranges), n_trials=None, budget=2400, scheduler=RaceSettings()) == []


def test_without_a_limit_nothing_is_said_about_numbers() -> None:
    assert advice(n_trials=None, parallel=100) == []


@pytest.mark.parametrize("kind", ["continuous", "integer"])
def test_orders_of_magnitude_on_a_linear_scale(kind: str) -> None:
    rate = {"kind": kind, "low": 1, "high": 1000, "scaling": "linear"}
    (found,) = advice(searched=space(rate=rate))
    # (10 - 1) / (1000 - 1) = 0.9 %
    assert found.startswith("rate: 1 to 1000 spans a factor of 1e+03 on a linear scale, so 0.9% of the draws fall")
    assert found.endswith("set scaling: logarithmic")
    assert advice(searched=space(rate={**rate, "scaling": "logarithmic"})) == []
    assert advice(searched=space(rate={**rate, "high": 99})) == []


def test_a_discount_close_to_one() -> None:
    discount = {"kind": "continuous", "low": 0.9, "high": 0.9999}
    (found,) = advice(searched=space(discount=discount))
    assert "the distance to 1 spans a factor of 1e+03" in found
    assert found.endswith("set scaling: reverse_logarithmic")
    assert advice(searched=space(discount={**discount, "scaling": "reverse_logarithmic"})) == []


@pytest.mark.parametrize("searcher", ["bayesian", "tpe"])
def test_too_much_parallelism_to_learn(searcher: str) -> None:
    (found,) = advice(searcher=searcher, parallel=16)
    assert found.startswith("16 trainings at a time leave 64 configurations only 4 rounds to learn from: run 6 at")
    assert advice(searcher=searcher, parallel=6) == []


@pytest.mark.parametrize("rule", [{"convergence": Convergence(trials=3)}, {"not_improving": NotImproving(trials=5)}])
def test_a_search_that_may_end_before_its_first_model(rule: dict[str, Any]) -> None:
    (found,) = advice(limits=Limits(**rule))
    (name,) = rule
    assert found.startswith(f"limits.{name} may end the search after 6 trials, the first 10 are drawn before")
    assert advice(limits=Limits(**rule), searcher="random") == [], "none of its trials has a model"
    assert advice(limits=Limits(convergence=Convergence(), not_improving=NotImproving(trials=10))) == []


def test_a_search_that_is_over_before_its_first_model() -> None:
    (found,) = advice(n_trials=10, parallel=4)
    assert found.startswith("all 10 configurations are drawn before there is a model, which takes 10: pay for more")
    assert advice(n_trials=11) == []
    assert advice(n_trials=10, searcher="random") == []


def test_a_clock_that_may_strike_before_anything_is_trained_in_full() -> None:
    clock = Limits(wall_clock_s=60.0)
    (found,) = advice(scheduler=PopulationSettings(seeds=3), limits=clock)
    assert found.startswith("limits.wall_clock_s 60 may end the search early, but nothing is trained in full before")
    _, found = advice(scheduler=HyperbandSettings(), limits=clock)
    assert "before the widest bracket has used 2.32 full trainings: give it the time for that, or use" in found
    assert advice(scheduler=RaceSettings(), limits=clock) == advice(scheduler=FixedSettings(), limits=clock) == []


@pytest.mark.parametrize(
    ("scheduler", "told"),
    [
        (HyperbandSettings(min_resource=0.9), "min_resource 0.9 leaves no rung before the end, so nobody is ever"),
        (AshaSettings(min_resource=0.5), "set it to 0.33 or less"),
        (MedianSettings(every=1.0), "every 1 and grace 0.2 leave no look before the end, so nobody is ever stopped"),
        (MedianSettings(grace=0.95), "every 0.1 and grace 0.95 leave no look"),
        (MedianSettings(min_trials=64), "on the evidence of 64 others, and 64 configurations are all there are"),
        (PopulationSettings(members=10), "10 members spend 1000 at most, the budget is 6400: raise scheduler.members"),
    ],
)
def test_a_scheduler_that_never_does_what_it_is_for(scheduler: Settings, told: str) -> None:
    assert any(told in found for found in advice(scheduler=scheduler, budget=6_400))


@pytest.mark.parametrize(
    "scheduler",
    [
        HyperbandSettings(),
        AshaSettings(min_resource=0.33),
        MedianSettings(min_trials=63),
        PopulationSettings(members=33),
    ],
)
def test_one_that_does_gets_no_such_advice(scheduler: Settings) -> None:
    assert all("1 tuning seed" in found for found in advice(scheduler=scheduler, budget=6_400))


def test_a_grid_that_fills_no_bracket() -> None:
    grid = space(a={"kind": "categorical", "values": [1, 2, 3, 4]})
    *_, found = advice(searched=grid, searcher="grid", scheduler=HyperbandSettings(), n_trials=None)
    assert found.startswith("the widest bracket takes 9 configurations, the grid has 4: raise min_resource for a")


def test_a_grid_that_is_not_paid_for() -> None:
    grid = space(a={"kind": "categorical", "values": [1, 2, 3, 4]})
    (found,) = advice(searched=grid, searcher="grid", n_trials=None, budget=500)
    assert found == "1 of the grid's 4 configurations is paid for: raise the limits, or lay a coarser grid"
    assert advice(searched=grid, searcher="grid", n_trials=4) == []


def test_searches_that_do_not_learn_may_be_parallel() -> None:
    assert advice(searcher="random", parallel=64) == []


@pytest.mark.parametrize(
    ("scheduler", "n_seeds"),
    [
        (FixedSettings(), 1),
        (FixedSettings(seeds=1), 5),
        (MedianSettings(), 5),
        (HyperbandSettings(), 5),
        (PopulationSettings(members=10), 5),
    ],
)
def test_one_tuning_seed(scheduler: Settings, n_seeds: int) -> None:
    (found,) = advice(scheduler=scheduler, n_seeds=n_seeds)
    assert found.startswith("1 tuning seed decides")
    assert "scheduler kind: race" in found


def test_a_small_population_follows_its_first_leaders() -> None:
    found = advice(searcher="random", scheduler=PopulationSettings(seeds=5), n_trials=9)
    assert found[-1].startswith("a population of 9 only follows its first leaders: give 10 members or more")
    assert advice(searcher="random", scheduler=PopulationSettings(seeds=5), n_trials=10) == []
    assert advice(scheduler=PopulationSettings(seeds=5, members=3), n_trials=None)[-1].startswith("a population of 3")


def test_a_budget_that_cannot_fill_a_bracket() -> None:
    # R = 100, r = 10, eta = 3: rungs 11, 33, 100; nine enter, three and one go on: 9*11 + 3*22 + 1*67 = 232.
    found = advice(scheduler=HyperbandSettings(), budget=231, n_trials=None)
    assert "the widest bracket takes 2.32 full trainings (232), the budget pays for 2.31" in found[-1]
    assert "raise the budget to 232" in found[-1]
    assert len(advice(scheduler=HyperbandSettings(), budget=232, n_trials=None)) == len(found) - 1


@pytest.mark.parametrize("scheduler", [HyperbandSettings(), AshaSettings()])
def test_a_limit_of_trials_that_cannot_fill_a_bracket(scheduler: Settings) -> None:
    found = advice(scheduler=scheduler, n_trials=8)
    assert "takes 9 configurations, the limit is 8: raise limits.trials to 9" in found[-1]
    assert not any("bracket" in line for line in advice(scheduler=scheduler, n_trials=9))
