"""The ``search:`` section of an experiment file, and what a configuration makes of the experiment."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, Union

from pydantic import Field, ValidationError, model_validator

from policylab.agents.registry import AGENTS
from policylab.config import Document, KeyPath, Settings, data_path, put, validate
from policylab.errors import ConfigError, did_you_mean
from policylab.experiments.objective import RETURN_METRIC, Objective
from policylab.tuning.limits import Limits
from policylab.tuning.scheduler import SCHEDULERS, Horizon
from policylab.tuning.searcher import SEARCHERS
from policylab.tuning.searchers.grid import check_grid_trials
from policylab.tuning.space import Space
from policylab.tuning.warm_start import WarmStartSettings

if TYPE_CHECKING:
    from policylab.experiments.schema import ExperimentConfig

    SearcherSettings: TypeAlias = Any
    SchedulerSettings: TypeAlias = Any
else:
    SearcherSettings = Annotated[
        Union[tuple(SEARCHERS.load(name).Settings for name in SEARCHERS.names())],  # noqa: UP007 - built at run time
        Field(discriminator="kind"),
    ]
    SchedulerSettings = Annotated[
        Union[tuple(SCHEDULERS.load(name).Settings for name in SCHEDULERS.names())],  # noqa: UP007
        Field(discriminator="kind"),
    ]


BLIND = ("grid", "random")
"""Searchers that propose the same whatever the results."""

PATIENT = ("fixed", "hyperband", "population")
"""Schedulers that wait for the results they want, however many runs may be under way."""


class SearchSettings(Settings):
    """What to search, how, and for how long. The file's own agent settings are the configuration to beat."""

    space: Space
    searcher: SearcherSettings = Field(default={"kind": "bayesian"}, validate_default=True)
    scheduler: SchedulerSettings = Field(default={"kind": "race"}, validate_default=True)
    limits: Limits = Limits()
    warm_start: WarmStartSettings | None = Field(default=None, description="earlier studies to learn from")
    metric: str = Field(default=RETURN_METRIC, description="a metric of the reports")
    mode: Literal["max", "min"] = Field(default="max", description="whether larger or smaller is better")
    parallel: int | None = Field(default=None, ge=1, description="runs at once; default: the launcher's choice")
    storage: str | None = Field(
        default=None,
        pattern=r"^(none|[A-Za-z][A-Za-z0-9+.-]*://.+)$",
        description="Optuna storage URL of the live view, such as postgresql://HOST/DB; default: study/optuna.db in "
        "the run directory; 'none': no view",
    )

    @model_validator(mode="after")
    def _has_an_end(self) -> SearchSettings:
        limits = self.limits
        if self.searcher.kind != "grid" and not any((limits.trials, limits.steps, limits.wall_clock_s, limits.cost)):
            raise ValueError("limits must set trials, steps, wall_clock_s or cost, or the search would never end")
        if self.searcher.kind == "grid":
            try:
                check_grid_trials(self.space, self.limits.trials)
            except ConfigError as error:
                raise ValueError(str(error)) from None
        return self

    @property
    def objective(self) -> Objective:
        """The metric and which way is better."""
        return Objective(self.metric, self.sign)

    @property
    def sign(self) -> float:
        """1 to maximise, -1 to minimise: histories hold larger-is-better values."""
        return 1.0 if self.mode == "max" else -1.0

    def places(self, config: ExperimentConfig) -> int:
        """Return how many runs may be under way: as set, else one for each worker, or a batch.

        A launcher that advances runs in batches gets a whole one where no decision waits for the results of another.
        """
        if self.parallel is not None:
            return self.parallel
        batch: int = getattr(config.launcher, "batch", config.n_workers)
        return batch if self._settled else config.n_workers

    def capacity(self, config: ExperimentConfig) -> int:
        """Return how many runs the launcher may hold: some for each worker where no decision waits for a result."""
        ahead: int = getattr(config.launcher, "queued_per_worker", 1)
        return self.places(config) * (ahead if self._settled and self.parallel is None else 1)

    @property
    def _settled(self) -> bool:
        """Whether no decision waits for the result of another."""
        patient = self.searcher.kind in BLIND and self.scheduler.kind in PATIENT
        return patient and not self.limits.need_values and self.warm_start is None

    def horizon(self, *, budget_steps: int, n_seeds: int) -> Horizon:
        """Return what the scheduler may plan with."""
        return Horizon(
            max_resource=budget_steps,
            budget=self.limits.budget,
            n_seeds=n_seeds,
            n_trials=self.limits.trials,
            timed=self.limits.wall_clock_s is not None,
            space=self.space,
        )


