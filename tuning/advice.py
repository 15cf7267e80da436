"""Advice before a study begins: what is allowed but rarely wise, each with its number and what to do instead.

| advice | number | source |
|---|---|---|
| too many hyperparameters | fewer than 5 configurations for each | half of Loeppky et al. 2009, n = 10 d |
| no logarithmic scale | a range over two orders of magnitude | SageMaker guide, "Best practices" |
| too much parallelism | fewer than 10 rounds of learning | the same: sequential search learns most from each training |
| one tuning seed | 1 | ARLBench, Becktepe et al. 2024; Eimer et al. 2023, arXiv 2306.01324 |
| a population that only follows its first leaders | fewer than 10 members | Jaderberg et al. 2017, figure 5 |
| an end before the first model | trials up to the searcher's `n_startup_trials` | their values are of Sobol points |
| a clock that may end the search before anything is trained in full | trainings the widest bracket costs | - |
| a grid that is not finished | configurations that are paid for | - |
| a scheduler that never does what it is for | rungs, looks, members | - |
| a bracket that is never filled | trainings the widest bracket costs | Li et al. 2018, JMLR 18-185, algorithm 1 |
"""

from __future__ import annotations

from collections.abc import Iterator

from policylab.config import Settings
from policylab.tuning.limits import Limits
from policylab.tuning.parameters import Categorical, Continuous
from policylab.tuning.scaling import AUTO_LOGARITHMIC
from policylab.tuning.scheduler import Horizon
from policylab.tuning.schedulers.asha import AshaSettings
from policylab.tuning.schedulers.fixed import FixedSettings
from policylab.tuning.schedulers.hyperband import HalvingSettings, HyperbandSettings
from policylab.tuning.schedulers.median import MedianSettings
from policylab.tuning.schedulers.population import PopulationSettings
from policylab.tuning.schedulers.race import RaceSettings
from policylab.tuning.schedulers.rungs import Bracket, plan
from policylab.tuning.space import Space

LEARNING = ("bayesian", "tpe")
"""Searchers that learn from the results."""

CONFIGURATIONS_PER_PARAMETER = 5
MIN_ROUNDS = 10
MIN_MEMBERS = 10

NO_LIMITS = Limits()
"""What ends no search."""


def advise(
    space: Space,
    *,
    searcher: Settings,
    scheduler: Settings,
    horizon: Horizon,
    parallel: int,
    limits: Limits = NO_LIMITS,
) -> list[str]:
    """Return one sentence for each thing worth changing; an empty list is approval.

    Args:
        space: what is searched.
        searcher: its settings.
        scheduler: its settings.
        horizon: resource of a full training, budget, tuning seeds and number of configurations.
        parallel: trainings at a time.
        limits: when it ends; what they allow is in ``horizon``.
    """
    n, kind = _configurations(scheduler, horizon), getattr(searcher, "kind", "")
    return [
        *(_unfinished(space, n) if kind == "grid" else _dimensions(space, n)),
        *_scales(space),
        *(_early_end(searcher, n, limits=limits) or _parallelism(kind, n, parallel=parallel)),
        *_seeds(scheduler, horizon),
        *_idle(scheduler, horizon, n=n),
        *_brackets(scheduler, horizon, size=space.n_configurations if kind == "grid" else None),
        *_clock(scheduler, horizon, limits=limits),
        *_population(scheduler, n),
    ]


def _configurations(scheduler: Settings, horizon: Horizon) -> int | None:
    """Return about how many configurations will be started, or None without a limit that says so."""
    affordable = None
    if horizon.budget is not None:
        if isinstance(scheduler, HalvingSettings):
            brackets = plan(_planned(scheduler, horizon), budget=horizon.budget, eta=scheduler.eta)
            affordable = sum(bracket.counts[0] for bracket in brackets)
        elif isinstance(scheduler, RaceSettings):
            full = horizon.max_resource
            share = scheduler.search_budget(horizon.budget, max_resource=full, n_seeds=horizon.n_seeds)
            affordable = int(scheduler.ladder(full).width(share))
        else:
            affordable = horizon.budget // (horizon.max_resource * _seeds_of_each(scheduler, horizon))
    known = [count for count in (affordable, horizon.n_trials) if count is not None]
    return min(known, default=None)


