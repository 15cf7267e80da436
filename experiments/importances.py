"""Which hyperparameters mattered: Optuna's importances of a study's configurations."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from policylab.experiments.report.study_data import Importances
from policylab.tuning.history import History
from policylab.tuning.parameters import Categorical
from policylab.tuning.space import Space

if TYPE_CHECKING:
    import optuna

CONFIGURATIONS_PER_PARAMETER = 10
"""Fewer make importances a hint only."""

MAX_TRIALS = 400
MIN_TRIALS = 10
"""Configurations compared at one resource; with fewer a forest of trees tells noise."""


def importances(history: History, space: Space) -> Importances | str:
    """Return each parameter's share of the variance of the values, or a sentence that says why there is none.

    Configurations are compared at the largest resource that `MIN_TRIALS` of them have a value at, by the mean over
    their seeds. Forks are left out: most of their training was with other values. Ranges enter on the scale they are
    searched on. A parameter that does not exist in every configuration is left out. Of very many configurations
    `MAX_TRIALS` are drawn.

    Source: Hutter, Hoos and Leyton-Brown, ICML 2014 (fANOVA), as in ``optuna.importance``.
    """
    resource, means = _values(history)
    if len(means) < MIN_TRIALS:
        return (
            f"Importances need {MIN_TRIALS} configurations with a value at one resource; "
            f"this search has {len(means)} at {resource:,}."
        )
    n_valued, means = len(means), _some(means)
    if np.ptp(list(means.values())) == 0.0:
        return f"All {len(means)} configurations have the same value at {resource:,} steps: no parameter mattered."
    paths = [path for path in space.paths if all(path in history.trials[i].configuration for i in means)]
    varied = [path for path in paths if len({str(history.trials[i].configuration[path]) for i in means}) > 1]
    if not varied:
        return "No parameter is present with different values in all compared configurations."
    study = _study(space, varied, rows=[(history.trials[i].configuration, mean) for i, mean in means.items()])
    told = [*_warnings(history, space, rated=varied, n_trials=len(means), resource=resource)]
    if n_valued > len(means):
        told.append(f"{len(means)} of {n_valued:,} configurations were drawn: time grows with their square")
    return Importances(_evaluate(study, varied), resource=resource, n_trials=len(means), warnings=told)


def _some(means: Mapping[int, float]) -> dict[int, float]:
    """Return all of them, or as many as are compared in a few seconds."""
    trials = list(means)
    if len(trials) > MAX_TRIALS:
        drawn = np.random.default_rng(0).choice(len(trials), MAX_TRIALS, replace=False)
        trials = [trials[place] for place in np.sort(drawn)]
    return {trial: means[trial] for trial in trials}


def _warnings(history: History, space: Space, *, rated: Sequence[str], n_trials: int, resource: int) -> Iterator[str]:
    """Yield what the shares do not tell."""
    needed = CONFIGURATIONS_PER_PARAMETER * len(rated)
    if n_trials < needed:
        yield (
            f"{n_trials} configurations for {len(rated)} parameters: the shares are a hint, "
            f"{needed} configurations or more make them reliable"
        )
    if resource < history.max_resource:
        yield (
            f"compared at {resource:,} of {history.max_resource:,} steps, where enough configurations have a value; "
            "a full training may depend on other parameters"
        )
    if missing := [path for path in space.paths if path not in rated]:
        yield f"not rated, because they do not vary or exist in some configurations only: {', '.join(missing)}"


def _values(history: History) -> tuple[int, dict[int, float]]:
    """Return the largest resource at which enough trials can be compared, and trial -> mean value there."""
    found: tuple[int, dict[int, float]] = (0, {})
    for resource in sorted({at for _, run in history.runs() for at in run.curve}, reverse=True):
        means = dict(_means(history, resource))
        if len(means) > len(found[1]):
            found = resource, means
        if len(means) >= MIN_TRIALS:
            break
    return found


def _means(history: History, resource: int) -> Iterator[tuple[int, float]]:
    for trial in (trial for trial in history.trials.values() if trial.parent is None):
        values = [value for value in trial.values_at(resource).values() if np.isfinite(value)]
        if values:
            yield trial.id, float(np.mean(values))


def _study(space: Space, paths: Sequence[str], *, rows: Sequence[tuple[Mapping[str, Any], float]]) -> optuna.Study:
    """Return an in-memory study of the rows; numbers are given by their place on the unit interval."""
    import optuna

    distributions: dict[str, optuna.distributions.BaseDistribution] = {}
    for path in paths:
        parameter = space.parameters[path]
        if isinstance(parameter, Categorical):
            distributions[path] = optuna.distributions.CategoricalDistribution(list(range(parameter.size)))
        else:
            distributions[path] = optuna.distributions.FloatDistribution(0.0, 1.0)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(direction="maximize")
    finally:
        optuna.logging.set_verbosity(verbosity)
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={path: _place(space, path, value=configuration[path]) for path in paths},
                distributions=distributions,
                value=value,
            )
            for configuration, value in rows
        ]
    )
    return study


def _place(space: Space, path: str, *, value: Any) -> float | int:
    parameter = space.parameters[path]
    place = float(parameter.places([value])[0])
    return int(place * parameter.size) if isinstance(parameter, Categorical) else place


def _evaluate(study: optuna.Study, paths: list[str]) -> dict[str, float]:
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries below, about themselves
        found = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0), params=paths
        )
    shares = {path: float(share) for path, share in found.items()}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))
