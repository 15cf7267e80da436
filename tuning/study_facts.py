"""What a warm start compares between two studies, and what it learns from a finished one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field

from policylab.config import Settings
from policylab.tuning.searchers.observations import Observation
from policylab.tuning.space import Space

Status = Literal["completed", "stopped", "failed", "in_progress"]
_WITHOUT_EFFECT = {"name", "description", "seeds", "launcher", "tracking", "search", "stages", "checkpoint_every_s"}
"""Sections of an experiment that are neither its data nor its algorithm; beside a search there are no stages."""


class StudyFacts(Settings):
    """What a warm start compares between studies.

    ``static`` are the parameters that are not searched; ``identity`` are data and algorithm, value by name, None when
    unknown.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    name: str = "study"
    metric: str = "value"
    mode: Literal["max", "min"] = "max"
    space: Space
    static: dict[str, Any] = Field(default_factory=dict)
    searcher: str = "bayesian"
    scheduler: str = "fixed"
    identity: dict[str, Any] | None = None
    n_trials: int | None = None
    parents: tuple[str, ...] = ()

    @property
    def sign(self) -> float:
        """1 to maximise, -1 to minimise."""
        return 1.0 if self.mode == "max" else -1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Parent:
    """A study that was searched before.

    Attributes:
        facts: what it was.
        status: whether it is over.
        observed: one observation per configuration at the full resource, larger is better.
        ranked: the same at the highest resource that enough configurations reached, for comparisons within the parent.
        n_trials: configurations or training jobs it started.
        created: ISO date of its creation, or None.
    """

    facts: StudyFacts
    status: Status
    observed: tuple[Observation, ...]
    ranked: tuple[Observation, ...]
    n_trials: int
    created: str | None = None


def experiment_facts(config: Mapping[str, Any], settings: Mapping[str, Any], *, name: str) -> StudyFacts:
    """Return the facts of an experiment's study.

    Args:
        config: the experiment as plain data.
        settings: its search section: ``space``, ``metric``, ``mode``, ``searcher``, ``scheduler``, ``limits``.
        name: of the study.
    """
    known = search_facts(settings)
    paths = known["space"]["parameters"]
    searched = sorted({path.split(".")[0] for path in paths})
    static = {
        f"{section}.{path}": value
        for section in searched
        for path, value in _flat(config.get(section, {}))
        if not any(_within(f"{section}.{path}", path_above) for path_above in paths)
    }
    identity = dict(_flat({name: value for name, value in config.items() if name not in {*_WITHOUT_EFFECT, *searched}}))
    kinds = {f"{section}.kind": config.get(section, {}).get("kind") for section in searched}
    return StudyFacts.model_validate(
        {**known, "name": name, "static": static, "identity": {**identity, **kinds} if identity else None}
    )


def search_facts(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a search section with the kinds of its searcher and scheduler in place of their settings."""
    found = dict(settings)
    space = found["space"]
    if isinstance(space["parameters"], list):  # a log keeps the order of parameters as a list of pairs
        found["space"] = {**space, "parameters": dict(space["parameters"])}
    for part in ("searcher", "scheduler"):
        if isinstance(found.get(part), Mapping):
            found[part] = found[part].get("kind")
    limits, warm_start = found.get("limits") or {}, found.get("warm_start") or {}
    return {**found, "n_trials": limits.get("trials"), "parents": warm_start.get("parents", ())}


def static_values(facts: StudyFacts, other: StudyFacts) -> dict[str, Any]:
    """Return path -> value of what is not searched, gathered where ``other`` searches the whole of several paths."""
    found = dict(facts.static)
    for path in other.space.parameters:
        below = {known: value for known, value in found.items() if known.startswith(f"{path}.")}
        if below and path not in found:
            for known in below:
                del found[known]
            found[path] = {known.removeprefix(f"{path}."): value for known, value in below.items()}
    return found


def _flat(value: Any, path: str = "") -> Iterable[tuple[str, Any]]:
    """Yield dotted path and value of every leaf; a constant schedule counts as its value."""
    if isinstance(value, Mapping) and value.get("kind") == "constant" and "value" in value:
        value = value["value"]
    if not isinstance(value, Mapping):
        yield path, value
        return
    for key, inner in value.items():
        yield from _flat(inner, f"{path}.{key}" if path else str(key))


def _within(path: str, above: str) -> bool:
    return path == above or path.startswith(f"{above}.")
