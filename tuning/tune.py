"""`tune`: search the arguments of any Python callable.

| file in the folder | content |
|---|---|
| events.jsonl | the event log: see `policylab.tuning.log` |
| checkpoints/ | one folder per (trial, seed), the objective's own |
| parents.json | of a warm start: see `policylab.tuning.kept_parents` |
| sessions.jsonl | seconds of all sessions, for the wall-clock limit |
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from policylab.config import Document, Settings, validate
from policylab.errors import ConfigError
from policylab.files import locked
from policylab.registry import Registry
from policylab.session_clock import SessionClock
from policylab.tuning.backend import Objective, Task, reports
from policylab.tuning.execution import Execution
from policylab.tuning.history import History
from policylab.tuning.kept_parents import found_parents
from policylab.tuning.limits import Limits
from policylab.tuning.log import EventLog
from policylab.tuning.parents import find_parent
from policylab.tuning.result import StudyResult, study_result
from policylab.tuning.scheduler import SCHEDULERS, Horizon
from policylab.tuning.searcher import SEARCHERS, Searcher
from policylab.tuning.searchers.grid import check_grid_trials
from policylab.tuning.space import Space
from policylab.tuning.study import Study, study_facts
from policylab.tuning.study_facts import StudyFacts, search_facts
from policylab.tuning.warm_start import WarmStart, WarmStartedSearcher, WarmStartSettings

LOCK_S = 2.0
"""How long the processes of a killed controller, which hold its lock too, may take to die."""

Model = TypeVar("Model", bound=Settings)
Component: TypeAlias = str | Mapping[str, Any] | Settings
"""A component by name, as plain data with its ``kind``, or as its settings."""


def tune(  # noqa: PLR0913 - the one call a user makes: each argument is a decision of theirs, all but two have defaults
    objective: Objective,
    space: Space | Mapping[str, Any],
    *,
    limits: Limits | Mapping[str, Any],
    searcher: Component = "bayesian",
    scheduler: Component = "fixed",
    seeds: int = 1,
    max_resource: int = 1,
    mode: Literal["max", "min"] = "max",
    folder: Path | str | None = None,
    seed: int = 0,
    execution: Execution | Mapping[str, Any] | None = None,
    warm_start: WarmStartSettings | Mapping[str, Any] | None = None,
    observe: Callable[[History], None] | None = None,
) -> StudyResult:
    """Search ``space`` for the configuration with the best value of ``objective``.

    Args:
        objective: maps a `Task` to its final value, or yields (resource, value) reports. What it raises, and a last
            value that is not finite, fails one run, not the study.
        space: searched.
        limits: when the study is over; ``steps`` counts resource over all runs.
        searcher: proposes configurations: grid, random, bayesian or tpe.
        scheduler: decides what to spend on: fixed, median, hyperband, asha, race or population.
        seeds: tuning seeds, numbered from 0, that a scheduler may run a configuration on.
        max_resource: resource of a full training, in the objective's unit.
        mode: whether larger or smaller values are better.
        folder: where the log is kept; called again with the same arguments, the study goes on from there, or
            returns its result when it is over. None keeps nothing.
        seed: root of all random streams.
        execution: processes, a limit of time for each call, and how often one that failed is repeated: see
            `Execution`. Whatever fails is in the log with its traceback.
        warm_start: earlier studies to learn from: see `WarmStartSettings`. Its parents are folders of studies, run
            directories or records of SageMaker tuning jobs, as paths or as names beside ``folder``, read once, when
            the study begins; their metric has to be ``value``, what `tune` calls its own. What may disappoint is a
            Python warning.
        observe: called with the history after every change; values are larger-is-better there.

    Raises:
        ConfigError: a space, limit or component that breaks a rule.
        RunDirectoryError: ``folder`` holds another study, another process is tuning in it, or a parent is nowhere.

    >>> result = tune(
    ...     lambda task: (task.configuration["x"] - 3) ** 2,
    ...     {"parameters": {"x": {"kind": "continuous", "low": 0, "high": 10}}},
    ...     limits={"trials": 25},
    ...     mode="min",
    ... )
    >>> abs(result.best.configuration["x"] - 3) < 0.2, len(result.trials)
    (True, 25)
    """
    space = validated(Space, space, source="space")
    limits = validated(Limits, limits, source="limits")
    execution = _execution(execution, objective)
    chosen = component(SEARCHERS, searcher), component(SCHEDULERS, scheduler)
    _check(space, limits, kind=chosen[0].kind, mode=mode, counts=(seeds, max_resource, seed))
    planned = {"max_resource": max_resource, "budget": limits.budget, "n_seeds": seeds, "n_trials": limits.trials}
    horizon = Horizon(**planned, timed=limits.wall_clock_s is not None, space=space)  # type: ignore[arg-type]
    sign = 1.0 if mode == "max" else -1.0
    facts = {
        "space": _space_facts(space),
        "searcher": chosen[0].model_dump(mode="json"),
        "scheduler": chosen[1].model_dump(mode="json"),
        "limits": limits.model_dump(mode="json"),
        "horizon": planned,
        "mode": mode,
    }
    decider = SCHEDULERS.load(chosen[1].kind).make(chosen[1], horizon)
    with _opened(folder) as place, execution.backend(_signed(objective, sign), folder=place / "checkpoints") as backend:
        log = EventLog(place / "events.jsonl" if folder is not None else None)
        propose, about_parents = _searcher(chosen[0], space, facts=facts, warm_start=warm_start, log=log)
        log.open(study_facts({**facts, **about_parents}, seed=seed))
        study = Study(
            searcher=propose,
            scheduler=decider,
            backend=backend,
            log=log,
            limits=limits.signed(sign),
            max_resource=max_resource,
            seed=seed,
        )
        with SessionClock(place / "sessions.jsonl") as clock:
            reason = study.run(elapsed_s=clock.earlier_s, observe=clock.ticking(observe))
    return study_result(study.history, reason=reason, selected=study.winner(reason), sign=sign)


def _searcher(
    settings: Settings,
    space: Space,
    *,
    facts: Mapping[str, Any],
    warm_start: WarmStartSettings | Mapping[str, Any] | None,
    log: EventLog,
) -> tuple[Searcher, dict[str, Any]]:
    """Return the searcher, and what the log's first line says of its parents, if it has any.

    Raises:
        ConfigError: a parent breaks a restriction.
        RunDirectoryError: a parent cannot be found or read.
    """
    kind = SEARCHERS.load(settings.kind)  # type: ignore[attr-defined]
    if warm_start is None:
        return kind.make(settings, space), {}
    chosen = validated(WarmStartSettings, warm_start, source="warm_start")
    own = Path("study" if log.path is None else log.path.parent).resolve()
    find = functools.partial(find_parent, root=own.parent, besides=own)
    found = found_parents(chosen.parents, log=log, find=find)
    names = {one.name: one.name for one in found} | {one.source: one.name for one in found}
    parents = [names.get(source) or find(source).resolve().name for source in chosen.parents]
    told = {"warm_start": {**chosen.model_dump(mode="json"), "parents": parents}}
    child = StudyFacts.model_validate({"name": own.name, **search_facts({**facts, **told})})
    warm = WarmStart.make(chosen, child, parents=[one.parent for one in found])
    for finding in warm.warnings:
        warnings.warn(str(finding), stacklevel=3)
    box = settings.kind == "random"  # type: ignore[attr-defined]
    return WarmStartedSearcher(warm, space, build=lambda prior: kind.make(settings, space, prior=prior), box=box), told


def validated(model: type[Model], given: Model | Mapping[str, Any], *, source: str) -> Model:
    """Return ``given`` as a ``model``.

    Raises:
        ConfigError: every finding; ``source`` is its name there.
    """
    if isinstance(given, model):
        return given
    if not isinstance(given, Mapping):
        raise ConfigError(f"{source} holds settings as a mapping, got {given!r:.60}")
    return validate(model, Document(data=dict(given), places={}, source=source))


def component(registry: Registry, given: Component) -> Any:
    """Return the settings of a searcher or scheduler given by name, as plain data, or as its settings.

    Raises:
        UnknownNameError: no entry has the name.
        ConfigError: every finding about the settings.
    """
    if isinstance(given, Settings):
        return given
    if not isinstance(given, str | Mapping):
        raise ConfigError(f"{registry.concept} is a name or settings with a kind, got {given!r:.60}")
    data = {"kind": given} if isinstance(given, str) else dict(given)
    model = registry.load(str(data.get("kind", ""))).Settings
    return validated(model, data, source=registry.concept)


def _execution(given: Execution | Mapping[str, Any] | None, objective: Objective) -> Execution:
    """Return how ``objective`` is called.

    Raises:
        ConfigError: it cannot be called, or not so.
    """
    if not callable(objective):
        raise ConfigError(f"the objective must be callable, got {objective!r:.60}")
    return validated(Execution, {} if given is None else given, source="execution")


def _check(space: Space, limits: Limits, *, kind: str, mode: str, counts: tuple[int, int, int]) -> None:
    """Refuse what no component can judge alone; ``counts`` are seeds, max_resource and seed."""
    for name, count, least in zip(("seeds", "max_resource", "seed"), counts, (1, 1, 0), strict=True):
        if not isinstance(count, int) or count < least:
            raise ConfigError(f"{name} must be at least {least} and an integer, got {count!r}")
    if mode not in ("max", "min"):
        raise ConfigError(f"mode must be 'max' or 'min', got {mode!r}")
    if kind == "grid":
        check_grid_trials(space, limits.trials)
    ends = (limits.trials, limits.steps, limits.wall_clock_s, limits.cost and limits.cost_per_step)
    if space.size is None and not any(ends):
        raise ConfigError("limits: set trials, steps, wall_clock_s, or cost with cost_per_step, or it never ends")


def _space_facts(space: Space) -> dict[str, Any]:
    """Return the space as the log keeps it: a list of parameters, for their order counts and the log sorts keys."""
    data = space.model_dump(mode="json")
    return {**data, "parameters": [*data["parameters"].items()]}


def _signed(objective: Objective, sign: float) -> Objective:
    """Return the objective with larger-is-better values."""

    def signed(task: Task) -> Iterator[tuple[int, float]]:
        for resource, value in reports(objective(task), until=task.until):
            yield resource, sign * value

    return signed if sign < 0 else objective


@contextlib.contextmanager
def _opened(folder: Path | str | None) -> Iterator[Path]:
    """Yield the study's folder, locked; a temporary one when nothing is to be kept."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="policylab-") as temporary:
            yield Path(temporary)
        return
    with locked(Path(folder) / ".lock", wait_s=LOCK_S):
        yield Path(folder)