def configured(
    config: ExperimentConfig,
    configuration: Mapping[str, Any],
    *,
    earlier: Sequence[tuple[int, Mapping[str, Any]]] = (),
) -> ExperimentConfig:
    """Return the experiment with the values of ``configuration`` put in and without its search.

    Args:
        config: the experiment.
        configuration: dotted path -> value.
        earlier: configurations that hold before it, each with the step until which it does.

    Raises:
        ConfigError: the experiment does not take a value.
    """
    data = config.model_dump(mode="json", exclude={"search"})
    data["stages"] = [{"until_steps": until, "settings": dict(settings)} for until, settings in earlier]
    for path, value in configuration.items():
        put(data, tuple(path.split(".")), value=value, place=path)
    _drop_leftovers(data, configuration, model=type(config))
    return validate(type(config), Document(data=data, places={}, source=config.name))


def _drop_leftovers(data: dict[str, Any], configuration: Mapping[str, Any], *, model: type[Settings]) -> None:
    """Remove what another kind left behind: settings beside a searched ``kind`` that the new kind does not have."""
    switched = [path.removesuffix("kind") for path in configuration if path.endswith(".kind")]
    if not switched:
        return
    try:
        model.model_validate(data)
    except ValidationError as error:
        for found in error.errors():
            path = data_path(data, found)
            dotted = ".".join(map(str, path))
            left_over = found["type"] == "extra_forbidden" and dotted.startswith(tuple(switched))
            if left_over and not any(chosen == dotted or chosen.startswith(f"{dotted}.") for chosen in configuration):
                held: Any = data
                for part in path[:-1]:
                    held = held[part]
                del held[path[-1]]


def own_configuration(config: ExperimentConfig, space: Space) -> dict[str, Any] | None:
    """Return the file's own values as a configuration of ``space``, or None where they are none of it.

    A schedule that is constant counts as its value.
    """
    found: dict[str, Any] = {}
    for path in space.parameters:
        *above, last = path.split(".")
        held: Any = config.model_dump(mode="json")
        for part in above:
            held = held.get(part) if isinstance(held, dict) else None
        if isinstance(held, dict) and last in held:
            value = held[last]
            found[path] = value["value"] if isinstance(value, dict) and value.get("kind") == "constant" else value
    found = {path: found[path] for path in space.active(found) if path in found}
    return found if space.contains(found) else None


def with_default(config: ExperimentConfig) -> Space:
    """Return the search space with a default point: its own, else the file's own values if they lie in it."""
    assert config.search is not None
    space = config.search.space
    if space.default is not None:
        return space
    own = own_configuration(config, space)
    return space if own is None else space.with_default(own)


def check_search(config: ExperimentConfig, document: Document) -> None:
    """Check that the agent takes every value of the search space.

    Raises:
        ConfigError: every finding, one per line, at its place in the file.
    """
    if config.search is None:
        return
    space = config.search.space
    findings = space.check(lambda path, value: _fault(config, space, path=path, value=value))
    findings += () if findings else _fixed_while_training(config, config.search)
    raise_in_space(findings, document)
    if unknown := _unknown_metric(config, config.search):
        raise ConfigError(f"{document.place(('search', 'metric'))}: {unknown}")


def _unknown_metric(config: ExperimentConfig, search: SearchSettings) -> str | None:
    """Return why no run can report the metric, or None if one may: not every agent tells the names it has."""
    known: set[str] = set()
    for agent in map(AGENTS.load, sorted(_kinds(config, search))):
        reported: frozenset[str] | None = getattr(agent, "metrics", None)
        if reported is None:
            return None
        online = agent.online or config.evaluation.kind == "online"
        known |= reported if online else {*reported, RETURN_METRIC}
    if search.metric in known:
        return None
    names = f"there are {', '.join(sorted(known))}"
    if search.metric == RETURN_METRIC:
        return f"search.metric '{search.metric}' is not reported where runs are valued while they learn; {names}"
    return f"search.metric '{search.metric}' is in no report{did_you_mean(search.metric, known)}; {names}"


