"""What a search will try and cost, without training: its space, a rehearsal of its scheduler, and advice."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from policylab.config import Settings
from policylab.experiments.schema import ExperimentConfig
from policylab.experiments.search import SearchSettings, refusal, with_default
from policylab.experiments.study import warm_start_of
from policylab.experiments.study_view import ONE_SEED
from policylab.files import canonical_json
from policylab.seeding import generator
from policylab.tuning.advice import advise
from policylab.tuning.backend import InlineBackend, Task
from policylab.tuning.history import History
from policylab.tuning.limits import Limits
from policylab.tuning.log import EventLog
from policylab.tuning.parameters import Categorical, Parameter
from policylab.tuning.scheduler import SCHEDULERS
from policylab.tuning.searcher import SEARCHERS
from policylab.tuning.space import Space
from policylab.tuning.study import Study

N_PROBES = 64
"""Configurations that are drawn to see whether the agent takes them."""

REHEARSAL_S = 3.0
"""A rehearsal that takes longer is left out."""


def search_plan(config: ExperimentConfig, *, root: Path) -> dict[str, Any]:
    """Return what the search of an experiment means.

    Args:
        config: an experiment with a search.
        root: folder whose run directories can be its parents.

    Returns:
        {searcher, scheduler, metric, mode, parallel, limits, space, seeds_at_most, trials_at_most, steps_at_most,
        rehearsal, confirm_steps, advice}. ``rehearsal`` is what the scheduler does when results are random: {trials,
        runs, steps, saved_by_resuming_steps, levels: resource -> runs that reach it}, or None where it takes too long
        or only a clock ends it.

    Raises:
        UserError: scheduler, searcher and limits do not fit together, or a parent is nowhere or breaks a restriction.
    """
    search = config.search
    assert search is not None
    space = with_default(config)
    parallel = search.places(config)
    horizon = search.horizon(budget_steps=config.budget.steps, n_seeds=config.seeds.tune)
    trials, seeds = _trials_at_most(search, space), seeds_at_most(config, search)
    worst = None if trials is None else trials * seeds * config.budget.steps
    return {
        "searcher": search.searcher.kind,
        "scheduler": search.scheduler.kind,
        "metric": search.metric,
        "mode": search.mode,
        "parallel": parallel,
        "limits": search.limits.model_dump(mode="json", exclude_defaults=True),
        "space": _space(space),
        "seeds_at_most": seeds,
        "trials_at_most": trials,
        "steps_at_most": min((steps for steps in (search.limits.budget, worst) if steps is not None), default=None),
        "rehearsal": _rehearsal(config, search, space=space),
        "confirm_steps": 2 * config.seeds.confirm * config.budget.steps,
        "advice": advise(
            space,
            searcher=_with_parents(search),
            scheduler=search.scheduler,
            horizon=horizon,
            parallel=parallel,
            limits=search.limits,
        )
        + _refused_draws(config, space)
        + _about_parents(config, search, space=space, root=root),
    }


def _with_parents(search: SearchSettings) -> Settings:
    """Return the searcher's settings, without trials before its first model where parents' trials stand for them."""
    settings: Settings = search.searcher
    known = search.warm_start is not None and hasattr(settings, "n_startup_trials")
    return settings.model_copy(update={"n_startup_trials": 0}) if known else settings


def _refused_draws(config: ExperimentConfig, space: Space) -> list[str]:
    """Return what to say where the agent does not take some combinations that the space holds."""
    drawn = [space.from_unit(point) for point in space.sample_points(N_PROBES, np.random.default_rng(0))]
    reasons = [text for one in drawn if (text := refusal(config, one))]
    if not reasons:
        return []
    share = f"{len(reasons)} of {len(drawn)} configurations drawn from the search space"
    remedy = "such trials fail: add what must hold to search.space.constraints"
    return [f"the agent does not take {share} ({reasons[0]}); {remedy}"]


def _about_parents(config: ExperimentConfig, search: SearchSettings, *, space: Space, root: Path) -> list[str]:
    """Return what may disappoint about the parents of a warm start."""
    if search.warm_start is None:
        return []
    return [str(found) for found in warm_start_of(config, search.warm_start, space=space, root=root).warnings]


def seeds_at_most(config: ExperimentConfig, search: SearchSettings) -> int:
    """Return how many tuning seeds one configuration can get."""
    if search.scheduler.kind in ONE_SEED:
        return 1
    return int(getattr(search.scheduler, "seeds", None) or config.seeds.tune)


def _trials_at_most(search: SearchSettings, space: Space) -> int | None:
    return min((count for count in (search.limits.trials, space.n_configurations) if count is not None), default=None)


def _rehearsal(config: ExperimentConfig, search: SearchSettings, *, space: Space) -> dict[str, Any] | None:
    """Play the study through with random values in place of training, random configurations in place of learned ones.

    Targets and stagnation are left out: they depend on the values. So is the clock, and what only a clock ends.
    """
    horizon = search.horizon(budget_steps=config.budget.steps, n_seeds=config.seeds.tune)
    if horizon.budget is None and _trials_at_most(search, space) is None:
        return None
    horizon = dataclasses.replace(horizon, timed=False)
    kind = "grid" if search.searcher.kind == "grid" else "random"
    searcher = SEARCHERS.load(kind)
    settings = search.searcher if search.searcher.kind == kind else searcher.Settings()
    limits = Limits(trials=search.limits.trials, steps=search.limits.budget, wall_clock_s=REHEARSAL_S)
    study = Study(
        searcher=searcher.make(settings, space),
        scheduler=SCHEDULERS.load(search.scheduler.kind).make(search.scheduler, horizon),
        backend=InlineBackend(_Random(config), folder=Path("rehearsal")),
        log=EventLog(None),
        limits=limits,
        max_resource=config.budget.steps,
        seed=config.seeds.root,
    )
    reason = study.run()
    return None if reason.startswith("limits.wall_clock_s") else _counts(study.history)


class _Random:
    """An objective that reports at the experiment's marks what its configuration and seed are worth, both by chance.

    A run is worth the same at every mark: else nothing would agree with anything, and no rung be of use.
    """

    def __init__(self, config: ExperimentConfig) -> None:
        self._root = config.seeds.root
        self._every = -(-config.budget.steps // config.evaluation.marks)

    def __call__(self, task: Task) -> Iterator[tuple[int, float]]:
        own = canonical_json(dict(task.configuration))
        streams = generator(self._root, "rehearsal", own), generator(self._root, "rehearsal", own, task.seed)
        value = float(sum(stream.normal() for stream in streams))
        for mark in range(task.resource + self._every, task.until, self._every):
            yield mark, value
        yield task.until, value


def _counts(history: History) -> dict[str, Any]:
    levels = sorted({run.until for _, run in history.runs()})
    reached = Counter(level for _, run in history.runs() for level in levels if run.origin < level <= run.resource)
    return {
        "trials": len(history.trials),
        "runs": sum(1 for _ in history.runs()),
        "steps": history.spent,
        "saved_by_resuming_steps": history.saved,
        "levels": {str(level): reached[level] for level in levels},
    }


def _space(space: Space) -> dict[str, Any]:
    return {
        "parameters": {path: _parameter(parameter) for path, parameter in space.parameters.items()},
        "constraints": [str(constraint) for constraint in space.constraints],
        "default": space.default,
        "size": space.size,
    }


def _parameter(parameter: Parameter) -> str:
    """Return a parameter in words.

    >>> from policylab.tuning.parameters import Continuous
    >>> _parameter(Continuous(low=0.001, high=1))
    'continuous, 0.001 to 1, logarithmic'
    """
    if isinstance(parameter, Categorical):
        text = f"categorical, {parameter.size} values: {', '.join(map(str, parameter.values))}"
    else:
        step = "" if parameter.step is None else f" in steps of {parameter.step:g}"
        text = f"{parameter.kind}, {parameter.low:g} to {parameter.high:g}{step}, {parameter.scale}"
    return text + "".join(f"; only if {parent} is {values}" for parent, values in parameter.when.items())
