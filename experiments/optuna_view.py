"""A study in Optuna's own storage, so that optuna-dashboard, Optuna's plots and its importances work on it.

The view is a projection of the run directory and can be made again at any time. Study name = run id, one Optuna trial
per configuration, its number = the trial's.

| Optuna | from the study |
|---|---|
| params, distributions | the configuration; only the parameters that exist in it |
| intermediate values | mean over the seeds that reported at that resource, in the metric's own direction |
| value | the same at the full budget; of a pruned trial the last intermediate value |
| COMPLETE | has a value at the full budget and gets no more seeds |
| PRUNED | given up before |
| FAIL | a run failed, or its value is not a number |
| user attributes | folder, seeds (value and resource of each), stop_reason, error, parent (of a fork), confirmed |
"""

from __future__ import annotations

import datetime
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policylab.experiments.optuna_rows import replace_trials
from policylab.experiments.study_view import StudyView, read_study
from policylab.files import canonical_json, locked
from policylab.tuning.history import RunState, Trial
from policylab.tuning.parameters import Categorical, Integer, Parameter
from policylab.tuning.space import Space

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial, TrialState

LOCK = "study/.optuna.lock"
BUSY_WAIT_S = 30
LIVE_WAIT_S = 30.0
"""A live view ends soon after the study's process."""


def project(folder: Path, *, storage: str | None = None) -> optuna.Study:
    """Write the study of the run directory ``folder`` into its Optuna storage; repeating it changes nothing.

    Args:
        folder: the run directory, finished or not.
        storage: Optuna storage URL to use instead of the configured one.

    Raises:
        RunDirectoryError: no run directory with a study, a damaged one, or its view is being written.
    """
    with locked(folder / LOCK, wait_s=LIVE_WAIT_S):
        return OptunaView(folder, storage=storage).push()


def storage_url(view: StudyView) -> str:
    """Return the URL of the storage that holds the view of a study."""
    configured = view.search.get("storage")
    return f"sqlite:///{view.folder.absolute()}/study/optuna.db" if configured in (None, "none") else str(configured)


class OptunaView:
    """The view of one study, open for one push after the other; the caller holds the lock.

    Args:
        folder: the run directory.
        storage: Optuna storage URL to use instead of the configured one.
    """

    def __init__(self, folder: Path, *, storage: str | None = None) -> None:
        self._folder = folder
        self._url = storage
        self._storage: RDBStorage | None = None
        self._study: optuna.Study | None = None
        self._written: dict[int, Any] | None = None

    def push(self) -> optuna.Study:
        """Write what has changed since the last push, in one transaction; return the study.

        Raises:
            RunDirectoryError: the run directory is damaged.
        """
        view = read_study(self._folder)
        storage = self._storage = self._storage or open_storage(self._url or storage_url(view))
        study = self._study = self._study or _open(storage, view)
        if self._written is None:
            # From the storage itself: a study keeps finished trials in memory, and they can change here.
            held = storage.get_all_trials(storage.get_study_id_from_name(view.run_id), deepcopy=False)
            self._written = {trial.number: _content(trial) for trial in held}
        trials = {trial.number: trial for trial in frozen_trials(view)}
        contents = {number: _content(trial) for number, trial in trials.items()}
        changed = [trials[number] for number in contents if contents[number] != self._written.get(number)]
        surplus = self._written.keys() - contents.keys()
        if changed or surplus:
            replace_trials(storage, view.run_id, trials=changed, surplus=surplus)
            self._written = contents
        _set_attributes(study, view)
        return study


def open_storage(url: str) -> RDBStorage:
    """Open or create an Optuna storage."""
    from optuna.storages import RDBStorage

    kwargs: dict[str, Any] = {"connect_args": {"timeout": BUSY_WAIT_S}} if url.startswith("sqlite") else {}
    return RDBStorage(url, engine_kwargs=kwargs)


def _open(storage: RDBStorage, view: StudyView) -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    direction = optuna.study.StudyDirection.MAXIMIZE if view.sign > 0 else optuna.study.StudyDirection.MINIMIZE
    return optuna.create_study(study_name=view.run_id, storage=storage, direction=direction, load_if_exists=True)


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return the space as Optuna's distributions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {path: _distribution(parameter) for path, parameter in space.parameters.items()}


def _distribution(parameter: Parameter) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(parameter, Categorical):
        return CategoricalDistribution([_choice(parameter, value) for value in parameter.values])
    log = parameter.scale == "logarithmic"  # Optuna has no reversed one: those are drawn on a linear axis
    if isinstance(parameter, Integer):
        return IntDistribution(parameter.low, parameter.high, log=log, step=1 if log else parameter.step or 1)
    # Without its step: Optuna allows none on a logarithmic axis and recomputes ``high`` from it on a linear one.
    return FloatDistribution(parameter.low, parameter.high, log=log)