def _kinds(config: ExperimentConfig, search: SearchSettings) -> set[str]:
    """Return the kinds of agent that the search may train."""
    searched = search.space.parameters.get("agent.kind")
    return {config.agent.kind, *(searched.listed() if searched else ())}


def raise_in_space(findings: Sequence[tuple[KeyPath, str]], document: Document) -> None:
    """Raise a ConfigError with every finding at its place below search.space, if there is one."""
    if findings:
        lines = [f"{document.place(('search', 'space', *where))}: {text}" for where, text in findings]
        raise ConfigError("\n".join(dict.fromkeys(lines)))


def check_stages(config: ExperimentConfig, document: Document) -> None:
    """Check that the agent takes the settings of every stage, and can change to them while it trains.

    Raises:
        ConfigError: every finding, one per line, at its place in the file.
    """
    lines = []
    for number, stage in enumerate(config.stages):
        for path, value in stage.settings.items():
            try:
                fault = change_fault(type(config.agent), path) or (configured(config, {path: value}) and None)
            except ConfigError as error:
                fault = str(error).splitlines()[0].removeprefix(f"{config.name}: ")
            if fault:
                place = document.place(("stages", number, "settings", path))
                lines.append(f"{place}: {fault if fault.startswith(path) else f'{path}: {fault}'}")
    if lines:
        raise ConfigError("\n".join(lines))


def _fixed_while_training(config: ExperimentConfig, search: SearchSettings) -> Iterator[tuple[KeyPath, str]]:
    """Yield what a population would change although the agent cannot take it up while it trains."""
    if search.scheduler.kind != "population":
        return
    agents = [AGENTS.load(kind).Settings for kind in sorted(_kinds(config, search))]
    for path in search.scheduler.explore or search.space.paths:
        for fault in (fault for agent in agents if (fault := change_fault(agent, path))):
            remedy = "list the paths that may change in scheduler.explore, copies inherit the others"
            yield ("parameters", path), f"{path}: {fault}; {remedy}"
            break


def change_fault(agent: type[Settings], path: str) -> str | None:
    """Return why the setting of an agent at the dotted ``path`` cannot change while it trains, or None."""
    section, *names = path.split(".")
    mutable: frozenset[str] = getattr(agent, "mutable", frozenset())
    if section == "agent" and names and names[0] in mutable and names[-1] != "kind":
        return None
    kind = agent.model_fields["kind"].default
    return f"it cannot change while `{kind}` trains (what can: {', '.join(sorted(mutable)) or 'nothing'})"


def _fault(config: ExperimentConfig, space: Space, *, path: str, value: Any) -> str | None:
    if not path.startswith("agent."):
        return f"{path}: only settings of the agent can be searched, such as agent.learning_rate"
    faults = [refusal(config, one) for one in probes(space, path, value=value)]
    return faults[0] if faults and None not in faults else None


def probes(space: Space, path: str, *, value: Any) -> Iterator[dict[str, Any]]:
    """Yield configurations that stand for ``value`` at ``path``: by itself, or beside what constraints pair it with.

    An agent may compare two settings, such as a batch and its parts: a value that it refuses beside the file's own may
    be right beside all that the space pairs it with, the ends of their ranges. Nothing where none of them keeps the
    constraints: such a value is never tried.
    """
    partners = {other for constraint in space.constraints if path in constraint.paths for other in constraint.paths}
    others = [[(other, end) for end in space.parameters[other].probes()] for other in sorted(partners - {path})]
    for ends in itertools.product(*others):
        fixed = {path: value, **dict(ends)}
        if all(constraint.holds(fixed) for constraint in space.constraints):
            yield {**_conditions(space, path), **fixed}


def refusal(config: ExperimentConfig, configuration: Mapping[str, Any]) -> str | None:
    """Return why the experiment does not take a configuration, or None."""
    try:
        configured(config, configuration)
    except ConfigError as error:
        return str(error).splitlines()[0].removeprefix(f"{config.name}: ")
    return None


def _conditions(space: Space, path: str) -> dict[str, Any]:
    """Return values under which a conditional parameter exists."""
    found: dict[str, Any] = {}
    for parent, values in space.parameters[path].when.items():
        found |= _conditions(space, parent)
        is_value = space.parameters[parent].fault(values) is None  # a list may itself be a categorical value
        found[parent] = values[0] if isinstance(values, list) and not is_value else values
    return found
