"""What is searched: parameters by path, conditions, constraints and a default point, all of it data.

A *configuration* holds the active parameters of one point, path -> value. The same points live in the unit cube, one
axis per parameter in the space's order, where searchers compute; the axis of an inactive parameter stands at its
default.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
from pydantic import Field, JsonValue, model_validator

from policylab.config import KeyPath, Settings
from policylab.errors import ConfigError, did_you_mean
from policylab.files import canonical_json
from policylab.tuning.constraints import Constraint
from policylab.tuning.decisions import Configuration
from policylab.tuning.parameters import Categorical, Parameter, raise_findings, value_key

RARE = 20_000
"""Draws without one that keeps the constraints, after which a countable space is listed."""

MAX_DRAWS, BLOCK = 2_000_000, 65_536
"""Draws, so many at once, after which constraints are held to admit no more than was found."""

COUNTABLE = 100_000
"""Points of a space, conditions left aside, up to which its configurations are counted."""


class Space(Settings):
    """The configurations a study may try.

    Args:
        parameters: dotted path -> parameter; the order is that of a grid, first parameter slowest.
        constraints: comparisons that must hold.
        default: a configuration of the space, tried first and compared with the winner at the end.

    >>> space = Space.model_validate({"parameters": {
    ...     "agent.kind": {"kind": "categorical", "values": ["sarsa", "q_learning"]},
    ...     "agent.learning_rate": {"kind": "continuous", "low": 0.001, "high": 1.0},
    ... }})
    >>> space.from_unit([0.75, 0.5])["agent.kind"], space.contains({"agent.kind": "sarsa"})
    ('q_learning', False)
    """

    parameters: dict[str, Parameter] = Field(min_length=1)
    constraints: tuple[Constraint, ...] = ()
    default: dict[str, JsonValue] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        findings = _structure_findings(self.parameters, self.constraints)
        raise_findings("Space", findings)
        if self.default is not None:
            raise_findings("Space", [(("default",), finding) for finding in self.violations(self.default)])
            plain = {path: self.parameters[path].plain(self.default[path]) for path in self.active(self.default)}
            object.__setattr__(self, "default", plain)
        return self

    def with_default(self, default: Configuration | None) -> Space:
        """Return the same space with another default.

        Raises:
            ValidationError: it is not one of the space's configurations.
        """
        return Space(parameters=self.parameters, constraints=self.constraints, default=default and dict(default))

    @functools.cached_property
    def paths(self) -> tuple[str, ...]:
        """The parameters' paths in order."""
        return tuple(self.parameters)

    @functools.cached_property
    def resolution_order(self) -> tuple[str, ...]:
        """The paths, each after those it depends on, otherwise in order."""
        done: dict[str, None] = {}
        while len(done) < len(self.parameters):
            done.update(
                {next(p for p in self.paths if p not in done and self.parameters[p].when.keys() <= done.keys()): None}
            )
        return tuple(done)

    @functools.cached_property
    def _allowed(self) -> dict[str, dict[str, frozenset[str]]]:
        """Path -> parent's path -> keys of the parent's values under which the parameter exists."""
        return {
            path: {
                parent: frozenset(map(value_key, _as_list(self.parameters[parent], values)))
                for parent, values in parameter.when.items()
            }
            for path, parameter in self.parameters.items()
            if parameter.when
        }

    def exists(self, path: str, configuration: Configuration) -> bool:
        """Return whether the parameter at ``path`` is active, given the values of those it depends on."""
        return all(
            parent in configuration and value_key(configuration[parent]) in keys
            for parent, keys in self._allowed.get(path, {}).items()
        )

    def active(self, configuration: Configuration) -> tuple[str, ...]:
        """Return the paths that exist, given the values in ``configuration``."""
        found: dict[str, Any] = {}
        for path in self.resolution_order:
            if path in configuration and self.exists(path, found):
                found[path] = configuration[path]
        return tuple(path for path in self.paths if path in found or self.exists(path, found))

    def violations(self, configuration: Configuration) -> list[str]:
        """Return every rule that ``configuration`` breaks, each naming the path."""
        active = self.active(configuration)
        found = [f"{path}: required, but missing" for path in active if path not in configuration]
        for path, value in configuration.items():
            if path not in self.parameters:
                found.append(f"{path}: not in the search space{did_you_mean(path, self.paths)}")
            elif path not in active:
                found.append(f"{path}: does not exist here; it needs {self._condition(path)}")
            elif fault := self.parameters[path].fault(value):
                found.append(f"{path}: {fault}")
        if not found:
            broken = [constraint for constraint in self.constraints if not constraint.holds(configuration)]
            found = [f"{', '.join(constraint.paths)}: must keep {constraint}" for constraint in broken]
        return found

    def contains(self, configuration: Configuration) -> bool:
        """Return whether ``configuration`` is one of the space: complete, in range, every constraint kept."""
        return not self.violations(configuration)

    def _condition(self, path: str) -> str:
        return " and ".join(f"{parent}: {values}" for parent, values in self.parameters[path].when.items())

    @functools.cached_property
    def _centre(self) -> np.ndarray:
        """The unit place of every parameter's default, or the middle where none is given; shape (d,)."""
        default = self.default or {}
        return np.array(
            [
                float(parameter.places([default[path]])[0] if path in default else parameter.snap(np.array(0.5)))
                for path, parameter in self.parameters.items()
            ]
        )

    def to_unit(self, configuration: Configuration) -> np.ndarray:
        """Return the point of a configuration in the unit cube, shape (d,); what it lacks stands at its default."""
        return np.asarray(self.points([configuration])[0])

    def points(self, configurations: Sequence[Configuration]) -> np.ndarray:
        """Return the points of configurations in the unit cube, shape (n, d)."""
        points = np.tile(self._centre, (len(configurations), 1))
        for axis, (path, parameter) in enumerate(self.parameters.items()):
            rows = [row for row, configuration in enumerate(configurations) if path in configuration]
            if rows:
                points[rows, axis] = parameter.places([configurations[row][path] for row in rows])
        return points

    def from_unit(self, point: Any) -> dict[str, Any]:
        """Return the configuration at a point of the unit cube, shape (d,); constraints are not looked at."""
        units = dict(zip(self.paths, point, strict=True))
        found: dict[str, Any] = {}
        for path in self.resolution_order:
            if self.exists(path, found):
                found[path] = self.parameters[path].from_unit(float(units[path]))
        return {path: found[path] for path in self.paths if path in found}

    def snap(self, points: np.ndarray) -> np.ndarray:
        """Return points (n, d) moved to the places of the configurations they stand for."""
        return self._snap(points)[0]

    def _snap(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the snapped points and which parameters are active in each, both (n, d)."""
        snapped = np.column_stack([p.snap(points[:, axis]) for axis, p in enumerate(self.parameters.values())])
        active = np.ones(snapped.shape, dtype=bool)
        for path in self.resolution_order:
            axis = self.paths.index(path)
            for parent, values in self.parameters[path].when.items():
                above, parameter = self.paths.index(parent), self.parameters[parent]
                met = parameter.among(snapped[:, above], _as_list(parameter, values))
                active[:, axis] &= active[:, above] & met
            snapped[~active[:, axis], axis] = self._centre[axis]
        return snapped, active

    def feasible(self, points: np.ndarray) -> np.ndarray:
        """Return which points (n, d) keep every constraint, shape (n,)."""
        met = np.ones(len(points), dtype=bool)
        if self.constraints:
            snapped, active = self._snap(points)
            columns = {
                path: np.where(active[:, axis], self.parameters[path].at(snapped[:, axis]), math.nan)
                for axis, path in enumerate(self.paths)
            }
            for constraint in self.constraints:
                met &= constraint.holds(columns)
        return met

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """Return a configuration drawn uniformly on the parameters' scales.

        Raises:
            ConfigError: no draw keeps the constraints.
        """
        return self.from_unit(self.sample_points(1, rng)[0])

    def sample_points(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Return ``n`` uniform points of the unit cube that keep the constraints, shape (n, d).

        Where hardly any draw keeps them, points of a countable space are drawn from its list, and others repeat.

        Raises:
            ConfigError: no draw keeps the constraints.
        """
        points, drawn = np.empty((0, len(self.paths))), 0
        while len(points) < n and drawn < MAX_DRAWS:
            if drawn >= RARE and not len(points) and self.n_configurations:
                return self._every_point[rng.integers(self.n_configurations, size=n)]
            draws = rng.random((max(16, 2 * n, min(drawn, BLOCK)) if self.constraints else n, len(self.paths)))
            points, drawn = np.concatenate([points, draws[self.feasible(draws)]]), drawn + len(draws)
        if not len(points):
            rules = "; ".join(map(str, self.constraints))
            raise ConfigError(f"search space: none of {drawn} draws keeps {rules}; loosen the constraints")
        return points[:n] if len(points) >= n else points[rng.integers(len(points), size=n)]

    @functools.cached_property
    def _every_point(self) -> np.ndarray:
        return self.points([*self.listed()])

    @functools.cached_property
    def repeats(self) -> bool:
        """Whether draws can repeat: where nothing is continuous, or nothing that exists in all configurations."""
        return all(parameter.size is not None or parameter.when for parameter in self.parameters.values())

    @functools.cached_property
    def size(self) -> int | None:
        """How many points the cube has, conditions and constraints left aside; None when infinitely many."""
        sizes = [parameter.size for parameter in self.parameters.values()]
        return None if None in sizes else math.prod(size for size in sizes if size is not None)

    @functools.cached_property
    def n_configurations(self) -> int | None:
        """How many configurations there are; None when infinitely many, or more than `COUNTABLE` points to look at."""
        return sum(1 for _ in self.listed()) if self.countable else None

    @property
    def countable(self) -> bool:
        """Whether it has few enough points to list its configurations."""
        return self.size is not None and self.size <= COUNTABLE

    def grid(self) -> Iterator[dict[str, Any]]:
        """Yield every configuration of a grid once, the first parameter slowest.

        Raises:
            ConfigError: a numeric range has no ``step``.
        """
        if bare := [path for path, parameter in self.parameters.items() if not parameter.gridded]:
            raise ConfigError("\n".join(f"{path}: a grid needs a step, or a categorical parameter" for path in bare))
        return self.listed()

    def listed(self) -> Iterator[dict[str, Any]]:
        """Yield every configuration of a finite space once, the first parameter slowest."""
        return self._listed({}, self.resolution_order)

    def _listed(self, chosen: dict[str, Any], paths: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        if not paths:
            if all(constraint.holds(chosen) for constraint in self.constraints):
                yield {path: chosen[path] for path in self.paths if path in chosen}
            return
        first, rest = paths[0], paths[1:]
        if not self.exists(first, chosen):
            yield from self._listed(chosen, rest)
            return
        for value in self.parameters[first].listed():
            yield from self._listed({**chosen, first: value}, rest)

    def check(self, fault: Callable[[str, Any], str | None]) -> list[tuple[KeyPath, str]]:
        """Return what a schema has against the space, each finding with its key path below the space.

        Args:
            fault: says why the schema refuses a value at a path, or None; asked for the values of
                `Parameter.probes`, which stand for all others.
        """
        found: list[tuple[KeyPath, str]] = []
        for path, parameter in self.parameters.items():
            faults = [fault(path, value) for value in parameter.probes()]
            # Both ends of a range can break the same rule, such as an unknown path: it is told once.
            refused = {text: place for place, text in zip(_probe_places(parameter), faults, strict=True) if text}
            found += [(("parameters", path, *place), text) for text, place in refused.items()]
        return found


def configuration_key(configuration: Mapping[str, Any]) -> str:
    """Return what equal configurations share, whatever the order of their keys.

    >>> configuration_key({"b": 1, "a": 0.5}) == configuration_key({"a": 0.5, "b": 1})
    True
    """
    return canonical_json(configuration)


def _as_list(parameter: Any, values: JsonValue) -> list[JsonValue]:
    """Return a condition's values as a list; a list may itself be one of a categorical parameter's values."""
    if isinstance(values, list) and parameter.fault(values) is not None:
        return values
    return [values]


def _probe_places(parameter: Any) -> list[KeyPath]:
    if isinstance(parameter, Categorical):
        return [("values", position) for position in range(parameter.size)]
    return [("low",), ("high",)]


def _structure_findings(
    parameters: Mapping[str, Any], constraints: tuple[Constraint, ...]
) -> list[tuple[KeyPath, str]]:
    """Return what is wrong between the parameters of a space."""
    found: list[tuple[KeyPath, str]] = []
    for path, parameter in parameters.items():
        for parent, values in parameter.when.items():
            if finding := _condition_finding(parameters, path, parent=parent, values=values):
                found.append((("parameters", path, "when", parent), finding))
        above = path.rpartition(".")[0]
        while above:
            if above in parameters:
                found.append((("parameters", path), f"lies inside '{above}', which is searched too; keep one of them"))
            above = above.rpartition(".")[0]
    for number, constraint in enumerate(constraints):
        found += [(("constraints", number), text) for text in _constraint_findings(parameters, constraint)]
    return found


def _condition_finding(parameters: Mapping[str, Any], path: str, *, parent: str, values: JsonValue) -> str | None:
    if parent not in parameters:
        return f"'{parent}' is not in the search space{did_you_mean(parent, parameters.keys() - {path})}"
    if _depends_on(parameters, parent, on=path):
        return f"'{parent}' depends on '{path}' itself; break the circle"
    if parameters[parent].size is None:
        return f"'{parent}' is continuous; a condition needs a categorical, integer or stepped parameter"
    faults = [fault for value in _as_list(parameters[parent], values) if (fault := parameters[parent].fault(value))]
    return f"'{parent}' {faults[0]}" if faults else None


def _depends_on(parameters: Mapping[str, Any], path: str, *, on: str) -> bool:
    """Whether ``path`` is ``on`` or exists only under conditions that lead to it."""
    seen: set[str] = set()
    pending = [path]
    while pending:
        current = pending.pop()
        if current == on:
            return True
        if current not in seen and current in parameters:
            seen.add(current)
            pending.extend(parameters[current].when)
    return False


def _constraint_findings(parameters: Mapping[str, Any], constraint: Constraint) -> list[str]:
    if not constraint.paths:
        return [f"{constraint}: compares two numbers; name a parameter on one side"]
    found = []
    for path in constraint.paths:
        if path not in parameters:
            found.append(f"'{path}' is not in the search space{did_you_mean(path, parameters)}")
        elif not parameters[path].numeric:
            found.append(f"'{path}' has values that are not numbers, which cannot be compared")
    return found