def _choice(parameter: Categorical, value: Any) -> Any:
    """Return a category as Optuna can store and tell it apart: itself, or its JSON text where values are mixed."""
    kinds = {bool if isinstance(one, bool) else float if isinstance(one, int | float) else type(one)
             for one in parameter.values}  # fmt: skip
    return value if len(kinds) == 1 and kinds <= {bool, float, str} else canonical_json(value)


def frozen_trials(view: StudyView) -> list[FrozenTrial]:
    """Return one Optuna trial per configuration of a study, in their order."""
    spread = distributions(view.space)
    return [_frozen(trial, view, spread=spread) for trial in view.history.trials.values()]


def _frozen(trial: Trial, view: StudyView, *, spread: Mapping[str, BaseDistribution]) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    active = [path for path in view.space.active(trial.configuration) if path in trial.configuration]
    curve = {resource: view.sign * mean for resource, mean in trial.mean_curve().items()}
    state = _state(trial, view)
    valued = state in (TrialState.COMPLETE, TrialState.PRUNED) and curve
    last = curve[view.history.max_resource if state is TrialState.COMPLETE else max(curve)] if valued else None
    parameters = view.space.parameters
    frozen = create_trial(
        state=state,
        value=None if last is None or math.isnan(last) else last,
        params={path: _external(parameters[path], trial.configuration[path]) for path in active},
        distributions={path: spread[path] for path in active},
        intermediate_values=curve,
        user_attrs=_attributes(trial, view),
    )
    frozen.number = trial.id
    frozen.datetime_start, end = _times(view.folder / f"trials/{trial.id:04d}")
    frozen.datetime_complete = end if state.is_finished() else None
    return frozen


def _external(parameter: Parameter, value: Any) -> Any:
    return _choice(parameter, parameter.plain(value)) if isinstance(parameter, Categorical) else parameter.plain(value)


def _state(trial: Trial, view: StudyView) -> TrialState:
    from optuna.trial import TrialState

    full = trial.values_at(view.history.max_resource)
    idle = all(run.state is not RunState.RUNNING for run in trial.runs.values())
    over = view.reason is not None or trial.stopped is not None
    if trial.failed and (idle or over):
        return TrialState.FAIL
    if not over and not (idle and len(full) >= view.n_seeds):
        return TrialState.RUNNING
    if not full:
        return TrialState.PRUNED
    return TrialState.COMPLETE if not any(map(math.isnan, full.values())) else TrialState.FAIL


def _attributes(trial: Trial, view: StudyView) -> dict[str, Any]:
    seeds = {
        str(run.seed): {"resource": run.resource, "value": _plain(view.sign * run.value)}
        for run in trial.runs.values()
        if run.value is not None
    }
    short = view.reason if not trial.values_at(view.history.max_resource) else None
    facts: dict[str, Any] = {
        "folder": f"trials/{trial.id:04d}",
        "seeds": seeds,
        "stop_reason": trial.stopped or short,
        "error": next((run.error for run in trial.runs.values() if run.error), None),
        "parent": None if trial.parent is None else {"trial": trial.parent, "resource": trial.origin},
    }
    if view.outcome is not None and trial.id in (view.outcome["winner"], view.outcome["default"]):
        values = list(view.confirmed(trial.id).values())
        known = bool(values) and all(map(math.isfinite, values))
        facts["confirmed"] = {"mean": sum(values) / len(values), "values": values} if known else None
    return {name: fact for name, fact in facts.items() if fact is not None}


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _set_attributes(study: optuna.Study, view: StudyView) -> None:
    facts = {
        "run_dir": str(view.folder.absolute()),
        "metric": view.search["metric"],
        "full_budget_steps": view.history.max_resource,
        "spent_steps": view.history.spent,
        "ended": view.reason,
        "winner": None if view.outcome is None else view.outcome["winner"],
        "default": None if view.outcome is None else view.outcome["default"],
    }
    held = study.user_attrs
    for name, fact in facts.items():
        if fact is not None and held.get(name) != fact:
            study.set_user_attr(name, fact)


def _content(trial: FrozenTrial) -> Any:
    """Return what of a trial is projected: all but its times and ids. NaN is made equal to itself."""
    curve = [(step, repr(value)) for step, value in sorted(trial.intermediate_values.items())]
    value = None if trial.values is None else repr(trial.values)
    return trial.state, value, trial.params, trial.distributions, curve, trial.user_attrs


def _times(folder: Path) -> tuple[datetime.datetime, datetime.datetime]:
    """Return when a trial began and ended as its files tell: the last piece of its runs."""
    stamps = [path.stat().st_mtime for path in folder.glob("tune-*/*.json*")] or [datetime.datetime.now().timestamp()]
    return datetime.datetime.fromtimestamp(min(stamps)), datetime.datetime.fromtimestamp(max(stamps))