def _planned(scheduler: HalvingSettings, horizon: Horizon) -> list[Bracket]:
    """Return the brackets one round goes through."""
    brackets = scheduler.brackets(horizon.max_resource)
    return brackets[: getattr(scheduler, "brackets_used", None)]


def _seeds_of_each(scheduler: Settings, horizon: Horizon) -> int:
    """Return how many seeds every configuration gets whatever it is worth."""
    if isinstance(scheduler, PopulationSettings):
        return scheduler.seeds
    return (scheduler.seeds or horizon.n_seeds) if isinstance(scheduler, FixedSettings) else 1


def _dimensions(space: Space, n: int | None) -> Iterator[str]:
    dimensions = len(space.parameters)
    if n is not None and n < CONFIGURATIONS_PER_PARAMETER * dimensions:
        most = max(1, n // CONFIGURATIONS_PER_PARAMETER)
        fewer = f"search the {most} that matter most, or " if most < dimensions else ""
        yield (
            f"{dimensions} hyperparameter{'s' * (dimensions > 1)} {_be(dimensions)} too many for {n} "
            f"configuration{'s' * (n != 1)}: "
            f"{fewer}give {CONFIGURATIONS_PER_PARAMETER * dimensions} configurations or more"
        )


def _unfinished(space: Space, n: int | None) -> Iterator[str]:
    size = space.n_configurations
    if n is not None and size is not None and n < size:
        yield f"{n} of the grid's {size} configurations {_be(n)} paid for: raise the limits, or lay a coarser grid"


def _be(n: int) -> str:
    return "is" if n == 1 else "are"


def _scales(space: Space) -> Iterator[str]:
    for path, parameter in space.parameters.items():
        if isinstance(parameter, Categorical) or parameter.scale != "linear":
            continue
        low, high = parameter.low, parameter.high
        if low > 0 and high >= AUTO_LOGARITHMIC * low:
            share = (10 * low - low) / (high - low)
            yield (
                f"{path}: {low:g} to {high:g} spans a factor of {high / low:.3g} on a linear scale, so {share:.1%} of "
                f"the draws fall below {10 * low:g}; set scaling: logarithmic"
            )
        elif isinstance(parameter, Continuous) and low >= 0 and high < 1 and 1 - low >= AUTO_LOGARITHMIC * (1 - high):
            yield (
                f"{path}: the distance to 1 spans a factor of {(1 - low) / (1 - high):.3g} between {low:g} and "
                f"{high:g} on a linear scale; set scaling: reverse_logarithmic"
            )


def _early_end(searcher: Settings, n: int | None, *, limits: Limits) -> list[str]:
    """Return what ends the search before its first model."""
    n_startup = getattr(searcher, "n_startup_trials", 0)
    if n is not None and n <= n_startup:
        return [
            f"all {n} configurations are drawn before there is a model, which takes {n_startup}: pay for more, lower "
            "searcher.n_startup_trials, or use searcher kind: random"
        ]
    stalled, converged = limits.not_improving, limits.convergence
    earliest = {
        "not_improving": stalled.trials + 1 if stalled else None,
        "convergence": 2 * converged.trials if converged else None,
    }
    return [
        f"limits.{name} may end the search after {at} trials, the first {n_startup} are drawn before there is a "
        f"model: set its trials to {n_startup} or more, or lower searcher.n_startup_trials"
        for name, at in earliest.items()
        if at is not None and at <= n_startup
    ]


def _parallelism(searcher: str, n: int | None, *, parallel: int) -> Iterator[str]:
    if searcher in LEARNING and n is not None and parallel > 1 and n < MIN_ROUNDS * parallel:
        wise = max(1, n // MIN_ROUNDS)
        yield (
            f"{parallel} trainings at a time leave {n} configurations only {_rounds(-(-n // parallel))} to learn from: "
            f"run {wise} at a time, or use searcher kind: random, which loses nothing in parallel"
        )


def _rounds(n: int) -> str:
    return "1 round" if n == 1 else f"{n} rounds"


def _seeds(scheduler: Settings, horizon: Horizon) -> Iterator[str]:
    single = isinstance(scheduler, HyperbandSettings | AshaSettings | MedianSettings) or (
        isinstance(scheduler, FixedSettings | PopulationSettings) and _seeds_of_each(scheduler, horizon) == 1
    )
    if single or horizon.n_seeds == 1:
        yield (
            "1 tuning seed decides: on recorded tasks the best of 32 configurations on one seed looked better than it "
            "was by 28 % of the distance between the best and the median; give 5 tuning seeds and scheduler kind: race"
        )


def _idle(scheduler: Settings, horizon: Horizon, *, n: int | None) -> Iterator[str]:
    """Yield what a scheduler never comes to do."""
    if isinstance(scheduler, HalvingSettings) and len(_planned(scheduler, horizon)[0].levels) == 1:
        yield (
            f"min_resource {scheduler.min_resource:g} leaves no rung before the end, so nobody is ever stopped: set it "
            f"to {1 / scheduler.eta:.2g} or less"
        )
    if isinstance(scheduler, MedianSettings):
        if len(scheduler.looks(horizon.max_resource)) == 1:
            yield (
                f"every {scheduler.every:g} and grace {scheduler.grace:g} leave no look before the end, so nobody is "
                "ever stopped: lower them"
            )
        elif n is not None and n <= scheduler.min_trials:
            yield (
                f"a run is stopped on the evidence of {scheduler.min_trials} others, and {n} configurations are all "
                "there are, so nobody is ever stopped: give more, or lower scheduler.min_trials"
            )
    if isinstance(scheduler, PopulationSettings) and scheduler.members and horizon.budget is not None:
        most = scheduler.members * scheduler.seeds * horizon.max_resource
        if horizon.budget >= 2 * most:
            yield (
                f"{scheduler.members} members spend {most} at most, the budget is {horizon.budget}: raise "
                "scheduler.members, the length of a training, or lower the budget"
            )


def _brackets(scheduler: Settings, horizon: Horizon, *, size: int | None) -> Iterator[str]:
    if not isinstance(scheduler, HalvingSettings):
        return
    widest = _planned(scheduler, horizon)[0]
    enters, trainings = widest.counts[0], widest.cost / horizon.max_resource
    if horizon.budget is not None and widest.cost > horizon.budget:
        yield (
            f"the widest bracket takes {trainings:.3g} full trainings ({widest.cost}), the budget pays for "
            f"{horizon.budget / horizon.max_resource:.3g}: raise the budget to {widest.cost}, or raise min_resource "
            "for a narrower bracket"
        )
    if horizon.n_trials is not None and horizon.n_trials < enters:
        yield (
            f"the widest bracket takes {enters} configurations, the limit is {horizon.n_trials}: raise limits.trials "
            f"to {enters}, or raise min_resource for a narrower bracket"
        )
    elif size is not None and size < enters:
        yield (
            f"the widest bracket takes {enters} configurations, the grid has {size}: raise min_resource for a narrower "
            "bracket, or use scheduler kind: fixed"
        )


def _clock(scheduler: Settings, horizon: Horizon, *, limits: Limits) -> Iterator[str]:
    if limits.wall_clock_s is None:
        return
    first = "nothing is trained in full before all members are"
    if isinstance(scheduler, HyperbandSettings):
        widest = _planned(scheduler, horizon)[0].cost / horizon.max_resource
        first = f"nothing is trained in full before the widest bracket has used {widest:.3g} full trainings"
    if isinstance(scheduler, HyperbandSettings | PopulationSettings):
        yield (
            f"limits.wall_clock_s {limits.wall_clock_s:g} may end the search early, but {first}: give it the time for "
            "that, or use scheduler kind: race, which plans with the clock"
        )


def _population(scheduler: Settings, n: int | None) -> Iterator[str]:
    if not isinstance(scheduler, PopulationSettings):
        return
    members = scheduler.members or n
    if members is not None and members < MIN_MEMBERS:
        yield (
            f"a population of {members} only follows its first leaders: give {MIN_MEMBERS} members or more, or use "
            "scheduler kind: race"
        )
