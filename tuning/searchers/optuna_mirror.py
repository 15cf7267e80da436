"""Evidence as an Optuna study in memory, for the samplers that read one.

Numeric axes are the unit interval of the parameter's scale, or the numbers of its cells where these are evenly
spaced; categories are numbered. A parameter that does not exist in a configuration is not in its trial.
"""

from __future__ import annotations

import warnings
from typing import Any, TypeAlias

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from policylab.tuning.decisions import Configuration
from policylab.tuning.parameters import Categorical
from policylab.tuning.space import Space

_Axis: TypeAlias = FloatDistribution | IntDistribution | CategoricalDistribution

Row: TypeAlias = tuple[Configuration, float | None]
"""A configuration and its value, None while it is pending."""


class StudyMirror:
    """An Optuna study with given trials; what a longer history shares with the last one is kept.

    Args:
        space: searched.
        n_ei_candidates: draws among which the sampler takes the best.
    """

    def __init__(self, space: Space, *, n_ei_candidates: int) -> None:
        self._space = space
        self._n_ei_candidates = n_ei_candidates
        self._axes = {path: _distribution(parameter) for path, parameter in space.parameters.items()}
        self._rows: list[Row] = []
        self._study = _quiet_study()

    def show(self, rows: list[Row], *, seed: int) -> None:
        """Hold ``rows`` and nothing else, and ask a sampler seeded with ``seed``."""
        if self._rows != rows[: len(self._rows)]:
            self._study, self._rows = _quiet_study(), []
        self._study.sampler = self._sampler(seed)
        self._study.add_trials(self._trial(*row) for row in rows[len(self._rows) :])
        self._rows = rows

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        conditional = any(parameter.when for parameter in self._space.parameters.values())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(
                n_startup_trials=0,
                n_ei_candidates=self._n_ei_candidates,
                multivariate=True,
                group=conditional,
                constant_liar=True,
                seed=seed,
            )

    def _trial(self, configuration: Configuration, value: float | None) -> FrozenTrial:
        return create_trial(
            state=TrialState.RUNNING if value is None else TrialState.COMPLETE,
            value=value,
            params={path: self._internal(path, item) for path, item in configuration.items()},
            distributions={path: self._axes[path] for path in configuration},
        )

    def _internal(self, path: str, value: Any) -> float | int:
        unit, axis = self._space.parameters[path].to_unit(value), self._axes[path]
        return unit if isinstance(axis, FloatDistribution) else int(unit * _n_cells(axis))

    def ask(self) -> dict[str, Any]:
        """Return one proposal; the trial that Optuna makes of it is closed at once: failed ones teach nothing."""
        trial = self._study.ask()
        found: dict[str, Any] = {}
        for path in self._space.resolution_order:
            if self._space.exists(path, found):
                found[path] = self._space.parameters[path].from_unit(_suggested(trial, path, axis=self._axes[path]))
        self._study.tell(trial, state=TrialState.FAIL)
        return {path: found[path] for path in self._space.paths if path in found}


def _quiet_study() -> optuna.Study:
    """Return an empty study without Optuna's line about it."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(direction="maximize")
    finally:
        optuna.logging.set_verbosity(verbosity)


def _distribution(parameter: Any) -> _Axis:
    """Return the axis of a parameter: categories, evenly spaced cells by number, or the unit interval."""
    if isinstance(parameter, Categorical):
        return CategoricalDistribution(range(parameter.size))
    if parameter.size is not None and parameter.scale == "linear":
        return IntDistribution(0, parameter.size - 1)
    return FloatDistribution(0.0, 1.0)


def _n_cells(axis: IntDistribution | CategoricalDistribution) -> int:
    return len(axis.choices) if isinstance(axis, CategoricalDistribution) else axis.high + 1


def _suggested(trial: optuna.Trial, path: str, *, axis: _Axis) -> float:
    """Return what the sampler suggests for a parameter, as a place on the unit interval."""
    if isinstance(axis, FloatDistribution):
        return trial.suggest_float(path, 0.0, 1.0)
    if isinstance(axis, IntDistribution):
        return (trial.suggest_int(path, 0, axis.high) + 0.5) / _n_cells(axis)
    return (axis.choices.index(trial.suggest_categorical(path, axis.choices)) + 0.5) / _n_cells(axis)
