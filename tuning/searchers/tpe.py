"""Tree-structured Parzen estimator: Optuna's sampler on an in-memory study that mirrors the history.

Every suggestion uses a freshly seeded sampler on a study that holds the evidence and nothing else, so it is a
function of the history and the stream alone, which a sampler that lives through a study is not. Numeric axes are
searched on the unit interval of their scale, conditional parameters in groups of their own (``group=True``).

Source: Bergstra et al. (2011); Falkner, Klein and Hutter (2018) for the multivariate form; Optuna ``TPESampler``.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import Field

from policylab.config import Settings
from policylab.tuning.decisions import Configuration
from policylab.tuning.history import History
from policylab.tuning.parameters import Categorical
from policylab.tuning.searchers.design import first_new, opening, sobol, uniform
from policylab.tuning.searchers.normalise import normalise
from policylab.tuning.searchers.observations import Evidence, Observation, gather
from policylab.tuning.space import Space

_Axis: TypeAlias = FloatDistribution | IntDistribution | CategoricalDistribution

_Row: TypeAlias = tuple[Configuration, float | None]
"""A configuration and its value, None while it is pending."""

MAX_ASKS = 16
"""Asks before a uniform draw replaces proposals that break constraints or repeat."""


class TpeSettings(Settings):
    """Tree-structured Parzen estimator."""

    kind: Literal["tpe"] = "tpe"
    n_startup_trials: int = Field(default=10, ge=2, description="Sobol points before the first model")
    n_ei_candidates: int = Field(default=24, ge=1, description="draws among which the best is proposed")


class TpeSearcher:
    """Proposes what is likelier among good configurations than among the rest.

    Args:
        settings: of the search.
        space: searched.
        prior: observations from elsewhere, such as a parent study; they count as startup trials.
    """

    Settings = TpeSettings

    def __init__(self, settings: TpeSettings, space: Space, *, prior: Sequence[Observation] = ()) -> None:
        self._settings = settings
        self._space = space
        self._prior = tuple(prior)
        self._mirror = _Mirror(space)

    @classmethod
    def make(cls, settings: TpeSettings, space: Space, *, prior: Sequence[Observation] = ()) -> Self:
        """Return a searcher."""
        return cls(settings, space, prior=prior)

    def suggest(self, history: History, *, rng: np.random.Generator) -> Configuration | None:
        """Return the next configuration, or None when a finite space is used up."""
        if (first := opening(self._space, history)) is not None:
            return first
        evidence = gather(history, n_parameters=len(self._space.paths), prior=self._prior)
        if len(history.trials) + len(self._prior) < self._settings.n_startup_trials or len(evidence.observed) < 2:
            return sobol(self._space, history, rng=rng)
        study = self._mirror.study(self._trials(evidence), sampler=self._sampler(int(rng.integers(2**32))))
        proposals = (self._mirror.ask(study) for _ in range(MAX_ASKS))
        kept = (found for found in proposals if self._space.contains(found))
        return first_new(self._space, history, candidates=kept) or uniform(self._space, history, rng=rng)

    def _sampler(self, seed: int) -> optuna.samplers.TPESampler:
        conditional = any(parameter.when for parameter in self._space.parameters.values())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(
                n_startup_trials=0,
                n_ei_candidates=self._settings.n_ei_candidates,
                multivariate=True,
                group=conditional,
                constant_liar=True,
                seed=seed,
            )

    def _trials(self, evidence: Evidence) -> list[_Row]:
        """Return the evidence as the mirror's rows: observed ones first, then what is pending."""
        foreign = any(observation.group for observation in evidence.observed)
        # The estimator looks at the order alone; only groups on other scales need to be made comparable.
        values = normalise(evidence.observed, "rank").mean.tolist() if foreign else [o.mean for o in evidence.observed]
        observed = zip((observation.configuration for observation in evidence.observed), values, strict=True)
        return [*observed, *((configuration, None) for configuration in evidence.pending)]


class _Mirror:
    """An Optuna study with given trials; what a longer history shares with the last one is kept."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._axes = {path: _distribution(parameter) for path, parameter in space.parameters.items()}
        self._rows: list[_Row] = []
        self._study: optuna.Study | None = None

    def study(self, rows: list[_Row], *, sampler: optuna.samplers.BaseSampler) -> optuna.Study:
        """Return a study that holds ``rows`` and asks ``sampler``."""
        if self._study is None or self._rows != rows[: len(self._rows)]:
            self._study, self._rows = _quiet_study(), []
        self._study.sampler = sampler
        self._study.add_trials(self._trial(*row) for row in rows[len(self._rows) :])
        self._rows = rows
        return self._study

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

    def ask(self, study: optuna.Study) -> dict[str, Any]:
        """Return one proposal; the trial that Optuna makes of it is closed at once: failed ones teach nothing."""
        trial = study.ask()
        found: dict[str, Any] = {}
        for path in self._space.resolution_order:
            if self._space.exists(path, found):
                found[path] = self._space.parameters[path].from_unit(_suggested(trial, path, axis=self._axes[path]))
        study.tell(trial, state=TrialState.FAIL)
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
        return (trial.suggest_int(path, 0, axis.high) + 0.5) / (axis.high + 1)
    return (trial.suggest_categorical(path, axis.choices) + 0.5) / len(axis.choices)
